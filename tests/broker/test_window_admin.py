"""`driftledger windows` on a real broker: what is in force, suspended, resumed; without a worker and beside one."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from schemas.clock import SystemTime
from streams.cli.main import main
from streams.control import read_control
from streams.windows import DEFAULT_WINDOWS, Kind, WindowDefinition
from tests.broker.harness import POLL_BROKER_S, Ledger, wait_for
from tests.broker.ledgers import begin, event, produce, records, sequence, use

if TYPE_CHECKING:
    from pathlib import Path

    from streams.settings import Settings
    from tests.broker.ledgers import Message

#: A snapshot after each commit, and none at all.
OFTEN, NEVER = 1, 86_400_000
#: Each event opens a thousand windows of its own, so a thousand sources open more than there may be.
FLOOD = WindowDefinition("flood", size_us=1_000_000, kind=Kind.HOPPING, slide_us=1_000)
CALM = WindowDefinition("calm", size_us=1_000_000)
SOURCES = 1_010


def ledger_of(kafka: Any, prefix: str, monkeypatch: pytest.MonkeyPatch, **choices: Any) -> Settings:
    """A ledger of two partitions in two lanes that commands of this process mean."""
    settings = begin(kafka, prefix, **{"partitions": 2, "lanes": 2, "windows": DEFAULT_WINDOWS, **choices})
    use(settings, monkeypatch)
    return settings


def changed(settings: Settings, *windows: WindowDefinition) -> Settings:
    """The same ledger, deployed with other windows, and without snapshots."""
    return settings.model_copy(update={"windows": windows, "snapshot_interval_ms": NEVER})


def told(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[list[dict[str, Any]], str]:
    """Rows of `windows`, and stderr."""
    capsys.readouterr()
    assert main(["windows", "--output", "jsonl", *options]) == 0
    captured = capsys.readouterr()
    return [json.loads(line) for line in captured.out.splitlines()], captured.err


def in_force(capsys: pytest.CaptureFixture[str]) -> list[tuple[str, int, int, bool]]:
    """Window, partition, version, and whether it works."""
    rows, _ = told(capsys)
    return [(row["window"], row["partition"], row["version"], row["suspended"] is None) for row in rows]


def definitions(settings: Settings, partition: int) -> dict[int, dict[str, Any]]:
    """Body of each DEFINITION entry of a window, by index."""
    found = {}
    for _, entry in records(settings, partition):
        kind, body = read_control(entry["value"]) if entry["kind"] == "CONTROL" else ("", {})
        if kind == "Definition" and body["name"].startswith("window/"):
            found[entry["index"]] = body
    return found


def flood(mark: str) -> list[Message]:
    """An event of each source now; mark: of their ids."""
    now_us = SystemTime().now_us()
    return [(b"s", event(f"s{n}", f"{mark}{n}", now_us), []) for n in range(SOURCES)]


@pytest.mark.parametrize("interval_ms", [OFTEN, NEVER])
def test_the_windows_in_force_are_listed_with_their_versions(
    kafka: Any, prefix: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], interval_ms: int
) -> None:
    """With and without snapshots; a definition that was changed has the later entry's index, one that went is gone."""
    settings = ledger_of(kafka, prefix, monkeypatch, snapshot_interval_ms=interval_ms)
    assert told(capsys) == ([], "no window is in force\n")
    sequence(settings)
    assert in_force(capsys) == [
        (name, p, v, True) for name, v in (("all_10s", 4), ("source_minute", 3)) for p in (0, 1)
    ]
    rows, _ = told(capsys, "--partition", "1")
    assert [(row["kind"], row["size_ms"], row["frame"], row["by"], row["percentiles"]) for row in rows] == [
        ("tumbling", 10_000, "authority", "all", "50,99"),
        ("tumbling", 60_000, "local", "source", "50,99"),
    ]
    sequence(changed(settings, CALM))
    assert [(name, p, works) for name, p, _, works in in_force(capsys)] == [("calm", 0, True), ("calm", 1, True)]
    sequence(changed(settings, WindowDefinition("calm", size_us=2_000_000)))
    last = {p: max(definitions(settings, p)) for p in (0, 1)}
    assert in_force(capsys) == [("calm", p, last[p], True) for p in (0, 1)]
    sequence(changed(settings))
    assert told(capsys) == ([], "no window is in force\n")
    assert main(["windows", "--partition", "2"]) == 2
    assert "there is no partition 2" in capsys.readouterr().err


@pytest.mark.parametrize("interval_ms", [OFTEN, NEVER])
def test_a_suspended_window_is_resumed_where_it_is_suspended(
    kafka: Any, prefix: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], interval_ms: int
) -> None:
    """The same definition again, with who and why, in force from its new entry on; elsewhere nothing is lost."""
    windows = (FLOOD, CALM)
    settings = ledger_of(kafka, prefix, monkeypatch, snapshot_interval_ms=interval_ms, windows=windows)
    produce(settings, settings.input_topic, flood("a"), 0)
    produce(settings, settings.input_topic, flood("b")[:10], 1)
    sequence(settings)
    rows, err = told(capsys)
    assert {(row["window"], row["partition"]) for row in rows if row["suspended"]} == {("flood", 0)}
    assert "flood is suspended: " in err
    assert "driftledger windows resume flood" in err
    before = [definitions(settings, p) for p in (0, 1)]

    assert main(["windows", "resume", "flood", "--actor", "ada", "--reason", "the flood is over"]) == 0
    told_of = capsys.readouterr().err
    assert "partition 0: window flood is defined again by " in told_of
    assert "partition 1" not in told_of
    assert [row["suspended"] is None for row in told(capsys)[0]] == [True, True, False, True]  # no lane has taken it
    sequence(settings)
    added = {i: body for i, body in definitions(settings, 0).items() if i not in before[0]}
    assert list(added.values()) == [{"name": "window/flood", "body": FLOOD.canonical()}]
    assert definitions(settings, 1) == before[1]
    assert in_force(capsys)[2] == ("flood", 0, min(added), True)
    (value,) = [entry["value"] for _, entry in records(settings, 0) if entry["index"] == min(added)]
    assert b"ada" in value
    assert b"the flood is over" in value

    assert main(["windows", "resume", "flood"]) == 2
    assert "window flood is suspended in no partition: nothing was written" in capsys.readouterr().err
    produce(settings, settings.input_topic, flood("c"), 0)
    sequence(settings)
    assert not in_force(capsys)[2][3]


