"""The alert machine against its plain twin and its rules one by one, and the bytes of its records."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.codec import Framing, decode, encode
from streams.alert_kernel import (
    AT_OPEN,
    CALM_FIRST_MS,
    CAUSE,
    EVENTS,
    FIRST,
    FIRST_MS,
    LAST,
    OF_SOURCE,
    QUESTION_COLUMNS,
    READ_COLUMNS,
    REVISION,
    WATCH_COLUMNS,
    WORST,
    AlertState,
    Question,
    observe,
    settle,
    severity_in,
)
from streams.alerts import Change, DriftAlert, Reading, change_record, forgotten_record
from streams.causes import Cause
from streams.definitions import JudgeSettings
from streams.judge import rules_of
from streams.severity import Severity
from tests.core import alert_oracle as plain

if TYPE_CHECKING:
    from collections.abc import Iterable

SECOND_MS = 1_000
#: An answer of each severity, in ms.
GREEN, YELLOW, RED = 3, -3_200, 90_000
#: No waiting but for answers.
PROMPT = JudgeSettings(hold_ms=0, fleet_hold_ms=0)

GOLDEN = (
    b'{"alert_id":"3:88119:clock","revision":1,"state":"OPENED","partition":3,"source":"sensor-0042",'
    b'"subject":"SOURCE","cause":"AHEAD",'
    b'"severity":"YELLOW","previous_severity":"GREEN","first_sequence":88119,"last_sequence":88121,"events":3,'
    b'"skew_ppb":41250,"at_open":{"sequence":88121,"authority_timestamp":1795252447123,'
    b'"local_timestamp":1795252450313000,"delta_ms":3190,"severity":"YELLOW","offset_us":3200000,"bound_us":40500,'
    b'"value_ms":3200},"worst":{"sequence":88120,"authority_timestamp":1795252447100,'
    b'"local_timestamp":1795252450400000,"delta_ms":3300,"severity":"YELLOW","offset_us":null,"bound_us":null,'
    b'"value_ms":3300},"at_close":null,'
    b'"text":"sensor-0042 is 3.200 s +- 0.041 s ahead (YELLOW) since 2026-11-21T09:14:07.000Z, sequence 3:88119; its '
    b'clock gains 41.2 ppm"}'
)


class Answered(NamedTuple):
    """What an answer did: the record to write, if any, and the row that it would be written from."""

    action: AlertState | None
    severity: Severity
    watch: list[int]


class _Watched:
    """One question of one source, event by event, a second apart."""

    def __init__(self, rules: JudgeSettings = PROMPT, question: Question = Question.CLOCK) -> None:
        self.watch = np.zeros((1, WATCH_COLUMNS), np.int64)
        self.state = 0
        self.rules, self.question = rules, question
        self.sequence = 0
        self.at_ms = 1_795_000_000_000

    def see(self, value_ms: int, cause: Cause = Cause.AHEAD, waits_ms: int = 0, after_ms: int = SECOND_MS) -> Answered:
        """One answer."""
        self.sequence += 1
        self.at_ms += after_ms
        columns = [self.sequence, self.at_ms, self.at_ms * 1_000 + 1_000 * value_ms, value_ms, 0, -1, value_ms]
        self.state, action = observe(
            self.watch, 0, self.state, self.question, cause, waits_ms, rules_of(self.rules), np.array(columns)
        )
        at = self.question * QUESTION_COLUMNS
        seen = self.watch[0, at : at + QUESTION_COLUMNS].tolist()
        if action:
            settle(self.watch, 0, self.question, action)
        severity = Severity(severity_in(self.state, self.question))
        return Answered(AlertState(action) if action else None, severity, seen)

    def actions(self, values: Iterable[int], cause: Cause = Cause.AHEAD) -> list[str]:
        """The first letters of what each did, of an opening or change with the severity after it; - for nothing."""
        return [
            "-" if found.action is None else f"{found.action.name[0]}{found.severity.name[0]}"
            for found in (self.see(value, cause) for value in values)
        ]


_VALUES = st.sampled_from((0, 3, 899, 900, 901, 999, 1_000, 1_001, 3_000, 4_899, 4_900, 4_999, 5_000, 90_000))
_ANSWERS = st.lists(
    st.tuples(
        _VALUES,
        st.sampled_from((1, -1)),
        st.sampled_from(("AHEAD", "BEHIND", "STEP")),
        st.sampled_from((0, 0, 0, 2_000, 5_000)),
        st.sampled_from((0, 1, 700, 5_000, -300)),
    ),
    max_size=60,
)


@st.composite
def _rules(draw: st.DrawFn) -> JudgeSettings:
    of_events = draw(st.integers(1, 8))
    return JudgeSettings(
        confirm_events=draw(st.integers(1, of_events)),
        of_events=of_events,
        clear_events=draw(st.integers(1, 4)),
        hysteresis_ms=draw(st.sampled_from((0, 1, 100, 999))),
        hold_ms=draw(st.sampled_from((0, 1_000, 10_000))),
    )


@settings(max_examples=300, deadline=None)
@given(_ANSWERS, _rules())
def test_the_machine_does_what_its_plain_twin_does(
    answers: list[tuple[int, int, str, int, int]], rules: JudgeSettings
) -> None:
    """Whatever is answered, in whatever order, whenever: the same records from the same answers, the same rest."""
    source, twin = _Watched(rules), plain.Question("clock")
    for size_ms, sign, cause, waits_ms, after_ms in answers:
        if source.state == 0 and plain.grade_of(size_ms) == 0:
            source.sequence += 1
            source.at_ms += after_ms
            continue
        found = source.see(sign * size_ms, Cause[cause], waits_ms, after_ms)
        reading = plain.Reading(source.sequence, source.at_ms, 0, sign * size_ms, None, None)
        state = twin.ask(plain.Answer(reading, sign * size_ms, cause), waits_ms, rules)
        assert (found.action.name if found.action else None) == state
        assert found.severity == twin.severity
        if state is not None:
            first = twin.answers[twin.first].reading.sequence
            assert found.watch[FIRST] == first
            assert found.watch[EVENTS] == len(twin.answers) - twin.first
            assert found.watch[LAST] == twin.last_over()
            assert found.watch[REVISION] == twin.revision
            assert Cause(found.watch[CAUSE]).name == twin.cause
            assert found.watch[WORST] == twin.worst().reading.sequence
        if state == "CLOSED":
            twin.forget()
            assert source.state == 0
            assert not source.watch.any()


def test_an_alert_opens_when_three_of_five_are_over() -> None:
    """Not before, not on an answer that is not over, and RED only where three are RED."""
    assert _Watched().actions([YELLOW, GREEN, YELLOW, GREEN, YELLOW]) == ["-", "-", "-", "-", "OY"]
    assert _Watched().actions([YELLOW, GREEN, GREEN, YELLOW, GREEN, GREEN, YELLOW, GREEN]) == ["-"] * 8
    assert _Watched().actions([RED, YELLOW, RED, RED]) == ["-", "-", "OY", "CR"]
    assert _Watched().actions([RED, RED, RED]) == ["-", "-", "OR"]


def test_an_alert_closes_after_five_calm_answers_in_a_row() -> None:
    """Calm is below the limit by more than the hysteresis; at 0.95 s a source neither opens nor closes one."""
    source = _Watched()
    assert source.actions([YELLOW] * 3)[-1] == "OY"
    assert source.actions([950] * 20) == ["-"] * 20
    assert source.actions([899, 899, 899, 899, 900, 899, 899, 899, 899, 899]) == ["-"] * 9 + ["CG"]


def test_a_red_alert_falls_to_yellow_after_five_answers_below_it() -> None:
    """And rises again when three of five are RED again; one alert all the time."""
    source = _Watched()
    source.actions([RED] * 3)
    assert source.actions([4_950] * 9 + [4_899] * 5) == ["-"] * 13 + ["CY"]
    assert source.actions([RED, RED, RED]) == ["-", "-", "CR"]
    assert source.see(RED).watch[REVISION] == 3


def test_a_flapping_source_is_one_alert_and_not_many() -> None:
    """In and out of the limit every second for an hour."""
    source = _Watched(JudgeSettings())
    actions = source.actions([1_200, 700] * 1_800)
    assert [action for action in actions if action != "-"] == ["OY"]


def test_an_alert_stays_open_for_its_least_time() -> None:
    """hold_ms of authority time from its opening, however calm."""
    source = _Watched(replace(PROMPT, hold_ms=10_000))
    source.actions([YELLOW] * 3)
    assert source.actions([0] * 10) == ["-"] * 9 + ["CG"]


def test_an_alert_that_is_not_proved_waits_from_its_first_answer_on() -> None:
    """An episode that is younger opens nothing; one that ended starts anew."""
    source = _Watched()
    actions = [source.see(YELLOW, Cause.BEHIND, waits_ms=5_000).action for _ in range(6)]
    assert actions == [None] * 5 + [AlertState.OPENED]
    source = _Watched()
    for value in (YELLOW, YELLOW, YELLOW, *[GREEN] * 5, YELLOW, YELLOW, YELLOW, YELLOW, YELLOW):
        assert source.see(value, Cause.BEHIND, waits_ms=5_000).action is None
    found = source.see(YELLOW, Cause.BEHIND, waits_ms=5_000)
    assert found.action is AlertState.OPENED
    assert found.watch[FIRST] == 9


def test_a_cause_changes_when_three_answers_in_a_row_have_the_same_other_one() -> None:
    """Calm answers between them do not count, the alert's own cause does."""
    source = _Watched()
    source.actions([YELLOW] * 3, Cause.UNKNOWN)
    order = (Cause.BEHIND, Cause.BEHIND, Cause.UNKNOWN, Cause.BEHIND, Cause.STEP, Cause.BEHIND, Cause.BEHIND)
    assert [source.see(YELLOW, cause).action for cause in order] == [None] * len(order)
    assert source.see(GREEN, Cause.AHEAD).action is None
    found = source.see(YELLOW, Cause.BEHIND)
    assert (found.action, Cause(found.watch[CAUSE])) == (AlertState.CHANGED, Cause.BEHIND)


