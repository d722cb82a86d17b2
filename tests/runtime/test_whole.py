"""A file or a folder that is there whole, or not at all."""

import os

import pytest

from minigpt.runtime.whole import new_file, replacing, whole, write_json_lines


def test_a_new_folder_is_whole_or_absent(tmp_path):
    """A failure half-way must not leave something that looks like a model; nor may a folder be overwritten."""
    with pytest.raises(OSError, match="full"), whole(tmp_path / "a" / "b") as aside:
        aside.mkdir()
        (aside / "config.json").write_text("{}")
        raise OSError("full")
    assert not list((tmp_path / "a").iterdir())
    with whole(tmp_path / "a" / "b") as aside:
        aside.mkdir()
    with pytest.raises(ValueError, match="exists already"), whole(tmp_path / "a" / "b"):
        pass


def test_an_older_file_stays_until_the_new_one_is_whole(tmp_path):
    """A full disk in the middle of writing must not cost what was complete before."""
    file = tmp_path / "rows.jsonl"
    write_json_lines(file, [{"n": 1}, {"n": 2}])

    def rows():
        yield {"n": 3}
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        write_json_lines(file, rows())
    assert file.read_text() == '{"n": 1}\n{"n": 2}\n' and list(tmp_path.iterdir()) == [file]
    with replacing(file) as aside:
        aside.write_text("new")
    assert file.read_text() == "new"


def test_a_file_is_not_written_over_a_folder_or_a_device(tmp_path):
    """Renaming onto /dev/null would replace it for everybody; a link stays a link; a missing folder is made."""
    with pytest.raises(ValueError, match="is a folder"):
        new_file(str(tmp_path))
    with pytest.raises(ValueError, match="is no ordinary file"):
        new_file(os.devnull)
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert new_file(str(tmp_path / "link")) == (tmp_path / "file").resolve()
    assert new_file(str(tmp_path / "a" / "b")).parent.is_dir()
