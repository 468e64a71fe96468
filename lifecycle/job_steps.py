"""What jobs do to the files of an archive, a commit at a time: seal, restore, compact, move, prune.

Problem: any of it may be cut off at any instruction, and may not lose, double or serve a row wrongly then. So each step
has the same order, whatever it does:

    write      new files under names that nobody asks for
    publish    on disk, then named, then the names on disk
    commit     one record of the manifest: from here on they are there, and what they replace is not
    remove     what the record dropped

What was cut off before the commit leaves files that the manifest does not name, and after it such that it does not name
any more: `tidying` removes both, by whoever holds the lease next, once their entries are in another file that is whole.

GUARANTEE the files of a commit are there, whole and on disk, before it; none is removed that the manifest names.
GUARANTEE memory: of some row groups, whatever the length of an archive. One has texts, and values, keys and headers, of
buffer_bytes at most, unless a chunk alone has more; that has chunks.TEXT_BYTES, or one row, and CONTROL entries.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import numpy as np

from lifecycle.archive import opened
from lifecycle.archive_facts import Compression
from lifecycle.archive_table import ROWS_MAX
from lifecycle.archiving import BUFFER_BYTES, Builder, check_joined, join
from lifecycle.chunk_codec import decode_header, text_bytes_in
from lifecycle.chunks import ROWS
from lifecycle.file_tree import told_as_refusal
from lifecycle.layout import index_of, path_of
from lifecycle.manifest import Commit, Move, Segment
from lifecycle.object_tree import OccupiedPathError
from lifecycle.packing import DamagedError
from lifecycle.sealing import behind, copied
from lifecycle.verifying import digest_of, open_segment, sha256_of
from schemas.columns import slice_rows
from streams.sequence import Head

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path
    from typing import BinaryIO

    from lifecycle.archive_facts import Facts
    from lifecycle.archive_index import Blob, Index
    from lifecycle.chunks import ChunkBytes, Header
    from lifecycle.file_tree import FileTree
    from lifecycle.manifest import Tree
    from lifecycle.sealing import Made
    from lifecycle.tiers import Grain, Tier
    from schemas.columns import Entries

#: A chunk of fewer rows than the others may have ended for its texts, which are bounded: so many go to a row group.
_SHORT_CHUNKS_MAX: Final = 4
#: What an event has beside its id and payload as a rule; what is more counts, as do values that could not be read.
_USUAL_BYTES: Final = 128
_COPIED_BYTES: Final = 1024 * 1024
#: Facts of who wrote a file, and not of what is in it.
_OF_WRITER: Final = ("event_fingerprint", "entry_fingerprint", "writer_version")


class Lease(Protocol):
    """Whoever may commit; see `manifest_log.ManifestLease`."""

    @property
    def tree(self) -> Tree:
        """After the last commit."""
        ...

    def commit(self, record: Commit) -> Tree:
        """One more."""
        ...

    def held(self) -> Tree:
        """The tree, once it is seen that nobody else has the right now. Raises LeaseLostError."""
        ...


class Work(NamedTuple):
    """What steps work with. job: the id of the run; now_us: the time source's; buffer_bytes: see `archiving`."""

    files: FileTree
    lease: Lease
    job: str
    now_us: Callable[[], int]
    compression: Compression = Compression.LZ4
    buffer_bytes: int = BUFFER_BYTES


class Fresh(NamedTuple):
    """A file that was written and has no name yet, with its index."""

    data: Path
    index_file: Path
    name: str
    facts: Facts
    spans: dict[str, tuple[int, int]]


class Place(NamedTuple):
    """Where a file belongs."""

    tier: Tier
    grain: Grain
    period: str


def seal(work: Work, partition: int, place: Place, chunks: Iterable[ChunkBytes], entries: Iterator[Entries]) -> Segment:
    """Chunks that follow what is archived, and their entries, as a file.

    entries: batches from the first entry of the first chunk on, each valid until the next. Raises ChainError where they
    are not those of the chunks.
    """
    end = work.lease.tree.end(partition)
    before = Head() if end is None else end.facts.head
    return _commit(work, Move.SEAL, place, _built(work, place.tier, partition, before, chunks, entries), ())


def restore(work: Work, segment: Segment, chunks: Iterable[ChunkBytes], entries: Iterator[Entries]) -> Segment:
    """A file that is lost or damaged, made again of its chunks and entries, as of `seal`, in its place.

    Where it is what it was to the byte, nothing is to be committed; of a joined one row groups may be others. Raises
    DamagedError, and changes nothing, where what is made says of itself what the one before did not; ChainError.
    """
    facts = segment.facts
    return put_back(work, segment, _built(work, segment.tier, facts.partition, facts.head_before, chunks, entries))


