"""What is known of one source's clock, as people read it: in a list, and in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from schemas.instants import MS_PER_S, US_PER_MS, US_PER_S, format_ms
from streams.causes import Cause
from streams.clock_columns import SKEW_MAX_PPB
from streams.estimate import Method
from streams.severity import Severity, drift_seconds
from streams.severity_kernel import bound_ms_of, rounded_ms

if TYPE_CHECKING:
    from streams.estimate import Estimate

PPB_PER_PPM: Final = 1_000


class SourceClock(NamedTuple):
    """One source of a partition. at_ms: authority time of the estimate; good_ms: of the last reading that it rests on.

    last_sequence: of its last event. alert, cause: of the open alert about its clock, GREEN and NONE without; late: of
    the one about the way of its events. broker_ms: how far the partition's broker is known to be ahead, which is left
    out of the estimate.
    """

    partition: int
    source: str
    last_sequence: int
    alert: Severity
    cause: Cause
    late: Severity
    at_ms: int
    good_ms: int
    broker_ms: int
    estimate: Estimate

    def order(self, by: str) -> tuple[bool, float, str, int]:
        """By which a list is sorted: the largest offset, skew or bound first, or else by name; unknown ones last."""
        found = self.estimate
        size = {"offset": abs(found.offset_us), "skew": abs(found.skew_ppb), "bound": found.bound_us}.get(by, 0)
        unknown = found.method is Method.NONE and by != "source"
        return unknown, -size, self.source, self.partition

    def row(self) -> dict[str, Any]:
        """For a listing; what is not known is None."""
        found = self.estimate
        known = found.method is not Method.NONE
        rated = known and found.skew_error_ppb < SKEW_MAX_PPB
        return {
            "source": self.source,
            "offset_ms": found.offset_us / US_PER_MS if known else None,
            "bound_ms": found.bound_us / US_PER_MS if known else None,
            "skew_ppm": found.skew_ppb / PPB_PER_PPM if rated else None,
            "skew_error_ppm": found.skew_error_ppb / PPB_PER_PPM if rated else None,
            "severity": found.severity.name if known else None,
            "alert": None if self.alert is Severity.GREEN else self.alert.name,
            "cause": None if self.cause is Cause.NONE else self.cause.name,
            "late": None if self.late is Severity.GREEN else self.late.name,
            "method": found.method.name,
            "samples": found.samples,
            "span_s": found.span_ms // MS_PER_S if found.samples else None,
            "silent_s": max(0, self.at_ms - self.good_ms) // MS_PER_S if found.samples else None,
            "coherent_s": found.coherent_s if known else None,
            "disturbances": found.disturbances,
            "step_ms": found.step_us / US_PER_MS if found.disturbances else None,
            "step_at": format_ms(found.step_ms) if found.disturbances else None,
            "step_sequence": found.step_sequence if found.disturbances else None,
            "broker_ms": self.broker_ms,
            "at": format_ms(self.at_ms),
            "partition": self.partition,
            "last_sequence": self.last_sequence,
        }

    def in_words(self) -> str:
        """What a person wants to know of it."""
        found = self.estimate
        if found.method is Method.NONE:
            return (
                f"{self.source}: too few events yet to tell where its clock is: {found.samples} that agree; it takes "
                "3, over 5 s"
            )
        texts = [f"{self.source} is {estimate_text(found.offset_us, found.bound_us)} at {format_ms(self.at_ms)}"]
        if found.skew_error_ppb < SKEW_MAX_PPB:
            gains = "gains" if found.skew_ppb >= 0 else "loses"
            ppm, error_ppm = abs(found.skew_ppb) / PPB_PER_PPM, found.skew_error_ppb / PPB_PER_PPM
            texts.append(f"its clock {gains} {ppm:.1f} ppm +- {error_ppm:.1f} ppm")
        if found.coherent_s:
            texts.append(f"it stays within 1 s for {_duration(found.coherent_s)} at least")
        if found.disturbances:
            by_s = found.step_us / US_PER_S
            texts.append(f"it stepped by {by_s:+.3f} s at sequence {self.partition}:{found.step_sequence}")
        if self.broker_ms:
            off = f"{drift_seconds(self.broker_ms)} s {side_of(self.broker_ms)}"
            texts.append(f"the broker's clock is {off}, which is left out of this")
        return "; ".join(texts)


def estimate_text(offset_us: int, bound_us: int) -> str:
    """Where a clock is: `3.200 s +- 0.040 s ahead`. The bound is rounded up, so that it still holds."""
    offset_ms = rounded_ms(offset_us)
    return f"{drift_seconds(offset_ms)} s +- {drift_seconds(bound_ms_of(bound_us))} s {side_of(offset_ms)}"


def side_of(ms: int) -> str:
    """On which side of the authority a clock is that is off by so much."""
    return "behind" if ms < 0 else "ahead"


def _duration(seconds: int) -> str:
    """In the largest unit that leaves at least two."""
    for unit, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} seconds"
