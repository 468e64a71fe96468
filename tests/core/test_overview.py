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
from streams.overview import AlertBoard, Hot, HotAnswer, InForce, Locked, PartitionState, RateMeter, parse_health
from streams.up import AlertNews
from tests.core.test_window_board import late, result

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
    return {
        "alert_id": alert_id, "state": state, "severity": severity, "source": name, "subject": "SOURCE",
        "text": f"{name} is off",
    }  # fmt: skip


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


def overview_of_windows() -> Overview:
    """A partition whose window closed, another whose window has not; a source that is late, and one a day ahead."""
    parts = [
        {"partition": 0, "index": 90, "sequence": 80, "hot": {"standing": "level", "reached": 0, "error": None}},
        {"partition": 1, "index": 90, "sequence": 70, "hot": {"standing": "behind", "reached": 5, "error": None}},
        {"partition": 2, "index": 90, "sequence": 60, "hot": None},
    ]
    lanes = [{"lane": 0, "state": "live", "error": None, "partitions": parts}]
    overview = Overview(health=parse_health({"lanes": lanes, "halts": []}), hot=HotAnswer(200_123, 21.4, 812_345))
    for record in (result(10, count=1_234, mean=45_678.9), late("slow", 31), late("day-ahead", ahead=1_200)):
        overview.windows.apply(record, fresh=True)
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


@pytest.mark.parametrize("second", ["GREEN", "YELLOW", "RED"])
@pytest.mark.parametrize("first", ["GREEN", "YELLOW", "RED"])
def test_of_two_open_alerts_of_a_source_the_worse_counts(first: str, second: str) -> None:
    """Whichever came last."""
    board = AlertBoard()
    board.apply(alert("0:7:clock", severity=first, source="mine"), 1)
    board.apply(alert("0:9:delay", severity=second, source="mine"), 2)
    worse = max(first, second, key=["GREEN", "YELLOW", "RED"].index)
    assert board.severities(["mine"]) == {worse: 1}
    board.apply(alert("0:7:clock", "CLOSED", "GREEN", "mine"), 3)
    assert board.severities(["mine"]) == {second: 1}


@pytest.mark.parametrize(("subject", "question"), [("BROKER", "authority"), ("WORKER", "worker")])
def test_a_source_that_is_called_like_a_broker_is_none(subject: str, question: str) -> None:
    """Alerts about brokers and workers are not counted with the sources; old records tell it by their number."""
    name = f"{subject.lower()} of partition 0"
    for told in ({"subject": subject}, {}):
        of_it = {key: value for key, value in alert(f"0:7:{question}", source=name).items() if key != "subject"} | told
        board = AlertBoard()
        board.apply(alert("0:3:clock", severity="YELLOW", source=name), 1)
        board.apply(of_it, 2)
        assert board.severities() == {"YELLOW": 1}
        assert len(board) == 2
        board.apply(alert("0:3:clock", "CLOSED", "GREEN", name), 3)
        assert board.severities([name]) == {"GREEN": 1}


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


def test_the_hot_tier_and_the_windows_of_partitions_are_taken_from_health() -> None:
    """A partition may have neither."""
    window = {"name": "all_10s", "version": 4, "suspended": None}
    part = {"partition": 3, "index": 90, "sequence": 80, "windows": [window | {"suspended": "too much"}, window]}
    error = {"standing": "unavailable", "reached": 0, "error": "disk full"}
    lanes = [{"lane": 0, "state": "live", "error": None, "partitions": [part | {"hot": error}]}]
    health = parse_health({"lanes": lanes, "halts": []})
    assert health.partitions == (PartitionState(3, "live", 80, Hot("unavailable", 0, 90, "disk full")),)
    assert health.windows == (InForce(3, "all_10s", 4, "too much"), InForce(3, "all_10s", 4, None))
    assert Overview(health=health).troubles() == ["the hot tier of partition 3 is unavailable: disk full"]
    assert str(Hot("behind", 5, 90, None)) == "behind, 5 of 90"


def test_a_lock_is_told_with_who_when_and_why() -> None:
    """Of many the first are, and the rest are counted."""
    told = "partition 3 is locked since noon by ada because it is set. Release it"
    part = {"partition": 3, "index": 90, "sequence": 80, "locks": [{"partition": 3, "told": told}]}
    lanes = [{"lane": 0, "state": "live", "error": None, "partitions": [part]}]
    health = parse_health({"lanes": lanes, "halts": []})
    assert health.locks == (Locked(3, told),)
    assert Overview(health=health).troubles() == [told]
    part["locks"] = [{"partition": 3, "told": f"{number}"} for number in range(5)]
    troubles = Overview(health=parse_health({"lanes": lanes, "halts": []})).troubles()
    assert troubles == ["0", "1", "2", "and 2 more locks: see `driftledger lock status`"]


