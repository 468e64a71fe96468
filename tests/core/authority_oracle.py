"""Whether a partition's broker moved, plainly: every source asked for what its clock object has kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from schemas.instants import format_ms
from tests.core.alert_oracle import NAMES, Reading, grade_of, whole_ms

if TYPE_CHECKING:
    from collections.abc import Collection

    from tests.core.clock_oracle import Clock


def _now(clock: Clock, at_ms: int) -> int:
    return max(at_ms, clock.line_ms, clock.good_ms, clock.best_ms)


def _amount(clock: Clock, at_ms: int, first_ms: int, span_ms: int) -> tuple[str, int] | None:
    """How a source moved, and by how much."""
    if clock.off is not None and abs(clock.off.first_ms - first_ms) <= span_ms:
        return "OFF", max(clock.off.offs)
    if clock.last_step_us and first_ms - span_ms <= clock.step_ms <= _now(clock, at_ms):
        return "STEPPED", clock.last_step_us
    return None


@dataclass
class Authority:
    """What a partition knows of the clock that stamps it."""

    shift_ms: int = 0
    shifted_ms: int = 0
    asked_s: int = 0
    asked_sequence: int = 0
    alert: dict[str, Any] | None = None

    def ask(
        self, partition: int, clocks: Collection[Clock], one: Clock, reading: Reading, *, stepped: bool
    ) -> tuple[bool, dict[str, Any] | None]:
        """Whether it moved, and the record that says so, if any."""
        at_ms = reading.authority_ms - self.shift_ms
        first_ms, amount_us = self._question(one, at_ms, stepped=stepped)
        second = reading.authority_ms // 1_000
        asked = second == self.asked_s or reading.sequence - self.asked_sequence < len(clocks) // 4
        if not amount_us or asked:
            return False, None
        self.asked_s, self.asked_sequence = second, reading.sequence
        span_ms = max(10_000, _now(one, at_ms) - first_ms)
        known = [clock for clock in clocks if clock.samples >= 3]
        moved = [(clock, *found) for clock in known if (found := _amount(clock, at_ms, first_ms, span_ms))]
        alike = [found for found in moved if abs(found[2] - amount_us) <= 250_000]
        still = [clock for clock in known if not _amount(clock, at_ms, first_ms, span_ms) and clock.good_ms >= first_ms]
        of = len(moved) + len(still)
        if len(alike) < 8 or len(alike) < 0.8 * of:
            return False, None
        mean_us = sum(by_us for _, _, by_us in alike) // len(alike)
        first = reading.sequence if one.off is None else one.off.sequence
        for clock, how, by_us in alike:
            self._undo(clock, how, by_us)
        before, self.shift_ms = self.shift_ms, self.shift_ms - whole_ms(mean_us)
        if abs(self.shift_ms) <= 250:
            self.shift_ms = 0
        self.shifted_ms = reading.authority_ms
        return True, self._tell(partition, before, first, reading, f"{len(alike)} of {of} sources moved together")

    def _question(self, clock: Clock, at_ms: int, *, stepped: bool) -> tuple[int, int]:
        if stepped and abs(clock.last_step_us) >= 1_000_000:
            return clock.step_ms, clock.last_step_us
        if clock.off is None or len(clock.off.offs) < 2 or abs(max(clock.off.offs)) < 1_000_000:
            return 0, 0
        lasts = max(clock.off.offs) > 0 or _now(clock, at_ms) - clock.off.first_ms >= 1_000
        return (clock.off.first_ms, max(clock.off.offs)) if lasts else (0, 0)

    def _undo(self, clock: Clock, how: str, by_us: int) -> None:
        if how == "OFF":
            clock.off = None
            return
        clock.move(-by_us)
        clock.step_us -= by_us
        clock.last_step_us = 0
        clock.disturbances -= clock.step_us == 0

    def _tell(self, partition: int, before_ms: int, first: int, reading: Reading, why: str) -> dict[str, Any] | None:
        before, after = grade_of(before_ms), grade_of(self.shift_ms)
        if not before and not after:
            return None
        now = reading._replace(offset_us=None, bound_us=None).fields(self.shift_ms)
        if self.alert is None:
            self.alert = {"first": first, "first_ms": reading.authority_ms, "revision": 0, "at_open": now, "worst": now}
        alert = self.alert
        alert["revision"] += 1
        if abs(self.shift_ms) > abs(alert["worst"]["value_ms"]):
            alert["worst"] = now
        name, side = f"broker of partition {partition}", "ahead" if self.shift_ms > 0 else "behind"
        worst_ms = alert["worst"]["value_ms"]
        if after:
            was = f", was {NAMES[before]}" if before not in (0, after) else ""
            since = f"{format_ms(alert['first_ms'])}, sequence {partition}:{alert['first']}"
            off = f"{abs(self.shift_ms) / 1_000:.3f} s {side} ({NAMES[after]}{was}) since {since}: {why}"
            text = f"the clock of the {name} is {off}"
        else:
            since = f"{format_ms(reading.authority_ms)}, sequence {partition}:{reading.sequence}"
            worst = (
                f"{abs(worst_ms) / 1_000:.3f} s {'ahead' if worst_ms > 0 else 'behind'} ({NAMES[grade_of(worst_ms)]})"
            )
            text = f"the clock of the {name} is within 1 s again since {since}; at worst it was {worst}"
            self.alert = None
        return {
            "alert_id": f"{partition}:{alert['first']}:authority",
            "revision": alert["revision"],
            "state": "OPENED" if not before else "CHANGED" if after else "CLOSED",
            "partition": partition,
            "source": name,
            "cause": "AUTHORITY",
            "severity": NAMES[after],
            "previous_severity": NAMES[before],
            "first_sequence": alert["first"],
            "last_sequence": reading.sequence,
            "events": reading.sequence - alert["first"] + 1,
            "skew_ppb": None,
            "at_open": alert["at_open"],
            "worst": alert["worst"],
            "at_close": None if after else now,
            "text": text,
        }
