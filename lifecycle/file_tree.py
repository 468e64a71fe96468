"""The files of an archive on a local file system: made whole or not at all, removed for good, found again.

Problem: a job may die at any instruction, the disk may fill, and what stands below the root may have been put there by
anybody. So a file is written under another name first, of which nobody asks; `publish` has it on disk, gives it its
name, and has that on disk too. What a job that died left behind is whatever the manifest does not name.

    tree = FileTree(root_of(data_dir, names.manifest), names.manifest)
    fresh = tree.fresh(Tier.HISTORICAL)            written by the caller, within told_as_refusal(fresh)
    tree.publish(fresh, path)                      then the commit; then remove of what it drops

GUARANTEE a file that is there under a path of `layout` was whole, and on disk, before it had that name; when `publish`
or `remove` has returned, so has what it did survived a loss of power.
GUARANTEE nothing outside of the folders of `layout` is ever opened, written, renamed or removed: each folder of a path
is opened by itself, below the one before it, and a link in its place is refused.
GUARANTEE a root is one ledger's: that of another is refused, so its files are never orphans of this one.
GUARANTEE a root that is nobody's is not taken where the manifest names files and none of them is there: what should be
mounted there is not.
HAZARD what is published and not committed yet is an orphan too: only who holds the lease of the manifest, and has read
it since, may remove any.
HAZARD a tier may be a disk of its own (a mount); what lies below its folder may not, for a name is given within a disk.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
from typing import TYPE_CHECKING, BinaryIO, Final

from lifecycle.layout import DATA, FILED, FRESH, INDICES, index_of, parts_of, parts_of_any
from lifecycle.packing import DamagedError
from lifecycle.tiers import Grain, is_period
from schemas.errors import DriftledgerError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from lifecycle.manifest import Tree
    from lifecycle.tiers import Tier

OWNER: Final = "OWNER"

_OWNER_BYTES_MAX: Final = 1_024
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
#: Neither a link nor a pipe is waited for.
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
#: A folder of a period, and what is above it, stays.
_KEPT_FOLDERS: Final = 2
#: A link where a folder, or where a file, is to be.
_LINKS: Final = (errno.ENOTDIR, errno.ELOOP)


class FileTreeUnavailableError(UnreachableError):
    """The system refuses: the disk is full, read-only, or a limit is reached. Nothing is wrong with what is there.

    Attributes: file, size_bytes (of it that are there), free_bytes (of its disk; -1 where nobody says).
    """

    def __init__(self, file: Path, error: OSError) -> None:
        self.file = file
        self.size_bytes, self.free_bytes = _room(file)
        free = "an unknown number of" if self.free_bytes < 0 else f"{self.free_bytes:,}"
        super().__init__(
            f"{file} cannot be used: {error.strerror or error}; {self.size_bytes:,} bytes of it are there, {free} "
            "bytes of its disk are free. Mend that and run the job again: it goes on from what was committed"
        )


class ForeignPathError(DriftledgerError):
    """A path that is none of the tree's, or leads over a link, or a root of another ledger. Nothing was touched."""


class EmptyRootError(UnreachableError):
    """A root that is nobody's, where none of the files is that the manifest names. Nothing was changed."""


class FileLostError(DamagedError):
    """A file that should be there is not."""


def root_of(data_dir: Path, manifest: str) -> Path:
    """Where the archive of a ledger is, by the name of its manifest: each ledger of a data directory has its own."""
    return data_dir / "temporal" / manifest.removesuffix(".manifest")


@contextlib.contextmanager
def told_as_refusal(file: Path) -> Iterator[None]:
    """Raise FileTreeUnavailableError for what the system refuses to do with a file."""
    try:
        yield
    except OSError as error:
        raise FileTreeUnavailableError(file, error) from error


