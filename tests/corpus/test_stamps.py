"""An edited file is noticed; a copied, touched or absent one is no reason to begin again."""

import json
import os
import shutil

import pytest

from minigpt.corpus.config import CorpusConfig
from minigpt.corpus.stamps import is_unchanged, stamps


@pytest.fixture
def folder(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    for name in ("a.txt", "b.txt", "c.jpeg"):
        (data / name).write_text(f"text of {name}")
    (tmp_path / "exam.md").write_text("questions")
    return tmp_path


def same_size(path):
    path.write_text(path.read_text().upper())
    os.utime(path, ns=(1, 1))


@pytest.mark.parametrize(("change", "unchanged"), [
    (lambda data: None, True),
    (lambda data: (data / "a.txt").write_text("another text"), False),
    (lambda data: same_size(data / "a.txt"), False),
    (lambda data: (data / "a.txt").unlink(), False),
    (lambda data: (data / "new.txt").write_text(""), False),
    (lambda data: (data / "a.txt").rename(data / "z.txt"), False),   # names can decide the order
    (lambda data: same_size(data.parent / "exam.md"), False),
    (lambda data: (data / "c.jpeg").write_text("not read"), True),
    (lambda data: os.utime(data / "a.txt", ns=(1, 1)), True),
    (lambda data: shutil.rmtree(data), True),
])  # fmt: skip
@pytest.mark.parametrize("spec", ["{}/data", "{}/data/*.txt"])
def test_only_another_content_counts_as_a_change(folder, spec, change, unchanged):
    """Whatever happened to the files since the stamps, which have been to a file and back."""
    config = CorpusConfig(data=spec.format(folder), eval_data=str(folder / "exam.md"))
    made = json.loads(json.dumps(stamps(config)))
    change(folder / "data")
    assert is_unchanged(config, made) is unchanged


def test_what_is_no_file_has_no_stamp(folder, monkeypatch):
    """Also if a file here is called like Python's library."""
    monkeypatch.chdir(folder)
    (folder / "python").write_text("not asked for")
    assert stamps(CorpusConfig()) == stamps(CorpusConfig(data="hf:a/b", val_data="https://example.com/*.txt")) == {}
    assert list(stamps(CorpusConfig(data=f"file://{folder}/exam.md"))) == ["data"]