def test_a_suspended_window_is_a_trouble() -> None:
    """With the command that helps."""
    overview = overview_of_windows()
    overview.windows.apply({"definition": "a", "partition": 2, "version": 4, "suspended": "too much"}, fresh=False)
    (trouble,) = overview.troubles()
    assert trouble.startswith("window a is suspended in partition 2: too much. ")
    assert "driftledger windows" in trouble


def test_the_picture_shows_windows_and_who_was_left_out() -> None:
    """Numbers below their partitions, the hot tier's answer below them."""
    console, out = written(width=140)
    console.print(picture(overview_of_windows(), 9))
    lines = [" ".join(line.split()) for line in out.getvalue().splitlines()]
    for line in (
        "hot tier level behind, 5 of 90 -",
        "all_10s from 00:00:10 - -",
        "events 1,234 - -",
        "mean 45,679 - -",
        "p50 1 - -",
        "p99.9 - - -",
        "late: slow (31 events, source_minute)",
        "too far ahead, in no window: day-ahead (1,200 events, source_minute)",
        "200,123 events are hot; mean of the last minute 21.4, asked in 0.8 ms",
    ):
        assert line in lines
    console, out = written(width=140)
    console.print(picture(overview_of_windows(), 9, with_windows=False))
    assert "all_10s" not in out.getvalue()


def test_of_many_late_sources_the_worst_are_named() -> None:
    """The others are counted."""
    overview = Overview()
    for number in range(8):
        overview.windows.apply(late(f"s{number}", number), fresh=True)
    assert overview.left_out() == [
        "late: s7 (7 events, source_minute), s6 (6 events, source_minute), s5 (5 events, source_minute) and 4 more"
    ]


def test_the_picture_shows_alerts_newest_first_as_far_as_there_is_room() -> None:
    """One line each, however narrow; what is left out is counted."""
    console, out = written(width=46)
    console.print(picture(overview_of_three(), 1))
    text = out.getvalue()
    assert "900 events/s" in text
    assert "1,234" in text
    assert "HALTED" in text
    assert "00:00:02  source  source-0:2 is off" in text
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
    assert drawn.count(" is off") == 8
    assert "and 92 more" in drawn
    assert drawn.count("\n") < 20


@pytest.mark.parametrize(("height", "shown"), [(20, False), (40, True)])
def test_windows_are_shown_where_alerts_have_room_beside_them(height: int, *, shown: bool) -> None:
    """And the picture fits in any case."""
    out = io.StringIO()
    overview = overview_of_windows()
    for number in range(100):
        overview.board.apply(alert(f"0:{number}"), number)
    with LiveView(Console(file=out, width=140, height=height, force_terminal=True)) as view:
        view.show(overview, [], 0)
        drawn = out.getvalue()
    assert ("all_10s from" in drawn) == shown
    assert "200,123 events are hot" in drawn
    assert "more" in drawn
    assert drawn.count("\n") < height


def test_without_a_terminal_windows_are_told_when_they_close() -> None:
    """Once each, with who was left out and what is hot."""
    console, out = written(width=140)
    view, overview = PlainView(console), overview_of_windows()
    overview.windows.apply(result(10, partition=1, count=1, percentiles={"50": 2.5}), fresh=True)
    for second in range(3):
        view.show(overview, [], second * 6 * NS_PER_S)
    lines = out.getvalue().splitlines()
    assert lines.count(status_line(overview)) == 3
    told = lines.index("all_10s from 00:00:10: 1,235 events, mean 22,841, min 1, max 5; by partition: p50 1 2.5")
    assert lines[told + 1].startswith("late: slow")
    assert lines[told + 2].startswith("too far ahead, in no window: day-ahead")
    assert lines[told + 3].startswith("200,123 events are hot")
    assert sum("events are hot" in line for line in lines) == 1
    overview.windows.apply(result(20, count=2), fresh=True)
    view.show(overview, [], 60 * NS_PER_S)
    assert "all_10s from 00:00:20: 2 events, mean 3, min 1, max 5, p50 1, p99.9 -" in out.getvalue()


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


def test_a_name_does_not_steer_the_terminal_of_who_watches() -> None:
    """Producers choose it; in lines and in the picture, as an alert and as late."""
    overview = overview_of_windows()
    named = alert("0:9", source="a\x1b[2J")
    overview.board.apply(named, 1_000)
    overview.windows.apply(late("b\x1b[2J", 99), fresh=True)
    shown = io.StringIO()
    console = Console(file=shown, width=160)
    console.print(picture(overview, 9))
    PlainView(console).show(overview, [AlertNews(named, 1_000, fresh=True)], 0)
    assert "\x1b" not in shown.getvalue()
    assert shown.getvalue().count("a\ufffd[2J") == 2
    assert "b\ufffd[2J" in shown.getvalue()