class FileTree:
    """One ledger's. owner: the name of its manifest.

    Methods raise FileTreeUnavailableError, ForeignPathError; `orphans` also EmptyRootError. Not for two threads at
    once, but for `open_checked`.
    """

    def __init__(self, root: Path, owner: str) -> None:
        self.root = root.absolute()
        self.owner = owner
        self._claimed = False

    def fresh(self, tier: Tier) -> Path:
        """An empty file without a name of the archive, on the disk of a tier."""
        if tier not in FILED:
            raise ForeignPathError(f"what is {tier} is in no file")
        self._claim()
        name = f"{secrets.token_hex(16)}.new"
        file = self.root / tier / FRESH / name
        with told_as_refusal(file), self._folder((tier, FRESH), make=True) as folder:
            os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=folder))
        return file

    def publish(self, fresh: Path, path: str) -> None:
        """Give a file of `fresh` its name, that of an archive or of an index, for good.

        Raises FileLostError where there is no such file. One that has the path already is replaced: paths say what is
        in their files, so that is the same or damaged.
        """
        parts = _checked(path, parts_of)
        source = _checked(fresh.relative_to(self.root).as_posix(), parts_of_any) if self._holds(fresh) else ()
        if source[:-1] != (parts[0], FRESH):
            raise ForeignPathError(f"{fresh} is not on its way to {path}: ask the tree for a fresh file of that tier")
        self._claim()
        with (
            told_as_refusal(fresh),
            self._folder(source[:-1]) as begin,
            self._folder(parts[:-1], make=True) as end,
        ):
            handle = _open_file(source[-1], begin, fresh)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
            os.rename(source[-1], parts[-1], src_dir_fd=begin, dst_dir_fd=end)
            os.fsync(end)
            os.fsync(begin)

    def replace(self, fresh: Path, path: str) -> None:
        """As `publish`, in place of a file that is damaged: `object_tree` tells these from others."""
        self.publish(fresh, path)

    def remove(self, path: str) -> bool:
        """Remove a file of a folder of ours, and folders that are empty then; False where it was gone already."""
        parts = _checked(path, parts_of_any)
        file = self.root.joinpath(*parts)
        self._claim()
        try:
            with told_as_refusal(file), self._folder(parts[:-1]) as folder:
                there = True
                try:
                    os.unlink(parts[-1], dir_fd=folder)
                except FileNotFoundError:
                    there = False
                os.fsync(folder)  # also then: who removed it may have died before
        except FileLostError:
            return False
        if parts[1] != FRESH:
            self._remove_empty(parts[:-1])
        return there

    def orphans(self, tree: Tree) -> list[str]:
        """Paths of the files in folders of ours that the manifest does not name, sorted. Links are none of ours."""
        named = {each for path in tree.paths() for each in (path, index_of(path))}
        found = []
        self._claim(tree)
        with told_as_refusal(self.root):
            for folder in self._folders():
                for name in self._names(folder, stat.S_ISREG):
                    path = "/".join((*folder, name))
                    if path not in named:
                        found.append(path)
        return sorted(found)

    def open_checked(self, path: str) -> BinaryIO:
        """An archive or an index, to be read. Raises FileLostError where it is not there."""
        parts = _checked(path, parts_of)
        file = self.root.joinpath(*parts)
        with told_as_refusal(file), self._folder(parts[:-1]) as folder:
            return os.fdopen(_open_file(parts[-1], folder, file), "rb")

    # -------------------------------------------------------------------------------------------------------- folders

    def _holds(self, file: Path) -> bool:
        return file.is_relative_to(self.root)

    def _folders(self) -> Iterator[tuple[str, ...]]:
        """All that are ours and there."""
        for tier in FILED:
            yield tier, FRESH
            for grain in Grain:
                for period in self._names((tier, grain), stat.S_ISDIR):
                    if is_period(period, grain):
                        yield tier, grain, period, DATA
                        yield tier, grain, period, INDICES

    def _names(self, folder: tuple[str, ...], kind: Callable[[int], bool]) -> list[str]:
        """What is in a folder of one kind; nothing where it is not there, or a link."""
        try:
            with self._folder(folder) as handle, os.scandir(handle) as entries:
                return [each.name for each in entries if kind(each.stat(follow_symlinks=False).st_mode)]
        except (FileLostError, ForeignPathError):
            return []

    @contextlib.contextmanager
    def _folder(self, parts: tuple[str, ...], *, make: bool = False) -> Iterator[int]:
        """A handle of a folder; no link is followed on the way. make: and have all of the way on disk.

        Raises FileLostError where it is not there.
        """
        shown = self.root
        handle = _open(self.root, _FOLDER, None, shown)
        try:
            for part in parts:
                if make:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(part, 0o755, dir_fd=handle)
                    os.fsync(handle)  # also where it was there: who made it may have died before
                shown /= part
                inner = _open(part, _FOLDER | os.O_NOFOLLOW, handle, shown)
                os.close(handle)
                handle = inner
            yield handle
        finally:
            os.close(handle)

    def _remove_empty(self, parts: tuple[str, ...]) -> None:
        """Folders from the last on that hold nothing any more."""
        for depth in range(len(parts), _KEPT_FOLDERS, -1):
            try:
                with self._folder(parts[: depth - 1]) as above:
                    os.rmdir(parts[depth - 1], dir_fd=above)
                    os.fsync(above)
            except (OSError, FileLostError):  # it holds something, or is gone: an empty folder harms nobody
                return

    def _claim(self, tree: Tree | None = None) -> None:
        """Make the root this ledger's, or see that it is; not where all files of the manifest lie elsewhere."""
        if self._claimed:
            return
        file = self.root / OWNER
        with told_as_refusal(file):
            self._check_known(file, set() if tree is None else tree.paths())
            self.root.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            handle = os.open(file, flags, 0o644)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)  # let go with the handle
                owner = os.read(handle, _OWNER_BYTES_MAX)
                if not owner:
                    os.write(handle, self.owner.encode())
                    os.fsync(handle)
                    for folder in (self.root, self.root.parent):
                        _sync_folder(folder)
            finally:
                os.close(handle)
        if owner not in (b"", self.owner.encode()):
            raise ForeignPathError(
                f"{self.root} holds the archive of {owner.decode(errors='replace')!r:.200}, not of {self.owner}: give "
                "each ledger a folder of its own"
            )
        self._claimed = True

    def _check_known(self, file: Path, paths: set[str]) -> None:
        if not paths or (file.is_file() and file.stat().st_size) or any(map(self._is_there, sorted(paths))):
            return
        raise EmptyRootError(
            f"{self.root} has none of the {len(paths)} files that the manifest names, and no {OWNER}: it is not where "
            "the archive lies. Mount what belongs there, or mend data_dir and archive_uri. Where the files are lost, "
            f"write {self.owner} to {file}: `driftledger lifecycle run restore` makes them again"
        )

    def _is_there(self, path: str) -> bool:
        try:
            self.open_checked(path).close()
        except FileLostError:
            return False
        return True


