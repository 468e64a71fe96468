"""The hot tier on a real broker: what is served is the ledger, or nothing; and the lane never waits for it."""

from __future__ import annotations

import contextlib
import random
import shutil
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest

from lifecycle.chunks import StoreDamagedError
from lifecycle.hot_store import HotStore
from lifecycle.hot_tier import HANDOVER_S, Standing
from lifecycle.store import Store, StoreState
from schemas.canonical import EntryKind
from schemas.clock import SystemTime
from schemas.codec import decode
from streams.folds import Configured, Folds
from streams.judge import Judge
from streams.lane import Lane
from streams.ledger_reader import read_entries, read_tail
from streams.log import Log
from streams.snapshots import read_snapshots
from streams.transactions import Point
from tests.broker.harness import Blow, Ledger, Load, Worker, wait_for
from tests.broker.ledgers import begin, event, names_of, produce, sequence
from tests.core.test_store import plain_row, stored_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from lifecycle.chunks import Header, Rows
    from lifecycle.hot_tier import HotTier
    from lifecycle.store import Sealed
    from schemas.columns import Entries
    from streams.judge import Outputs
    from streams.lane_part import Part
    from streams.settings import Settings

    #: Columns of rows.
    Table = list[np.ndarray[Any, Any]]

time = SystemTime()
LEVEL_TIMEOUT_S = 60
#: Two chunks and a piece of the third.
ROWS = 20_000


class Piece(NamedTuple):
    """Rows of a chunk, or of none yet, and what their codes mean."""

    rows: Rows
    sources: tuple[bytes, ...]
    kinds: tuple[bytes, ...]


def send(settings: Settings, count: int, partition: int = 0) -> None:
    """Events of a few sources, each with a payload, a duplicate and a poisoned record now and then."""
    rng = random.Random(time.now_us())
    values = [
        rng.randbytes(9)
        if number % 997 == 0
        else event(
            f"s{rng.randrange(9)}", f"e{number - (number % 101 == 0)}", time.now_us(), rng.random(), rng.randbytes(60)
        )
        for number in range(count)
    ]
    produce(settings, names_of(settings).input, ((None, value, []) for value in values), partition)


def judged(settings: Settings, partition: int = 0) -> Iterator[tuple[Entries, Outputs, list[int]]]:
    """The ledger with what judge makes of it, and which of its entries are rows."""
    assert settings.bootstrap is not None
    judge, topic = Judge(), names_of(settings).sequenced
    state = judge.new_state(partition)
    with closing(Log(settings.bootstrap)) as log:
        tail = read_tail(log, topic, partition)
    assert tail is not None
    for batch in read_entries(settings.bootstrap, topic, partition, 0, tail.offset + 1):
        rows = np.flatnonzero(batch.entries.kind == EntryKind.DATA).tolist()
        yield batch.entries, judge.step(state, batch.entries), rows


def expected(settings: Settings, partition: int = 0) -> Table:
    """The rows that the ledger makes, as numbers and hashes."""
    parts = [
        [
            *(getattr(entries, name)[rows] for name in ("sequence", "index", "input_offset", "authority_ms")),
            *(getattr(outputs.verdicts, name)[rows] for name in ("severity", "flags", "fault")),
            entries.chain_hash[rows].view("S32")[:, 0],
            *(getattr(outputs.verdicts, name)[rows] for name in ("cause", "offset_us", "bound_us")),
        ]
        for entries, outputs, rows in judged(settings, partition)
    ]
    return [np.concatenate(columns) for columns in zip(*parts, strict=True)]


def table_of(pieces: list[Piece]) -> Table:
    """The same of what is stored."""
    if not pieces:
        return [np.zeros(0) for _ in range(11)]
    parts = [
        [
            *(rows.sequence, rows.index, rows.input_offset, rows.authority_ms),
            *(rows.severity, rows.flags, rows.fault, rows.chain_hash.view("S32")[:, 0]),
            *(rows.cause, rows.offset_us, rows.bound_us),
        ]
        for rows, _, _ in pieces
    ]
    return [np.concatenate(columns) for columns in zip(*parts, strict=True)]


