"""Questions without a worker: the hot stores of this machine, read only, and what the ledger has behind them.

Problem: what is stored is as old as its last flush, and to that of a worker which is gone nobody adds; an answer must
still be of everything the ledger has. So of each partition the store that reaches furthest is taken, over the slots of
the data directory, and the entries behind it are read from the ledger and judged, as the worker would have; without a
store that is all of them.

GUARANTEE a store that is of another ledger, or is found damaged when it is opened, is passed over, and logged; what is
damaged within is told (`reader` then asks the ledger alone). Answers are those of a worker that is level.
HAZARD needs the broker. Judge goes on from its newest snapshot that stands before the end of the store, without one
from the ledger's beginning: about a second for a million entries. What is read is held in memory, MEMORY_BYTES_MAX at
most, and read again by whoever asks next.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

import numpy as np
import structlog

from lifecycle.chunk_codec import decode_header, read_section
from lifecycle.manifest_log import ManifestLog
from lifecycle.query import HotQueries
from lifecycle.resume import RESUMED, end_of, resume
from lifecycle.store import Store
from lifecycle.stores_here import StoresHere
from lifecycle.tiered import Tiered
from schemas.columns import slice_rows
from schemas.errors import BadInputError
from schemas.topics import topic_names
from streams.judge import Judge
from streams.ledger_reader import read_tail
from streams.log import Log
from streams.snapshots import read_snapshots

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Self

    from numpy.typing import NDArray

    from lifecycle.catalog import Unsealed
    from lifecycle.chunks import Column, Header, Read
    from lifecycle.hot_store import HotStore
    from lifecycle.store import Sealed, StoreState
    from lifecycle.tiered import Archives
    from streams.judge import JudgeState
    from streams.ledger_reader import Tail
    from streams.settings import Settings

T = TypeVar("T")

#: Of chunks that are in no store: some ten million events.
MEMORY_BYTES_MAX: Final = 512 * 1024 * 1024
_logger = structlog.get_logger()


class Found(NamedTuple):
    """How a partition was found.

    store: its folder, None for none; stored: the index up to which that is; read: entries read from the ledger.
    """

    partition: int
    store: str | None
    stored: int
    read: int


@dataclass(slots=True)
class _Part:
    """A partition. sealed: chunks that are not stored yet, by first sequence, with their headers."""

    tiered: Tiered
    state: StoreState
    sealed: dict[int, tuple[Header, Sealed]] = field(default_factory=dict)


class LocalPartitions:
    """Some partitions of a ledger as its worker would show them. For one thread; also a context manager.

    stored: whether to look for stores; archives: of what these do not hold. Raises StoreDamagedError, also when it is
    asked: then do without stores.
    """

    def __init__(
        self,
        settings: Settings,
        bootstrap: str,
        partitions: Sequence[int],
        *,
        stored: bool = True,
        archives: Archives | None = None,
    ) -> None:
        self._settings, self._bootstrap, self._stored, self._archives = settings, bootstrap, stored, archives
        self._names = topic_names(settings.prefix, settings.ledger, settings.input_topic)
        self._fold, self._judge, self._log = Store(), Judge(), Log(bootstrap)
        self._stores = StoresHere(settings, self._log, bootstrap)
        self._parts: dict[int, _Part] = {}
        self._memory_bytes = 0
        self.found: list[Found] = []
        try:
            self._check_count()
            for partition in partitions:
                self._parts[partition] = self._read(partition)
        except BaseException:
            self.close()
            raise
        self._queries = HotQueries(self)

    def ask(self, question: Callable[[HotQueries, Callable[[int], int]], T]) -> T:
        """Have a question asked."""
        return question(self._queries, self._last_sequence)

    def close(self) -> None:
        """Close stores and client."""
        self._stores.close()
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ----------------------------------------------------------------------------------------- the protocol of catalog

    def partitions(self) -> list[int]:
        """Those that were asked for."""
        return sorted(self._parts)

    def unsealed(self, partition: int) -> Unsealed | None:
        """Rows after the last chunk."""
        return self._fold.unsealed(self._parts[partition].state)

    def headers(self, partition: int, first_sequence: int, most: int) -> list[Header]:
        """Of store and archives, then of what was read."""
        part = self._parts[partition]
        later = [header for first, (header, _) in part.sealed.items() if first >= first_sequence]
        if part.sealed and first_sequence >= next(iter(part.sealed)):
            return later[:most]
        return [*part.tiered.headers(partition, first_sequence, most), *later][:most]

    def column(self, partition: int, first_sequence: int, column: Column, rows: int) -> Read:
        """Of a chunk wherever it is."""
        part = self._parts[partition]
        if first_sequence not in part.sealed:
            return part.tiered.column(partition, first_sequence, column, rows)
        section = part.sealed[first_sequence][1].sections[column]
        return read_section(partition, first_sequence, column, rows, section)

    def archived(self, partition: int, first_sequences: NDArray[np.int64]) -> int:
        """How many neither the store holds nor this."""
        part = self._parts[partition]
        if part.sealed:
            first_sequences = first_sequences[first_sequences < next(iter(part.sealed))]
        return part.tiered.archived(partition, first_sequences)

    def _last_sequence(self, partition: int) -> int:
        part = self._parts[partition]
        found = self._fold.unsealed(part.state)
        rows: list[int] = [] if found is None else found.rows.sequence[-1:].tolist()
        return max([part.state.applied.sequence, part.tiered.last_sequence(partition), *rows])

    # -------------------------------------------------------------------------------------------------------- beginning

    def _check_count(self) -> None:
        """That the settings know all partitions: an answer without some of them would not look short."""
        topic, count = self._names.sequenced, self._settings.partitions
        facts = self._log.topic(topic)
        if facts is not None and facts.partitions != count:
            raise BadInputError(
                f"{topic} has {facts.partitions} partitions, and the settings say that there are {count}. Set "
                "partitions to what the ledger has"
            )

    def _read(self, partition: int) -> _Part:
        tail = read_tail(self._log, self._names.sequenced, partition)
        store = self._stores.newest(partition, tail) if self._stored else None
        index, judged, state = self._resume(partition, store, tail)
        resumed = state.applied.sequence
        part = _Part(Tiered(store, self._archives, lambda _: resumed), state)
        stored = 0 if store is None else _chunks(store, partition)
        read = 0
        if tail is not None:
            for entries in self._stores.entries(partition, tail, index + 1, tail.head.index):
                read += entries.index.size
                known = int(np.searchsorted(entries.index, state.last_index, side="right"))
                self._judge.step(judged, slice_rows(entries, 0, known))
                new = slice_rows(entries, known, entries.index.size)
                for sealed in self._fold.step(state, new, self._judge.step(judged, new)):
                    if sealed.number > stored:
                        self._keep(part, sealed)
        self._fold.publish(state)
        applied = None if store is None else store.applied(partition)
        folder = None if store is None else str(store.folder)
        self.found.append(Found(partition, folder, 0 if applied is None else applied.index, read))
        return part

    def _keep(self, part: _Part, sealed: Sealed) -> None:
        self._memory_bytes += len(sealed.header) + sum(map(len, sealed.sections.values()))
        if self._memory_bytes > MEMORY_BYTES_MAX:
            raise BadInputError(
                f"the events behind the hot stores in {self._settings.data_dir} take more than {MEMORY_BYTES_MAX} "
                f"bytes. Start `{self._settings.command} worker`, which stores them, or ask for fewer partitions"
            )
        header = decode_header(sealed.partition, sealed.first_sequence, sealed.header)
        part.sealed[sealed.first_sequence] = header, sealed

    def _resume(self, partition: int, store: HotStore | None, tail: Tail | None) -> tuple[int, JudgeState, StoreState]:
        """See `resume`."""
        applied = None if store is None else store.applied(partition)
        lane = partition % self._settings.lanes
        snapshots = read_snapshots(self._log, self._names.snapshots, lane, RESUMED, partition)
        return resume(
            partition,
            applied,
            snapshots,
            lambda snapshot: self._stores.chain_at(partition, tail, snapshot.index) == snapshot.chain_hash,
            self._stores.begins(partition),
            lambda: end_of(ManifestLog(self._log, self._names.manifest).refresh(), partition),
        )


def _chunks(store: HotStore, partition: int) -> int:
    applied = store.applied(partition)
    return 0 if applied is None else applied.chunks
