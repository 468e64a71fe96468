"""The causes and the alert machine, plainly: every answer kept, every rule asked of the whole list."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from schemas.instants import format_ms

if TYPE_CHECKING:
    from streams.definitions import JudgeSettings
    from tests.core.clock_oracle import Clock

NAMES = ("GREEN", "YELLOW", "RED")
LIMITS_MS = (0, 1_000, 5_000)


def grade_of(value_ms: int) -> int:
    """0 GREEN below 1 s, 1 YELLOW below 5 s, 2 RED."""
    return sum(abs(value_ms) >= limit_ms for limit_ms in LIMITS_MS[1:])


def whole_ms(us: int) -> int:
    """Rounded half away from zero."""
    size_ms = (abs(us) + 500) // 1_000
    return size_ms if us >= 0 else -size_ms


class Reading(NamedTuple):
    """One event. offset_us is None where no estimate is known."""

    sequence: int
    authority_ms: int
    local_us: int
    delta_ms: int
    offset_us: int | None
    bound_us: int | None

    def fields(self, value_ms: int) -> dict[str, Any]:
        """As in an alert."""
        return {
            "sequence": self.sequence,
            "authority_timestamp": self.authority_ms,
            "local_timestamp": self.local_us,
            "delta_ms": self.delta_ms,
            "severity": NAMES[grade_of(self.delta_ms)],
            "offset_us": self.offset_us,
            "bound_us": self.bound_us,
            "value_ms": value_ms,
        }


def blame(clock: Clock, place: str, delta_ms: int, offset_us: int | None) -> tuple[int, str, int]:
    """The clock's error in ms, its cause, and the delay in ms."""
    if offset_us is None:
        return delta_ms, "AHEAD" if delta_ms > 0 else "UNKNOWN", 0
    offset_ms = whole_ms(offset_us)
    stepping = place == "ABOVE" and delta_ms > offset_ms
    value_ms = delta_ms if stepping else offset_ms
    step_ms = delta_ms - offset_ms if stepping else whole_ms(clock.step_us) if clock.disturbances else 0
    side = "AHEAD" if value_ms > 0 else "BEHIND"
    cause = "STEP" if step_ms and not grade_of(value_ms - step_ms) else side
    return value_ms, cause, max(0, value_ms - delta_ms)


def cause_of(delta_ms: int, value_ms: int, cause: str, delay_ms: int) -> str:
    """Of one event."""
    if not any(map(grade_of, (delta_ms, value_ms, delay_ms))):
        return "NONE"
    return "BACKLOG" if delay_ms > abs(value_ms) else cause


class Answer(NamedTuple):
    """Of one question, to one event."""

    reading: Reading
    value_ms: int
    cause: str

    @property
    def grade(self) -> int:
        """A severity."""
        return grade_of(self.value_ms)


@dataclass
class Question:
    """All answers of a source, and its alert."""

    name: str
    answers: list[Answer] = field(default_factory=list)
    severity: int = 0
    #: Index of the first answer of the alert's episode, and of the one that opened it.
    first: int = 0
    opened: int = 0
    cause: str = ""
    #: Answers before it are not counted as of another cause.
    causes_from: int = 0
    cause_changes: int = 0
    revision: int = 0

    def ask(self, answer: Answer, waits_ms: int, rules: JudgeSettings) -> str | None:
        """The state to record, and the severity is the one after it."""
        self.answers.append(answer)
        if self.severity == 0:
            return self._open(answer, waits_ms, rules)
        calm = len(self._run(lambda a: abs(a.value_ms) < LIMITS_MS[1] - rules.hysteresis_ms))
        eased = len(self._run(lambda a: abs(a.value_ms) < LIMITS_MS[2] - rules.hysteresis_ms))
        age_ms = abs(answer.reading.authority_ms - self.answers[self.opened].reading.authority_ms)
        if calm >= rules.clear_events and age_ms >= rules.hold_ms:
            self.severity = 0
            self.revision += 1
            return "CLOSED"
        before = self.severity
        if before == 1 and answer.grade == 2 and self._over(2, rules) >= rules.confirm_events:
            self.severity = 2
        elif before == 2 and eased >= rules.clear_events > calm:
            self.severity = 1
        others = self._others()
        changed = len(others) >= rules.confirm_events * 2 ** min(self.cause_changes, 20)
        if changed:
            self.cause_changes += 1
            self.cause, self.causes_from = others[-1].cause, len(self.answers)
        if not changed and self.severity == before:
            return None
        self.revision += 1
        return "CHANGED"

    def episode(self, rules: JudgeSettings) -> int | None:
        """Index of the first answer over YELLOW since the last of_events answers had none; None if they have none."""
        window: list[int] = []
        start = None
        for i, answer in enumerate(self.answers[self.opened :], self.opened):
            window = [*window, answer.grade][-rules.of_events :]
            if not any(window):
                start = None
            elif start is None:
                start = i
        return start

    def since_calm(self, rules: JudgeSettings) -> Answer:
        """The first of the calm answers at the end."""
        return self._run(lambda a: abs(a.value_ms) < LIMITS_MS[1] - rules.hysteresis_ms)[0]

    def worst(self) -> Answer:
        """Since the first of the alert, the first of equals."""
        return max(self.answers[self.first :], key=lambda a: abs(a.value_ms))

    def last_over(self) -> int:
        """Sequence of the last answer over YELLOW."""
        return next(a.reading.sequence for a in reversed(self.answers) if a.grade)

    def forget(self) -> None:
        """What is over is not looked at again."""
        del self.answers[:]
        self.first = self.opened = self.causes_from = self.cause_changes = self.revision = 0

    def _open(self, answer: Answer, waits_ms: int, rules: JudgeSettings) -> str | None:
        start = self.episode(rules)
        if start is None:
            self.forget()
            return None
        waited = abs(answer.reading.authority_ms - self.answers[start].reading.authority_ms) >= waits_ms
        if not answer.grade or self._over(1, rules) < rules.confirm_events or not waited:
            return None
        self.severity = 2 if self._over(2, rules) >= rules.confirm_events else 1
        self.first, self.opened, self.cause, self.revision = start, len(self.answers) - 1, answer.cause, 1
        self.causes_from = len(self.answers)
        return "OPENED"

    def _over(self, grade: int, rules: JudgeSettings) -> int:
        return sum(a.grade >= grade for a in self.answers[-rules.of_events :])

    def _run(self, agrees: Any) -> list[Answer]:
        """Answers at the end, since the alert was opened, that agree; not the one that opened it."""
        found: list[Answer] = []
        for answer in reversed(self.answers[self.opened + 1 :]):
            if not agrees(answer):
                break
            found.insert(0, answer)
        return found

    def _others(self) -> list[Answer]:
        """Answers over YELLOW at the end that have one cause, and not the alert's."""
        found: list[Answer] = []
        for answer in reversed([a for a in self.answers[self.causes_from :] if a.grade]):
            if answer.cause == self.cause or (found and answer.cause != found[0].cause):
                break
            found.insert(0, answer)
        return found