def check_begin(found: Table, rows: Table) -> int:
    """That what was found is how the rows begin; returns how many were found."""
    count = found[0].size
    assert count <= rows[0].size
    assert all(np.array_equal(here, there[:count]) for here, there in zip(found, rows, strict=True))
    return int(count)


def chunks_in(store: HotStore, headers: list[Header]) -> list[Piece]:
    """Their rows."""
    return [Piece(store.rows(header), header.sources, header.kinds) for header in headers]


def stored(hot: HotTier, partition: int = 0) -> list[Piece]:
    """What a query sees: unsealed rows first, then the chunks before them."""
    unsealed = hot.unsealed(partition)
    with hot.reading() as store:
        assert store is not None
        headers = store.headers(partition)
        if unsealed is not None:
            headers = [header for header in headers if header.last_index <= unsealed.before_index]
        found = chunks_in(store, headers)
    return [*found, *([] if unsealed is None else [Piece(*unsealed[:3])])]


def on_disk(folder: Path, partition: int = 0) -> Table:
    """What a worker that is gone has left in chunks."""
    store = HotStore.open_read_only(folder)
    try:
        return table_of(chunks_in(store, store.headers(partition)))
    finally:
        store.close()


def check_rows(hot: HotTier, settings: Settings, partition: int = 0) -> int:
    """Every column of every row, row by row; returns how many there are."""
    wanted = [
        plain_row(entries, outputs, row) for entries, outputs, rows in judged(settings, partition) for row in rows
    ]
    assert [row["sequence"] for row in wanted] == list(range(1, len(wanted) + 1))
    assert [row for piece in stored(hot, partition) for row in stored_rows(*piece)] == wanted
    return len(wanted)


@dataclass
class Hot:
    """A lane with a hot tier, driven by the test. settled: seconds of each settle."""

    settings: Settings
    folder: Path
    lane: Lane
    settled: list[float] = field(default_factory=list)

    @property
    def tier(self) -> HotTier:
        """Its hot tier."""
        assert self.lane.hot is not None
        return self.lane.hot

    def is_level(self) -> bool:
        """All partitions."""
        return all(place.standing is Standing.LEVEL for place in self.tier.places().values())

    def is_done(self) -> bool:
        """The input and the control topic stand in the ledger."""
        assert self.settings.bootstrap is not None
        names, parts = names_of(self.settings), self.lane.parts
        with closing(Log(self.settings.bootstrap)) as log:
            inputs, controls = log.ends(names.input, parts), log.ends(names.control, parts)
        return all(
            part.head.input_offset + 1 >= inputs[p] and part.head.control_offset + 1 >= controls[p]
            for p, part in parts.items()
        )

    def turn(self) -> None:
        """One batch."""
        self.lane.commit(self.lane.fetch())

    def until(self, predicate: Callable[[], Any], what: str, timeout_s: float = LEVEL_TIMEOUT_S) -> None:
        """Go on until then."""
        deadline_ns = time.monotonic_ns() + int(timeout_s * 1e9)
        while not predicate():
            assert time.monotonic_ns() < deadline_ns, f"not within {timeout_s} s: {what}; {self.tier.places()}"
            self.turn()

    def check(self) -> None:
        """Level, and equal to the ledger."""
        self.until(self.is_done, "the input is sequenced")
        self.until(self.is_level, "level")
        for partition in self.lane.parts:
            rows = expected(self.settings, partition)
            assert check_begin(table_of(stored(self.tier, partition)), rows) == rows[0].size


@contextlib.contextmanager
def running(settings: Settings, folder: Path) -> Iterator[Hot]:
    """The one lane of a ledger, open."""
    assert settings.bootstrap is not None
    configured = Configured(settings.judge(), settings.windows, Folds(Judge()))
    lane = Lane(
        settings, settings.bootstrap, names_of(settings), 0, range(settings.partitions), configured, worker="test",
        hot_folder=folder,
    )  # fmt: skip
    hot = Hot(settings, folder / f"{settings.prefix}.{settings.ledger}" / "lane-0", lane)
    try:
        lane.open()
        settle = hot.tier.settle

        def timed(heads: Any) -> None:
            begun_ns = time.monotonic_ns()
            settle(heads)
            hot.settled.append((time.monotonic_ns() - begun_ns) / 1e9)

        hot.tier.settle = timed  # type: ignore[method-assign]
        yield hot
    finally:
        lane.close()


