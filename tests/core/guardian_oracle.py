"""The guardian and the locks, plainly: all that a worker's heartbeats said, and a dictionary of what is locked."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

from schemas.instants import format_ms
from tests.core.alert_oracle import NAMES, Answer, Question, Reading, alert_fields, grade_of

if TYPE_CHECKING:
    from streams.definitions import JudgeSettings

#: Of a question whose source has no known rate.
_NO_RATE = (0, 500_000)


class Beat(NamedTuple):
    """A heartbeat as it stands in the ledger. trip: append time, and when the worker knew."""

    index: int  # type: ignore[assignment] # hides tuple.index
    authority_ms: int
    worker: str
    worker_us: int
    trip: tuple[int, int] | None


def exact_ms(local_us: int, authority_ms: int) -> int:
    """Rounded half away from zero, in fractions."""
    delta = Fraction(local_us - authority_ms * 1000, 1000)
    size = int(abs(delta) + Fraction(1, 2))
    return -size if delta < 0 else size


def off_ms(beat: Beat, shift_ms: int, shifted_ms: int) -> int:
    """What holds at least whether the broker of the heartbeat is the one that is ahead or not."""
    both = [_off_ms(beat, shift, shifted_ms) for shift in (0, shift_ms)]
    return min(both, key=abs) if min(both) * max(both) > 0 else 0


def _off_ms(beat: Beat, shift_ms: int, shifted_ms: int) -> int:
    """The point nearest to zero between what this heartbeat and the last round trip allow."""
    least = exact_ms(beat.worker_us, beat.authority_ms - shift_ms)
    most = None
    if beat.trip is not None and beat.trip[0] >= shifted_ms:
        most = exact_ms(beat.trip[1], beat.trip[0] - shift_ms)
    if least > 0:
        return least
    return most if most is not None and most < 0 else 0


@dataclass
class Guardian:
    """Of one partition."""

    partition: int
    worker: str = ""
    question: Question = field(default_factory=lambda: Question("worker"))
    answered: bool = False
    locks: dict[str | None, tuple[Any, ...]] = field(default_factory=dict)
    refused: int = 0

    def hear(self, beat: Beat, shift_ms: int, shifted_ms: int, rules: JudgeSettings) -> list[dict[str, Any]]:
        """The records that a heartbeat causes."""
        records = []
        if self.question.answers and self.worker != beat.worker:
            if self.question.severity:
                records.append(self._replaced(beat.worker, rules))
            self.question, self.answered = Question("worker"), False
        value_ms = off_ms(beat, shift_ms, shifted_ms)
        if not grade_of(value_ms) and not self.question.answers:
            return records
        self.worker = beat.worker
        delta_ms = exact_ms(beat.worker_us, beat.authority_ms)
        reading = Reading(beat.index, beat.authority_ms, beat.worker_us, delta_ms, None, None)
        before = self.question.severity
        cause = "AHEAD" if value_ms > 0 else "BEHIND"
        state = self.question.ask(Answer(reading, value_ms, cause), rules.fleet_hold_ms, rules)
        if state is not None:
            records.append(self._told(state, before, rules))
        if state == "CLOSED":
            self.question.forget()
        self.answered &= self.question.severity > 0
        return records

    def take(self, index: int, authority_ms: int, said: dict[str, Any]) -> None:
        """A LOCK entry; said: the whole record."""
        body = said["body"][1]
        scope = body["scope"]
        if scope is not None and not 1 <= len(scope.encode()) <= 256:
            self.refused += 1
            return
        if not body["engaged"]:
            self.locks.pop(scope, None)
            return
        halts = tuple(what for what in ("sequence", "put") if what in body["halts"])
        if not halts or (scope is not None and "put" not in halts):
            self.refused += 1
            return
        others = [other for other in self.locks if other is not None]
        if scope is not None and scope not in self.locks and len(others) >= 1_000:
            self.refused += 1
            return
        delta_ms = exact_ms(body["client_timestamp"], authority_ms)
        self.locks.setdefault(scope, (halts, index, authority_ms, delta_ms, said["actor"][:256], said["reason"][:1024]))
        self.answered |= said["actor"] == "guardian" and scope is None and self.question.severity > 0

    def alarms(self) -> bool:
        """Whether the guardian would lock now."""
        return self.question.severity == 2 and not self.answered and None not in self.locks

    def _told(self, state: str, before: int, rules: JudgeSettings) -> dict[str, Any]:
        question = self.question
        now, worst, first = question.answers[-1], question.worst(), question.answers[question.first].reading
        fields = alert_fields(self.partition, self._source, question, state, before, _NO_RATE, "", rules)
        clock = f"the clock of worker {self.worker} of partition {self.partition}"
        if state == "CLOSED":
            calm = question.since_calm(rules).reading
            at_worst = f"{_s(worst.value_ms)} s {_side(worst.value_ms)} ({NAMES[worst.grade]})"
            since = f"since {format_ms(calm.authority_ms)}, index {self.partition}:{calm.sequence}"
            text = f"{clock} is within 1 s again {since}; at worst it was {at_worst}"
            return {**fields, "at_close": now.reading.fields(now.value_ms), "text": text}
        was = f", was {NAMES[before]}" if before not in (0, question.severity) else ""
        since = f"since {format_ms(first.authority_ms)}, index {self.partition}:{first.sequence}"
        off = f"{_s(now.value_ms)} s {_side(now.value_ms)} at least ({NAMES[question.severity]}{was})"
        return {**fields, "text": f"{clock} is {off} {since}"}

    def _replaced(self, successor: str, rules: JudgeSettings) -> dict[str, Any]:
        severity = self.question.severity
        self.question.revision += 1
        text = (
            f"partition {self.partition} is written by worker {successor} now; the clock of worker {self.worker} was "
            f"last {NAMES[severity]} at index {self.partition}:{self.question.last_over()}"
        )
        return alert_fields(self.partition, self._source, self.question, "CLOSED", severity, _NO_RATE, text, rules)

    @property
    def _source(self) -> str:
        return f"worker of partition {self.partition}"


def _s(ms: int) -> str:
    return f"{abs(ms) // 1_000}.{abs(ms) % 1_000:03d}"


def _side(ms: int) -> str:
    return "behind" if ms < 0 else "ahead"