def send(settings: Settings, partition: int, *told: tuple[str, int]) -> None:
    """Events of a source at an instant each."""
    produce(settings, settings.input_topic, [(b"s", event(s, f"{s}{us}", us), []) for s, us in told], partition)


def results(ledger: Ledger, name: str, partition: int) -> dict[tuple[int, str, int], tuple[int, float]]:
    """Count and sum of each window that closed, by version, source and start."""
    found = {}
    for message in ledger.records(ledger.names.aggregates, partition):
        record = json.loads(message.value() or b"")
        if record["definition"] == name and "window_start_us" in record:
            assert (record["final"], record["revision"]) == (True, 1)
            found[record["version"], record["key"], record["window_start_us"]] = record["count"], record["sum"]
    return found


def by_hand(
    definition: WindowDefinition, version: int, *told: tuple[str, int]
) -> dict[tuple[int, str, int], tuple[int, float]]:
    """The same of events that are given, each of the value 1.5: all windows that they are in."""
    size_us, slide_us = definition.size_us, definition.slide_us
    counts = Counter(
        (version, source, start)
        for source, us in told
        for start in range(us // slide_us * slide_us, us - size_us, -slide_us)
    )
    return {window: (count, 1.5 * count) for window, count in counts.items()}


def test_a_running_worker_takes_a_window_that_is_resumed_at_once(
    kafka: Any, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It begins anew, a new version without what it had open; where it worked, and beside it, windows lose nothing."""
    options = {"partitions": 2, "lanes": 1, "windows": (FLOOD, CALM)}
    ledger = Ledger(kafka.bootstrap, prefix, tmp_path, options).create()
    settings = ledger.settings
    use(settings, monkeypatch)
    with ledger.worker() as worker:

        def stands() -> dict[tuple[str, int], tuple[int, bool]]:
            """Version of each window in a partition, and whether it works, as the worker says."""
            return {
                (window["name"], part["partition"]): (window["version"], window["suspended"] is None)
                for lane in worker.health()[1].get("lanes", [])
                for part in lane["partitions"]
                for window in part["windows"]
            }

        wait_for(lambda: len(stands()) == 4, "all windows are in force")
        before = stands()
        version = before["flood", 0][0]
        # All is told as of ten seconds ago, so that what ends its windows is not of the future.
        began_us = SystemTime().now_us() - 10_000_000
        crowd = [(f"s{n}", began_us) for n in range(SOURCES)]
        early = [("a", began_us), ("b", began_us + 300_000)]
        send(settings, 0, *crowd)
        send(settings, 1, *early)
        wait_for(lambda: worker.metric("driftledger_suspended_windows_total"), "flood is suspended")
        assert stands() == before | {("flood", 0): (version, False)}

        assert main(["windows", "resume", "flood", "--actor", "ada", "--reason", "the crowd went home"]) == 0
        wait_for(lambda: all(works for *_, works in in_force(capsys)), "it is taken", poll_s=POLL_BROKER_S)
        resumed = max(definitions(settings, 0))
        assert stands() == before | {("flood", 0): (resumed, True)}
        assert in_force(capsys) == [(*place, *at) for place, at in sorted(stands().items())]

        late = [("a", began_us + 1_000_000), ("a", began_us + 1_300_000), ("s5", began_us + 1_000_000)]
        for partition in ledger.partitions:
            send(settings, partition, *late)
            send(settings, partition, ("end", began_us + 9_000_000))
        expected = {
            ("flood", 0): by_hand(FLOOD, resumed, *late),
            ("flood", 1): by_hand(FLOOD, before["flood", 1][0], *early, *late),
            ("calm", 0): by_hand(CALM, before["calm", 0][0], *crowd, *late),
            ("calm", 1): by_hand(CALM, before["calm", 1][0], *early, *late),
        }
        ledger.wait_level(worker)
        worker.stop()
        assert worker.output.count("lane_open ") == 1
    for (name, partition), wanted in expected.items():
        assert results(ledger, name, partition) == wanted


def test_what_is_not_in_force_cannot_be_resumed(
    kafka: Any, prefix: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor without a name or a reason."""
    sequence(ledger_of(kafka, prefix, monkeypatch))
    assert main(["windows", "resume", "nothing"]) == 2
    assert "no window 'nothing' is in force" in capsys.readouterr().err
    assert main(["windows", "resume", "all_10s", "--reason", " "]) == 2
    assert "Give --actor and --reason" in capsys.readouterr().err
    assert main(["windows"]) == 0
    assert "source_minute" in capsys.readouterr().out