# -------------------------------------------------------------------------------------------------------------- damage


def flip(file: Path) -> None:
    """Change a byte in each 256."""
    with file.open("r+b") as handle:
        content = bytearray(handle.read())
        for at in range(7, len(content), 256):
            content[at] ^= 0x5A
        handle.seek(0)
        handle.write(content)


def spoil(folder: Path, kind: str) -> None:
    """Of a store that nobody has open: lost, or files of a kind damaged or lost."""
    if kind == "folder":
        shutil.rmtree(folder)
        return
    name, _, way = kind.partition(" ")
    files = [file for file in folder.rglob("*") if name in file.name and file.is_file()]
    assert files, kind
    for file in files:
        if way == "lost":
            file.unlink()
        else:
            flip(file)


def test_a_store_damaged_between_two_runs_is_rebuilt(kafka: Any, prefix: str, tmp_path: Path) -> None:
    """Whatever was damaged or lost, what is served afterwards is the ledger, and nothing is left behind."""
    settings = begin(kafka, prefix, snapshot_entries=6_000)
    send(settings, ROWS)
    with running(settings, tmp_path) as hot:
        assert [place.standing for place in hot.tier.places().values()] == [Standing.BEHIND]
        hot.check()
    for kind in ("folder", ".sst", ".blob", "MANIFEST", "CURRENT", ".sst lost"):
        with running(settings, tmp_path) as hot:
            hot.check()
            hot.tier.flush()
        spoil(hot.folder, kind)
        send(settings, 300)
    with running(settings, tmp_path) as hot:
        hot.check()
        with hot.tier.reading() as store:
            assert store is not None
            assert sum(header.rows for header in store.headers(0)) == 16_384
    assert [file.name for file in hot.folder.parent.iterdir()] == ["lane-0"]
    assert on_disk(hot.folder)[0].size == 16_384


def test_a_store_damaged_under_a_running_lane_is_rebuilt(kafka: Any, prefix: str, tmp_path: Path) -> None:
    """It is noticed when it is read; who reads is told, and the lane goes on."""
    settings = begin(kafka, prefix)
    send(settings, 9_000)
    with running(settings, tmp_path) as hot:
        hot.check()
        hot.tier.flush()
        with hot.tier.reading() as before:
            assert before is not None
        spoil(hot.folder, ".blob")
        with pytest.raises(StoreDamagedError, match="not served"):
            stored(hot.tier)
        send(settings, 500)
        hot.check()
        with hot.tier.reading() as after:
            assert after is not before
        assert hot.tier.places()[0].error is None
        assert max(hot.settled) < HANDOVER_S + 0.3


def test_a_query_that_goes_on_reading_does_not_keep_the_lane(kafka: Any, prefix: str, tmp_path: Path) -> None:
    """The next store is opened when it is through; the one that it reads stays open."""
    settings = begin(kafka, prefix)
    send(settings, 9_000)
    with running(settings, tmp_path) as hot:
        hot.check()
        hot.tier.flush()
        with hot.tier.reading() as store:
            assert store is not None
            rows = table_of(chunks_in(store, store.headers(0)))
            flip(next(hot.folder.rglob("*.blob")))
            with pytest.raises(StoreDamagedError):
                stored(hot.tier)
            send(settings, 100)
            hot.until(hot.is_done, "the input is sequenced")
            for _ in range(5):
                hot.turn()
            assert hot.tier.places()[0].standing is Standing.BEHIND
            with hot.tier.reading() as other:
                assert other is None
            assert [line.first_sequence for line in store.lines(0)] == [1]
        hot.check()
        check_begin(rows, table_of(stored(hot.tier)))
        assert max(hot.settled) < HANDOVER_S + 0.3


