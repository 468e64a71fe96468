"""`driftledger status` and `driftledger halts` on a real broker, with and without a worker."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from schemas.clock import SystemTime
from schemas.errors import HaltCode, HaltError
from schemas.topics import partition_for
from streams.cli.main import main
from streams.cli.status import about_hot_and_windows
from streams.control import read_control
from streams.drift_log import DriftLog
from streams.overview import Hot, InForce
from streams.progress import record_halt
from streams.queries import Ledger
from streams.status import LaneStanding, PartitionStatus, Status
from tests.broker import harness
from tests.broker.ledgers import begin, event, lane_of, names_of, produce, records, running, sequence, use

if TYPE_CHECKING:
    from pathlib import Path

    from streams.settings import Settings

PARTITIONS = 3
LANES = 2
SYSTEM = partition_for(b"System", PARTITIONS)


@pytest.fixture
def settings(kafka: Any, prefix: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A ledger that has begun, with three events on partition 0."""
    made = begin(kafka, prefix, partitions=PARTITIONS, lanes=LANES)
    now_us = SystemTime().now_us()
    produce(made, made.input_topic, [(b"s", event("s", f"e{n}", now_us), []) for n in range(3)])
    sequence(made)
    use(made, monkeypatch)
    return made


def told(capsys: pytest.CaptureFixture[str]) -> tuple[list[dict[str, Any]], str]:
    """Rows of stdout, and stderr."""
    captured = capsys.readouterr()
    return [json.loads(line) for line in captured.out.splitlines()], captured.err


def halt(settings: Settings, partition: int) -> None:
    """As a worker does it."""
    error = HaltError(partition, HaltCode.INPUT_CUT, "records 5 to 9 are gone", "Restore the input")
    assert settings.bootstrap is not None
    record_halt(settings.bootstrap, names_of(settings).progress, partition % LANES, error, "worker-1")


