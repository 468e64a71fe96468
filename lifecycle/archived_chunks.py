"""Chunks that lie in archives, read as if they were hot: by their headers and by one column at a time.

Problem: a question must not care where its data lies. An archive has the chunks of the hot tier under the same names
and with the same headers, but their columns by row group, up to sixteen chunks together. So a column of a row group is
read and decoded once and handed out in parts, in order, to whoever asks for one chunk after the other.

GUARANTEE nothing is handed out whose checksum, or that of the index beside it, does not agree: ArchiveDamagedError
names the file and the sequences in it. A file that a job has removed since its tree was looked at, or since it was
opened, is looked up anew.
GUARANTEE memory: FILES_MAX files with their tables, GROUP_BYTES_MAX of decoded columns; of files in a store of
objects what `object_file` says.
HAZARD a chain hash is made from all entries of its row group: a tenth of a second each.
For any thread; one reads at a time, and who only follows the manifest keeps nobody from that.
"""

from __future__ import annotations

import bisect
import contextlib
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import numpy as np

from lifecycle.archive import opened
from lifecycle.archive_files import files_of
from lifecycle.archive_table import COLUMNS, names_in, values_in
from lifecycle.chunk_codec import decode_header, decode_readings
from lifecycle.chunks import Column, Read, StoreDamagedError
from lifecycle.file_tree import FileLostError, root_of
from lifecycle.layout import index_of
from lifecycle.manifest_log import ManifestLog
from lifecycle.packing import DamagedError, Texts
from lifecycle.proving import chain_hashes_in
from lifecycle.tiered import ArchiveDamagedError, MissingChunkError
from schemas.topics import topic_names
from streams.log import Log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from lifecycle.archive import ArchiveFile
    from lifecycle.archive_index import Index
    from lifecycle.chunks import Header
    from lifecycle.file_tree import FileTree
    from lifecycle.manifest import Segment, Tree
    from streams.settings import Settings

    #: A column of a row group: values, and (of SOURCE and KIND) the names that its codes mean.
    _Decoded = tuple[NDArray[Any] | Texts, tuple[bytes, ...]]

Item = TypeVar("Item")

FILES_MAX: Final = 16
GROUP_BYTES_MAX: Final = 32 * 1024 * 1024


class Manifest(Protocol):
    """What knows the files; see `manifest_log.ManifestLog`."""

    tree: Tree

    def refresh(self) -> Tree:
        """The tree with what was committed since."""
        ...


class ArchiveFileDamagedError(ArchiveDamagedError):
    """Attributes: path, first_sequence, last_sequence, and those of ArchiveDamagedError."""

    def __init__(self, segment: Segment, detail: str) -> None:
        facts = segment.facts
        super().__init__(
            facts.partition,
            f"{segment.path}, which has sequences {facts.first_sequence} to {facts.last_sequence}: {detail}",
        )
        self.path = segment.path
        self.first_sequence, self.last_sequence = facts.first_sequence, facts.last_sequence


class ArchiveFileGoneError(ArchiveFileDamagedError):
    """It was there when it was opened: of a store of objects, what is deleted is gone for who reads it, too."""


@dataclass(slots=True)
class _Opened:
    """A file that is open. groups: those of DATA; starts: the first sequence of each."""

    segment: Segment
    archive: ArchiveFile
    index: Index
    groups: NDArray[np.int64]
    starts: NDArray[np.int64]
    files: contextlib.ExitStack


