"""What is worked out for somebody who watches: rate, open alerts, and the picture of them."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from schemas.instants import NS_PER_S
from streams.cli.up_view import LiveView, Overview, PlainView, picture, status_line
from streams.overview import AlertBoard, PartitionState, RateMeter, parse_health
from streams.up import AlertNews

HEALTH = {
    "healthy": False,
    "worker": "host-1",
    "lanes": [
        {"lane": 1, "state": "live", "error": None, "partitions": [{"partition": 1, "index": 9, "sequence": 1234}]},
        {"lane": 0, "state": "waiting", "error": "Kafka is away", "partitions": []},
    ],
    "halts": [{"partition": 2, "code": "TOPIC_RECREATED", "detail": "another id", "remedy": "Restore it"}],
}


def alert(alert_id: str, state: str = "OPENED", severity: str = "RED", source: str | None = None) -> dict[str, Any]:
    """As much of a record as a board looks at."""
    name = source or f"source-{alert_id}"
    return {"alert_id": alert_id, "state": state, "severity": severity, "source": name, "text": f"{name} is off"}


def served(**sequences: int) -> tuple[PartitionState, ...]:
    """Partitions p0, p1, ... with their sequences."""
    return tuple(PartitionState(int(name[1:]), "live", sequence) for name, sequence in sequences.items())


def overview_of_three() -> Overview:
    """Two alerts open, one closed; a lane away and a partition halted."""
    overview = Overview(sources=["source-0:1", "source-0:2", "steady"], events_per_s=900.4, health=parse_health(HEALTH))
    overview.board.apply(alert("0:1"), 1_000)
    overview.board.apply(alert("0:2", severity="YELLOW"), 2_000)
    overview.board.apply(alert("0:3"), 3_000)
    overview.board.apply(alert("0:3", "CLOSED", "GREEN"), 4_000)
    return overview


def written(width: int = 100) -> tuple[Console, io.StringIO]:
    """A console that is no terminal, and what is written to it."""
    out = io.StringIO()
    return Console(file=out, width=width, height=30, highlight=False), out


def test_an_alert_is_open_until_it_is_closed() -> None:
    """A change replaces what was known of it."""
    board = AlertBoard()
    board.apply(alert("0:1", severity="YELLOW"), 1)
    board.apply(alert("0:1", "CHANGED", "RED"), 2)
    assert [(a.severity, a.changed_ms) for a in board.newest(9)] == [("RED", 2)]
    board.apply(alert("0:1", "CLOSED", "GREEN"), 3)
    assert len(board) == 0
    assert board.closed == 1


def test_the_close_of_an_alert_that_was_never_seen_is_no_error() -> None:
    """Its opening may have passed out of the topic."""
    board = AlertBoard()
    board.apply(alert("0:1", "CLOSED", "GREEN"), 1)
    assert len(board) == 0


@given(st.lists(st.integers(0, 50), max_size=20), st.integers(0, 25))
def test_the_newest_come_first(times: list[int], count: int) -> None:
    """And no more than asked for."""
    board = AlertBoard()
    for number, changed_ms in enumerate(times):
        board.apply(alert(f"0:{number}"), changed_ms)
    assert [a.changed_ms for a in board.newest(count)] == sorted(times, reverse=True)[:count]


def test_known_sources_without_an_alert_are_green() -> None:
    """Sources that nobody named count once they have one."""
    assert overview_of_three().severities() == [("RED", 1), ("YELLOW", 1), ("GREEN", 1)]
    overview = Overview()
    overview.board.apply(alert("0:1", source="mine"), 1)
    assert overview.severities() == [("RED", 1), ("YELLOW", 0)]


def test_the_rate_is_the_mean_of_the_window() -> None:
    """What lies further back does not count."""
    meter = RateMeter()
    assert meter.events_per_s() is None
    meter.observe(0, served(p0=0, p1=0))
    assert meter.events_per_s() is None
    for second in range(1, 20):
        meter.observe(second * NS_PER_S, served(p0=max(second - 10, 0) * 100, p1=0))
        assert meter.events_per_s() == pytest.approx(100 * min(max(second - 10, 0), 5) / min(second, 5))


def test_what_a_partition_held_before_it_was_seen_is_no_rate() -> None:
    """A lane that opens, or comes back from another worker, does not look like a flood."""
    meter = RateMeter()
    meter.observe(0, ())
    meter.observe(NS_PER_S, served(p0=1_000_000))
    assert meter.events_per_s() is None
    meter.observe(2 * NS_PER_S, served(p0=1_000_010, p1=5_000))
    assert meter.events_per_s() == pytest.approx(10)
    meter.observe(3 * NS_PER_S, served(p1=5_030))
    assert meter.events_per_s() == pytest.approx(30)
    meter.observe(4 * NS_PER_S, served(p0=9_000_000, p1=5_060))
    assert meter.events_per_s() == pytest.approx(30)
    meter.observe(5 * NS_PER_S, served(p0=9_000_005, p1=5_090))
    assert meter.events_per_s() == pytest.approx(35)


def test_health_is_taken_apart() -> None:
    """Halts and lanes that are not live are what an operator must see."""
    health = parse_health(HEALTH)
    assert health.partitions == (PartitionState(1, "live", 1234),)
    assert Overview(health=health).troubles() == [
        "partition 2 HALTED, TOPIC_RECREATED: another id. Restore it",
        "lane 0 is waiting: Kafka is away",
    ]
    assert Overview().troubles() == ["the worker does not answer"]


def test_the_picture_shows_alerts_newest_first_as_far_as_there_is_room() -> None:
    """One line each, however narrow; what is left out is counted."""
    console, out = written(width=46)
    console.print(picture(overview_of_three(), 1))
    text = out.getvalue()
    assert "900 events/s" in text
    assert "1,234" in text
    assert "HALTED" in text
    assert "00:00:02  source-0:2 is off" in text
    assert "source-0:1 is off" not in text
    assert "and 1 more" in text


def test_what_other_workers_serve_is_not_taken_for_standing_still() -> None:
    """Rate and sequences are of this worker's partitions, and where those are not all that is said."""
    overview = overview_of_three()
    overview.partitions, overview.events_per_s = 4, None
    assert status_line(overview).startswith("- events/s (1 of 4 partitions here) | sequence 1:1234 | ")
    console, out = written()
    console.print(picture(overview, 9))
    assert "1 of 4 partitions here" in out.getvalue()
    overview.partitions = 1
    assert status_line(overview).startswith("- events/s | sequence 1:1234 | ")


