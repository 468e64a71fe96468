"""`driftledger drift sources`: what is known of each clock, answered from the ledger."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from schemas.clock import SystemTime
from streams.cli.main import main
from streams.log import Log
from tests.broker.harness import ROOT, wait_for
from tests.broker.ledgers import begin, event, names_of, produce, sequence, use

if TYPE_CHECKING:
    from pathlib import Path

    from streams.settings import Settings

#: How far each clock is off.
CLOCKS_US = {"steady": 0, "late": -3_000_000, "ahead": 2_000_000}
ROUNDS, GAP_S = 20, 0.5
#: What a busy machine may take from an event's instant to its append, at best.
WAY_MS = 500


@pytest.fixture(scope="module")
def written(kafka: Any) -> Settings:
    """Three sources, two of them one event each half second, on two partitions; estimates are told each second."""
    time = SystemTime()
    settings = begin(kafka, f"clocks-{time.now_us():x}", partitions=2, lanes=1, estimate_interval_ms=100)
    for n in range(ROUNDS):
        for partition, source in enumerate(("steady", "late")):
            local_us = time.now_us() + CLOCKS_US[source]
            produce(settings, settings.input_topic, [(None, event(source, f"{n}", local_us), [])], partition)
        time.sleep_s(GAP_S)
    ahead = event("ahead", "once", time.now_us() + CLOCKS_US["ahead"])
    produce(settings, settings.input_topic, [(None, ahead, [])], 1)
    sequence(settings)
    return settings


@pytest.fixture(autouse=True)
def _command(written: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    use(written, monkeypatch)


def _sources(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[list[dict[str, Any]], str]:
    assert main(["drift", "sources", "--output", "jsonl", *arguments]) == 0
    captured = capsys.readouterr()
    return [json.loads(line) for line in captured.out.splitlines()], captured.err


def test_each_source_is_listed_with_what_is_known_of_its_clock(capsys: pytest.CaptureFixture[str]) -> None:
    """The worst first; one of which too little is known is last, with nothing where numbers would be."""
    rows, err = _sources(capsys)
    assert err == ""
    assert [row["source"] for row in rows] == ["late", "steady", "ahead"]
    for row in rows[:2]:
        assert abs(row["offset_ms"] - CLOCKS_US[row["source"]] / 1_000) < row["bound_ms"] + WAY_MS
        assert row["bound_ms"] < 60
        assert (row["method"], row["disturbances"]) == ("ONE_WAY", 0)
        assert 3 <= row["samples"] <= row["last_sequence"] == ROUNDS
    assert [(row["severity"], row["alert"]) for row in rows] == [("YELLOW", "YELLOW"), ("GREEN", None), (None, None)]
    assert (rows[2]["method"], rows[2]["samples"], rows[2]["offset_ms"]) == ("NONE", 1, None)
    assert main(["drift", "sources"]) == 0
    assert "TWO_WAY" not in (table := capsys.readouterr().out)
    assert table.index("late") < table.index("steady")


def test_what_is_listed_is_what_was_told_last(written: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """The estimates topic and the list are of the same state."""
    [row], _ = _sources(capsys, "--source", "late")
    assert written.bootstrap is not None
    topic = names_of(written).drift_estimates
    with closing(Log(written.bootstrap)) as log:
        bounds = log.bounds(topic, 1)
        told = [json.loads(message.value() or b"") for message in log.scan(topic, 1, bounds.start, bounds.stable_end)]
    assert {one["source"] for one in told} == {"late"}
    assert [one["why"] for one in told] == ["KNOWN", *["INTERVAL"] * (len(told) - 1)]
    assert 2 <= len(told) < ROUNDS
    assert abs(told[-1]["offset_us"] / 1_000 - row["offset_ms"]) < 5
    assert told[-1]["sequence"] <= row["last_sequence"]


def test_one_source_is_told_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    """And one that is not known as such."""
    _, err = _sources(capsys, "--source", "late")
    assert err.startswith("late is ")
    assert " s behind at " in err
    _, err = _sources(capsys, "--source", "ahead")
    assert "too few events yet" in err
    assert _sources(capsys, "--source", "nobody") == ([], "no source 'nobody' is known\n")


def test_a_list_is_cut_and_sorted_as_asked(capsys: pytest.CaptureFixture[str]) -> None:
    """What is left out is said."""
    rows, err = _sources(capsys, "--limit", "1")
    assert ([row["source"] for row in rows], err) == (["late"], "1 of 3 sources; --limit 3 lists all\n")
    rows, _ = _sources(capsys, "--sort", "source", "--partition", "1")
    assert [row["source"] for row in rows] == ["ahead", "late"]


def test_how_stable_a_clock_was_is_told_from_its_estimates(capsys: pytest.CaptureFixture[str]) -> None:
    """Beside the list, with seven digits; of a source that was told too seldom nothing."""
    plain, _ = _sources(capsys)
    rows, err = _sources(capsys, "--stability")
    assert err == ""
    stable = {row["source"]: row.pop("stability") for row in rows}
    assert rows == plain
    assert stable["ahead"] == []
    for source in ("steady", "late"):
        assert stable[source][0]["tau_s"] == pytest.approx(1, abs=0.6)
        assert stable[source][0]["oadev"] >= 0
        assert [row["best"] for row in stable[source]].count("best") == 1
    rows, err = _sources(capsys, "--stability", "--source", "ahead")
    assert [(row["source"], row["stability"]) for row in rows] == [("ahead", [])]
    assert "no source was told of three times" in err
    assert "too few events yet" in err
    _, err = _sources(capsys, "--stability", "--source", "nobody")
    assert err == "no source 'nobody' is known\n"
    assert main(["drift", "sources", "--stability"]) == 0
    table = capsys.readouterr().out
    assert table.index("offset ms") < table.index("oadev")
    assert main(["drift", "sources", "--stability", "--source", "ahead"]) == 0
    assert "oadev" not in capsys.readouterr().out
    assert main(["drift", "sources", "--from", "2026-01-01T00:00:00Z"]) == 2
    assert "--stability" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("example", "said"),
    [
        (0, r"YELLOW UNKNOWN late's events are stamped [23]\.\d{3} s before they arrive .*"),
        (1, r"late is [23]\.\d{3} s \+- 0\.\d{3} s behind \(YELLOW\) since .*"),
        (2, r"late -[23]\.\d+ s \+- 0\.\d+ s"),
    ],
)
def test_the_examples_of_the_page_tell_whose_clock_is_wrong(
    example: int, said: str, written: Settings, tmp_path: Path
) -> None:
    """As they stand there, but for the address, the topics, and where a new group begins; and of nobody else's."""
    names = names_of(written)
    text = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "clocks.md").read_text(encoding="utf-8"), re.DOTALL)[
        example
    ]
    for theirs, ours in {
        '"kafka:9092"': f'"{written.bootstrap}", "auto.offset.reset": "earliest"',
        '"driftledger.events.drift.alerts"': f'"{names.drift_alerts}"',
        '"driftledger.events.drift.estimates"': f'"{names.drift_estimates}"',
        '"group.id": "': f'"group.id": "{written.prefix}-',
    }.items():
        text = text.replace(theirs, ours)
    output = tmp_path / "output"
    with output.open("wb") as file:
        process = subprocess.Popen([sys.executable, "-u", "-c", text], stdout=file, stderr=subprocess.STDOUT)
    try:
        lines = wait_for(lambda: output.read_text().splitlines(), "it says something")
    finally:
        process.kill()
        process.wait()
    assert all(re.fullmatch(said, line) for line in lines), lines