def put_back(work: Work, segment: Segment, fresh: Fresh) -> Segment:
    """A file that was made again, in the place of the one that is lost or damaged: as `restore`."""
    place, facts = Place(segment.tier, segment.grain, segment.period), segment.facts
    same_writer = {name: getattr(facts, name) for name in _OF_WRITER}
    path = path_of(*place, fresh.name)
    same = fresh.spans == segment.spans and (path != segment.path or sha256_of(fresh.data) == segment.sha256)
    if fresh.facts._replace(**same_writer) != facts or not same:
        raise DamagedError(
            f"what is made again of {segment.path} is not what was written: it ends in {fresh.facts.head}, "
            f"with Merkle root {fresh.facts.merkle_root}"
        )
    if path != segment.path:
        return _commit(work, Move.RESTORE, place, fresh, (segment,))
    if sha256_of(fresh.index_file) != segment.index_sha256:
        raise DamagedError(f"the index that is made again of {segment.path} is not what was written")
    work.files.replace(fresh.index_file, index_of(path))
    work.files.replace(fresh.data, path)
    return segment


def _built(
    work: Work, tier: Tier, partition: int, before: Head, chunks: Iterable[ChunkBytes], entries: Iterator[Entries]
) -> Fresh:
    """Chunks behind a head, and their entries, as a file."""
    data = work.files.fresh(tier)
    builder: Builder | None = None
    headers: list[Header] = []
    with told_as_refusal(data):
        try:
            for group, made in _groups(partition, chunks, Portions(entries), work.buffer_bytes):
                if builder is None:
                    builder = Builder(data, partition, before, group[0][1].order_ms, work.compression)
                builder.add([chunk for chunk, _ in group], made.entries)
                headers += [header for _, header in group]
            if builder is None:
                raise ValueError("a file has one chunk at least")  # noqa: TRY301 - the file is let go of, as of all others
            name, index, facts = builder.close()
        except BaseException:
            if builder is not None:
                builder.abandon()
            raise
    return Fresh(data, written(work, tier, index), name, facts, spans_of(headers))


def compact(work: Work, place: Place, segments: Sequence[Segment]) -> Segment:
    """Neighbouring files as one. Raises DamagedError, which names the file."""
    data = work.files.fresh(place.tier)
    with contextlib.ExitStack() as stack, told_as_refusal(data):
        archives = [stack.enter_context(open_segment(work.files, segment)) for segment in segments]
        parts = [(archive, blobs_of(index)) for archive, index in archives]
        name, index, facts = join(data, parts, work.compression, work.buffer_bytes)
        index_file = written(work, place.tier, index)
        with opened(name, data.open("rb"), index_file.open("rb")) as (joined, _):
            check_joined(parts, joined, work.buffer_bytes)
    spans = {frame: _joined([each.spans[frame] for each in segments]) for frame in segments[0].spans}
    fresh = Fresh(data, index_file, name, facts, spans)
    return _commit(work, Move.COMPACT, place, fresh, segments)


def move(work: Work, kind: Move, place: Place, segment: Segment) -> Segment:
    """The same file in another place."""
    data, index = work.files.fresh(place.tier), work.files.fresh(place.tier)
    for path, target in ((segment.path, data), (index_of(segment.path), index)):
        with work.files.open_checked(path) as source, told_as_refusal(target), target.open("wb") as copy:
            shutil.copyfileobj(source, copy, _COPIED_BYTES)
    fresh = Fresh(data, index, segment.path.rpartition("/")[2], segment.facts, segment.spans)
    if (sha256_of(data), sha256_of(index)) != (segment.sha256, segment.index_sha256):
        raise DamagedError(f"{segment.path} is not what was written. `lifecycle run restore` makes it again")
    return _commit(work, kind, place, fresh, (segment,))


def prune(work: Work, partition: int, segments: Sequence[Segment]) -> None:
    """Drop the first files of a partition."""
    record = Commit(
        work.lease.tree.commit + 1,
        Move.PRUNE,
        work.job,
        partition,
        work.now_us(),
        (),
        tuple(segment.path for segment in segments),
    )
    work.lease.commit(record)
    _remove(work, segments)


class Portions:
    """Entries up to one index after the other, from batches of any size."""

    def __init__(self, batches: Iterator[Entries]) -> None:
        self._batches = batches
        self._left: Made | None = None

    def until(self, index: int) -> Made:
        """All up to an index; fewer where the batches end."""
        parts: list[Made] = []
        while True:
            made = self._left
            if made is None:
                batch = next(self._batches, None)
                if batch is None:
                    break
                made = copied(batch)
            self._left = None
            entries = made.entries
            if int(entries.index[-1]) <= index:
                parts.append(made)
                if int(entries.index[-1]) == index:
                    break
                continue
            cut = int(entries.index.searchsorted(index, side="right"))
            parts.append(made._replace(entries=slice_rows(entries, 0, cut)))
            self._left = made._replace(entries=slice_rows(entries, cut, entries.index.size))
            break
        return _together(parts)


def _together(parts: Sequence[Made]) -> Made:
    """Entries one behind the other."""
    return parts[0]._replace(
        entries=behind([part.entries for part in parts]), memory=tuple(part.memory for part in parts)
    )