def test_asking_records_an_anchor(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the source System; every partition is told."""
    with running(settings):
        assert main(["status", "--output", "jsonl"]) == 0
        rows, err = told(capsys)
    assert [(row["partition"], row["lane"], row["max_sequence"]) for row in rows] == [(0, 0, 3), (1, 1, 0), (2, 0, 0)]
    assert [row["input_lag_offsets"] for row in rows] == [0, 0, 0]
    assert rows[SYSTEM]["state"] == "live"
    assert rows[SYSTEM]["max_index"] == (6 if SYSTEM == 0 else 3)
    assert err.startswith(f"anchor {SYSTEM}:{rows[SYSTEM]['max_index']}, phase lock ")
    with Ledger(settings, settings.bootstrap or "") as ledger:
        (entry,) = DriftLog(ledger).newest(1, source="System")
    assert entry.id in err


def test_the_worker_of_this_machine_says_what_is_hot_and_which_windows_are_in_force(
    kafka: Any, tmp_path: Path, prefix: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Once it has ended, nobody does."""
    ledger = harness.Ledger(kafka.bootstrap, prefix, tmp_path).create()
    for name, value in ledger.environment().items():
        monkeypatch.setenv(name, value)

    def level() -> bool:
        assert main(["status", "--output", "jsonl"]) == 0
        rows, err = told(capsys)
        return {row["hot"] for row in rows} == {"level"} and "windows in force: all_10s, source_minute\n" in err

    with ledger.worker() as worker:
        worker.wait_live(ledger.settings.lanes)
        harness.wait_for(level, "all partitions are hot")
        worker.stop()
    main(["status", "--timeout", "0", "--output", "jsonl"])
    rows, err = told(capsys)
    assert {row["hot"] for row in rows} == {None}
    assert "windows in force" not in err


def test_what_is_wrong_with_hot_tiers_and_windows_is_told_in_words() -> None:
    """With the command that helps; a window that is suspended somewhere is marked."""
    partition = PartitionStatus(0, 0, LaneStanding.LIVE, 8, 9, 0, 1, hot=Hot("unavailable", 0, 9, "disk full"))
    windows = [InForce(0, "a", 3, None), InForce(0, "b", 4, None), InForce(1, "b", 4, "too much")]
    assert partition.row()["hot"] == "unavailable"
    assert about_hot_and_windows(Status([partition], "", anchored=True, windows=windows)) == [
        "partition 0: the hot tier is unavailable: disk full",
        "windows in force: a, b (suspended)",
        "window b is suspended in partition 1: too much. Once that is mended, run `driftledger windows resume b`",
    ]


def test_without_a_worker_the_rest_is_shown_all_the_same(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is said that no worker took the anchor, exit code 3; what waits in the input is the lag."""
    produce(settings, settings.input_topic, [(None, b"x", [])] * 7, partition=2)
    assert main(["status", "--timeout", "0.1", "--output", "jsonl"]) == 3
    rows, err = told(capsys)
    assert [row["input_lag_offsets"] for row in rows] == [0, 0, 7]
    assert "no worker took the anchor within 0.1 s" in err
    assert "driftledger worker" in err


def test_a_halt_is_told_with_its_remedy_and_exit_code_1(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """Also that of the partition whose lane should take the anchor: then nothing is waited for."""
    for partition in (1, SYSTEM):
        halt(settings, partition)
    begun = SystemTime().create_checkpoint()
    assert main(["status", "--timeout", "60", "--output", "jsonl"]) == 1
    assert begun.elapsed_ns(SystemTime().create_checkpoint()) < 50_000_000_000
    rows, err = told(capsys)
    assert {row["partition"] for row in rows if row["state"] == "halted"} == {1, SYSTEM}
    assert (rows[1]["halt"], rows[1]["remedy"]) == ("INPUT_CUT", "Restore the input")
    assert "records 5 to 9 are gone. Restore the input" in err
    assert "halts lift 1" in err
    assert "waits until the halt is lifted" in err
    assert main(["status", "--timeout", "0"]) == 1
    assert "INPUT_CUT" in capsys.readouterr().out


def test_a_ledger_that_has_not_begun_has_a_status(
    kafka: Any, prefix: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Empty, with everything still to do; no anchor can be recorded, so exit code 3."""
    made = begin(kafka, prefix)
    produce(made, made.input_topic, [(None, b"x", [])] * 4)
    use(made, monkeypatch)
    assert main(["status", "--output", "jsonl"]) == 3
    (row,), err = told(capsys)
    assert (row["state"], row["max_sequence"], row["input_lag_offsets"], row["last_authority"]) == ("empty", 0, 4, None)
    assert "has not begun: nothing was written" in err


def test_partitions_are_live_where_no_anchor_can_be_written(
    kafka: Any, prefix: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The partition of the source System has not begun; the clock of this machine stands in for the broker's."""
    made = begin(kafka, prefix, partitions=PARTITIONS, lanes=PARTITIONS)
    for lane in (lane_of(made, p) for p in range(PARTITIONS) if p != SYSTEM):
        lane.open()
        while lane.parts[lane.number].head.index == 0:
            lane.commit(lane.fetch())
        lane.close()
    use(made, monkeypatch)
    assert main(["status", "--output", "jsonl"]) == 3
    rows, err = told(capsys)
    assert {row["partition"]: row["state"] for row in rows} == dict.fromkeys(range(PARTITIONS), "live") | {
        SYSTEM: "empty"
    }
    assert "nothing was written" in err


@pytest.mark.parametrize("partition", [1, SYSTEM])
def test_a_broken_partition_is_told_and_the_others_stand(
    settings: Settings, capsys: pytest.CaptureFixture[str], partition: int
) -> None:
    """Also that of the anchor; exit code 1. Its halt can be lifted, as any other."""
    produce(settings, names_of(settings).sequenced, [(None, b"no entry", [])], partition)
    assert main(["status", "--timeout", "0", "--output", "jsonl"]) == 1
    rows, err = told(capsys)
    assert [row["partition"] for row in rows if row["state"] == "broken"] == [partition]
    assert (rows[partition]["max_sequence"], rows[partition]["halt"]) == (None, None)
    assert "does not decode" in rows[partition]["detail"]
    assert f"partition {partition} broken, LEDGER_BROKEN" in err
    halt(settings, partition)
    assert main(["status", "--timeout", "0"]) == 1
    assert f"halts lift {partition}" in capsys.readouterr().err
    assert main(["halts", "lift", str(partition), "--actor", "ada", "--reason", "r"]) == 0
    assert "documented by the anchor" in capsys.readouterr().err


def test_a_missing_input_has_no_lag(settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    """Rather than a lag of nothing."""
    monkeypatch.setenv("DRIFTLEDGER_INPUT_TOPIC", f"{settings.prefix}.nowhere")
    assert main(["status", "--timeout", "0", "--output", "jsonl"]) == 3
    rows, _ = told(capsys)
    assert {row["input_lag_offsets"] for row in rows} == {None}


def test_halts_are_listed(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """Over all lanes, by partition."""
    assert main(["halts", "list", "--output", "jsonl"]) == 0
    assert told(capsys) == ([], "no partition is halted\n")
    for partition in (2, 1):
        halt(settings, partition)
    assert main(["halts", "list", "--output", "jsonl"]) == 0
    rows, _ = told(capsys)
    assert [(row["partition"], row["lane"], row["code"]) for row in rows] == [(1, 1, "INPUT_CUT"), (2, 0, "INPUT_CUT")]
    assert main(["halts", "list"]) == 0
    assert "Restore the input" in capsys.readouterr().out


def test_lifting_a_halt_is_documented_in_the_ledger(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """The lane that goes on sequences who did it and why; the others stay halted."""
    halt(settings, 1)
    halt(settings, 2)
    assert main(["halts", "lift", "1", "--actor", "ada", "--reason", "restored"]) == 0
    _, err = told(capsys)
    assert "partition 1: halt INPUT_CUT lifted; it was: records 5 to 9 are gone" in err
    assert "opens lane 1 again" in err
    assert main(["halts", "list", "--output", "jsonl"]) == 0
    rows, _ = told(capsys)
    assert [row["partition"] for row in rows] == [2]
    assert main(["halts", "lift", "2", "--actor", "ada", "--reason", "restored too"]) == 0
    sequence(settings)
    with Ledger(settings, settings.bootstrap or "") as ledger:
        (entry,) = DriftLog(ledger).newest(1, source="halt/1", partition=1)
    value = next(fields["value"] for _, fields in records(settings, 1) if fields["index"] == entry.index)
    assert read_control(value)[1]["source"] == "halt/1"
    assert b"ada" in value
    assert b"halt INPUT_CUT lifted: restored" in value


def test_what_is_not_halted_cannot_be_lifted(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """Nor without a name and a reason; nothing is written then."""
    control = names_of(settings).control
    with Ledger(settings, settings.bootstrap or "") as ledger:
        before = ledger.log.ends(control, range(PARTITIONS))
        assert main(["halts", "lift", "1", "--actor", "ada", "--reason", "r"]) == 2
        assert "partition 1 is not halted" in capsys.readouterr().err
        assert main(["halts", "lift", "9", "--actor", "ada", "--reason", "r"]) == 2
        assert "there is no partition 9" in capsys.readouterr().err
        halt(settings, 1)
        assert main(["halts", "lift", "1", "--actor", " ", "--reason", "r"]) == 2
        assert "Give --actor and --reason" in capsys.readouterr().err
        assert main(["halts", "lift", "1"]) == 2
        assert ledger.log.ends(control, range(PARTITIONS)) == before
    assert main(["halts", "list", "--output", "jsonl"]) == 0
    assert len(told(capsys)[0]) == 1


def test_a_halt_of_a_ledger_that_has_not_begun_is_lifted_all_the_same(
    kafka: Any, prefix: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And it is said that nobody will know why."""
    made = begin(kafka, prefix, partitions=PARTITIONS, lanes=LANES)
    use(made, monkeypatch)
    halt(made, 0)
    assert main(["halts", "lift", "0", "--actor", "ada", "--reason", "r"]) == 0
    assert "is not recorded there" in told(capsys)[1]
    assert main(["halts", "list", "--output", "jsonl"]) == 0
    assert told(capsys)[0] == []
