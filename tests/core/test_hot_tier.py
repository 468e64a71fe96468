"""The hot tier without a broker: what holds a store open lets go of it in time, whoever reads it, whoever is away."""

from __future__ import annotations

import errno
import gc
import os
import threading
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import pytest

from lifecycle import hot_keys, hot_reader, hot_store
from lifecycle.chunks import NOTHING, ChunkDamagedError, StoreDamagedError
from lifecycle.held_store import HeldStore
from lifecycle.hot_database import HotStoreDamagedError, HotStoreUnavailableError
from lifecycle.hot_reader import HotReader
from lifecycle.hot_store import HotStore
from lifecycle.hot_tier import HANDOVER_S, HotTier, Place, Standing
from lifecycle.owned import Asker, OwnedLane, OwnedPartitions, RebuiltError
from lifecycle.store import Filling, StoreState
from lifecycle.store_dump import STORE
from schemas.clock import SystemTime
from schemas.errors import DriftledgerError
from schemas.topics import topic_names
from streams.judge import Judge
from streams.ledger_reader import Tail
from streams.sequence import Head
from streams.snapshots import Packed
from tests.core.judge_oracle import START_MS, Ledger, Row, event
from tests.core.test_hot_store import chunks_of, read_all
from tests.core.test_local import LENGTH, found_for, read_of, states_of
from tests.core.test_store import hashed

if TYPE_CHECKING:
    from pathlib import Path

    from streams.log import Log

#: Nobody listens there.
NOWHERE = "127.0.0.1:1"
time = SystemTime()
FILLING = Filling(NOTHING)


def test_a_tier_whose_broker_is_away_ends_within_a_second(tmp_path: Path) -> None:
    """Its readers wait for the broker meanwhile; the lane does not wait for them, and the folder is free."""
    names = topic_names("t", "main", "t.input")
    tier = HotTier(tmp_path / "lane-0", NOWHERE, names, 0)
    tier.open({0: 10, 4: 20, 8: 0})
    for _ in range(3):
        begun_ns = time.monotonic_ns()
        tier.settle({0: 10, 4: 20, 8: 0})
        assert time.monotonic_ns() - begun_ns < 200_000_000
    assert tier.places() == dict.fromkeys((0, 4, 8), Place(Standing.BEHIND, 0, None))
    assert (tier.dumps(), tier.unsealed(4)) == ({}, None)
    with tier.reading() as store:  # there may be none yet; an empty one need not be compared with the ledger
        assert store is None or [store.applied(partition) for partition in (0, 4, 8)] == [None] * 3
    begun_ns = time.monotonic_ns()
    tier.close()
    assert time.monotonic_ns() - begun_ns < 1_500_000_000
    HotStore.open(tmp_path / "lane-0").close()


def test_a_lane_waits_once_for_a_reader_that_is_close_and_slow(tmp_path: Path) -> None:
    """For all such readers together; one that is level is taken over without waiting."""
    names = topic_names("t", "main", "t.input")
    heads = dict.fromkeys((0, 4, 8), 10)
    tier = HotTier(tmp_path / "lane-0", NOWHERE, names, 0)
    tier.open(heads)
    for part in tier._parts.values():
        assert part.reader is not None
        vars(part.reader).update(_state=StoreState(part.number, NOTHING, 9, FILLING, FILLING.view()), _index=9)
    took = []
    for _ in range(4):
        begun_ns = time.monotonic_ns()
        tier.settle(heads)
        took.append((time.monotonic_ns() - begun_ns) / 1e9)
    assert HANDOVER_S <= took[0] < HANDOVER_S + 0.2
    assert max(took[1:]) < HANDOVER_S / 2
    reader = tier._parts[4].reader
    assert reader is not None
    vars(reader).update(_state=StoreState(4, NOTHING, 10, FILLING, FILLING.view()), _index=10)
    tier.settle(heads)
    assert tier.places()[4] == Place(Standing.LEVEL, 10, None)
    assert tier.places()[8].standing is Standing.BEHIND
    assert list(tier.dumps()) == [4]
    tier.close()


def test_a_lane_waits_no_longer_where_a_reader_is_in_the_middle_of_a_batch(tmp_path: Path) -> None:
    """The wait for the batch and that for what comes after it are one."""
    tier = HotTier(tmp_path / "lane-0", NOWHERE, topic_names("t", "main", "t.input"), 0)
    tier.open({0: 10})
    reader = tier._parts[0].reader
    assert reader is not None
    vars(reader).update(_state=StoreState(0, NOTHING, 9, FILLING, FILLING.view()), _index=9)
    busy = threading.Event()

    def step() -> None:
        with reader._turn:
            busy.set()
            time.sleep_s(HANDOVER_S * 0.8)

    batch = threading.Thread(target=step)
    batch.start()
    busy.wait(5)
    begun_ns = time.monotonic_ns()
    tier.settle({0: 10})
    took_s = (time.monotonic_ns() - begun_ns) / 1e9
    batch.join()
    tier.close()
    assert HANDOVER_S <= took_s < HANDOVER_S * 1.6


