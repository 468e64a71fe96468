"""The alert machine, compiled: when an alert opens, changes and closes. What its records say stands in `alerts`.

Problem: one reading proves little (a retry, a queue, a pause), a source on the edge of a limit must not flap, and what
looks like a source's fault may be the broker's. So each of a source's two questions (`causes`: how far is its clock
off, how long was the event under way) is asked with every judged event, and an alert follows the answers slowly.

An answer is over a limit when its size is at least that of YELLOW, or of RED (see `severity`); it is calm when it is
below that limit by more than `hysteresis_ms`. An episode begins with an answer over YELLOW and ends when of the last
`of_events` answers none is.

    no alert     of the last of_events answers confirm_events are over, this one is, and the episode is as old as its
                 cause asks for: OPENED; RED where as many are over RED, else YELLOW
    YELLOW       of the last of_events answers confirm_events are over RED, this one is: CHANGED to RED
    RED          the last clear_events answers are calm for RED, and not all for YELLOW: CHANGED to YELLOW
    any          confirm_events answers over YELLOW have one other cause, with none of the alert's between: CHANGED;
                 twice as many the next time, and so on, for what two causes explain in turn is one thing
    any          the last clear_events answers are calm for YELLOW, and the alert is at least hold_ms old: CLOSED

An alert whose cause the event itself proves (AHEAD: it was appended so long before it was made) may open at once. Any
other waits fleet_hold_ms of authority time from the first
answer of its episode on, a STEP from its first reading on: so long it takes to tell that many sources of a partition
moved together. A BACKLOG of a source that tells round trips waits for them, as its estimate does.

GUARANTEE one alert at a time of one partition, source and question.
GUARANTEE a function of the source's judged events, in their order, and of the settings in force.

How: each source has a watch, two rows of int64 columns, one for each question, that only an episode or an open alert
touches, and a packed state, of each question

    bits 0-1 severity of its open alert, GREEN for none | bit 2 its row is in use

Fields that are not in use are zero, always: the watch is part of the snapshot, and a snapshot is the same whatever
happened before.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final, NamedTuple

from schemas.memory import kernel
from streams.clock_columns import instant_of
from streams.severity import GREEN, RED, RED_FROM_MS, YELLOW, YELLOW_FROM_MS
from streams.severity_kernel import severity_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class AlertState(enum.IntEnum):
    """What a record says about its alert."""

    OPENED = 1
    CHANGED = 2
    CLOSED = 3


class Question(enum.IntEnum):
    """What an alert is about."""

    CLOCK = 0
    DELAY = 1
    #: Of no source, but of the broker; see `authority_kernel`.
    AUTHORITY = 2
    #: Of no source either, but of the worker that writes the partition; see `guardian`.
    WORKER = 3


_OPENED, _CHANGED, _CLOSED = (int(state) for state in AlertState)

# Columns of a reading: what is noted of one event. bound_us is -1 where no estimate was known; value_ms is the answer.
READ_SEQUENCE: Final = 0
READ_AUTHORITY_MS: Final = 1
READ_LOCAL_US: Final = 2
READ_DELTA_MS: Final = 3
READ_OFFSET_US: Final = 4
READ_BOUND_US: Final = 5
READ_VALUE_MS: Final = 6
READ_COLUMNS: Final = 7

# Columns of one question's row. Of the last answers, the newest in bit 0: whether over YELLOW, whether over RED.
YELLOWS: Final = 0
REDS: Final = 1
#: The first event of the episode, and the last one over YELLOW; how many the source sent since the first.
FIRST: Final = 2
FIRST_MS: Final = 3
LAST: Final = 4
EVENTS: Final = 5
#: Of the alert: its records so far, its Cause, since when it is open.
REVISION: Final = 6
CAUSE: Final = 7
OPENED_MS: Final = 8
#: Answers in a row that are calm for YELLOW, the first of them, and that are calm for RED.
CALM: Final = 9
CALM_FIRST: Final = 10
CALM_FIRST_MS: Final = 11
EASED: Final = 12
#: Another Cause that answers had in a row, and how many; how often the cause has changed.
OTHER: Final = 13
OTHER_COUNT: Final = 14
CAUSE_CHANGES: Final = 15
AT_OPEN: Final = 16
WORST: Final = AT_OPEN + READ_COLUMNS
QUESTION_COLUMNS: Final = WORST + READ_COLUMNS
#: The questions of a source; their rows stand one behind the other.
OF_SOURCE: Final = (Question.CLOCK, Question.DELAY)
WATCH_COLUMNS: Final = len(OF_SOURCE) * QUESTION_COLUMNS

_STATE_BITS: Final = 3
_SEVERITY_MASK: Final = 3
_IN_USE: Final = 4
#: A cause that stays for a million times confirm_events is told whatever was before.
_DOUBLINGS_MAX: Final = 20
#: Bits of a state, some of which are set while any alert of the source is open.
ALERTED: Final = sum(_SEVERITY_MASK << (_STATE_BITS * question) for question in OF_SOURCE)


class Rules(NamedTuple):
    """The settings of the machine; see the module and `definitions`."""

    confirm_events: int
    of_events: int
    clear_events: int
    hysteresis_ms: int
    hold_ms: int
    fleet_hold_ms: int


@kernel
def severity_in(state: int, question: int) -> int:
    """Severity of the open alert on a question, GREEN for none."""
    return (state >> (_STATE_BITS * question)) & _SEVERITY_MASK


@kernel
def in_use(state: int, question: int) -> bool:
    """Whether the question's row of the watch is."""
    return (state >> (_STATE_BITS * question)) & _IN_USE != 0


