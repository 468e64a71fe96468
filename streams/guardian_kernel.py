"""Heartbeats read off the ledger, and by how much a worker's clock is off at least: see `guardian`.

Control records are read by the codec, one by one. Heartbeats are nearly all of them, and of an idle partition nearly
all of the ledger: the codec takes 22 us for one, what is here 0.1. It accepts exactly what the codec does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from schemas.avro_reader import BAD_LENGTH, read_branch, read_long, read_text
from schemas.canonical import EntryKind
from schemas.event_kernel import PREFIX_BYTES, prefix_fault
from schemas.memory import kernel
from streams.alert_kernel import QUESTION_COLUMNS
from streams.authority_kernel import SHIFT_MS, SHIFTED_MS, true_ms_of
from streams.severity_kernel import delta_ms_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from schemas.columns import Entries

# Columns of heartbeats: the row of the batch, the worker's clock, of the round trip before, if there is one, when the
# broker appended it and when the worker knew, and where the worker's name stands.
BEAT_ROW: Final = 0
BEAT_WORKER_US: Final = 1
BEAT_HAS_TRIP: Final = 2
BEAT_APPENDED_MS: Final = 3
BEAT_ACKED_US: Final = 4
BEAT_NAME: Final = 5
BEAT_NAME_LENGTH: Final = 6
BEAT_COLUMNS: Final = 7

_CONTROL: Final = int(EntryKind.CONTROL)
#: Lengths are bounded by what is there.
_ANY_LENGTH: Final = 1 << 62

# Columns of what is known of the worker's clock, after those of the alert about it: the machine's state, and whether
# the guardian has locked the partition for it.
GUARD_STATE: Final = QUESTION_COLUMNS
GUARD_ANSWERED: Final = QUESTION_COLUMNS + 1
GUARD_COLUMNS: Final = QUESTION_COLUMNS + 2


@kernel
def read_beats(entries: Entries, beats: NDArray[np.int64], fingerprint: int, branch: int) -> int:
    """Read the heartbeats among the rows into beats, in order; returns how many there are.

    beats: int64[n, BEAT_COLUMNS], a row for each CONTROL entry at least. fingerprint: of a control record, as an int64;
    branch: of its body where it is a heartbeat.
    """
    found = 0
    for row in range(entries.kind.size):
        position, length = int(entries.value_address[row]), int(entries.value_length[row])
        if entries.kind[row] != _CONTROL or position == 0 or length <= PREFIX_BYTES:
            continue
        if prefix_fault(position, length, fingerprint) != 0:
            continue
        if _read_beat(position + PREFIX_BYTES, position + length, beats, found, branch):
            beats[found, BEAT_ROW] = row
            found += 1
    return found


@kernel
def _read_beat(position: int, end: int, beats: NDArray[np.int64], beat: int, branch: int) -> bool:
    """Read a control record behind its prefix; False for what is no heartbeat, or no record."""
    kind, position = read_long(position, end)
    if position < 0 or kind != branch:
        return False
    known, position = read_branch(position, end)
    if position > 0 and known != 0:
        _, position = read_long(position, end)
    if position > 0:
        _, position = read_long(position, end)
    if position > 0:
        beats[beat, BEAT_WORKER_US], position = read_long(position, end)
    if position > 0:
        beats[beat, BEAT_HAS_TRIP], position = read_branch(position, end)
    beats[beat, BEAT_APPENDED_MS] = beats[beat, BEAT_ACKED_US] = 0
    if position > 0 and beats[beat, BEAT_HAS_TRIP] != 0:
        beats[beat, BEAT_APPENDED_MS], position = read_long(position, end)
        if position > 0:
            beats[beat, BEAT_ACKED_US], position = read_long(position, end)
    if position < 0:
        return False
    length, position = read_text(position, end, _ANY_LENGTH, BAD_LENGTH)
    if position < 0:
        return False
    beats[beat, BEAT_NAME], beats[beat, BEAT_NAME_LENGTH] = position, length
    length, position = read_text(position + length, end, _ANY_LENGTH, BAD_LENGTH)
    return bool(position > 0 and position + length == end)


@kernel
def worker_off_ms(beats: NDArray[np.int64], beat: int, authority_ms: int, authority: NDArray[np.int64]) -> int:
    """By how many ms the worker's clock is ahead (behind: negative) at least; 0 where neither is proved.

    authority_ms: of the heartbeat's entry. authority: what is known of the broker's clock, see `authority_kernel`: of
    the broker that stamps the input. Heartbeats are stamped where the control topic is led, which may be elsewhere: so
    what is proved is what holds whether that clock is shifted or not.
    """
    plain_ms = _off_ms(beats, beat, authority_ms, 0, authority[SHIFTED_MS])
    if authority[SHIFT_MS] == 0:
        return plain_ms
    off_ms = _off_ms(beats, beat, authority_ms, authority[SHIFT_MS], authority[SHIFTED_MS])
    return min(plain_ms, off_ms) if min(plain_ms, off_ms) > 0 else min(max(plain_ms, off_ms), 0)


@kernel
def _off_ms(beats: NDArray[np.int64], beat: int, authority_ms: int, shift_ms: int, since_ms: int) -> int:
    """The same of a broker that is so much ahead. since_ms: round trips from before say nothing."""
    ahead_ms = delta_ms_of(beats[beat, BEAT_WORKER_US], true_ms_of(authority_ms, shift_ms))
    if ahead_ms > 0:
        return ahead_ms
    if beats[beat, BEAT_HAS_TRIP] != 0 and beats[beat, BEAT_APPENDED_MS] >= since_ms:
        return min(0, delta_ms_of(beats[beat, BEAT_ACKED_US], true_ms_of(beats[beat, BEAT_APPENDED_MS], shift_ms)))
    return 0
