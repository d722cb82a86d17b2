"""A file or a folder that is there whole, or not at all."""

import pytest

from minigpt.runtime.whole import whole


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
