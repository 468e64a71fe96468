"""The rules of `severity`, compiled: the delta of a reading, its severity, whether it is warned.

Apart from them, so that who needs their types and limits alone, as settings do, loads no compiler.
"""

from __future__ import annotations

from schemas.instants import US_PER_MS
from schemas.memory import kernel
from streams.severity import (
    AUTHORITY_LIMIT_MS,
    GREEN,
    RED,
    RED_FROM_MS,
    WHOLE_LIMIT,
    YELLOW,
    YELLOW_FROM_MS,
)


@kernel
def whole_of(local_us: int, authority_ms: int) -> int:
    """Whole milliseconds of local minus authority, rounded down; the rest is local_us % 1000 microseconds."""
    return local_us // 1_000 - max(min(authority_ms, AUTHORITY_LIMIT_MS), -AUTHORITY_LIMIT_MS)


@kernel
def delta_ms_of(local_us: int, authority_ms: int) -> int:
    """Local minus authority in milliseconds, rounded half away from zero."""
    whole = whole_of(local_us, authority_ms)
    rest = local_us % 1_000
    if rest > 500 or (rest == 500 and whole >= 0):  # noqa: PLR2004 - half a millisecond
        return whole + 1
    return whole


@kernel
def rounded_ms(us: int) -> int:
    """Whole milliseconds, rounded half away from zero."""
    size_ms = (abs(us) + US_PER_MS // 2) // US_PER_MS
    return size_ms if us >= 0 else -size_ms


@kernel
def bound_ms_of(bound_us: int) -> int:
    """Whole milliseconds that reach as far as a bound; -1, where there is none, stays."""
    return -(-bound_us // US_PER_MS) if bound_us >= 0 else -1


@kernel
def severity_of(delta_ms: int) -> int:
    """Severity of a rounded delta, as the number of a Severity."""
    distance_ms = abs(delta_ms)
    if distance_ms < YELLOW_FROM_MS:
        return GREEN
    if distance_ms < RED_FROM_MS:
        return YELLOW
    return RED


@kernel
def is_warned(local_us: int, authority_ms: int, threshold_us: int) -> bool:
    """Whether the unrounded distance of the two exceeds the threshold (0 to THRESHOLD_LIMIT_US) strictly."""
    whole = whole_of(local_us, authority_ms)
    if whole > WHOLE_LIMIT or whole < -WHOLE_LIMIT - 1:
        return True
    return abs(whole * 1_000 + local_us % 1_000) > threshold_us