def _checked(path: str, parts: Callable[[str], tuple[str, ...]]) -> tuple[str, ...]:
    try:
        return parts(path)
    except ValueError as error:
        raise ForeignPathError(f"{error}: nothing is done with it") from error


def _open_file(name: str, folder: int, shown: Path) -> int:
    """A handle of a file that is one."""
    handle = _open(name, _FILE, folder, shown)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise ForeignPathError(f"{shown} is no file: nothing is read from it")
    return handle


def _open(name: str | Path, flags: int, folder: int | None, shown: Path) -> int:
    try:
        return os.open(name, flags, dir_fd=folder)
    except FileNotFoundError as error:
        raise FileLostError(f"{shown} is not there") from error
    except OSError as error:
        if error.errno not in _LINKS:
            raise
        raise ForeignPathError(
            f"{shown} is a link, or not of the kind that belongs there: nothing is done through it. Put what it stands "
            "for in its place (a disk of its own is mounted there)"
        ) from error


def _room(file: Path) -> tuple[int, int]:
    size = free = 0
    with contextlib.suppress(OSError):
        size = file.lstat().st_size
    try:
        found = os.statvfs(next((each for each in file.parents if each.is_dir()), file))
        free = found.f_bavail * found.f_frsize
    except OSError:
        free = -1
    return size, free


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, _FOLDER)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
