"""Ageing by use: how old data counts for where it should lie, when what is read is to stay at hand.

Problem: age alone sends to the archive what everybody asks for, and keeps at hand what nobody does. Counting reads in
steps of time needs a pass over all of it at each step. Forward decay (Cormode et al., ICDE 2009) needs none: what was
written at w and read at t1, t2, ... has, for a half-life T, the entropy

    S(now) = now / T - log2(2^(w/T) + 2^(t1/T) + 2^(t2/T) + ...)

so it grows by one bit in a half-life, and each read lowers it. The sum does not depend on now: it is kept as one float
a segment, its heat: log2 of what the reads weigh beside the write, of which S is (now - w) / T - log2(1 + 2^heat).

GUARANTEE without reads S is plain age in half-lives, exactly: no heat, no logarithm, no rounding but the division's.
GUARANTEE the order in which reads come, and in which heats are merged, changes heat by rounding only.
HAZARD heat decides what lies where, never what is answered: it is lost without harm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from schemas.errors import BadInputError

#: Of what was never read.
COLD: Final = -math.inf
#: Beyond it the smaller of two sums is none of the larger's bits.
_BITS_MAX: Final = 60.0


@dataclass(frozen=True, slots=True)
class Ageing:
    """When data moves. Raises BadInputError where the numbers contradict each other.

    half_life_us: T. limit: S above which a segment leaves; hysteresis: so many bits below it one comes back.
    stay_us: what was moved is not moved back before.
    """

    half_life_us: int
    limit: float
    hysteresis: float
    stay_us: int

    def __post_init__(self) -> None:
        if self.half_life_us <= 0:
            raise BadInputError(f"a half-life of {self.half_life_us} us is none. Give one above 0")
        if not 0 <= self.hysteresis <= self.limit or not math.isfinite(self.limit):
            raise BadInputError(
                f"what comes back at {self.limit - self.hysteresis} bits cannot leave at {self.limit}: the limit must "
                "be finite, and the hysteresis between 0 and the limit"
            )
        if self.stay_us < 0:
            raise BadInputError(f"data cannot stay for {self.stay_us} us. Give 0 or more")

    def leaves(self, entropy: float, moved_us: int, now_us: int) -> bool:
        """Whether a segment of that entropy, moved here then, is to leave."""
        return entropy > self.limit and now_us - moved_us >= self.stay_us

    def returns(self, entropy: float, moved_us: int, now_us: int) -> bool:
        """Whether one that left then is to come back."""
        return entropy < self.limit - self.hysteresis and now_us - moved_us >= self.stay_us


def entropy(written_us: int, heat: float, now_us: int, half_life_us: int) -> float:
    """S of a segment, in bits."""
    age = (now_us - written_us) / half_life_us
    return age if heat == COLD else age - _log2_sum(0.0, heat)


def after_read(heat: float, written_us: int, read_us: int, half_life_us: int) -> float:
    """The heat of a segment that was read."""
    return _log2_sum(heat, (read_us - written_us) / half_life_us)


def reads(written_us: int, heat: float, now_us: int, half_life_us: int) -> float:
    """The reads of a segment, each of which counts 1 when it is made, and half after each half-life; 2^60 at most."""
    return math.pow(2.0, min(heat - (now_us - written_us) / half_life_us, _BITS_MAX))


def merged(parts: list[tuple[int, float]], half_life_us: int) -> tuple[int, float]:
    """(written_us, heat) of several segments as one: as young as the youngest, read as all of them were.

    Raises BadInputError for none.
    """
    if not parts:
        raise BadInputError("no segment has no age. Give one or more")
    written_us = max(written for written, _ in parts)
    heat = COLD
    for written, part in sorted(parts):
        heat = _log2_sum(heat, part + (written - written_us) / half_life_us)
    return written_us, heat


def _log2_sum(one: float, other: float) -> float:
    """log2(2^one + 2^other)."""
    low, high = min(one, other), max(one, other)
    if low == -math.inf or high - low > _BITS_MAX:
        return high
    return high + math.log2(1.0 + 2.0 ** (low - high))