def test_a_reader_that_failed_leaves_nothing_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is tried again for as long as it fails, each time with a state of judge; nobody collects garbage for it."""

    def fail(_: HotReader) -> None:
        raise DriftledgerError("the record at offset 7 is no ledger entry")

    monkeypatch.setattr(HotReader, "_read", fail)
    tier = HotTier(tmp_path / "lane-0", NOWHERE, topic_names("t", "main", "t.input"), 0)
    gc.disable()
    try:
        tier.open({0: 10})
        reader = tier._parts[0].reader
        assert reader is not None
        reader.join(5)
        kept = weakref.ref(reader)
        del reader
        tier.settle({0: 10})
        assert tier.places()[0] == Place(Standing.UNAVAILABLE, 0, "the record at offset 7 is no ledger entry")
        assert kept() is None
    finally:
        gc.enable()
        tier.close()


def test_a_store_that_refuses_a_reader_is_opened_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a disk was full while it was filled: the one that is open takes nothing more."""
    opened: list[HotStore] = []

    def refuse(reader: HotReader) -> None:
        opened.append(reader._held.opened())
        raise HotStoreUnavailableError("No space left on device")

    monkeypatch.setattr(HotReader, "_read", refuse)
    tier = HotTier(tmp_path / "lane-0", NOWHERE, topic_names("t", "main", "t.input"), 0)
    tier.open({0: 10})
    for _ in range(2):
        tier._parts[0].due_ns = 0
        tier.settle({0: 10})
        reader = tier._parts[0].reader
        if reader is not None:
            reader.join(5)
            tier.settle({0: 10})
        assert tier.places()[0] == Place(Standing.UNAVAILABLE, 0, "No space left on device")
    first, second = opened
    assert first is not second
    tier.close()


def test_a_store_that_is_let_go_of_stays_open_while_it_is_used(tmp_path: Path) -> None:
    """The next one is opened after that, of an empty folder where the former was spoiled."""
    held = HeldStore(tmp_path / "s")
    first = held.opened()
    assert held.opened() is first
    assert held.write(first, chunks_of(0, 1, 1_500))
    next_one: list[HotStore] = []
    with held.using(first) as current:
        assert current
        held.retire(spoiled=True)
        opener = threading.Thread(target=lambda: next_one.append(held.opened()))
        opener.start()
        assert not held.write(first, chunks_of(0, 1, 1_500))
        assert read_all(first)
        with held.serving(()) as served:
            assert served is None
        assert not next_one
    opener.join()
    assert next_one[0].partitions() == []
    held.close(1)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["s"]


def test_a_store_is_served_once_its_partitions_were_compared(tmp_path: Path) -> None:
    """Each of them, in this store, not in one before it."""
    held = HeldStore(tmp_path / "s")
    store = held.opened()
    held.compared(store, 0)
    with held.serving((0, 5)) as served:
        assert served is None
    held.compared(store, 5)
    with held.serving((0, 5)) as served:
        assert served is store
    held.retire(spoiled=False)
    again = held.opened()
    held.compared(store, 0)
    with held.serving((0,)) as served:
        assert served is None
    held.compared(again, 0)
    with held.serving((0,)) as served:
        assert served is again
    held.close(1)


def test_who_closes_does_not_wait_for_ever(tmp_path: Path) -> None:
    """The last who uses the store closes it then; nothing is opened after that."""
    held = HeldStore(tmp_path / "s")
    store = held.opened()
    with held.using(store):
        held.close(0.05)
        with pytest.raises(HotStoreUnavailableError, match="open elsewhere"):
            HotStore.open(tmp_path / "s")
        store.flush()  # it is open yet
    HotStore.open(tmp_path / "s").close()
    with pytest.raises(HotStoreUnavailableError, match="was closed"):
        held.opened()


def test_damage_that_a_user_meets_is_kept_for_the_lane(tmp_path: Path) -> None:
    """Of the store that is the one; of a former one it is nobody's concern any more."""
    held = HeldStore(tmp_path / "s")
    store = held.opened()
    chunks = chunks_of(0, 1, 1_500)
    with pytest.raises(StoreDamagedError, match="comes after chunk 0"):
        held.write(store, chunks[1:])
    assert isinstance(held.damage(), HotStoreDamagedError)
    held.retire(spoiled=True)
    assert held.damage() is None
    following = held.opened()
    assert following is not store
    assert held.write(following, chunks)
    assert held.write(following, chunks)  # what it has is passed over
    assert read_all(following) == len(chunks)
    with pytest.raises(StoreDamagedError), held.using(following):  # noqa: PT012 - it is let go of meanwhile
        held.retire(spoiled=False)
        raise HotStoreDamagedError(tmp_path, "of the former")
    assert held.damage() is None
    held.close(1)