class ArchivedChunks:
    """Of the files that a manifest names."""

    def __init__(self, files: FileTree, manifest: Manifest) -> None:
        self._files, self._manifest = files, manifest
        self._lock = threading.Lock()
        #: Over the manifest while it is read on; asked for behind `_lock` where both are.
        self._following = threading.Lock()
        self._followed = False
        #: By path, and by path, row group and column; the least recently used first.
        self._opened: dict[str, _Opened] = {}
        self._decoded: dict[tuple[str, int, Column], _Decoded] = {}
        self._decoded_bytes = 0

    def first_sequence(self, partition: int) -> int:
        """Where what is kept begins: what was archived before is pruned; 1 where nothing ever was archived."""
        segments = self._tree().parts.get(partition)
        return segments[0].facts.first_sequence if segments else self.last_sequence(partition) + 1

    def last_sequence(self, partition: int) -> int:
        """Up to where a partition is archived, or was until that was pruned; 0: nothing."""
        end = self._tree().ends.get(partition)
        return 0 if end is None else end.sequence

    def refresh(self) -> None:
        """Look for what was committed since. Raises what the manifest does."""
        self._follow()
        self._followed = True

    def headers(self, partition: int, first_sequence: int, most: int) -> list[Header]:
        """Of archived chunks that begin at this sequence or later, ascending, at most so many."""
        with self._lock:
            return self._anew(lambda: self._headers(partition, first_sequence, most))

    def column(self, partition: int, first_sequence: int, column: Column, rows: int) -> Read:
        """A column of the chunk that begins there; rows: of READINGS how many there are."""
        with self._lock:
            return self._anew(lambda: self._column(partition, first_sequence, column, rows))

    def close(self, also: Callable[[], None] = lambda: None) -> None:
        """Close all files. also: called while nobody reads the manifest, to close what that is read from."""
        with self._lock, self._following:
            while self._opened:
                self._forget(next(iter(self._opened)))
            also()

    def _follow(self) -> Tree:
        """The tree with what was committed since."""
        with self._following:
            return self._manifest.refresh()

    def _tree(self) -> Tree:
        """As it was last looked at."""
        if not self._followed:
            self.refresh()
        return self._manifest.tree

    def _anew(self, read: Callable[[], Item]) -> Item:
        """What is read; once more where a job has removed a file meanwhile, of which the manifest knows by now."""
        try:
            return read()
        except ArchiveFileGoneError as error:
            self._forget(error.path)
            self._follow()
            return read()

    def _headers(self, partition: int, first_sequence: int, most: int) -> list[Header]:
        found: list[Header] = []
        while len(found) < most:
            file = self._file(partition, first_sequence)
            if file is None:
                break
            firsts = file.index.table.first_sequence
            start = int(np.searchsorted(firsts, first_sequence))
            with _reading(file.segment):
                for chunk in range(start, min(start + most - len(found), firsts.size)):
                    blob = file.index.blob(chunk)
                    found.append(decode_header(partition, blob.first_sequence, blob.header))
            first_sequence = file.segment.facts.last_sequence + 1
        return found

    def _column(self, partition: int, first_sequence: int, column: Column, rows: int) -> Read:
        file = self._file(partition, first_sequence)
        if file is None or file.segment.facts.first_sequence > first_sequence:
            raise MissingChunkError(partition, first_sequence)
        with _reading(file.segment):
            chunk = int(np.searchsorted(file.index.table.first_sequence, first_sequence))
            if column is Column.READINGS:
                content = file.index.blob(chunk).readings
                return Read(decode_readings(partition, first_sequence, rows, content), len(content))
            group = int(np.searchsorted(file.starts, first_sequence, side="right")) - 1
            (values, names), nbytes = self._group(file, int(file.groups[group]), column)
            start = first_sequence - int(file.starts[group])
            part = _part(values, start, start + rows)
            if names:
                header = decode_header(partition, first_sequence, file.index.blob(chunk).header)
                part = _recoded(part, names, header.sources if column is Column.SOURCE else header.kinds)
            return Read(part, nbytes)

    def _file(self, partition: int, sequence: int) -> _Opened | None:
        """The first file that ends at a sequence or later; what a job has moved since is looked up anew."""
        segment = _at(self._manifest.tree, partition, sequence)
        if segment is not None:
            with contextlib.suppress(FileLostError):
                return self._open(segment)
        segment = _at(self._follow(), partition, sequence)
        if segment is None:
            return None
        try:
            return self._open(segment)
        except FileLostError as error:
            if not self._files.root.is_dir():  # of another machine: what is not here is not lost
                raise MissingChunkError(partition, sequence, str(error)) from error
            raise ArchiveFileDamagedError(segment, str(error)) from error

    def _open(self, segment: Segment) -> _Opened:
        found = self._opened.pop(segment.path, None)
        if found is None:
            found = self._read(segment)
        self._opened[segment.path] = found
        while len(self._opened) > FILES_MAX:
            self._forget(next(iter(self._opened)))
        return found

    def _read(self, segment: Segment) -> _Opened:
        with _told(segment), contextlib.ExitStack() as stack:
            data = stack.enter_context(self._files.open_checked(segment.path))
            index_file = stack.enter_context(self._files.open_checked(index_of(segment.path)))
            name = segment.path.rpartition("/")[2]
            archive, index = stack.enter_context(opened(name, data, index_file))
            if archive.facts != segment.facts:
                raise DamagedError("it says of itself what the manifest does not")
            groups = np.flatnonzero(index.table.is_data)
            ends = np.cumsum(index.table.rows[groups])
            starts = archive.facts.first_sequence + ends - index.table.rows[groups]
            return _Opened(segment, archive, index, groups, starts, stack.pop_all())

    def _forget(self, path: str) -> None:
        self._opened.pop(path).files.close()
        for key in [key for key in self._decoded if key[0] == path]:
            self._decoded_bytes -= _size(self._decoded.pop(key))

    def _group(self, file: _Opened, group: int, column: Column) -> tuple[_Decoded, int]:
        """A column of a row group, and how many bytes were read for it."""
        key = file.segment.path, group, column
        found = self._decoded.pop(key, None)
        nbytes = 0
        if found is None:
            found, nbytes = _decode(file.archive, group, column)
            self._decoded_bytes += _size(found)
        self._decoded[key] = found
        while self._decoded_bytes > GROUP_BYTES_MAX and len(self._decoded) > 1:
            self._decoded_bytes -= _size(self._decoded.pop(next(iter(self._decoded))))
        return found, nbytes