@kernel
def _with_severity(state: int, question: int, severity: int, used: int) -> int:
    shift = _STATE_BITS * question
    return (state & ~((_SEVERITY_MASK | _IN_USE) << shift)) | (severity | used) << shift


@kernel
def _ones(bits: int) -> int:
    """How many bits are set."""
    count = 0
    while bits != 0:
        bits &= bits - 1
        count += 1
    return count


@kernel
def _age_ms(since_ms: int, at_ms: int) -> int:
    """How long ago an instant is, as far as can be reckoned with; of a broker's clock that went back it lies ahead."""
    return abs(instant_of(at_ms) - instant_of(since_ms))


@kernel
def observe(
    watch: NDArray[np.int64], slot: int, state: int, question: int, cause: int, waits_ms: int, rules: Rules,
    reading: NDArray[np.int64],
) -> tuple[int, int]:  # fmt: skip
    """One answer of a source: its new state, and the AlertState to record (0 for none).

    cause: that it has if it is over a limit. waits_ms: how old its episode must be to open an alert. reading:
    int64[READ_COLUMNS]. After a record the caller copies the question's row of the watch and then calls `settle`. Not
    to be called for a GREEN answer on a row that is not in use, where nothing can change.
    """
    at = question * QUESTION_COLUMNS
    value_ms, at_ms = reading[READ_VALUE_MS], reading[READ_AUTHORITY_MS]
    size_ms, grade, severity = abs(value_ms), severity_of(value_ms), severity_in(state, question)
    remembered = (1 << rules.of_events) - 1
    yellows = (watch[slot, at + YELLOWS] << 1 | (grade != GREEN)) & remembered
    reds = (watch[slot, at + REDS] << 1 | (grade == RED)) & remembered
    if severity == GREEN and yellows == 0:
        watch[slot, at : at + QUESTION_COLUMNS] = 0
        return _with_severity(state, question, GREEN, 0), 0
    watch[slot, at + YELLOWS], watch[slot, at + REDS] = yellows, reds
    begins = watch[slot, at + FIRST] == 0
    if begins:
        watch[slot, at + FIRST], watch[slot, at + FIRST_MS] = reading[READ_SEQUENCE], at_ms
    watch[slot, at + EVENTS] += 1
    if grade != GREEN:
        watch[slot, at + LAST] = reading[READ_SEQUENCE]
    if begins or size_ms > abs(watch[slot, at + WORST + READ_VALUE_MS]):
        _note(watch, slot, at + WORST, reading)
    if severity == GREEN:
        waited = _age_ms(watch[slot, at + FIRST_MS], at_ms) >= waits_ms
        if grade == GREEN or _ones(yellows) < rules.confirm_events or not waited:
            return _with_severity(state, question, GREEN, _IN_USE), 0
        severity = RED if _ones(reds) >= rules.confirm_events else YELLOW
        watch[slot, at + REVISION], watch[slot, at + CAUSE], watch[slot, at + OPENED_MS] = 1, cause, at_ms
        _note(watch, slot, at + AT_OPEN, reading)
        return _with_severity(state, question, severity, _IN_USE), _OPENED
    _count_calm(watch, slot, at, size_ms, rules.hysteresis_ms, reading)
    _count_others(watch, slot, at, grade, cause)
    open_ms = _age_ms(watch[slot, at + OPENED_MS], at_ms)
    if watch[slot, at + CALM] >= rules.clear_events and open_ms >= rules.hold_ms:
        watch[slot, at + REVISION] += 1
        return _with_severity(state, question, GREEN, 0), _CLOSED
    after = severity
    if severity == YELLOW and grade == RED and _ones(reds) >= rules.confirm_events:
        after = RED
    elif severity == RED and watch[slot, at + EASED] >= rules.clear_events > watch[slot, at + CALM]:
        after = YELLOW
    others = rules.confirm_events << min(watch[slot, at + CAUSE_CHANGES], _DOUBLINGS_MAX)
    if after == severity and watch[slot, at + OTHER_COUNT] < others:
        return state, 0
    if watch[slot, at + OTHER_COUNT] >= others:
        watch[slot, at + CAUSE] = watch[slot, at + OTHER]
        watch[slot, at + CAUSE_CHANGES] += 1
        watch[slot, at + OTHER] = watch[slot, at + OTHER_COUNT] = 0
    watch[slot, at + REVISION] += 1
    return _with_severity(state, question, after, _IN_USE), _CHANGED


