"""A judge that is behind its ledger, and one of a new version: nothing is said twice and nothing is left out."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from schemas.errors import HaltCode, HaltError
from streams import restore
from streams.control import encode_control, read_control
from streams.fold_progress import FoldProgress
from streams.progress import lift_halt, read_lane, record_halt
from streams.snapshots import Offered, Snapshot, SnapshotWriter
from streams.transactions import Point
from tests.broker.harness import (
    POLL_BROKER_S,
    QUICK,
    Blow,
    Ledger,
    Load,
    check_exactly_once,
    read_ledger,
    refold,
    wait_for,
)
from tests.broker.ledgers import JUDGE, Noted, lane_of, records, sequence

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from streams.judge import Judge

#: One lane of two partitions, with a snapshot behind nearly every transaction.
OPTIONS = {
    "partitions": 2,
    "lanes": 1,
    "batch_events_max": 500,
    "confirm_events": 2,
    "heartbeat_interval_ms": 0,
    "snapshot_interval_ms": 0,
    "windows": QUICK,
}
#: Entries of one transaction of a judge that catches up, here.
CAUGHT_UP_AT_ONCE = 300


class DiedError(Exception):
    """A lane that goes no further."""


def run(ledger: Ledger, load: Load, events: int, judge: Judge | None) -> None:
    """A lane with that judge, or with none, takes so many more events."""
    load.send(events)
    load.flush()
    sequence(ledger.settings, judge)


def progress_of(ledger: Ledger) -> FoldProgress:
    """The judge's, as it stands on the topic."""
    with ledger.log() as log:
        return read_lane(log, ledger.names.progress, 0).folds[JUDGE.name]


def tails(ledger: Ledger) -> dict[int, int]:
    """Index of the last entry by partition."""
    heads = {partition: ledger.head(partition) for partition in ledger.partitions}
    return {partition: head.index if head else 0 for partition, head in heads.items()}


def said(ledger: Ledger) -> int:
    """How many alerts and dead letters there are."""
    return sum(len(output) for output in ledger.outputs().values())


def behind(kafka: Any, prefix: str, folder: Path, **options: Any) -> Ledger:
    """A ledger of 16,000 events; a judge was there for the first quarter of them."""
    ledger = Ledger(kafka.bootstrap, prefix, folder, {**OPTIONS, **options}).create()
    load = Load(ledger)
    run(ledger, load, 4_000, JUDGE)
    run(ledger, load, 12_000, None)
    return ledger


def refused(ledger: Ledger, judge: Judge) -> HaltError:
    """The halt of a lane that opens with a judge."""
    with closing(lane_of(ledger.settings, 0, judge)) as lane, pytest.raises(HaltError) as halt:
        lane.open()
    return halt.value


def test_a_judge_that_was_left_behind_says_what_it_missed_once(kafka: Any, prefix: str, tmp_path: Path) -> None:
    """Lanes without a judge say nothing and leave its progress where it stood; the next one with it catches up."""
    ledger = Ledger(kafka.bootstrap, prefix, tmp_path, OPTIONS).create()
    load = Load(ledger)
    run(ledger, load, 4_000, JUDGE)
    before, stood = ledger.outputs(), tails(ledger)
    assert before == refold(ledger)
    assert progress_of(ledger).inline == {0, 1}
    for _ in range(2):
        run(ledger, load, 4_000, None)
        assert progress_of(ledger) == FoldProgress(JUDGE.version, stood, frozenset())
        assert ledger.outputs() == before
    assert all(tails(ledger)[p] > stood[p] + 2_000 for p in stood)
    judge = Noted()
    run(ledger, load, 3_000, judge)
    assert judge.loaded == {0, 1}
    assert all(1 < judge.first[p] <= stood[p] + 1 for p in stood)
    assert progress_of(ledger).inline == {0, 1}
    assert check_exactly_once(ledger) == 15_000
    assert ledger.outputs() == refold(ledger)
    assert said(ledger) > sum(map(len, before.values()))
    run(ledger, load, 1_000, JUDGE)
    assert ledger.outputs() == refold(ledger)


def dying(point: Point, after: int) -> Callable[[Point], None]:
    """Raise when a point is reached so many times."""
    left = [after]

    def at(reached: Point) -> None:
        left[0] -= reached is point
        if not left[0]:
            raise DiedError

    return at