@contextlib.contextmanager
def archives_of(settings: Settings, bootstrap: str) -> Iterator[ArchivedChunks | None]:
    """The archives of some settings, None where there are none. Raises UnreachableError, ManifestError."""
    names = topic_names(settings.prefix, settings.ledger, settings.input_topic)
    with contextlib.closing(Log(bootstrap)) as log:
        found = archives_at(settings, log, names.manifest)
        if found is None:
            yield None
            return
        with contextlib.closing(ArchivedChunks(*found)) as archives:
            archives.refresh()
            yield archives


def archives_at(settings: Settings, log: Log, manifest: str) -> tuple[FileTree, ManifestLog] | None:
    """Files and manifest, by the name of that; None where nothing was ever archived.

    Where no files are is no sign of that: the data directory may be another machine's, so the manifest is asked.
    Raises UnreachableError, ManifestError.
    """
    followed = ManifestLog(log, manifest)
    somewhere = settings.archive_uri is not None or root_of(settings.data_dir, manifest).is_dir()
    if not somewhere and (log.topic(manifest) is None or not followed.refresh().ends):
        return None
    return files_of(settings, manifest, log.cluster_id), followed


def _at(tree: Tree, partition: int, sequence: int) -> Segment | None:
    """The first file that ends at a sequence or later."""
    segments = tree.parts.get(partition, ())
    place = bisect.bisect_left(segments, sequence, key=lambda segment: segment.facts.last_sequence)
    return segments[place] if place < len(segments) else None


@contextlib.contextmanager
def _told(segment: Segment) -> Iterator[None]:
    """Which file it is that is damaged, or gone."""
    try:
        yield
    except FileLostError:
        raise
    except (DamagedError, StoreDamagedError) as error:
        raise ArchiveFileDamagedError(segment, str(error)) from error


@contextlib.contextmanager
def _reading(segment: Segment) -> Iterator[None]:
    """As `_told`, and where the file went that is open."""
    try:
        with _told(segment):
            yield
    except FileLostError as error:
        raise ArchiveFileGoneError(segment, str(error)) from error


def _decode(archive: ArchiveFile, group: int, column: Column) -> tuple[_Decoded, int]:
    if column is Column.CHAIN_HASH:
        return (chain_hashes_in(archive, group), ()), archive.bytes_of(group, None)
    table, nbytes = archive.read(group, [COLUMNS[column]]), archive.bytes_of(group, COLUMNS[column])
    if column in (Column.SOURCE, Column.KIND):
        codes, names = names_in(table, column)
        return (codes, names.strings()), nbytes
    return (values_in(table, column), ()), nbytes


def _part(values: NDArray[Any] | Texts, start: int, stop: int) -> Any:
    """Rows start to stop - 1, as a copy: a view would keep all of the row group."""
    if not isinstance(values, Texts):
        return values[start:stop].copy()
    offsets = values.offsets[start : stop + 1]
    content = values.content[offsets[0] : offsets[-1]]
    return Texts(offsets - offsets[0], np.concatenate([content, np.zeros(1, np.uint8)]))


def _recoded(codes: NDArray[np.int32], names: tuple[bytes, ...], wanted: tuple[bytes, ...]) -> NDArray[np.int32]:
    """Codes as a chunk has them."""
    places = {name: code for code, name in enumerate(wanted)}
    table = np.array([*(places.get(name, -1) for name in names), -1], np.int32)
    return table[codes]


def _size(decoded: _Decoded) -> int:
    values, _ = decoded
    return values.offsets.nbytes + values.content.nbytes if isinstance(values, Texts) else values.nbytes
