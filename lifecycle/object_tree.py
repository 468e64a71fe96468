"""The files of tiers in a store of objects (S3, or what pyarrow has a file system for): as `FileTree`, over HTTP.

Problem: such a store has no rename and no fsync, its requests fail in ways that no disk does, and what is written there
is read again months later, when what it was made of is gone. So a file is written on this machine first, as any other;
`publish` puts it under its name at once, reads it back, and only then is there something to commit.

    fresh       a file below `fresh` of the root on this machine
    publish     look what has the name; put; read it back and compare its SHA-256; remove the file on this machine
    remove      delete
    orphans     list, and what is fresh on this machine

What a run that was cut off leaves: a file on this machine, or an object that the manifest does not name. Both are
orphans. Where the store makes objects of parts, parts may be left that no listing shows (docs/lifecycle.md).

GUARANTEE when `publish` has returned, the store has acknowledged the object, and gave its bytes back as they were.
GUARANTEE an object that has a name already is never overwritten by other bytes, but by `replace`, which is for one that
is damaged, or that the manifest does not name.
GUARANTEE nothing is believed for being listed, or for not being: what is an archive is told by the manifest, and
whether a file is there by a request for it.
GUARANTEE no key, password or token is known here: the client of the store finds them.
HAZARD two that put at once under one name are not kept apart. Names are made of what is in files, so both put the same.
HAZARD an upload that fails half way may have its first part under the name: the client ends what it began. It is an
orphan as any other.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast

import pyarrow as pa
from pyarrow import fs

from lifecycle.file_tree import (
    OWNER,
    FileLostError,
    ForeignPathError,
    told_as_refusal,
)
from lifecycle.layout import FRESH, index_of, is_fresh, parts_of, parts_of_any
from lifecycle.manifest import Tree
from lifecycle.object_errors import REMEDIES, Trouble, shown, trouble_in
from lifecycle.object_file import ObjectFile
from schemas.errors import UnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from lifecycle.file_tree import FileTree
    from lifecycle.tiers import Tier

_COPIED_BYTES: Final = 4 * 1024 * 1024
_OWNER_BYTES_MAX: Final = 1_024


class ObjectStoreUnavailableError(UnreachableError):
    """A store did not do what it was asked. Nothing is wrong with what is there.

    Attributes: uri (of what was asked for), trouble (`object_errors.Trouble`), remedy.
    """

    def __init__(self, uri: str, error: Exception | str) -> None:
        self.uri, self.trouble = uri, trouble_in(str(error))
        self.remedy = REMEDIES[self.trouble]
        super().__init__(f"{uri} cannot be used ({self.trouble}): {shown(str(error))}. {self.remedy}")


class OccupiedPathError(ForeignPathError):
    """Another object has the name. Nothing was written."""


class ObjectTree:
    """Of one ledger. tiers: those that lie here; staging: the root on this machine.

    made: gives the file system, when it is first needed; base: the path in it below which all lies; uri: of that, for
    people; owner: who may write here, asked for when it first does.
    Methods raise ObjectStoreUnavailableError, ForeignPathError. For one thread, but for `open_checked`.
    """

    def __init__(
        self,
        made: Callable[[], Any],
        base: str,
        uri: str,
        owner: Callable[[], str],
        staging: FileTree,
        tiers: Iterable[Tier],
    ) -> None:
        self._made, self._base, self._uri, self._owner, self._staging = made, base, uri, owner, staging
        self._tiers = tuple(tiers)
        self._made_system: Any = None
        self._claimed = False

    def fresh(self, tier: Tier) -> Path:
        """An empty file on this machine. Raises FileTreeUnavailableError."""
        return self._staging.fresh(tier)

    def publish(self, fresh: Path, path: str) -> None:
        """Put a file of `fresh` under its name, that of an archive or of an index, for good.

        Raises FileLostError where there is no such file, OccupiedPathError where others bytes have the name.
        """
        self._put(fresh, path, replaces=False)

    def replace(self, fresh: Path, path: str) -> None:
        """As `publish`, in place of an object that is damaged, or that the manifest does not name."""
        self._put(fresh, path, replaces=True)

    def remove(self, path: str) -> bool:
        """Delete a file of a folder of ours; False where it was gone already."""
        key = self._key(path, parts_of_any)
        if is_fresh(path):
            return self._staging.remove(path)
        self._claim()
        try:
            with self._told(path):
                self._system.delete_file(key)
        except FileLostError:
            return False
        return True

    def orphans(self, tree: Tree) -> list[str]:
        """Paths of the files in folders of ours that the manifest does not name, sorted."""
        named = {each for path in tree.paths() for each in (path, index_of(path))}
        found = [path for path in self._staging.orphans(Tree()) if is_fresh(path) and path.split("/")[0] in self._tiers]
        self._claim(tree)
        for tier in self._tiers:
            selector = fs.FileSelector(f"{self._base}/{tier}", allow_not_found=True, recursive=True)
            with self._told(tier):
                listed = self._system.get_file_info(selector)
            for info in listed:
                path = info.path.removeprefix(f"{self._base}/")
                if info.type is fs.FileType.File and path not in named and _is_ours(path):
                    found.append(path)
        return sorted(found)

    def open_checked(self, path: str) -> BinaryIO:
        """An archive or an index, to be read. Raises FileLostError where it is not there, also in its reads."""
        key = self._key(path, parts_of)
        try:
            with self._told(path):
                source = self._system.open_input_file(key)
                size = source.size()
        except FileLostError as error:
            self._check_owned(error)
            raise

        def fetch(start: int, count: int) -> bytes:
            with self._told(path):
                try:
                    return bytes(source.read_at(count, start))
                except OSError:
                    # Its client has room for what was asked for, and loses what is answered in its place.
                    if self._system.get_file_info(key).type is fs.FileType.NotFound:
                        raise FileNotFoundError(key) from None
                    raise

        return cast("BinaryIO", ObjectFile(fetch, size, source.close))

    # ------------------------------------------------------------------------------------------------------------ puts

    def _put(self, fresh: Path, path: str, *, replaces: bool) -> None:
        key, source = self._key(path, parts_of), self._source(fresh, path)
        self._claim()
        with _opened(fresh) as file:
            size, digest = _digest_of(file)
            found = self._found(path, key, size)
            if found is not None and found != digest and not replaces:
                raise OccupiedPathError(
                    f"{self._uri}/{path} is there with other bytes, and was left as it is. Run `driftledger lifecycle "
                    "run verify`; what is not of this ledger must go elsewhere"
                )
            if found != digest:
                self._upload(path, key, file)
                if self._found(path, key, size) != digest:
                    raise ObjectStoreUnavailableError(
                        f"{self._uri}/{path}", "what was put there is not what it gives back"
                    )
        self._staging.remove(source)

    def _source(self, fresh: Path, path: str) -> str:
        """The path of a fresh file below the root, which is of the same tier."""
        root = self._staging.root
        source = fresh.relative_to(root).as_posix() if fresh.is_relative_to(root) else ""
        if not is_fresh(source) or source.split("/")[:2] != [path.partition("/")[0], FRESH]:
            raise ForeignPathError(f"{fresh} is not on its way to {path}: ask the tree for a fresh file of that tier")
        return source

    def _upload(self, path: str, key: str, file: BinaryIO) -> None:
        file.seek(0)
        with self._told(path):
            # As it is: what a name ends in is no reason to compress.
            target = self._system.open_output_stream(key, compression=None)
            try:
                while content := file.read(_COPIED_BYTES):
                    target.write(content)
            finally:
                target.close()

    def _found(self, path: str, key: str, size: int) -> str | None:
        """The SHA-256 of the object of that name, "" where it has another size, None where there is none."""
        try:
            with self._told(path), self._system.open_input_file(key) as source:
                if source.size() != size:
                    return ""
                return _digest_of(source)[1]
        except FileLostError:
            return None

    # ------------------------------------------------------------------------------------------------------- the store

    @property
    def _system(self) -> Any:
        if self._made_system is None:
            with self._told(""):
                self._made_system = self._made()
        return self._made_system

    def _key(self, path: str, parts: Callable[[str], tuple[str, ...]]) -> str:
        try:
            return "/".join((self._base, *parts(path)))
        except ValueError as error:
            raise ForeignPathError(f"{error}: nothing is done with it") from error

    @contextlib.contextmanager
    def _told(self, path: str) -> Iterator[None]:
        """Raise FileLostError for what is not there, ObjectStoreUnavailableError for what the store refuses."""
        uri = f"{self._uri}/{path}" if path else self._uri
        try:
            yield
        except FileNotFoundError as error:
            # Its client tells a bucket that is not there so, too.
            if trouble_in(str(error)) is Trouble.NO_BUCKET:
                raise ObjectStoreUnavailableError(uri, error) from error
            raise FileLostError(f"{uri} is not there") from error
        except (OSError, pa.ArrowException) as error:
            raise ObjectStoreUnavailableError(uri, error) from error

    def _claim(self, tree: Tree | None = None) -> None:
        """Make the place this ledger's, or see that it is; not where files of the manifest were not copied there."""
        if self._claimed:
            return
        mine = self._owner()
        if self._owned_by() is None:
            known = () if tree is None else (path for path in tree.paths() if path.split("/")[0] in self._tiers)
            for path in sorted(known)[:1]:
                self.open_checked(path).close()
            with self._told(OWNER), self._system.open_output_stream(f"{self._base}/{OWNER}", compression=None) as file:
                file.write(mine.encode())
        owner = self._owned_by()
        if owner != mine:
            raise ForeignPathError(
                f"{self._uri} holds the archive of {owner!r:.200}, not of {mine}: give each ledger of each cluster a "
                f"place of its own, or, where its topics moved to another cluster, write {mine} to {self._uri}/{OWNER}"
            )
        self._claimed = True

    def _owned_by(self) -> str | None:
        """Whose it is, None for nobody's."""
        try:
            with self._told(OWNER), self._system.open_input_file(f"{self._base}/{OWNER}") as file:
                return bytes(file.read(_OWNER_BYTES_MAX)).decode(errors="replace")
        except FileLostError:
            return None

    def _check_owned(self, error: Exception) -> None:
        """That it is a file that is lost, and not all of it: then it is looked for in the wrong place."""
        if self._owned_by() is None:
            raise ObjectStoreUnavailableError(
                self._uri,
                f"nothing of this ledger was ever put there, {OWNER} is missing. Where its files lie elsewhere, mend "
                "archive_uri, or copy them there first",
            ) from error


def _is_ours(path: str) -> bool:
    try:
        parts_of_any(path)
    except ValueError:
        return False
    return not is_fresh(path)


@contextlib.contextmanager
def _opened(fresh: Path) -> Iterator[BinaryIO]:
    """A file of this machine that is one. Raises FileLostError, FileTreeUnavailableError."""
    with told_as_refusal(fresh):
        try:
            handle = os.open(fresh, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise FileLostError(f"{fresh} is not there") from error
        file = os.fdopen(handle, "rb")
    with file:
        yield file


def _digest_of(file: Any) -> tuple[int, str]:
    """Bytes and SHA-256 of what is left to be read."""
    digest, size = hashlib.sha256(), 0
    while content := file.read(_COPIED_BYTES):
        digest.update(content)
        size += len(content)
    return size, digest.hexdigest()