def alert_fields(
    partition: int, source: str, question: Question, state: str, before: int, skew: tuple[int, int], text: str | None,
    rules: JudgeSettings,
) -> dict[str, Any]:  # fmt: skip
    """The record after an answer. skew: in ppb, and its error; text: of a source that is forgotten, else None."""
    first, now, worst = question.answers[question.first].reading, question.answers[-1], question.worst()
    skew_ppb, error_ppb = skew
    return {
        "alert_id": f"{partition}:{first.sequence}:{question.name}",
        "revision": question.revision,
        "state": state,
        "partition": partition,
        "source": source,
        "subject": {"authority": "BROKER", "worker": "WORKER"}.get(question.name, "SOURCE"),
        "cause": question.cause,
        "severity": NAMES[question.severity],
        "previous_severity": NAMES[before],
        "first_sequence": first.sequence,
        "last_sequence": question.last_over(),
        "events": len(question.answers) - question.first,
        "skew_ppb": None if text is not None or error_ppb >= 500_000 else skew_ppb,
        "at_open": question.answers[question.opened].reading.fields(question.answers[question.opened].value_ms),
        "worst": worst.reading.fields(worst.value_ms),
        "at_close": now.reading.fields(now.value_ms) if state == "CLOSED" and text is None else None,
        "text": _text(partition, source, question, state, before, skew, rules) if text is None else text,
    }


def _text(
    partition: int, source: str, question: Question, state: str, before: int, skew: tuple[int, int],
    rules: JudgeSettings,
) -> str:  # fmt: skip
    now, worst = question.answers[-1], question.worst()
    if state == "CLOSED":
        calm = question.since_calm(rules).reading
        since = f"since {format_ms(calm.authority_ms)}, sequence {partition}:{calm.sequence}"
        if question.name == "delay":
            arrive = f"{source}'s events arrive within 1 s again {since}; at worst they were"
            return f"{arrive} {_s(worst.value_ms)} s late ({NAMES[worst.grade]})"
        at_worst = f"{_s(worst.value_ms)} s {_side(worst.value_ms)} ({NAMES[worst.grade]})"
        return f"{source} is within 1 s again {since}; at worst it was {at_worst}"
    was = f", was {NAMES[before]}" if before not in (0, question.severity) else ""
    first = question.answers[question.first].reading
    told = f"({NAMES[question.severity]}{was}) since {format_ms(first.authority_ms)}, sequence {partition}:"
    told += str(first.sequence)
    estimate = None
    if now.reading.offset_us is not None:
        offset_ms, bound_ms = whole_ms(now.reading.offset_us), -(-(now.reading.bound_us or 0) // 1_000)
        estimate = f"{_s(offset_ms)} s +- {_s(bound_ms)} s {_side(offset_ms)}"
    if question.cause == "BACKLOG":
        clock = f"; its clock is {estimate}" if estimate else ""
        return f"{source}'s events arrive {_s(now.value_ms)} s late {told}{clock}"
    if question.cause == "UNKNOWN" and now.value_ms < 0:
        stamped = f"{source}'s events are stamped {_s(now.value_ms)} s before they arrive {told}"
        return f"{stamped}; too few agree to tell a slow clock from a slow way"
    place = f"{_s(now.value_ms)} s {_side(now.value_ms)}{' at least' if now.value_ms > 0 else ''}"
    if estimate and whole_ms(now.reading.offset_us or 0) == now.value_ms:
        place = estimate
    rate = ""
    if question.cause in ("AHEAD", "BEHIND") and abs(skew[0]) > skew[1]:
        rate = f"; its clock {'gains' if skew[0] > 0 else 'loses'} {abs(skew[0]) / 1_000:.1f} ppm"
    return f"{source} {'stepped and is' if question.cause == 'STEP' else 'is'} {place} {told}{rate}"


def _s(ms: int) -> str:
    return f"{abs(ms) // 1_000}.{abs(ms) % 1_000:03d}"


def _side(ms: int) -> str:
    return "behind" if ms < 0 else "ahead"
