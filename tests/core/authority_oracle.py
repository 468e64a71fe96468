"""Whether a partition's broker moved, plainly: every source asked for what its clock object has kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from schemas.instants import format_ms
from tests.core.alert_oracle import NAMES, Reading, grade_of, whole_ms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.core.clock_oracle import Clock


def _now(clock: Clock, at_ms: int) -> int:
    return max(at_ms, clock.line_ms, clock.good_ms, clock.best_ms)


def _moved_by(clock: Clock, at_ms: int) -> tuple[str, int] | None:
    """How a source moved, and by how much."""
    now_ms = _now(clock, at_ms)
    if clock.samples < 3:
        return None
    if clock.off is not None:
        offs, run_ms = clock.off.offs, at_ms - clock.off.first_ms
        lasts = max(offs) > 0 or (len(offs) > 1 and run_ms >= 3_000)
        return ("OFF", max(offs)) if lasts and max(offs) - min(offs) <= 250_000 and 0 <= run_ms <= 150_000 else None
    if clock.last_step_us and 0 <= now_ms - clock.step_ms <= 150_000:
        return "STEPPED", clock.last_step_us
    return None


@dataclass
class Authority:
    """What a partition knows of the clock that stamps it."""

    shift_ms: int = 0
    shifted_ms: int = 0
    asked_s: int = 0
    asked_sequence: int = 0
    moved: int = 0
    of: int = 0
    doubt: int = 0
    alert: dict[str, Any] | None = None

    def ask(
        self, partition: int, clocks: Sequence[Clock], one: Clock, reading: Reading, *, stepped: bool
    ) -> dict[str, Any] | None:
        """The record that says that it moved, if it did and there is any."""
        at_ms = reading.authority_ms - self.shift_ms
        found = _moved_by(one, at_ms)
        several = stepped or (one.off is not None and len(one.off.offs) > 1)
        second = reading.authority_ms // 1_000
        if found is None or abs(found[1]) < 1_000_000 or not several:
            return None
        soon = 0 <= second - self.asked_s < 4 and reading.sequence - self.asked_sequence < len(clocks) // 4
        if second == self.asked_s or soon:
            return None
        self.asked_s, self.asked_sequence = second, reading.sequence
        movers = [(clock, *found) for clock in clocks if (found := _moved_by(clock, at_ms))]
        amount_us = votes = 0
        for _, _, by_us in movers:
            if votes == 0:
                amount_us, votes = by_us, 1
            else:
                votes += 1 if abs(by_us - amount_us) <= 250_000 else -1
        alike = [mover for mover in movers if abs(mover[2] - amount_us) <= 250_000]
        since_ms = min(one.good_ms, one.last_step_ms if stepped else one.good_ms) - 150_000
        same = {id(clock) for clock, _, _ in alike}
        others = [c for c in clocks if c.samples >= 3 and c.good_ms >= since_ms and id(c) not in same]
        of = len(alike) + len(others)
        if not alike or len(alike) < 8 or len(alike) < 0.8 * of:
            return None
        mean_us = amount_us + sum(by_us - amount_us for _, _, by_us in alike) // len(alike)
        away = 0
        for clock, how, by_us in alike:
            before_us = clock.line(_now(clock, at_ms)) - (by_us if how == "STEPPED" else 0)
            away += abs(before_us) < abs(before_us + by_us)
        if abs(mean_us) < 1_000_000 or abs(mean_us) >= 2**51 - 251_000 or 2 * away <= len(alike):
            return None
        off = [clock.off for clock, _, _ in alike if clock.off is not None]
        first = min(off, key=lambda run: run.sequence) if off else None
        begun = reading.sequence if first is None else first.sequence
        begun_ms = reading.authority_ms if first is None else first.first_ms + self.shift_ms
        for clock, how, by_us in alike:
            self._undo(clock, how, by_us, at_ms + whole_ms(mean_us))
        self.moved, self.of = len(alike), of
        why = f"{len(alike)} of {of} sources moved together"
        return self._shift(partition, self.shift_ms - whole_ms(mean_us), begun, begun_ms, reading, why)

    def look(
        self, partition: int, clocks: Sequence[Clock], before: int, true_delta_ms: int, reading: Reading
    ) -> dict[str, Any] | None:
        """The record that says that the shift is taken back, if it is and there is any."""
        if reading.sequence - before < self.of // 2:
            return None
        plain, shifted = grade_of(reading.delta_ms), grade_of(true_delta_ms)
        if shifted and (not plain or (self.shift_ms > 0 and true_delta_ms > 0)):
            self.doubt += 1
        elif plain and not shifted:
            self.doubt = max(0, self.doubt - 1)
        if self.doubt < self.moved:
            return None
        for clock in clocks:
            clock.samples = 0
        return self._shift(partition, 0, reading.sequence, reading.authority_ms, reading, "")

    def _undo(self, clock: Clock, how: str, by_us: int, now_ms: int) -> None:
        if how == "OFF":
            clock.off = None
            return
        clock.move(-by_us)
        clock.step_us -= by_us
        clock.last_step_us = 0
        clock.disturbances -= clock.step_us == 0
        clock.turn_back(now_ms)

    def _shift(
        self, partition: int, shift_ms: int, begun: int, begun_ms: int, reading: Reading, why: str
    ) -> dict[str, Any] | None:
        shift_ms = 0 if abs(shift_ms) <= 250 else shift_ms
        before_ms = self.shift_ms
        self.shifted_ms = reading.authority_ms + max(0, before_ms - shift_ms)
        self.shift_ms, self.doubt = shift_ms, 0
        return self._tell(partition, before_ms, begun, begun_ms, reading, why)

    def _tell(
        self, partition: int, before_ms: int, first: int, first_ms: int, reading: Reading, why: str
    ) -> dict[str, Any] | None:
        before, after = grade_of(before_ms), grade_of(self.shift_ms)
        if not before and not after:
            return None
        now = reading._replace(offset_us=None, bound_us=None).fields(self.shift_ms)
        if self.alert is None:
            self.alert = {"first": first, "first_ms": first_ms, "revision": 0, "at_open": now, "worst": now}
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
            "subject": "BROKER",
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