def test_the_first_of_equal_worsts_stands_and_events_count_from_the_first_over() -> None:
    """Also those before the alert was opened."""
    source = _Watched()
    for value in (-4_000, 4_000, 2_000):
        found = source.see(value)
    assert found.action is AlertState.OPENED
    assert (found.watch[WORST], found.watch[AT_OPEN]) == (1, 3)
    assert (found.watch[FIRST], found.watch[LAST], found.watch[EVENTS], found.watch[REVISION]) == (1, 3, 3, 1)
    source.see(6_000)
    for _ in range(5):
        found = source.see(1)
    assert found.action is AlertState.CLOSED
    assert (found.watch[WORST], found.watch[LAST], found.watch[EVENTS], found.watch[REVISION]) == (4, 4, 9, 2)


def test_two_questions_of_a_source_have_an_alert_each() -> None:
    """What happens to one leaves no trace in the other."""
    source = _Watched()
    source.actions([RED] * 3)
    source.question = Question.DELAY
    assert source.actions([YELLOW] * 3, Cause.BACKLOG) == ["-", "-", "OY"]
    assert [severity_in(source.state, question) for question in OF_SOURCE] == [Severity.RED, Severity.YELLOW]
    assert source.actions([0] * 5)[-1] == "CG"
    assert [severity_in(source.state, question) for question in OF_SOURCE] == [Severity.RED, Severity.GREEN]
    assert not source.watch[0, QUESTION_COLUMNS:].any()
    source.question = Question.CLOCK
    assert source.actions([0] * 5)[-1] == "CG"
    assert source.state == 0
    assert not source.watch.any()