@kernel
def settle(watch: NDArray[np.int64], slot: int, question: int, action: int) -> None:
    """Zero what is no longer in use after a record: after CLOSED the row."""
    if action == _CLOSED:
        at = question * QUESTION_COLUMNS
        watch[slot, at : at + QUESTION_COLUMNS] = 0


@kernel
def _note(watch: NDArray[np.int64], slot: int, at: int, reading: NDArray[np.int64]) -> None:
    for column in range(READ_COLUMNS):
        watch[slot, at + column] = reading[column]


@kernel
def _count_calm(
    watch: NDArray[np.int64], slot: int, at: int, size_ms: int, hysteresis_ms: int, reading: NDArray[np.int64]
) -> None:
    """Of answers in a row that are calm."""
    watch[slot, at + EASED] = watch[slot, at + EASED] + 1 if size_ms < RED_FROM_MS - hysteresis_ms else 0
    if size_ms >= YELLOW_FROM_MS - hysteresis_ms:
        watch[slot, at + CALM] = watch[slot, at + CALM_FIRST] = watch[slot, at + CALM_FIRST_MS] = 0
        return
    if watch[slot, at + CALM] == 0:
        watch[slot, at + CALM_FIRST] = reading[READ_SEQUENCE]
        watch[slot, at + CALM_FIRST_MS] = reading[READ_AUTHORITY_MS]
    watch[slot, at + CALM] += 1


@kernel
def _count_others(watch: NDArray[np.int64], slot: int, at: int, grade: int, cause: int) -> None:
    """Of answers over YELLOW in a row that have one other cause than the alert."""
    if grade == GREEN:
        return
    if cause == watch[slot, at + CAUSE]:
        watch[slot, at + OTHER] = watch[slot, at + OTHER_COUNT] = 0
    elif cause == watch[slot, at + OTHER]:
        watch[slot, at + OTHER_COUNT] += 1
    else:
        watch[slot, at + OTHER], watch[slot, at + OTHER_COUNT] = cause, 1
