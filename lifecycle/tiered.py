"""Chunks wherever they lie: those that the hot store holds are read there, all others from archives.

Problem: what a question asks for may be hot, may have been sent away, hour by hour and in any order, or may lie before
all that the hot store ever had. It must find each chunk once, and an answer that lacks one would look like any other.

    archives    [1][2][3][4][5][6]
    hot store          3  .  5  .  [7][8]     3, 5, 7 and 8 are held, 4 and 6 away: their lines are there
    read from    a  a  h  a  h  a   h  h

GUARANTEE the chunks of a partition follow one another without a gap from the first there is up to `applied` of the
store, or MissingChunkError is raised. A chunk that moves meanwhile is read where it is by then.

The first there is has the first row ever, but where first archives were pruned: then it is the first archived one, or
one before that which the store still holds with all that follow. Chunks that left the store, and were pruned then, are
lines of nothing: with them goes what is held before them.

GUARANTEE damage of an archive is never taken for damage of the hot store, which would be thrown away for it.
Without archives nothing is looked up: a store is asked as if it were all there is.
"""

from __future__ import annotations

import contextlib
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from lifecycle.chunk_codec import read_section
from lifecycle.chunks import ChunkAwayError, ChunkDamagedError, StoreDamagedError
from schemas.errors import DriftledgerError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from lifecycle.chunks import Applied, Column, Header, Line, Read


class MissingChunkError(UnreachableError):
    """A chunk is neither in the hot store nor in an archive. Attributes: partition, sequence (the first missing)."""

    def __init__(self, partition: int, sequence: int, why: str = "") -> None:
        super().__init__(
            f"the events of partition {partition} from sequence {sequence} on are neither in the hot store nor in an "
            f"archive{f' ({why})' if why else ''}. There is no answer without them: give this process the data "
            "directory, or the archive_uri, that has the archives, and see that all are where they were"
        )
        self.partition = partition
        self.sequence = sequence


class ArchiveDamagedError(DriftledgerError):
    """An archive is not what was written. Attributes: partition, detail."""

    def __init__(self, partition: int, detail: str) -> None:
        super().__init__(
            f"an archive of partition {partition} is damaged: {detail}. There is no answer from it: run "
            "`driftledger lifecycle run restore`, or put a good copy of it in its place"
        )
        self.partition = partition
        self.detail = detail


class Archives(Protocol):
    """Chunks that are archived, as the hot store had them. For any thread. Raises DriftledgerError."""

    def refresh(self) -> None:
        """Look for what was archived or pruned since."""
        ...

    def first_sequence(self, partition: int) -> int:
        """Where what is kept begins: what was archived before is pruned; 1 where nothing ever was archived."""
        ...

    def last_sequence(self, partition: int) -> int:
        """Up to where a partition is archived, or was until that was pruned; 0: nothing."""
        ...

    def headers(self, partition: int, first_sequence: int, most: int) -> list[Header]:
        """Of archived chunks that begin at this sequence or later, ascending, at most so many."""
        ...

    def column(self, partition: int, first_sequence: int, column: Column, rows: int) -> Read:
        """As of `catalog.Chunks`. Raises ChunkDamagedError also where the chunk is not there."""
        ...


class Hot(Protocol):
    """What is asked of a hot store; see `hot_store.HotStore`."""

    def applied(self, partition: int) -> Applied | None:
        """Up to where the partition is in chunks."""
        ...

    def begins(self, partition: int) -> int | None:
        """Where its first chunk begins, None for nowhere."""
        ...

    def away(self, partition: int) -> NDArray[np.int64]:
        """First sequences of chunks that are away, ascending."""
        ...

    def lines(self, partition: int, first_sequence: int, most: int) -> list[Line]:
        """Of chunks that begin at this sequence or later, at most so many."""
        ...

    def headers(self, partition: int, first_sequence: int, most: int) -> list[Header]:
        """As lines. Raises ChunkAwayError."""
        ...

    def header(self, partition: int, first_sequence: int) -> Header:
        """Of the chunk that begins there. Raises ChunkAwayError."""
        ...

    def column(self, partition: int, first_sequence: int, column: Column) -> bytes:
        """A section of it. Raises ChunkAwayError."""
        ...