def _row(cause: Cause = Cause.AHEAD) -> list[int]:
    watch = [0] * QUESTION_COLUMNS
    watch[REVISION], watch[FIRST], watch[LAST], watch[EVENTS], watch[CAUSE] = 1, 88_119, 88_121, 3, cause
    watch[FIRST_MS], watch[CALM_FIRST_MS] = 1_795_252_447_000, 1_795_252_447_000
    watch[AT_OPEN : AT_OPEN + READ_COLUMNS] = (
        88_121, 1_795_252_447_123, 1_795_252_450_313_000, 3_190, 3_200_000, 40_500, 3_200
    )  # fmt: skip
    watch[WORST : WORST + READ_COLUMNS] = 88_120, 1_795_252_447_100, 1_795_252_450_400_000, 3_300, 0, -1, 3_300
    return watch


def _change(cause: Cause = Cause.AHEAD, **other: Any) -> Change:
    watch = _row(cause)
    opened = Change(
        Question.CLOCK, AlertState.OPENED, Severity.GREEN, Severity.YELLOW, 41_250, 900, 0, 0,
        watch[AT_OPEN : AT_OPEN + READ_COLUMNS], watch,
    )  # fmt: skip
    return opened._replace(**other)


def test_the_bytes_of_an_alert_are_pinned() -> None:
    """Compact JSON in the order of the schema."""
    assert change_record(3, "sensor-0042", _change()).encode() == GOLDEN


