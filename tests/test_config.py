"""dataclass <-> command line <-> JSON."""

from dataclasses import dataclass, field
from typing import Literal

import pytest

from minigpt import config


@dataclass(frozen=True, kw_only=True)
class Inner:
    lr: float = 0.5  # how far each step goes
    kind: Literal["round", "square"] = "round"
    window: int | None = None  # tokens; none: all


@dataclass(frozen=True, kw_only=True)
class Outer:
    name: str = "x"
    clean: bool = True  # tidy up first
    n_layer: int = 2
    prompt: tuple[str, ...] = ()
    inner: Inner = field(default_factory=Inner)


def read(*argv: str) -> Outer:
    return config.from_command_line(Outer(), argv, "usage")


@pytest.mark.parametrize("argv", [["--n-layer", "7"], ["--n_layer", "7"], ["--n-layer=7"], ["--n_layer=7"]])
def test_dashes_underscores_and_equals_signs_mean_the_same(argv):
    """People type all four."""
    assert read(*argv).n_layer == 7


def test_every_type_is_read_as_its_field_wants_it():
    """bool, float, Literal, optional, repeated text; nested fields have flat flags."""
    got = read("--clean", "off", "--lr", "3e-4", "--kind", "square", "--window", "9", "--prompt", "a", "--prompt", "")
    assert got == Outer(clean=False, prompt=("a", ""), inner=Inner(lr=3e-4, kind="square", window=9))
    assert read("--window", "none").inner.window is None
    assert read("--clean").clean is True
    assert read("--clean", "--lr", "1").inner.lr == 1.0


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--n-layers", "4"], "unknown flag --n-layers: did you mean --n-layer? See --help."),
        (["--zzz", "4"], "unknown flag --zzz. See --help."),
        (["--kind", "sqare"], "--kind cannot be 'sqare': did you mean square? Choose one of: "),
        (["--n-layer", "four"], "--n-layer needs a whole number, not 'four'"),
        (["--n-layer"], "--n-layer needs a value"),
        (["--n-layer", "--lr", "1"], "--n-layer needs a value"),
        (["--lr", "fast"], "--lr needs a number, not 'fast'"),
        (["--clean=perhaps"], "--clean is on or off, not 'perhaps'"),
        (["4"], "unexpected '4'"),
        (["--config", "missing.json"], "--config missing.json"),
    ],
)
def test_a_mistake_is_named_with_its_nearest_match(argv, message):
    """The user should never have to open --help to repair a typing error."""
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        read(*argv)


def test_json_comes_back_as_it_went(tmp_path):
    """What --print-config prints, --config reads; flags after it win."""
    want = Outer(name="ü", clean=False, prompt=("a", "b"), inner=Inner(window=3))
    file = tmp_path / "run.json"
    file.write_text(config.to_json(want), encoding="utf-8")
    assert read("--config", str(file)) == want
    assert read("--n-layer", "9", "--config", str(file)).n_layer == 9


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"n_layr": 3}', "unknown setting 'n_layr': did you mean n_layer?"),
        ('{"inner": {"lr": "fast"}}', "lr needs float, not 'fast'"),
        ('{"n_layer": 2.5}', "n_layer needs int, not 2.5"),
        ('{"n_layer": true}', "n_layer needs int, not True"),
        ("[1]", "expected an object"),
        ('{"n_layer": 3', "is not JSON"),
    ],
)
def test_a_wrong_config_file_is_refused(tmp_path, text, message):
    """A misspelt key that is silently ignored costs a night of training."""
    file = tmp_path / "run.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        read("--config", str(file))


def test_help_shows_flags_defaults_and_the_comments_behind_the_fields(capsys):
    """The comment in the source is the help text: one place, so it cannot go stale."""
    with pytest.raises(SystemExit) as exit_:
        read("--help")
    out = capsys.readouterr().out
    assert exit_.value.code == 0
    assert "--lr FLOAT" in out and "how far each step goes [0.5]" in out
    assert "--clean {on,off}" in out and "tidy up first [on]" in out
    assert "--window INT|none" in out and "inner:" in out


def test_print_config_prints_what_would_run(capsys):
    """For scripts, and to see what a preset holds."""
    with pytest.raises(SystemExit) as exit_:
        read("--print-config", "--n-layer", "5")
    assert exit_.value.code == 0
    assert '"n_layer": 5' in capsys.readouterr().out


def test_differences_names_the_settings_that_changed():
    """Resuming compares the old run's settings with the new command line."""
    [(old, new)] = config.differences(Outer(), Outer(inner=Inner(lr=0.1)))
    assert (old.flag, old.value, new.value) == ("--lr", 0.5, 0.1)


def test_settings_that_only_fit_together_may_be_given_in_any_order():
    """--n-head 6 --n-embd 384 on a preset of 4 and 256: neither half alone would be valid."""

    @dataclass(frozen=True, kw_only=True)
    class Pair:
        a: int = 4
        b: int = 256

        def __post_init__(self):
            if self.b % self.a:
                raise ValueError("does not divide")

    for argv in (["--a", "6", "--b", "384"], ["--b", "384", "--a", "6"]):
        assert config.from_command_line(Pair(), argv, "") == Pair(a=6, b=384)