def _groups(
    partition: int, chunks: Iterable[ChunkBytes], portions: Portions, buffer_bytes: int
) -> Iterator[tuple[list[tuple[ChunkBytes, Header]], Made]]:
    """Chunks that make a row group, with their headers, and all of their entries."""
    held: list[tuple[ChunkBytes, Header]] = []
    parts: list[Made] = []
    rows = short = held_bytes = 0
    for chunk in chunks:
        header = decode_header(partition, chunk.first_sequence, chunk.header)
        made = portions.until(header.last_index)
        is_short, size_bytes = header.rows < ROWS, _bytes_held(text_bytes_in(partition, chunk), made.entries)
        is_full = rows + header.rows > ROWS_MAX or short + is_short > _SHORT_CHUNKS_MAX
        if held and (is_full or held_bytes + size_bytes > buffer_bytes):
            yield held, _together(parts)
            held, parts, rows, short, held_bytes = [], [], 0, 0, 0
        held.append((chunk, header))
        parts.append(made)
        rows += header.rows
        short += is_short
        held_bytes += size_bytes
    if held:
        yield held, _together(parts)


def _bytes_held(texts: int, entries: Entries) -> int:
    """What a chunk takes, by its texts and by its entries: of a value that cannot be read no text is in it."""
    values = entries.value_length[entries.value_address != 0]
    beside = (values, np.maximum(entries.key_length, 0), entries.headers_length)
    return max(texts, sum(int(lengths.sum()) for lengths in beside) - _USUAL_BYTES * entries.index.size)


def blobs_of(index: Index) -> list[Blob]:
    """All that an index has of chunks."""
    return [index.blob(chunk) for chunk in range(index.chunks)]


def spans_of(headers: Sequence[Header]) -> dict[str, tuple[int, int]]:
    """Least and greatest time of rows, by what the numbers of headers are named for."""
    readable = [header for header in headers if header.local_us_min <= header.local_us_max]
    return {
        "authority_ms": _span(headers, "authority_ms"),
        "local_us": _span(readable, "local_us"),
        "corrected_us": _span(readable, "corrected_us"),
    }


def _span(headers: Sequence[Header], name: str) -> tuple[int, int]:
    """(0, -1) where there is none."""
    return (
        min((getattr(header, f"{name}_min") for header in headers), default=0),
        max((getattr(header, f"{name}_max") for header in headers), default=-1),
    )


def _joined(spans: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Of all; those are empty whose least is above the greatest."""
    some = [span for span in spans if span[0] <= span[1]] or [spans[0]]
    return min(low for low, _ in some), max(high for _, high in some)


def written(work: Work, tier: Tier, content: bytes) -> Path:
    """A file of these bytes that has no name yet."""
    fresh = work.files.fresh(tier)
    with told_as_refusal(fresh):
        fresh.write_bytes(content)
    return fresh


def _commit(work: Work, kind: Move, place: Place, fresh: Fresh, drops: Sequence[Segment]) -> Segment:
    """Publish a file and its index, commit it in place of others, and remove these."""
    path = path_of(*place, fresh.name)
    segment = segment_of(work, path, place, fresh)
    _publish(work, fresh.index_file, index_of(path), path)
    _publish(work, fresh.data, path, path)
    record = Commit(
        work.lease.tree.commit + 1,
        kind,
        work.job,
        fresh.facts.partition,
        segment.moved_us,
        (segment,),
        tuple(each.path for each in drops),
    )
    work.lease.commit(record)
    _remove(work, drops)
    return segment


def _publish(work: Work, fresh: Path, path: str, archive: str) -> None:
    """Give a file its name, that of an archive or of its index; what the manifest does not name makes room for it."""
    try:
        work.files.publish(fresh, path)
    except OccupiedPathError:  # of objects: an upload that failed half way may have left a part
        if archive in work.lease.held().paths():
            raise
        work.files.replace(fresh, path)


def segment_of(work: Work, path: str, place: Place, fresh: Fresh) -> Segment:
    """What the manifest is to say of a file, from now on at that path."""
    with told_as_refusal(fresh.data), fresh.data.open("rb") as data:
        return segment_in(work, path, place, data, fresh.index_file, fresh.facts, fresh.spans)


def segment_in(
    work: Work,
    path: str,
    place: Place,
    data: BinaryIO,
    index_file: Path,
    facts: Facts,
    spans: dict[str, tuple[int, int]],
) -> Segment:
    """As `segment_of`, of a file that is open, wherever it lies."""
    size_bytes = data.seek(0, os.SEEK_END) + index_file.stat().st_size
    data.seek(0)
    return Segment(
        path=path,
        tier=place.tier,
        grain=place.grain,
        period=place.period,
        size_bytes=size_bytes,
        sha256=digest_of(data),
        index_sha256=sha256_of(index_file),
        spans=spans,
        moved_us=work.now_us(),
        facts=facts,
    )


def _remove(work: Work, segments: Sequence[Segment]) -> None:
    for segment in segments:
        work.files.remove(segment.path)
        work.files.remove(index_of(segment.path))