@pytest.mark.parametrize("closed", [False, True])
def test_an_alert_is_written_as_the_schema_says(closed: bool) -> None:  # noqa: FBT001 - a parameter
    """The fast path for JSON writes what the codec writes, and both framings read back."""
    alert = change_record(3, "sensor-0042", _change())
    if closed:
        now = [9, 1, 2**63 - 1, 9_223_372_036_854_775, 0, -1, 9_223_372_036_854_775]
        change = _change(state=AlertState.CLOSED, previous=Severity.RED, severity=Severity.GREEN, now=now)
        alert = change_record(0, "Füllstand", change._replace(skew_error_ppb=500_000))
        assert alert.at_close == Reading.of(now)
        assert alert.skew_ppb is None
    for framing in Framing:
        value = alert.encode(framing)
        assert value == encode("DriftAlert", asdict(alert), framing)
        assert decode("DriftAlert", value, framing) == asdict(alert)


SINCE = "since 2026-11-21T09:14:07.000Z, sequence 0:88119"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (_change(Cause.STEP), f"s stepped and is 3.200 s +- 0.041 s ahead (YELLOW) {SINCE}"),
        (
            _change(Cause.BEHIND, now=[1, 2, 3, -7_000, -6_543_210, 100_000, -6_543], severity=Severity.RED),
            f"s is 6.543 s +- 0.100 s behind (RED) {SINCE}; its clock gains 41.2 ppm",
        ),
        (_change(skew_ppb=-41_250), f"s is 3.200 s +- 0.041 s ahead (YELLOW) {SINCE}; its clock loses 41.2 ppm"),
        (_change(skew_ppb=-800), f"s is 3.200 s +- 0.041 s ahead (YELLOW) {SINCE}"),
        (
            _change(now=[1, 2, 3, 7_000, 0, -1, 7_000], skew_ppb=0, severity=Severity.RED, previous=Severity.YELLOW),
            f"s is 7.000 s ahead at least (RED, was YELLOW) {SINCE}",
        ),
        (
            _change(Cause.UNKNOWN, now=[1, 2, 3, -7_000, 0, -1, -7_000]),
            (
                f"s's events are stamped 7.000 s before they arrive (YELLOW) {SINCE}; too few agree to tell a slow "
                "clock from a slow way"
            ),
        ),
        (
            _change(Cause.BACKLOG, question=Question.DELAY, now=[1, 2, 3, -93_188, 12_000, 51_000, 93_200]),
            f"s's events arrive 93.200 s late (YELLOW) {SINCE}; its clock is 0.012 s +- 0.051 s ahead",
        ),
    ],
)
def test_a_text_says_what_is_off_and_why(change: Change, text: str) -> None:
    """What a person needs: who, by how much and how sure, how bad, since when, where in the ledger."""
    assert change_record(0, "s", change).text == text


def test_the_text_of_a_closed_alert_says_how_bad_it_was() -> None:
    """And since when all is well."""
    change = _change(state=AlertState.CLOSED, previous=Severity.YELLOW, severity=Severity.GREEN)
    since = "since 2026-11-21T09:14:07.000Z, sequence 0:0"
    text = change_record(0, "s", change).text
    assert text == f"s is within 1 s again {since}; at worst it was 3.300 s ahead (YELLOW)"
    text = change_record(0, "s", change._replace(question=Question.DELAY)).text
    assert text == f"s's events arrive within 1 s again {since}; at worst they were 3.300 s late (YELLOW)"


def test_a_forgotten_source_ends_its_alert_without_a_closing_event() -> None:
    """The severity stays the last known one: nothing proved otherwise."""
    watch = _row()
    watch[REVISION], watch[FIRST], watch[LAST] = 4, 10, 99
    alert: DriftAlert = forgotten_record(1, "s", Question.DELAY, Severity.RED, watch, 5)
    assert (alert.state, alert.revision, alert.severity, alert.at_close) == ("CLOSED", 5, "RED", None)
    assert alert.alert_id == "1:10:delay"
    assert alert.text.endswith("it was last RED at sequence 1:99")