class Tiered:
    """A hot store, or none, and archives, or none, as the part of `catalog.Chunks` that is about chunks.

    resumed: where a store without a chunk is filled from: the sequence before its first row. Every method raises what
    the store raises, but ChunkAwayError, and what the archives raise, but StoreDamagedError.
    """

    def __init__(self, hot: Hot | None, archives: Archives | None, resumed: Callable[[int], int] = lambda _: 0) -> None:
        self._hot, self._archives, self._resumed = hot, archives, resumed

    def begins(self, partition: int) -> int:
        """The sequence from which on rows are to be there, as far as it is known what was pruned."""
        kept = 1 if self._archives is None else self._archives.first_sequence(partition)
        hot = self._hot
        begins = None if hot is None or kept == 1 else hot.begins(partition)
        if hot is None or begins is None:
            return kept
        away = hot.away(partition)
        pruned = away[away < kept]
        if pruned.size:
            begins = hot.lines(partition, int(pruned[-1]), 1)[0].last_sequence + 1
        return min(begins, kept)

    def last_sequence(self, partition: int) -> int:
        """Of the last chunk; 0 where there is none."""
        applied = None if self._hot is None else self._hot.applied(partition)
        if applied is not None:
            return applied.sequence
        return 0 if self._archives is None else self._archives.last_sequence(partition)

    def headers(self, partition: int, first_sequence: int, most: int) -> list[Header]:
        """Of the next chunks, ascending, at most so many. first_sequence: 1 or less, or where a chunk begins.

        Raises MissingChunkError, ArchiveDamagedError.
        """
        archives = self._archives
        if archives is None:
            return self._hot_headers(partition, first_sequence, most)
        try:
            return self._all_headers(archives, partition, first_sequence, most)
        except MissingChunkError:
            archives.refresh()  # it may have been archived, or pruned, since that was last looked at
            return self._all_headers(archives, partition, first_sequence, most)

    def column(self, partition: int, first_sequence: int, column: Column, rows: int) -> Read:
        """Of the chunk that begins there, as of `catalog.Chunks`.

        Raises ChunkDamagedError, MissingChunkError, ArchiveDamagedError.
        """
        if self._hot is not None:
            with contextlib.suppress(ChunkAwayError):
                section = self._hot.column(partition, first_sequence, column)
                return read_section(partition, first_sequence, column, rows, section)
        if self._archives is None or self._archives.last_sequence(partition) < first_sequence:
            raise MissingChunkError(partition, first_sequence)
        with _not_the_stores(partition):
            return self._archives.column(partition, first_sequence, column, rows)

    def archived(self, partition: int, first_sequences: NDArray[np.int64]) -> int:
        """How many of these chunks the hot store does not hold now."""
        if self._archives is None:
            return 0
        begins = None if self._hot is None else self._hot.begins(partition)
        if self._hot is None or begins is None:
            return first_sequences.size
        gone, away = first_sequences < begins, self._hot.away(partition)
        if away.size:
            places = np.searchsorted(away, first_sequences)
            gone |= away[np.minimum(places, away.size - 1)] == first_sequences
        return int(np.count_nonzero(gone))

    def _hot_headers(self, partition: int, first_sequence: int, most: int) -> list[Header]:
        """Where nothing is archived."""
        try:
            found = [] if self._hot is None else self._hot.headers(partition, first_sequence, most)
        except ChunkAwayError as error:
            raise MissingChunkError(partition, error.first_sequence) from error
        before = found[0].first_sequence - 1 if found else self._resumed(partition)
        if first_sequence <= 1 and before > 0:  # what is hot goes on from archives that nobody has here
            raise MissingChunkError(partition, 1)
        return found

    def _all_headers(self, archives: Archives, partition: int, first_sequence: int, most: int) -> list[Header]:
        """Of what is away, what is held, and what is before both."""
        hot = self._hot
        begins = None if hot is None else hot.begins(partition)
        first_sequence = max(first_sequence, self.begins(partition))
        if begins is None:
            before = archives.last_sequence(partition)
            if before < self._resumed(partition):
                raise MissingChunkError(partition, before + 1)
        else:
            before = begins - 1
        headers: list[Header] = []
        if first_sequence <= before:
            headers = self._headers_before(archives, partition, first_sequence, before, most)
        if hot is not None and begins is not None and len(headers) < most:
            lines = hot.lines(partition, max(first_sequence, begins), most - len(headers))
            headers += self._headers_of(hot, archives, partition, lines)
        return headers

    def _headers_before(
        self, archives: Archives, partition: int, first_sequence: int, last: int, most: int
    ) -> list[Header]:
        """Of chunks that only archives have: up to the sequence `last`, where the others begin."""
        with _not_the_stores(partition):
            found = archives.headers(partition, first_sequence, most)
            earlier = archives.headers(partition, 0, 1) if first_sequence > 1 else []
        headers = [header for header in found if header.first_sequence <= last]
        # The first chunk there is may begin anywhere, every other one only where one ends.
        expected = first_sequence if earlier and earlier[0].first_sequence < first_sequence else None
        for header in headers:
            if expected is not None and header.first_sequence != expected:
                raise MissingChunkError(partition, expected)
            expected = header.last_sequence + 1
        if len(headers) < most and expected != last + 1:
            raise MissingChunkError(partition, first_sequence if expected is None else expected)
        return headers

    def _headers_of(self, hot: Hot, archives: Archives, partition: int, lines: list[Line]) -> list[Header]:
        """Of chunks of which there are lines."""
        headers: list[Header] = []
        while len(headers) < len(lines):
            rest = lines[len(headers) :]
            held: Header | None = None
            if rest[0].held:
                with contextlib.suppress(ChunkAwayError):  # sent away since its line was read
                    held = hot.header(partition, rest[0].first_sequence)
            if held is not None:
                headers.append(held)
                continue
            away = [rest[0], *takewhile(lambda line: not line.held, rest[1:])]
            with _not_the_stores(partition):
                found = archives.headers(partition, away[0].first_sequence, len(away))
            for number, line in enumerate(away):
                if number == len(found) or not is_of(found[number], line):
                    raise MissingChunkError(partition, line.first_sequence)
            headers += found
        return headers


def is_of(header: Header, line: Line) -> bool:
    """Whether it is the chunk of that line."""
    fields = ("first_sequence", "last_sequence", "first_index", "last_index", "rows")
    return all(getattr(header, name) == getattr(line, name) for name in fields)


@contextlib.contextmanager
def _not_the_stores(partition: int) -> Iterator[Any]:
    """Whose damage it is: that of a hot store has the store thrown away."""
    try:
        yield
    except ChunkDamagedError as error:
        detail = f"{error.part} of the chunk at sequence {error.first_sequence}: {error.detail}"
        raise ArchiveDamagedError(partition, detail) from error
    except StoreDamagedError as error:
        raise ArchiveDamagedError(partition, str(error)) from error
