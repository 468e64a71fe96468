"""A lane's hot store, held open for those who use it: readers that fill it, the lane, queries, snapshots.

Problem: a store must be closed before it is thrown away and opened again, while any thread may be in the middle of
reading it; and the lane, which decides that, must not wait for any of them.

    opened    the store, opened or made; what was thrown away is removed first. Waits, so it is for readers
    using     a store, kept open for the length of a block, if it is still the one
    retire    from here on it is not the one; closed by whoever opens the next, once nobody uses it

GUARANTEE there is at most one store open on a folder, and none is closed while it is used.
GUARANTEE a store is served only once each partition in it was compared with the ledger (`compared`).
HAZARD a query that never ends keeps the next store from being opened.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

import structlog

from lifecycle.chunks import StoreDamagedError
from lifecycle.hot_database import HotStoreDamagedError, HotStoreUnavailableError
from lifecycle.hot_store import HotStore
from schemas.errors import DriftledgerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from lifecycle.store import Sealed

_logger = structlog.get_logger()


class HeldStore:
    """The store in one folder. For any thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        #: One at a time opens and throws away; one at a time writes.
        self._opening, self._writing = threading.Lock(), threading.Lock()
        #: Held for a moment only; notified when uses end.
        self._turn = threading.Condition()
        self._store: HotStore | None = None
        self._retired: HotStore | None = None
        #: How often `_store` or, where there is none, `_retired` is used.
        self._uses = 0
        #: What is in the folder is to be thrown away.
        self._spoiled = False
        self._closed = False
        self._compared: set[int] = set()
        self._damage: StoreDamagedError | None = None

    def opened(self) -> HotStore:
        """The store. Raises HotStoreUnavailableError where the system refuses, or this was closed."""
        with self._opening:
            with self._turn:
                if self._store is not None:
                    return self._store
                self._turn.wait_for(lambda: self._uses == 0 or self._closed)
                self._check_wanted()
                retired, self._retired = self._retired, None
            if retired is not None:
                self._end(retired)
            self._clear()
            store = self._made()
            with self._turn:
                if not self._closed:
                    self._store, self._compared = store, set()
                    return store
            self._end(store)
            self._check_wanted()
            return store

    @property
    def store(self) -> HotStore | None:
        """The one, if there is one."""
        return self._store

    @contextlib.contextmanager
    def using(self, store: HotStore) -> Iterator[bool]:
        """Whether it is still the one; if so it stays open meanwhile."""
        with self._used(lambda: self._store is store) as found:
            yield found is not None

    @contextlib.contextmanager
    def serving(self, partitions: Iterable[int]) -> Iterator[HotStore | None]:
        """The store, kept open meanwhile; None where there is none that was compared in these partitions."""
        with self._used(lambda: self._compared.issuperset(partitions)) as found:
            yield found

    def compared(self, store: HotStore, partition: int) -> None:
        """A partition of the store is of this ledger."""
        with self._turn:
            if self._store is store:
                self._compared.add(partition)

    def write(self, store: HotStore, sealed: list[Sealed]) -> bool:
        """Add those chunks that it does not have yet; False once it is not the store any more."""
        with self.using(store) as current:
            if current and sealed:
                with self._writing:
                    store.write(self._missing(store, sealed))
            return current

    def damage(self) -> StoreDamagedError | None:
        """What somebody who used the store met."""
        return self._damage

    def retire(self, *, spoiled: bool) -> None:
        """Let go of the store; spoiled: what is in the folder is to be thrown away. Returns at once."""
        with self._turn:
            if self._store is not None:
                self._retired, self._store = self._store, None
            self._damage, self._compared = None, set()
            self._spoiled |= spoiled

    def close(self, timeout_s: float) -> None:
        """Close the store once nobody uses it; after a while it is left to the last who does."""
        with self._turn:
            self._closed = True
            if self._store is not None:
                self._retired, self._store = self._store, None
            self._turn.notify_all()
            self._turn.wait_for(lambda: self._uses == 0, timeout_s)
        self._end_unused()

    @contextlib.contextmanager
    def _used(self, fits: Callable[[], bool]) -> Iterator[HotStore | None]:
        with self._turn:
            store = self._store if fits() else None
            self._uses += store is not None
        try:
            yield store
        except StoreDamagedError as error:
            with self._turn:
                if store is not None and self._store is store:
                    self._damage = error
            raise
        finally:
            if store is not None:
                with self._turn:
                    self._uses -= 1
                    self._turn.notify_all()
                self._end_unused()

    def _end_unused(self) -> None:
        """After close, where nobody else will."""
        with self._turn:
            if not self._closed or self._uses:
                return
            retired, self._retired = self._retired, None
        if retired is not None:
            self._end(retired)

    def _end(self, store: HotStore) -> None:
        try:
            store.close()
        except DriftledgerError as error:
            _logger.warning("hot_store_close_failed", folder=str(self._folder), error=str(error))

    def _clear(self) -> None:
        """Throw away what is spoiled."""
        if self._spoiled:
            HotStore.discard(self._folder)
            self._spoiled = False

    def _made(self) -> HotStore:
        """The store as it is in the folder, or a new one where that is damaged."""
        try:
            return HotStore.open(self._folder)
        except StoreDamagedError as error:
            _logger.warning("hot_store_discarded", folder=str(self._folder), error=str(error))
            self._spoiled = True
            self._clear()
            return HotStore.open(self._folder)

    def _missing(self, store: HotStore, sealed: list[Sealed]) -> list[Sealed]:
        """Chunks that the store does not have; they must go on where it ends."""
        new: list[Sealed] = []
        ends: dict[int, int] = {}
        for chunk in sealed:
            applied = store.applied(chunk.partition)
            end = ends.get(chunk.partition, 0 if applied is None else applied.chunks)
            if chunk.number > end + 1:
                detail = f"chunk {chunk.number} of partition {chunk.partition} comes after chunk {end}"
                raise HotStoreDamagedError(self._folder, detail)
            if chunk.number == end + 1:
                ends[chunk.partition] = chunk.number
                new.append(chunk)
        return new

    def _check_wanted(self) -> None:
        if self._closed:
            raise HotStoreUnavailableError(f"the hot store in {self._folder} was closed while it was opened")