@pytest.mark.parametrize("other", [0, 9_000, pytest.param(30_000, marks=pytest.mark.soak)])
def test_a_store_of_another_ledger_is_not_served(kafka: Any, prefix: str, tmp_path: Path, other: int) -> None:
    """As after its topics were made anew: the ledger is empty now, shorter, or longer."""
    former, settings = begin(kafka, prefix), begin(kafka, f"{prefix}-new")
    send(former, 10_000)
    with running(former, tmp_path) as hot:
        hot.check()
        stale = hot.folder
    if other:
        send(settings, other)
        sequence(settings)
    with running(settings, tmp_path / "none") as calm:
        target = tmp_path / calm.folder.relative_to(tmp_path / "none")
    target.parent.mkdir()
    stale.rename(target)
    with running(settings, tmp_path) as hot:
        seen = []
        while not hot.is_level():
            hot.turn()
            with hot.tier.reading() as store:
                seen.append(0 if store is None else len(store.lines(0)))
        assert set(seen) <= set(range(other // 8_192 + 1))
        send(settings, 200)
        hot.check()


# ----------------------------------------------------------------------------------------------------------- snapshots


def snapshots_of(settings: Settings) -> list[tuple[str, int]]:
    """Fold and index, newest first."""
    assert settings.bootstrap is not None
    with closing(Log(settings.bootstrap)) as log:
        found = read_snapshots(log, names_of(settings).snapshots, 0)
    return [(snapshot.fold, snapshot.index) for snapshot in found]


def forget(settings: Settings, fold: str, newest: int) -> None:
    """Remove so many of a fold's snapshots, newest first."""
    assert settings.bootstrap is not None
    topic, heads = names_of(settings).snapshots, {}
    with closing(Log(settings.bootstrap)) as log:
        bounds = log.bounds(topic, 0)
        for message in log.scan(topic, 0, bounds.start, bounds.stable_end):
            key = message.key() or b""
            if key.startswith(f"{fold}/".encode()) and key.endswith(b"/head"):
                value = message.value()
                heads[key] = -1 if value is None else decode("SnapshotHead", value)["index"]
    keys = sorted(heads, key=heads.__getitem__, reverse=True)[:newest]
    assert all(heads[key] >= 0 for key in keys)
    produce(settings, topic, [(key, None, []) for key in keys])


#: What is removed: snapshots by fold, newest first; and which folder is found.
LEFT: list[tuple[dict[str, int], str]] = [
    ({"judge": 1}, "same"),
    ({"judge": 1}, "earlier"),
    ({"store": 2}, "same"),
    ({"judge": 2, "derive": 2}, "same"),
    ({"store": 1}, "same"),
    ({"store": 2, "judge": 2, "derive": 2}, "none"),
]


def _snapshot_of_all(settings: Settings, part: Part) -> bool:
    """Whether the last snapshot has the store.

    One that is due is offered with a commit, and only when the one before is written: so something has to come.
    """
    send(settings, 1)
    return ("store", part.snapshot_index) in snapshots_of(settings)


@pytest.mark.parametrize("cases", [LEFT[:2], pytest.param(LEFT[2:], marks=pytest.mark.soak)])
def test_a_lane_becomes_level_from_whatever_is_left(
    kafka: Any, prefix: str, tmp_path: Path, cases: list[tuple[dict[str, int], str]]
) -> None:
    """Snapshots of judge without the store's, the reverse, judge's older than the store's, a store from before."""
    settings = begin(kafka, prefix, snapshot_entries=1_000, batch_events_max=500)
    send(settings, 9_000)
    with running(settings, tmp_path) as hot:
        hot.check()
    shutil.copytree(hot.folder, tmp_path / "earlier")
    send(settings, 8_000)
    for number, (forgotten, folder) in enumerate(cases):
        with running(settings, tmp_path) as hot:
            hot.until(hot.is_level, "level")
            for _ in range(2):
                send(settings, 1_100)
                hot.until(hot.is_done, "the input is sequenced")
                hot.until(partial(_snapshot_of_all, settings, hot.lane.parts[0]), "a snapshot")
        for fold, newest in forgotten.items():
            forget(settings, fold, newest)
        if folder != "same":
            shutil.rmtree(hot.folder)
        if folder == "earlier":
            shutil.copytree(tmp_path / "earlier", hot.folder)
        send(settings, 100)
        with running(settings, tmp_path) as hot:
            hot.check()
            assert hot.tier.places()[0].error is None, number


# ------------------------------------------------------------------------------------------------------------ refusals


def test_a_disk_that_refuses_is_tried_again(kafka: Any, prefix: str, tmp_path: Path) -> None:
    """A file where the folder should be: the lane goes on without, says why, and is level after it is gone."""
    settings = begin(kafka, prefix)
    send(settings, 9_000)
    (tmp_path / f"{settings.prefix}.{settings.ledger}").write_text("not ours")
    with running(settings, tmp_path) as hot:
        hot.until(hot.is_done, "the input is sequenced")
        hot.until(lambda: hot.tier.places()[0].standing is Standing.UNAVAILABLE, "it is refused")
        told = hot.tier.places()[0].error
        assert told is not None
        assert "Not a directory" in told
        with hot.tier.reading() as store:
            assert store is None
        assert hot.tier.unsealed(0) is None
        assert hot.tier.dumps() == {}
        (tmp_path / f"{settings.prefix}.{settings.ledger}").unlink()
        hot.check()
        assert hot.tier.places()[0].error is None


class Broken(Store):
    """Known bad: dies of a defect at every step, as long as it says so."""

    broken = True

    def step(self, state: StoreState, entries: Entries, outputs: Outputs) -> list[Sealed]:
        """See the class."""
        if Broken.broken:
            raise IndexError("a defect")
        return Store.step(self, state, entries, outputs)


def test_a_defect_of_the_store_does_not_reach_the_lane(
    kafka: Any, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither in the lane's step nor in a reader: it is told, and tried again."""
    settings = begin(kafka, prefix)
    send(settings, 1_000)
    with running(settings, tmp_path) as hot:
        hot.check()
        vars(hot.tier)["_fold"] = Broken()
        send(settings, 100)
        hot.until(hot.is_done, "the input is sequenced")
        assert hot.tier.places()[0] == (Standing.UNAVAILABLE, 0, "IndexError('a defect')")
        vars(hot.tier)["_fold"] = Store()
        monkeypatch.setattr("lifecycle.hot_reader.Store", Broken)
        hot.until(lambda: hot.tier.places()[0].standing is Standing.BEHIND, "it is tried again")
        hot.until(lambda: hot.tier.places()[0].standing is Standing.UNAVAILABLE, "the reader dies")
        monkeypatch.setattr(Broken, "broken", False)
        hot.check()


# ------------------------------------------------------------------------------------------------------------- behind


def catch_up(kafka: Any, prefix: str, tmp_path: Path, behind: int, meanwhile: int) -> Hot:
    """A store that is so much behind comes level while the lane takes more; in pieces, so that it always has some."""
    settings = begin(kafka, prefix, batch_events_max=500)
    send(settings, behind)
    sequence(settings)
    send(settings, meanwhile)
    with running(settings, tmp_path) as hot:
        hot.until(hot.is_done, "the input is sequenced", 600)
        sequenced = len(hot.settled)
        hot.until(hot.is_level, "level", 600)
        assert sequenced >= meanwhile / 500
        assert sum(seconds > HANDOVER_S / 2 for seconds in hot.settled) <= 1 + sum(hot.settled) / 10
        assert max(hot.settled) < HANDOVER_S + 0.3
        send(settings, 100)
        hot.check()
    return hot


def test_a_store_that_is_behind_catches_up_beside_the_lane(kafka: Any, prefix: str, tmp_path: Path) -> None:
    """The lane waits for it at most once, and not for longer than HANDOVER_S."""
    catch_up(kafka, prefix, tmp_path, 30_000, 20_000)


@pytest.mark.soak
def test_a_store_a_million_entries_behind_catches_up_beside_the_lane(kafka: Any, prefix: str, tmp_path: Path) -> None:
    """The same over a million entries."""
    catch_up(kafka, prefix, tmp_path, 1_000_000, 200_000)


def test_rows_are_seen_while_a_store_is_behind(kafka: Any, prefix: str, tmp_path: Path) -> None:
    """Those that were read so far, each once, up to the index that is told."""
    settings = begin(kafka, prefix)
    send(settings, ROWS)
    sequence(settings)
    rows = expected(settings)
    with running(settings, tmp_path) as hot:
        places = []
        while not hot.is_level():
            hot.turn()
            [place] = hot.tier.places().values()
            with hot.tier.reading() as store:
                served = store is not None
            if served:
                found = check_begin(table_of(stored(hot.tier)), rows)
                assert found >= (rows[1] <= place.index).sum()
                places.append(found)
        assert places == sorted(places)
        assert check_rows(hot.tier, settings) == ROWS


# ------------------------------------------------------------------------------------------------------------- workers


def level_in(worker: Worker, partitions: int) -> None:
    """Wait until so many partitions came level in a worker."""
    wait_for(lambda: worker.output.count("hot_tier_level") >= partitions, f"level:\n{worker.output[-3000:]}")


def kill_over_and_over(kafka: Any, prefix: str, tmp_path: Path, kills: int, events: int) -> None:
    """Workers killed at named points and at random; what each leaves is right, and what the last serves is whole."""
    options = {"partitions": 2, "lanes": 1, "batch_events_max": 300, "snapshot_entries": 4_000}
    ledger = Ledger(kafka.bootstrap, prefix, tmp_path, options).create()
    load, rng = Load(ledger), random.Random(kills)
    slot = tmp_path / "hot" / "0"
    folder = slot / f"{prefix}.{ledger.settings.ledger}" / "lane-0"
    points = [Point.COMMITTED, Point.COMMITTING, Point.PRODUCED, Point.BEGUN, Point.HALF_PRODUCED]
    left: list[dict[int, Table]] = []
    for number in range(kills):
        load.send(events // kills)
        load.flush()
        delay_us = rng.randrange(400_000) if number % 2 else None
        with ledger.worker(Blow(points[number % len(points)], rng.randint(2, 30), delay_us=delay_us)) as worker:
            worker.wait_killed()
        with contextlib.suppress(Exception):  # killed before there was one
            left.append({partition: on_disk(folder, partition) for partition in ledger.partitions})
    with ledger.worker() as worker:
        ledger.wait_level(worker)
        level_in(worker, 2)
        worker.stop()
    settings = ledger.settings
    rows = {partition: expected(settings, partition) for partition in ledger.partitions}
    for each in left:
        for partition, found in each.items():
            check_begin(found, rows[partition])
    with running(settings, slot) as hot:
        hot.check()
        assert sum(check_rows(hot.tier, settings, partition) for partition in ledger.partitions) == events


def test_what_killed_workers_leave_is_the_ledger(kafka: Any, prefix: str, tmp_path: Path) -> None:
    """Two kills."""
    kill_over_and_over(kafka, prefix, tmp_path, 2, 24_000)


@pytest.mark.soak
def test_what_many_killed_workers_leave_is_the_ledger(kafka: Any, prefix: str, tmp_path: Path) -> None:
    """Twenty-five kills."""
    kill_over_and_over(kafka, prefix, tmp_path, 25, 250_000)


def test_two_workers_on_one_directory_have_a_slot_each(kafka: Any, prefix: str, tmp_path: Path) -> None:
    """A lane that moves is level again where it comes to; who comes after a killed worker takes its slot."""
    options = {"partitions": 2, "lanes": 2, "heartbeat_interval_ms": 0}
    ledger = Ledger(kafka.bootstrap, prefix, tmp_path, options).create()
    load = Load(ledger)
    load.send(4_000)
    load.flush()
    with ledger.worker() as first:
        first.wait_live(2)
        level_in(first, 2)
        with ledger.worker() as second:
            second.wait_live(1)
            level_in(second, 1)
            assert sorted(file.name for file in (tmp_path / "hot").iterdir()) == ["0", "1"]
            assert len(list((tmp_path / "hot" / "1").glob("*/lane-*"))) == 1
            first.process.kill()
            first.process.wait()
            level_in(second, 2)
            with ledger.worker() as third:
                load.send(2_000)
                load.flush()
                third.wait_live(1)
                level_in(third, 1)
                assert sorted(file.name for file in (tmp_path / "hot").iterdir()) == ["0", "1"]
                ledger.wait_level(third)
                third.stop()
            level_in(second, 3)
            second.stop()