def test_a_lane_that_dies_while_its_judge_catches_up_loses_and_doubles_nothing(
    kafka: Any, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every point of such a transaction, time and again, over both partitions."""
    monkeypatch.setattr(restore, "ROWS_MAX", CAUGHT_UP_AT_ONCE)
    ledger = behind(kafka, prefix, tmp_path)
    whole = refold(ledger)
    commits: list[int] = []
    done = sum(progress_of(ledger).indexes.values())
    for point, after in [(Point.BEGUN, 3), *((point, 1) for point in Point), (Point.COMMITTED, 3)]:
        with closing(lane_of(ledger.settings, 0, JUDGE, dying(point, after))) as lane, pytest.raises(DiedError):
            lane.open()
        before, done = done, sum(progress_of(ledger).indexes.values())
        commits.append(-(-(done - before) // CAUGHT_UP_AT_ONCE))
        for place, output in ledger.outputs().items():
            assert output == whole[place][: len(output)]
    assert [count > 0 for count in commits] == [True, False, False, False, False, True, True]
    assert ledger.outputs() != whole
    for _ in range(2):
        sequence(ledger.settings)
        assert ledger.outputs() == whole


def test_a_worker_killed_while_its_judge_catches_up_loses_and_doubles_nothing(
    kafka: Any, prefix: str, tmp_path: Path
) -> None:
    """With its records at the broker and no commit, after its first commit, and at any moment around one."""
    ledger = behind(kafka, prefix, tmp_path, heartbeat_interval_ms=200, snapshot_interval_ms=10_000)
    before = said(ledger)
    blows = [Blow(Point.PRODUCED, 1), Blow(Point.COMMITTED, 1), Blow(Point.COMMITTING, 1, delay_us=2_000)]
    for blow in blows:
        with ledger.worker(blow, deliver_first=blow.point == Point.PRODUCED) as worker:
            worker.wait_killed()
    assert said(ledger) > before
    with ledger.worker() as worker:
        worker.wait_live()
        wait_for(lambda: progress_of(ledger).inline == {0, 1}, "level", poll_s=POLL_BROKER_S)
        worker.stop()
    assert check_exactly_once(ledger) == 16_000
    assert ledger.outputs() == refold(ledger)


def versions(ledger: Ledger) -> list[list[int]]:
    """Of each partition what its FOLD_VERSION entries say."""
    entries = [records(ledger.settings, partition) for partition in ledger.partitions]
    bodies = [[read_control(entry["value"]) for _, entry in of_one if entry["kind"] == "CONTROL"] for of_one in entries]
    return [[body["version"] for kind, body in of_one if kind == "FoldVersion"] for of_one in bodies]


def said_versions(ledger: Ledger) -> list[list[int]]:
    """Of each partition what the FOLD_VERSION records of its control topic say, in the ledger or not."""
    controls = [ledger.records(ledger.names.control, partition) for partition in ledger.partitions]
    bodies = [[read_control(record.value()) for record in records] for records in controls]
    return [[body["version"] for kind, body in of_one if kind == "FoldVersion"] for of_one in bodies]


def test_a_new_version_is_said_once_and_goes_on_where_the_old_one_stood(
    kafka: Any, prefix: str, tmp_path: Path
) -> None:
    """It takes no snapshot of another version, writes nothing again, and there is no way back to an older one."""
    ledger = Ledger(kafka.bootstrap, prefix, tmp_path, OPTIONS).create()
    load = Load(ledger)
    run(ledger, load, 4_000, JUDGE)
    assert versions(ledger) == [[], []]
    second = Noted(2)
    run(ledger, load, 3_000, second)
    assert (second.loaded, second.first) == (set(), {0: 1, 1: 1})
    assert versions(ledger) == said_versions(ledger) == [[2], [2]]
    assert progress_of(ledger).version == 2
    assert ledger.outputs() == refold(ledger, Noted(2))
    again = Noted(2)
    run(ledger, load, 3_000, again)
    assert again.loaded == {0, 1}
    assert versions(ledger) == [[2], [2]]
    # The third comes while the second is behind.
    run(ledger, load, 3_000, None)
    run(ledger, load, 1_000, third := Noted(3))
    assert (third.loaded, third.first) == (set(), {0: 1, 1: 1})
    run(ledger, load, 1_000, Noted(3))
    assert versions(ledger) == said_versions(ledger) == [[2, 3], [2, 3]]
    assert progress_of(ledger).version == 3
    assert check_exactly_once(ledger) == 15_000
    written = ledger.outputs()
    assert written == refold(ledger, Noted(3))
    load.send(1_000)
    load.flush()
    stood = tails(ledger)
    for older in (JUDGE, Noted(2)):
        halt = refused(ledger, older)
        assert halt.code is HaltCode.FOLD_FAILED
        assert "Run a release that has judge" in halt.detail
    assert (tails(ledger), said_versions(ledger), ledger.outputs()) == (stood, [[2, 3], [2, 3]], written)
    sequence(ledger.settings, Noted(3))
    assert ledger.outputs() == refold(ledger, Noted(3))


def test_a_new_version_that_dies_before_it_is_level_begins_again(
    kafka: Any, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind the old one, it is said once, when it is level."""
    monkeypatch.setattr(restore, "ROWS_MAX", CAUGHT_UP_AT_ONCE)
    ledger = behind(kafka, prefix, tmp_path)
    for point in (Point.PRODUCED, Point.COMMITTED):
        with closing(lane_of(ledger.settings, 0, Noted(2), dying(point, 3))) as lane, pytest.raises(DiedError):
            lane.open()
        assert progress_of(ledger).version == JUDGE.version
    assert versions(ledger)[1] == []
    sequence(ledger.settings, Noted(2))
    assert versions(ledger) == said_versions(ledger) == [[2], [2]]
    assert progress_of(ledger).version == 2
    assert ledger.outputs() == refold(ledger, Noted(2))


def test_a_partition_that_stood_halted_learns_of_the_new_version_too(kafka: Any, prefix: str, tmp_path: Path) -> None:
    """Its lane went on with it in the meantime."""
    ledger = Ledger(kafka.bootstrap, prefix, tmp_path, OPTIONS).create()
    load = Load(ledger)
    run(ledger, load, 2_000, JUDGE)
    halt = HaltError(1, HaltCode.LANE_FAILED, "for a test", "lift it")
    record_halt(kafka.bootstrap, ledger.names.progress, 0, halt, "test")
    for _ in range(2):
        run(ledger, load, 2_000, Noted(2))
    assert versions(ledger) == [[2], []]
    lift_halt(kafka.bootstrap, ledger.names.progress, 0, 1)
    run(ledger, load, 1_000, Noted(2))
    assert versions(ledger) == said_versions(ledger) == [[2], [2]]
    assert check_exactly_once(ledger) == 7_000
    assert ledger.outputs() == refold(ledger, Noted(2))


def test_a_judge_whose_progress_a_snapshot_contradicts_does_not_speak(kafka: Any, prefix: str, tmp_path: Path) -> None:
    """It would say again what was said between the two."""
    ledger = behind(kafka, prefix, tmp_path)
    entry = records(ledger.settings)[-2][1]
    writer = SnapshotWriter(kafka.bootstrap, ledger.names.snapshots, 0)
    false = Snapshot(JUDGE.name, JUDGE.version, 0, entry["index"], entry["chain_hash"], b"state")
    wait_for(lambda: writer.offer(lambda: Offered([false])), "it is its turn")
    writer.close()
    before = ledger.outputs()
    halt = refused(ledger, JUDGE)
    assert halt.code is HaltCode.PROGRESS_LOST
    assert f"a snapshot of judge stands at index {entry['index']}" in halt.detail
    assert ledger.outputs() == before


def test_a_ledger_begun_without_a_judge_takes_none_later(kafka: Any, prefix: str, tmp_path: Path) -> None:
    """Nothing tells it from one whose progress was lost."""
    ledger = Ledger(kafka.bootstrap, prefix, tmp_path, OPTIONS).create()
    run(ledger, Load(ledger), 1_000, None)
    assert refused(ledger, JUDGE).code is HaltCode.PROGRESS_LOST
    assert said(ledger) == 0


def test_a_new_version_is_in_the_ledger_before_any_event_that_it_judged(
    kafka: Any, prefix: str, tmp_path: Path
) -> None:
    """Also where its FOLD_VERSION record stands behind a heartbeat that waits for the input; there is no way back."""
    ledger = Ledger(kafka.bootstrap, prefix, tmp_path, OPTIONS).create()
    load = Load(ledger)
    run(ledger, load, 1_000, JUDGE)
    for partition in ledger.partitions:
        end = len(ledger.records(ledger.names.input, partition))
        beat = {"predecessor_appended_ms": None, "input_end_offset": end + 500, "worker_us": 0}
        ledger.append(ledger.names.control, partition, encode_control("Heartbeat", beat, "test", "tick"))
    load.send(200)
    load.flush()
    with closing(lane_of(ledger.settings, 0, Noted(2))) as lane:
        before = [len(read_ledger(ledger, partition).data) for partition in ledger.partitions]
        lane.open()
        assert [part.head.sequence for part in lane.parts.values()] == before
        assert (versions(ledger), progress_of(ledger).version) == ([[2], [2]], 2)
        while not ledger.is_level():
            lane.commit(lane.fetch())
    stood = tails(ledger)
    halt = refused(ledger, JUDGE)
    assert halt.code is HaltCode.FOLD_FAILED
    assert "Run a release that has judge 2" in halt.detail
    assert (said_versions(ledger), tails(ledger)) == ([[2], [2]], stood)
    run(ledger, load, 3_000, Noted(2))
    assert versions(ledger) == said_versions(ledger) == [[2], [2]]
    assert ledger.outputs() == refold(ledger, Noted(2))


def test_what_a_newer_release_said_stands_before_any_input_that_an_older_one_takes(
    kafka: Any, prefix: str, tmp_path: Path
) -> None:
    """Its FOLD_VERSION record waits, behind a heartbeat that waits: the older lane takes nothing, and halts at once."""
    ledger = Ledger(kafka.bootstrap, prefix, tmp_path, OPTIONS).create()
    load = Load(ledger)
    run(ledger, load, 1_000, JUDGE)
    beat = {"predecessor_appended_ms": None, "input_end_offset": 10**9, "worker_us": 0}
    for kind, body in (("Heartbeat", beat), ("FoldVersion", {"fold": JUDGE.name, "version": 2})):
        ledger.append(ledger.names.control, 1, encode_control(kind, body, "test", "a newer release"))
    load.send(1_000)
    load.flush()
    stood = tails(ledger)
    for _ in range(2):
        halt = refused(ledger, JUDGE)
        assert (halt.partition, halt.code) == (1, HaltCode.FOLD_FAILED)
        assert tails(ledger)[1] == stood[1]
