"""Whether many sources moved together: then it was the broker's clock that moved, and not theirs.

Problem: append times are the broker's. Where the clock of a partition's leader steps, every source seems to step, or to
be late, and hundreds of alerts say of hundreds of right clocks that they are wrong. One source cannot tell; all of a
partition together can: a delay differs from source to source and from second to second, the step of the one clock that
stamps them all does not.

How. Two readings that lie elsewhere by a second or more raise the question, low ones if they are three seconds apart
(what a queue gives back looks alike for a moment); so does a step that is confirmed. Of the sources that were known and
heard of within two and a half minutes before:

    moved   its readings lie elsewhere, steadily, low ones for three seconds, or it stepped, lately, by the amount that
            most have, to 250 ms
    not     it was heard where it was expected, its readings lie elsewhere by another amount, or nothing came since

Where at least 8 moved, and 4 in 5 of all, and most of them lie farther off than before (who is set right moves, too),
the authority is taken to have moved by the mean of them, the other way. From then on `shift_ms` is taken off append
times before a clock is estimated, a cause is found or an alert opened; what was learnt of a clock that seemed to step
is undone. The plain severity stays what it is; its cause then is AUTHORITY.

A verdict is doubted by each event that would be within the limit without it and is not with it, or arrived before it
was made although the authority is ahead; and confirmed by each that is the other way round. Of a source that sends more
than its share, among those that were heard when it was found, no more than its share counts. Where the doubts are as
many as the sources that moved, it is taken back, and all clocks are learnt anew: a leader that was slewed back, or a
queue that drained slowly, is not taken for a step for ever.

GUARANTEE a function of the partition's entries: the question is asked when entries say so, at most once a second of
authority time, and once in four seconds or for each quarter as many events as there are sources, so that its cost is
bounded.
HAZARD a way to the broker that becomes longer for all sources by the same amount, and stays so to within their jitter,
looks like a broker's clock that went ahead. A partition of fewer than 8 sources says nothing of its broker, nor does a
step of less than a second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from schemas.instants import MS_PER_S
from schemas.memory import kernel
from streams.alert_kernel import (
    AT_OPEN,
    CAUSE,
    EVENTS,
    FIRST,
    FIRST_MS,
    LAST,
    QUESTION_COLUMNS,
    READ_AUTHORITY_MS,
    READ_COLUMNS,
    READ_SEQUENCE,
    READ_VALUE_MS,
    REVISION,
    WORST,
    AlertState,
)
from streams.causes import Cause
from streams.clock_columns import (
    DISTURBANCES,
    GOOD_MS,
    LAST_STEP_MS,
    LAST_STEP_US,
    OFF_COUNT,
    OFF_FIRST_MS,
    OFF_FIRST_SEQUENCE,
    OFF_MAX_US,
    OFF_MIN_US,
    SAMPLES,
    STEP_MS,
    STEP_US,
    TICK_US,
    instant_of,
)
from streams.estimate_kernel import CONFIRM_READINGS, OFFSET_MAX_US, line_us, move, now_of, turn_back
from streams.severity import GREEN
from streams.severity_kernel import rounded_ms, severity_of
from streams.sources import COUNT

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from streams.sources import Sources

# Columns of what is known of a partition's authority, after those of the alert about it (see alert_kernel).
#: By how much it is ahead.
SHIFT_MS: Final = QUESTION_COLUMNS
#: When that was found: round trips from before say nothing any more.
SHIFTED_MS: Final = QUESTION_COLUMNS + 1
#: The second and the sequence at which was asked last.
ASKED_S: Final = QUESTION_COLUMNS + 2
ASKED_SEQUENCE: Final = QUESTION_COLUMNS + 3
#: How many sources moved when it was found, and of how many; how much it is doubted.
MOVED: Final = QUESTION_COLUMNS + 4
OF: Final = QUESTION_COLUMNS + 5
DOUBT: Final = QUESTION_COLUMNS + 6
AUTHORITY_COLUMNS: Final = QUESTION_COLUMNS + 7

MOVED_MIN: Final = 8
_MOVED_SHARE: Final = 0.8
_STEP_MIN_US: Final = 1_000_000
_RUN_MIN_MS: Final = 3_000
_TOLERANCE_US: Final = 250_000
_LATELY_MS: Final = 150_000
_EVENTS_SHARE: Final = 4
#: Long enough for a run of low readings, and short enough that no source's alert opens before (fleet_hold_ms).
_ASKED_AGAIN_S: Final = 4
_DOUBTS_SHARE: Final = 2
_OPENED, _CHANGED, _CLOSED = (int(state) for state in AlertState)
_CAUSE_AUTHORITY: Final = int(Cause.AUTHORITY)


@kernel
def true_ms_of(authority_ms: int, shift_ms: int) -> int:
    """What an append time should have been, of an authority that is so much ahead."""
    return authority_ms if shift_ms == 0 else instant_of(authority_ms) - shift_ms


@kernel
def _moved_by(clocks: NDArray[np.int64], slot: int, at_ms: int) -> tuple[bool, int]:
    """Whether a source that was known lies elsewhere lately, and by how many us."""
    if clocks[slot, SAMPLES] < CONFIRM_READINGS:
        return False, 0
    now_ms, off_us = now_of(clocks, slot, at_ms), clocks[slot, OFF_MAX_US]
    if clocks[slot, OFF_COUNT] > 0:
        run_ms = instant_of(at_ms) - clocks[slot, OFF_FIRST_MS]
        lasts = off_us > 0 or (clocks[slot, OFF_COUNT] > 1 and run_ms >= _RUN_MIN_MS)
        steady = off_us - clocks[slot, OFF_MIN_US] <= _TOLERANCE_US
        return bool(lasts and steady and 0 <= run_ms <= _LATELY_MS), int(off_us)
    stepped = clocks[slot, LAST_STEP_US] != 0 and 0 <= now_ms - clocks[slot, STEP_MS] <= _LATELY_MS
    return bool(stepped), int(clocks[slot, LAST_STEP_US])


@kernel
def _asks(clocks: NDArray[np.int64], slot: int, at_ms: int, stepped: bool) -> bool:  # noqa: FBT001
    """Whether a source moved so that the question is raised."""
    moved, by_us = _moved_by(clocks, slot, at_ms)
    return bool(moved and abs(by_us) >= _STEP_MIN_US and (stepped or clocks[slot, OFF_COUNT] > 1))


@kernel
def _amount_of_most(clocks: NDArray[np.int64], count: int, at_ms: int) -> int:
    """What more than half of those that moved have in common, if anything: R. Boyer, J S. Moore, MJRTY, 1981."""
    amount_us = votes = 0
    for slot in range(count):
        moved, by_us = _moved_by(clocks, slot, at_ms)
        if moved and votes == 0:
            amount_us, votes = by_us, 1
        elif moved:
            votes += 1 if abs(by_us - amount_us) <= _TOLERANCE_US else -1
    return amount_us


@kernel
def _count_moved(
    clocks: NDArray[np.int64], count: int, at_ms: int, since_ms: int, amount_us: int
) -> tuple[int, int, int, int]:
    """How many sources moved by that amount, of how many, how many of them away, and the mean in us."""
    moved = of = away = more_us = 0
    for slot in range(count):
        elsewhere, by_us = _moved_by(clocks, slot, at_ms)
        if elsewhere and abs(by_us - amount_us) <= _TOLERANCE_US:
            moved += 1
            of += 1
            more_us += by_us - amount_us
            before_us = line_us(clocks, slot, now_of(clocks, slot, at_ms))
            if clocks[slot, OFF_COUNT] == 0:
                before_us -= by_us
            away += abs(before_us) < abs(before_us + by_us)
        elif clocks[slot, SAMPLES] >= CONFIRM_READINGS and clocks[slot, GOOD_MS] >= since_ms:
            of += 1
    return moved, of, away, amount_us + (more_us // moved if moved > 0 else 0)


@kernel
def _undo(
    clocks: NDArray[np.int64], points: NDArray[np.int32], count: int, at_ms: int, amount_us: int, now_ms: int
) -> int:
    """Of the sources that moved: what was learnt of it. Returns the slot of the one that moved first, -1 for none.

    now_ms: what at_ms is now taken to be.
    """
    first = -1
    for slot in range(count):
        elsewhere, by_us = _moved_by(clocks, slot, at_ms)
        if not elsewhere or abs(by_us - amount_us) > _TOLERANCE_US:
            continue
        if clocks[slot, OFF_COUNT] > 0:
            if first < 0 or clocks[slot, OFF_FIRST_SEQUENCE] < clocks[first, OFF_FIRST_SEQUENCE]:
                first = slot
            clocks[slot, OFF_COUNT] = 0
            continue
        move(clocks, slot, -by_us)
        clocks[slot, STEP_US] -= by_us
        clocks[slot, LAST_STEP_US] = 0
        if clocks[slot, STEP_US] == 0:
            clocks[slot, DISTURBANCES] -= 1
        turn_back(clocks, points, slot, now_ms)
    return first


@kernel
def authority_moved(
    sources: Sources, authority: NDArray[np.int64], slot: int, stepped: bool, reading: NDArray[np.int64],  # noqa: FBT001
) -> tuple[int, int, int]:  # fmt: skip
    """Ask, after an event of the source in a slot that lay elsewhere, or stepped, whether the authority moved.

    authority: int64[AUTHORITY_COLUMNS], moved along. reading: of the event. Returns the AlertState to record, 0 for
    none, and the severity of the alert before and after.
    """
    clocks, count = sources.clocks, sources.used[COUNT]
    sequence, authority_ms = reading[READ_SEQUENCE], reading[READ_AUTHORITY_MS]
    at_ms = true_ms_of(authority_ms, authority[SHIFT_MS])
    second = authority_ms // MS_PER_S
    if (
        not _asks(clocks, slot, at_ms, stepped)
        or second == authority[ASKED_S]
        or (
            0 <= second - authority[ASKED_S] < _ASKED_AGAIN_S
            and sequence - authority[ASKED_SEQUENCE] < count // _EVENTS_SHARE
        )
    ):
        return 0, GREEN, GREEN
    authority[ASKED_S], authority[ASKED_SEQUENCE] = second, sequence
    amount_us = _amount_of_most(clocks, count, at_ms)
    since_ms = min(clocks[slot, GOOD_MS], clocks[slot, LAST_STEP_MS] if stepped else clocks[slot, GOOD_MS]) - _LATELY_MS
    moved, of, away, mean_us = _count_moved(clocks, count, at_ms, since_ms, amount_us)
    far = abs(mean_us) < _STEP_MIN_US or abs(mean_us) >= OFFSET_MAX_US - _TOLERANCE_US - TICK_US
    if far or moved < MOVED_MIN or moved < _MOVED_SHARE * of or 2 * away <= moved:
        return 0, GREEN, GREEN
    first = _undo(clocks, sources.points, count, at_ms, amount_us, instant_of(at_ms) + rounded_ms(mean_us))
    begun, begun_ms = sequence, authority_ms
    if first >= 0:
        begun = clocks[first, OFF_FIRST_SEQUENCE]
        begun_ms = clocks[first, OFF_FIRST_MS] + authority[SHIFT_MS]
    authority[MOVED], authority[OF] = moved, of
    shift_ms = authority[SHIFT_MS] - rounded_ms(mean_us)
    return _shift(authority, shift_ms, begun, begun_ms, reading)


@kernel
def _shift(
    authority: NDArray[np.int64], shift_ms: int, begun: int, begun_ms: int, reading: NDArray[np.int64]
) -> tuple[int, int, int]:
    """Take the authority to be so much ahead; (AlertState to record, severity of its alert before and after)."""
    if abs(shift_ms) <= rounded_ms(_TOLERANCE_US):
        shift_ms = 0
    sequence, authority_ms = reading[READ_SEQUENCE], reading[READ_AUTHORITY_MS]
    before, after = severity_of(authority[SHIFT_MS]), severity_of(shift_ms)
    authority[SHIFTED_MS] = instant_of(authority_ms) + max(0, authority[SHIFT_MS] - shift_ms)
    authority[SHIFT_MS], authority[DOUBT] = shift_ms, 0
    reading[READ_VALUE_MS] = shift_ms
    if before == GREEN and after == GREEN:
        return 0, GREEN, GREEN
    authority[REVISION] += 1
    authority[CAUSE] = _CAUSE_AUTHORITY
    if before == GREEN:
        authority[FIRST], authority[FIRST_MS] = begun, begun_ms
        _note(authority, AT_OPEN, reading)
    if before == GREEN or abs(shift_ms) > abs(authority[WORST + READ_VALUE_MS]):
        _note(authority, WORST, reading)
    authority[LAST] = sequence
    authority[EVENTS] = sequence - authority[FIRST] + 1
    return _OPENED if before == GREEN else _CLOSED if after == GREEN else _CHANGED, before, after


@kernel
def authority_doubted(
    sources: Sources, authority: NDArray[np.int64], before_sequence: int, delta_ms: int, true_delta_ms: int,
    reading: NDArray[np.int64],
) -> tuple[int, int, int]:  # fmt: skip
    """See whether an event speaks for or against the shift; takes it back where too many spoke against it.

    before_sequence: of the event of its source before it. delta_ms, true_delta_ms: without the shift, and with it. The
    result is that of `authority_moved`.
    """
    if reading[READ_SEQUENCE] - before_sequence < authority[OF] // _DOUBTS_SHARE:
        return 0, GREEN, GREEN
    plain, shifted = severity_of(delta_ms), severity_of(true_delta_ms)
    early = authority[SHIFT_MS] > 0 and true_delta_ms > 0 and shifted != GREEN
    if early or (plain == GREEN and shifted != GREEN):
        authority[DOUBT] += 1
    elif shifted == GREEN and plain != GREEN:
        authority[DOUBT] = max(0, authority[DOUBT] - 1)
    if authority[DOUBT] < authority[MOVED]:
        return 0, GREEN, GREEN
    for slot in range(sources.used[COUNT]):
        sources.clocks[slot, SAMPLES] = 0
    return _shift(authority, 0, reading[READ_SEQUENCE], reading[READ_AUTHORITY_MS], reading)


@kernel
def _note(authority: NDArray[np.int64], at: int, reading: NDArray[np.int64]) -> None:
    for column in range(READ_COLUMNS):
        authority[at + column] = reading[column]
