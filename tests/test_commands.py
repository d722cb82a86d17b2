"""python -m minigpt: the smaller commands."""

import pytest
from scripts import some_text

from minigpt.commands import COMMANDS, main


def test_help_lists_every_command(capsys):
    """A command that is not listed does not exist for anybody."""
    main(["--help"])
    out = capsys.readouterr().out
    assert all(name in out for name in COMMANDS)
    main([])
    assert capsys.readouterr().out == out


@pytest.mark.parametrize("command", [*COMMANDS, "tokenizer explain", "tokenizer train", "lessons tasks"])
def test_every_command_helps(command, capsys):
    """Who asks what a command does is told, and nothing went wrong."""
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), "--help"])
    assert ended.value.code == 0 and f"python -m minigpt {command}" in capsys.readouterr().out


def test_corpus_prints_what_was_kept_and_what_was_dropped(tmp_path, capsys):
    """Two equal files and an empty one: one duplicate, one empty."""
    texts = {"a.txt": some_text(500), "b.txt": some_text(500), "c.txt": " \n", "d.txt": some_text(300, 1)}
    for name, text in texts.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    main(["corpus", "--data", str(tmp_path)])
    out = capsys.readouterr().out
    assert "duplicate" in out and "empty" in out and "held out" in out


def test_a_tokenizer_can_be_trained_and_looked_into(tmp_path, capsys):
    """For others: Hugging Face's file and tiktoken's; then the merges of a text, one by one."""
    (tmp_path / "a.txt").write_text(some_text(3000), encoding="utf-8")
    out = tmp_path / "tokenizer"
    main(["tokenizer", "train", "--data", str(tmp_path / "a.txt"), "--vocab-size", "300", "--out-dir", str(out)])
    assert {path.name for path in out.iterdir()} == {"tokenizer.json", "tokenizer_config.json", "ranks.tiktoken"}
    assert "300 tokens" in capsys.readouterr().out
    main(["tokenizer", "explain", "the text", "--tokenizer", str(out)])
    shown = capsys.readouterr().out
    assert "2 pre-tokens" in shown and "the|␣text" in shown and "\x1b" not in shown
    main(["tokenizer", "explain", "--", "--text", "--tokenizer", str(out)])
    main(["tokenizer", "explain", "--", "--help", "--tokenizer", str(out)])
    assert capsys.readouterr().out.count("6 bytes") == 2


def test_doctor_runs_on_any_machine(capsys):
    """It must work where nothing else does."""
    main(["doctor"])
    assert "torch" in capsys.readouterr().out


@pytest.mark.parametrize(("argv", "message"), [
    (["docter"], "did you mean doctor"),
    (["corpus", "--dta", "x"], "did you mean --data"),
    (["doctor", "me"], "doctor takes no arguments"),
    (["tokenizer"], "tokenizer needs explain or train"),
    (["tokenizer", "explian"], "did you mean explain"),
    (["tokenizer", "explain"], "explain needs a text"),
    (["tokenizer", "train", "--data", "README.md", "--out-dir", __file__], "is a file; choose a folder"),
    (["report"], "report needs one run folder"),
    (["report", "nowhere"], "nowhere"),
    (["export", "--to", "gguf"], "export needs one run folder or checkpoint: python -m minigpt export"),
    (["compress", "--int8"], "compress needs one run folder or checkpoint: python -m minigpt compress"),
])  # fmt: skip
def test_a_mistake_is_one_clear_sentence(argv, message):
    """The nearest command, or what the command needs."""
    with pytest.raises(ValueError, match=message):
        main(argv)