@pytest.mark.parametrize("spoiled", [False, True])
def test_damage_that_a_question_meets_is_of_the_store_that_it_asked(tmp_path: Path, spoiled: bool) -> None:  # noqa: FBT001
    """Not of the one that was made in its place meanwhile: that would be thrown away too."""
    tier = HotTier(tmp_path / "s", NOWHERE, topic_names("t", "main", "t.input"), 0)
    tier._held.opened()
    owned = OwnedPartitions(lambda: [OwnedLane((0,), {0: 1}, tier)])

    def ask(_: Asker) -> None:
        if spoiled:
            tier._held.retire(spoiled=True)
            tier._held.opened()
        raise ChunkDamagedError(0, 1, "VALUE", "its checksum does not agree")

    with pytest.raises(RebuiltError, match="checksum"):
        owned.ask(ask)
    assert (tier._held.damage() is None) == spoiled
    tier.close()


def test_a_store_that_cannot_be_opened_is_made_anew(tmp_path: Path) -> None:
    """Damage is found when it is opened; a refusal leaves everything as it is."""
    held = HeldStore(tmp_path / "s")
    store = held.opened()
    assert held.write(store, chunks_of(0, 1, 1_500))
    held.close(1)
    (tmp_path / "s" / "FLUSHED").write_bytes(b"?")
    again = HeldStore(tmp_path / "s")
    assert again.opened().partitions() == []
    again.close(1)
    (tmp_path / "file").write_text("not ours")
    refused = HeldStore(tmp_path / "file")
    with pytest.raises(HotStoreUnavailableError):
        refused.opened()
    assert (tmp_path / "file").read_text() == "not ours"
    refused.close(1)


def test_a_store_whose_lines_cannot_be_read_is_made_anew(tmp_path: Path) -> None:
    """At once: an error that somebody keeps, as a reader does for its lane, keeps nothing open."""
    held = HeldStore(tmp_path / "s")
    assert held.write(held.opened(), chunks_of(0, 1, 1_500))
    held.close(1)
    [table] = (tmp_path / "s").rglob("*.sst")
    content = bytearray(table.read_bytes())
    content[content.index(hot_keys.line_key(0, 1)) + 30] ^= 1
    table.write_bytes(content)
    with pytest.raises(HotStoreDamagedError, match="checksum") as kept:
        HotStore.open(tmp_path / "s")
    again = HeldStore(tmp_path / "s")
    assert again.opened().partitions() == []
    assert kept.value.__traceback__ is not None
    again.close(1)


def test_a_store_that_a_full_disk_left_half_made_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once there is room, whoever keeps the error."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    held = HeldStore(tmp_path / "s")
    with monkeypatch.context() as full:
        full.setattr(hot_store, "_replace", refuse)
        with pytest.raises(HotStoreUnavailableError, match="No space left") as kept:
            held.opened()
    assert held.opened().partitions() == []
    assert kept.value.__traceback__ is not None
    held.close(1)


class _EmptyStore:
    """No chunk."""

    def applied(self, _partition: int) -> None:
        """Of none."""


@pytest.mark.parametrize(
    ("damaged", "judged", "stored"),
    [((), 60, 60), ((STORE, 60), 40, 40), ((Judge().name, 60), 40, 60), ((STORE, 40), 60, 60)],
)
def test_a_reader_unpacks_the_newest_snapshots_that_can_be_used(
    damaged: tuple[str, int] | tuple[()], judged: int, stored: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of judge and store of its partition alone; of each an older one where the newer cannot be unpacked."""
    ledger = hashed(Ledger([Row(event("a", f"e{i}", START_MS * 1000)) for i in range(LENGTH)]), 1)
    snapshots, _ = states_of(ledger, 20)
    chosen = [replace(packed, chunks=[b"no frame"]) if key == damaged else packed for key, packed in snapshots.items()]
    loaded: list[tuple[str, int]] = []
    unpack = Packed.unpack

    def noted(packed: Packed) -> bytes:
        loaded.append((packed.fold, packed.index))
        return unpack(packed)

    monkeypatch.setattr(Packed, "unpack", noted)
    monkeypatch.setattr(hot_reader, "read_tail", lambda *_: Tail(Head(LENGTH, LENGTH), LENGTH, START_MS))
    monkeypatch.setattr(hot_reader, "read_snapshots", found_for(chosen))
    monkeypatch.setattr(hot_reader, "first_index", lambda *_: 1)
    monkeypatch.setattr(hot_reader, "entries_between", read_of(ledger))
    names = topic_names("t", "main", "t.input")
    reader = HotReader(HeldStore(tmp_path), threading.Semaphore(), NOWHERE, names, 0, 0, LENGTH)
    index, _, state = reader._resume(cast("Log", None), cast("HotStore", _EmptyStore()))
    assert (index, state.last_index) == (judged, stored)
    tried = [damaged] if damaged and damaged[1] == LENGTH else []
    assert sorted(loaded) == sorted([*tried, (Judge().name, judged), (STORE, stored)])
