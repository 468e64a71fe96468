"""The hot stores of a ledger that lie on this machine, whoever writes to them: open read only, as of their last flush.

GUARANTEE a store that is of another ledger, or is found damaged when it is opened, is passed over, and logged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from lifecycle.chunks import StoreDamagedError
from lifecycle.hot_database import HotStoreUnavailableError
from lifecycle.hot_store import HotStore
from lifecycle.usage import Usage
from schemas.topics import topic_names
from streams.ledger_reader import first_index
from streams.restore import entries_between

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from schemas.columns import Entries
    from streams.ledger_reader import Tail
    from streams.log import Log
    from streams.settings import Settings

_logger = structlog.get_logger()


class StoresHere:
    """Below the data directory of some settings. For one thread."""

    def __init__(self, settings: Settings, log: Log, bootstrap: str) -> None:
        self._settings, self._log, self._bootstrap = settings, log, bootstrap
        self._topic = topic_names(settings.prefix, settings.ledger, settings.input_topic).sequenced
        self._opened: dict[Path, HotStore] = {}

    def newest(self, partition: int, tail: Tail | None) -> HotStore | None:
        """Of the stores of a partition that are of this ledger, the one that reaches furthest."""
        settings = self._settings
        lane = partition % settings.lanes
        reached: tuple[int, HotStore | None] = (0, None)
        for folder in sorted(settings.data_dir.glob(f"hot/*/{settings.prefix}.{settings.ledger}/lane-{lane}")):
            try:
                store = self._opened.get(folder) or HotStore.open_read_only(folder)
                self._opened[folder] = store
                applied = store.applied(partition)
                if applied is not None and applied.index > reached[0] and self._is_ours(partition, store, tail):
                    reached = applied.index, store
            except (StoreDamagedError, HotStoreUnavailableError) as error:
                _logger.warning("hot_store_passed_over", folder=str(folder), error=str(error))
        return reached[1]

    def chain_at(self, partition: int, tail: Tail | None, index: int) -> bytes | None:
        """The chain hash that the ledger has there; None where it does not reach so far, or begins behind it."""
        if tail is None or not self.begins(partition) <= index <= tail.head.index:
            return None
        found = None
        for entries in self.entries(partition, tail, index, index):
            found = entries.chain_hash[-1].tobytes()
        return found

    def begins(self, partition: int) -> int:
        """The first index that the ledger still has, 1 where it has none."""
        return first_index(self._log, self._topic, partition)

    def entries(self, partition: int, tail: Tail, first: int, last: int) -> Iterator[Entries]:
        """Of the ledger, see `restore.entries_between`."""
        return entries_between(self._log, self._bootstrap, self._topic, partition, tail, first, last)

    def close(self) -> None:
        """Close all."""
        for store in self._opened.values():
            store.close()

    def _is_ours(self, partition: int, store: HotStore, tail: Tail | None) -> bool:
        last = store.last_row(partition)
        ours = last is not None and self.chain_at(partition, tail, last[0]) == last[1]
        if not ours:
            _logger.warning("hot_store_passed_over", partition=partition, error="it is of another ledger")
        return ours


def usage_of(store: HotStore, manifest: str) -> Usage:
    """How the hours of a store are used, as of when its worker last wrote that."""
    return Usage(store.folder.parent.parent / f"{manifest}.usage.json")
