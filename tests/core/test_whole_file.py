"""A file is whole or not there."""

from __future__ import annotations

import errno
import fcntl
from typing import TYPE_CHECKING

import pytest

from lifecycle.whole_file import WriteError, whole_file
from schemas.errors import BadInputError

if TYPE_CHECKING:
    from pathlib import Path


def names_in(folder: Path) -> list[str]:
    """All files of a folder."""
    return sorted(path.name for path in folder.iterdir())


def test_it_has_its_name_when_it_is_whole(tmp_path: Path) -> None:
    """And not before."""
    path = tmp_path / "a.csv"
    with whole_file(path, force=False) as file:
        file.write(b"all of it")
        file.flush()
        assert names_in(tmp_path) == [".a.csv.part"]
    assert names_in(tmp_path) == ["a.csv"]
    assert path.read_bytes() == b"all of it"


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    """Nothing, or the file before."""
    path = tmp_path / "a.csv"
    path.write_bytes(b"before")
    with pytest.raises(ZeroDivisionError), whole_file(path, force=True) as file:  # noqa: PT012 - an error in the midst
        file.write(b"half")
        raise ZeroDivisionError
    assert names_in(tmp_path) == ["a.csv"]
    assert path.read_bytes() == b"before"


def test_what_is_there_is_replaced_by_force_alone(tmp_path: Path) -> None:
    """Also where it came while the other was written; a folder or a link never."""
    path = tmp_path / "a.csv"
    with pytest.raises(BadInputError, match="--force"), whole_file(path, force=False) as file:  # noqa: PT012 - in the midst
        file.write(b"mine")
        path.write_bytes(b"another's")
    assert path.read_bytes() == b"another's"
    with pytest.raises(BadInputError, match="--force"), whole_file(path, force=False):
        pass
    with whole_file(path, force=True) as file:
        file.write(b"mine")
    assert path.read_bytes() == b"mine"
    (tmp_path / "link").symlink_to(path)
    for name in ("link", ""):
        with pytest.raises(BadInputError, match="no ordinary file"), whole_file(tmp_path / name, force=True):
            pass
    with pytest.raises(BadInputError, match="no folder"), whole_file(tmp_path / "none" / "a.csv", force=True):
        pass


def test_what_a_kill_left_is_taken_over(tmp_path: Path) -> None:
    """Longer than what is written now."""
    (tmp_path / ".a.csv.part").write_bytes(b"half of something long")
    with whole_file(tmp_path / "a.csv", force=False) as file:
        file.write(b"short")
    assert names_in(tmp_path) == ["a.csv"]
    assert (tmp_path / "a.csv").read_bytes() == b"short"


def test_two_do_not_write_at_once(tmp_path: Path) -> None:
    """The second is refused, and the first's part stays."""
    part = tmp_path / ".a.csv.part"
    with part.open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(BadInputError, match="another process"), whole_file(tmp_path / "a.csv", force=False):
            pass
    assert part.exists()


def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    """And nothing is there."""
    with pytest.raises(WriteError, match=r"a\.csv cannot be written"), whole_file(tmp_path / "a.csv", force=False):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert names_in(tmp_path) == []
