"""Snapshots on a real broker: written, read back, and passed over where they are not what they say."""

from __future__ import annotations

import random
import re
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from schemas.clock import SystemTime
from schemas.codec import decode, encode
from streams import snapshots
from streams.ledger_reader import read_tail
from streams.log import Log
from streams.restore import entries_between, restore
from streams.snapshots import CHUNK_BYTES, Offered, Snapshot, SnapshotWriter, read_snapshots
from tests.broker.harness import Ledger, wait_for
from tests.broker.ledgers import (
    DERIVE,
    JUDGE,
    Message,
    Noted,
    begin,
    event,
    lane_of,
    names_of,
    produce,
    records,
    sequence,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from schemas.columns import Entries
    from streams.lane import Lane
    from streams.settings import Settings

    #: What stands under the keys of a lane's partition.
    Slots = dict[str, bytes]
    #: What somebody writes there to spoil the slot of that prefix.
    Fault = Callable[[str, Slots], list[tuple[str, bytes | None]]]

EVENTS = 300
OLDER, NEWER = 100, 201


def test_the_two_newest_snapshots_are_read_back(kafka: Any, prefix: str, tmp_path: Path) -> None:
    """Of several chunks; the third has taken the place of the first."""
    ledger = Ledger(kafka.bootstrap, prefix, tmp_path).create()
    state = random.Random(1).randbytes(3 * CHUNK_BYTES + 1)
    written = [Snapshot("judge", 1, 1, index, bytes(32), state) for index in (7, 8, 9)]
    writer = SnapshotWriter(kafka.bootstrap, ledger.names.snapshots, 1)
    for snapshot in written:
        offered = Offered([replace(snapshot, state=state + bytes([snapshot.index]))])
        wait_for(lambda offered=offered: writer.offer(lambda: offered), "it is its turn")
    writer.close()
    with ledger.log() as log:
        found = read_snapshots(log, ledger.names.snapshots, 1)
    assert [(snapshot.index, snapshot.unpack() == state + bytes([snapshot.index])) for snapshot in found] == [
        (9, True),
        (8, True),
    ]


@dataclass(frozen=True)
class Written:
    """A ledger of one partition, and what judge makes of it: its dump by index."""

    settings: Settings
    dumps: dict[int, bytes]
    chain: dict[int, bytes]

    def read(self, first: int, last: int) -> Iterator[Entries]:
        """As a lane reads it."""
        assert self.settings.bootstrap is not None
        topic = names_of(self.settings).sequenced
        with closing(Log(self.settings.bootstrap)) as log:
            tail = read_tail(log, topic, 0)
            assert tail is not None
            yield from entries_between(log, self.settings.bootstrap, topic, 0, tail, first, last)

    @property
    def end(self) -> int:
        """The last index."""
        return max(self.dumps)

    def snapshot(self, index: int) -> Snapshot:
        """The true one."""
        return Snapshot(JUDGE.name, JUDGE.version, 0, index, self.chain[index], self.dumps[index])


@pytest.fixture(scope="module")
def written(kafka: Any) -> Written:
    """Two sources, one of them a minute fast: there is an alert in the state."""
    settings = begin(
        kafka, f"snapshots-{SystemTime().now_us():x}", batch_events_max=50, snapshot_interval_ms=86_400_000
    )
    now_us = SystemTime().now_us()
    events: list[Message] = [
        (None, event(f"pump-{n % 2}", f"e{n}", now_us + n % 2 * 60_000_000), []) for n in range(EVENTS)
    ]
    produce(settings, settings.input_topic, events)
    sequence(settings)
    chain = {entry["index"]: entry["chain_hash"] for _, entry in records(settings)}
    found = Written(settings, {max(chain): b""}, chain)
    for index in (OLDER, NEWER, found.end):
        found.dumps[index] = JUDGE.dump(restore(JUDGE, 0, [], index, found.read))
    return found


@pytest.fixture(scope="module")
def elsewhere(kafka: Any) -> str:
    """A snapshots topic with a partition for each case."""
    settings = begin(kafka, f"slots-{SystemTime().now_us():x}", partitions=len(FAULTS), lanes=len(FAULTS))
    return names_of(settings).snapshots


def write(bootstrap: str, topic: str, lane: int, taken: list[Snapshot]) -> None:
    """One after the other, in turn in the two slots."""
    writer = SnapshotWriter(bootstrap, topic, lane)
    wait_for(lambda: writer.offer(lambda: Offered(taken)), "it is its turn")
    writer.close()


def slots(bootstrap: str, topic: str, lane: int) -> Slots:
    """What stands there now."""
    with closing(Log(bootstrap)) as log:
        bounds = log.bounds(topic, lane)
        found = log.scan(topic, lane, bounds.start, bounds.stable_end)
        return {(message.key() or b"").decode(): message.value() or b"" for message in found}


def chunk_missing(slot: str, _written: Slots) -> list[tuple[str, bytes | None]]:
    """As if it had never been written."""
    return [(f"{slot}/1", None)]


def chunk_newer(slot: str, written: Slots) -> list[tuple[str, bytes | None]]:
    """A writer died half way through the next one."""
    return [(f"{slot}/0", written[f"{slot}/0"])]


def byte_flipped(slot: str, written: Slots) -> list[tuple[str, bytes | None]]:
    """In the middle of the state."""
    chunk = bytearray(written[f"{slot}/1"])
    chunk[len(chunk) // 2] ^= 1
    return [(f"{slot}/1", bytes(chunk)), (f"{slot}/head", written[f"{slot}/head"])]


def head_unreadable(slot: str, _written: Slots) -> list[tuple[str, bytes | None]]:
    """Not one of ours."""
    return [(f"{slot}/head", b"no head")]


def head_with(slot: str, written: Slots, **changes: Any) -> list[tuple[str, bytes | None]]:
    """A head that says something else of the same state."""
    head = decode("SnapshotHead", written[f"{slot}/head"])
    return [(f"{slot}/head", encode("SnapshotHead", {**head, **changes}))]


#: With what the log says of it; nothing where a snapshot is whole, and somebody else's.
FAULTS: list[tuple[Fault, str | None]] = [
    (chunk_missing, "chunk 1 of [0-9]+ is missing"),
    (chunk_newer, "chunk 0 is newer than the head"),
    (byte_flipped, "its chunks are damaged"),
    (head_unreadable, "its head cannot be read"),
    (partial(head_with, chunks=2**31 - 1), "is missing"),
    (partial(head_with, length=7), "length or hash differ"),
    (partial(head_with, state_hash=bytes(32)), "length or hash differ"),
    (partial(head_with, chain_hash=bytes(32)), "of another ledger"),
    (partial(head_with, version=2), None),
    (partial(head_with, index=EVENTS + 1_000), None),
    (partial(head_with, partition=1), None),
    (partial(head_with, fold="other"), None),
]


def restored(written: Written, topic: str, lane: int) -> tuple[int, bytes, list[str]]:
    """The first index that was folded anew, the state at the end, and why snapshots were passed over."""
    assert written.settings.bootstrap is not None
    judge = Noted()
    with closing(Log(written.settings.bootstrap)) as log, capture_logs() as lines:
        found = read_snapshots(log, topic, lane)
        state = restore(judge, 0, found, written.end, written.read)
    assert {line["event"] for line in lines} <= {"snapshot_unusable"}
    return judge.first[0], judge.dump(state), [line["reason"] for line in lines]


@pytest.mark.parametrize("number", range(len(FAULTS)))
def test_what_is_no_whole_snapshot_of_ours_is_as_if_absent(
    written: Written, elsewhere: str, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The older one takes its place, and then GENESIS; the state is the same, and the log says why."""
    monkeypatch.setattr(snapshots, "CHUNK_BYTES", 200)
    fault, reason = FAULTS[number]
    bootstrap = written.settings.bootstrap
    assert bootstrap is not None
    write(bootstrap, elsewhere, number, [written.snapshot(OLDER), written.snapshot(NEWER)])
    assert restored(written, elsewhere, number) == (NEWER + 1, written.dumps[written.end], [])
    for spoilt, (index, begins) in enumerate(((NEWER, OLDER + 1), (OLDER, 1)), start=1):
        changes = fault(f"judge/0/{index % 2}", slots(bootstrap, elsewhere, number))
        produce(written.settings, elsewhere, [(key.encode(), value, []) for key, value in changes], number)
        first, dump, reasons = restored(written, elsewhere, number)
        assert (first, dump) == (begins, written.dumps[written.end])
        assert len(reasons) == (spoilt if reason else 0)
        assert all(re.search(reason or "", said) for said in reasons)


def test_a_lane_whose_snapshots_are_all_damaged_begins_with_genesis(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So does one on a topic where somebody else wrote; it says so, and comes to the same state."""
    monkeypatch.setattr(snapshots, "CHUNK_BYTES", 200)
    settings, topic = written.settings, names_of(written.settings).snapshots
    assert settings.bootstrap is not None
    write(settings.bootstrap, topic, 0, [written.snapshot(OLDER), written.snapshot(NEWER)])
    whole = slots(settings.bootstrap, topic, 0)
    foreign: list[Message] = [(b"\xff/head", b"?", []), (b"\xff", b"?", []), (b"judge/0/0/1", b"", [])]
    flipped: list[Message] = [(key.encode(), value, []) for key, value in byte_flipped("judge/0/1", whole)]
    produce(settings, topic, [*flipped, *foreign])
    with closing(lane_of(settings, 0, judge := Noted())) as lane, capture_logs() as lines:
        lane.open()
        states = lane.parts[0].states
    assert states is not None
    assert (judge.loaded, judge.first) == (set(), {0: 1})
    assert judge.dump(states.judge) == written.dumps[written.end]
    unusable = [line for line in lines if line["event"] == "snapshot_unusable"]
    assert {line["slot"] for line in unusable} == {"judge/0/0", "judge/0/1", "\ufffd"}
    assert all(line["log_level"] == "warning" and line["reason"] for line in unusable)


def heads_of(settings: Settings) -> list[str]:
    """Slot of each snapshot that was written, in order."""
    assert settings.bootstrap is not None
    topic = names_of(settings).snapshots
    with closing(Log(settings.bootstrap)) as log:
        bounds = log.bounds(topic, 0)
        keys = [(message.key() or b"").decode() for message in log.scan(topic, 0, bounds.start, bounds.stable_end)]
    return [key.removesuffix("/head") for key in keys if key.endswith("/head")]


def indexes_of(settings: Settings) -> dict[tuple[str, int], list[int]]:
    """Index of each whole snapshot, newest first, by fold and partition."""
    assert settings.bootstrap is not None
    found: dict[tuple[str, int], list[int]] = {}
    with closing(Log(settings.bootstrap)) as log:
        for packed in read_snapshots(log, names_of(settings).snapshots, 0):
            assert packed.is_whole()
            found.setdefault((packed.fold, packed.partition), []).append(packed.index)
    return found


def take(settings: Settings, lane: Lane, partition: int, events: int) -> None:
    """Have the lane commit so many events of one partition."""
    now_us, head = SystemTime().now_us(), lane.parts[partition].head
    messages: list[Message] = [(None, event("pump", f"{head.index}-{n}", now_us), []) for n in range(events)]
    produce(settings, settings.input_topic, messages, partition)

    def level() -> bool:
        lane.commit(lane.fetch())
        return lane.parts[partition].head.sequence == head.sequence + events

    wait_for(level, "the lane has taken them")


def test_a_lane_writes_no_snapshot_that_is_there_already(kafka: Any, prefix: str) -> None:
    """Of what was restored from one; but of a fold that was not, and then in the other slot than the newest whole."""
    settings = begin(
        kafka, prefix, partitions=2, lanes=1, batch_events_max=50, snapshot_entries=50, snapshot_interval_ms=86_400_000
    )
    assert settings.bootstrap is not None
    topic = names_of(settings).snapshots
    with closing(lane_of(settings, 0)) as lane:
        lane.open()
        for partition in (0, 1):
            take(settings, lane, partition, 200)
        taken = []
        for part in lane.parts.values():
            assert part.states is not None
            for fold, state in ((JUDGE, JUDGE.dump(part.states.judge)), (DERIVE, DERIVE.dump(part.states.derive))):
                head = part.head
                taken.append(Snapshot(fold.name, fold.version, part.number, head.index, head.chain_hash, state))
    with closing(Log(settings.bootstrap)) as log:
        held = read_snapshots(log, topic, 0)
    writer = SnapshotWriter(settings.bootstrap, topic, 0, held)
    wait_for(lambda: writer.offer(lambda: Offered(taken)), "it is its turn")
    writer.close()

    before, whole = heads_of(settings), indexes_of(settings)
    with closing(lane_of(settings, 0)) as lane:
        lane.open()
        assert all(part.snapshot_index == part.head.index for part in lane.parts.values())
        take(settings, lane, 0, 1)
    assert heads_of(settings) == before

    lost = [slot for slot in set(before) if slot.startswith("derive/1/")]
    produce(settings, topic, [(f"{slot}/head".encode(), None, []) for slot in lost])
    with closing(lane_of(settings, 0)) as lane:
        lane.open()
        assert [part.snapshot_index for part in lane.parts.values()] == [max(whole["judge", 0]), 0]
        take(settings, lane, 0, 1)
    written = heads_of(settings)[len(before) + len(lost) :]
    assert {slot.rpartition("/")[0] for slot in written} == {"judge/0", "derive/0", "judge/1", "derive/1"}
    for place, indexes in indexes_of(settings).items():
        assert len(indexes) == 1 + (place != ("derive", 1))
        assert place == ("derive", 1) or indexes[1] == max(whole[place])
    for _ in range(2):  # an even number of entries: the index does not say whose turn it is
        newest = indexes_of(settings)["judge", 0][0]
        with closing(lane_of(settings, 0)) as lane:
            lane.open()
            take(settings, lane, 0, 50)
        assert indexes_of(settings)["judge", 0] == [newest + 50, newest]
