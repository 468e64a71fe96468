"""A file that has its name once it is whole and on disk, or never.

What is written stands beside it as `.NAME.part` meanwhile. Whoever is killed leaves that, and the next who writes a
file of that name takes it over; two cannot write at once.

GUARANTEE under the name there is what was there before, or all of what was written, whenever the machine stops.
HAZARD without `force` a file that somebody else puts there in the last instant is replaced.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from typing import TYPE_CHECKING

from schemas.errors import BadInputError, DriftledgerError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

_MODE = 0o666


class WriteError(DriftledgerError):
    """A file could not be written."""


@contextlib.contextmanager
def whole_file(path: Path, *, force: bool) -> Iterator[BinaryIO]:
    """What is written to it is under that name when this ends without an error, else nothing is.

    Raises BadInputError where there is such a file, without `force`, or what is there is no file, and where another
    writes it now; WriteError where the system refuses.
    """
    check_free(path, force=force)
    part = path.with_name(f".{path.name}.part")
    try:
        with _taken(part) as file:
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
                check_free(path, force=force)
                part.replace(path)
            except BaseException:
                part.unlink(missing_ok=True)
                raise
        _sync(path.parent)
    except OSError as error:
        raise WriteError(
            f"{path} cannot be written: {error.strerror or error}. Nothing is there under that name"
        ) from error


def check_free(path: Path, *, force: bool) -> None:
    """Raise BadInputError where something is in the way."""
    if not path.parent.is_dir():
        raise BadInputError(f"{path.parent} is no folder. Make it, or name another")
    if not os.path.lexists(path):
        return
    if not stat.S_ISREG(path.lstat().st_mode):
        raise BadInputError(f"{path} is there, and is no ordinary file. Name another")
    if not force:
        raise BadInputError(f"{path} is there. Name another file, or give --force to replace it")


@contextlib.contextmanager
def _taken(part: Path) -> Iterator[BinaryIO]:
    """The part, empty and ours alone."""
    while True:
        file = os.fdopen(os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, _MODE), "r+b")
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BadInputError(
                    f"{part} is being written by another process. Wait for it, or name another"
                ) from None
            if not _is_still(file, part):  # got its name in between
                continue
            file.truncate(0)
            yield file
            return


def _is_still(file: BinaryIO, part: Path) -> bool:
    """Whether the file is the one of that name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), part.lstat())
    except FileNotFoundError:
        return False


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