def test_without_alerts_and_lanes_the_picture_says_so() -> None:
    """Nothing is not shown as an empty frame."""
    console, out = written()
    console.print(picture(Overview(), 9))
    assert "serves no partition yet" in out.getvalue()
    assert "no open alerts" in out.getvalue()


def test_a_live_view_fits_the_terminal() -> None:
    """The cursor moves up over the whole picture, so none of it may have scrolled away."""
    out = io.StringIO()
    console = Console(file=out, width=100, height=20, force_terminal=True)
    overview = Overview()
    for number in range(100):
        overview.board.apply(alert(f"0:{number}"), number)
    with LiveView(console) as view:
        view.show(overview, [], 0)
        drawn = out.getvalue()
    assert drawn.count(" is off") == 9
    assert "and 91 more" in drawn
    assert drawn.count("\n") < 20


def test_without_a_terminal_new_alerts_are_told_once_and_the_state_now_and_then() -> None:
    """What was there before is only counted."""
    console, out = written()
    view = PlainView(console)
    overview = overview_of_three()
    with view:
        view.show(
            overview, [AlertNews(alert("0:1"), 1_000, fresh=False), AlertNews(alert("0:2"), 2_000, fresh=True)], 0
        )
        view.show(overview, [], NS_PER_S)
        view.show(overview, [], 6 * NS_PER_S)
    lines = out.getvalue().splitlines()
    assert lines[0] == "00:00:02  OPENED   source-0:2 is off"
    assert lines.count(status_line(overview)) == 2
    assert sum(line.startswith("! ") for line in lines) == 4


def test_the_status_line_holds_everything_but_the_texts() -> None:
    """For a log."""
    assert status_line(overview_of_three()) == (
        "900 events/s | sequence 1:1234 | sources 1 RED, 1 YELLOW, 1 GREEN of the fleet | alerts 2 open, 1 closed"
    )
    assert status_line(Overview()) == "the worker serves no partition yet"
