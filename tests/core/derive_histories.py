"""Ledgers invented for derive: clocks of every mood, authority that steps, windows that come, change and go.

A history is a list of steps: the row that a ledger entry is made of, and what the plain twin is told of it. It is drawn
from a random.Random; from one that hypothesis gives, it shrinks.
"""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from schemas.canonical import ValueState
from schemas.codec import encode
from streams.windows import WITHDRAWN, By, Doubtful, Frame, Function, Kind, Late, WindowDefinition, entry_name
from tests.core.derive_oracle import Change, Data, DeriveOracle, Heartbeat
from tests.core.judge_oracle import START_MS, Row, control

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: How far a clock is from authority, in microseconds: right, a little off, slow, late, ahead, lost.
_MOODS = (
    (0, -1, 1, -40_000, 37_001),
    (-900_000, 800_000, -2_000_000, 1_500_000),
    (-5_000_000, -10_000_000, -20_000_001),
    (4_999_999, 5_000_000, 5_000_001, 60_000_000, 60_000_001),
    (-600_000_000, 86_400_000_000, -86_400_000_000),
)
_MOOD_WEIGHTS = (8, 4, 3, 2, 1)
_ENDS_US = (2**63 - 1, -(2**63), -(2**62), -(2**62) - 1, 0, -1)
#: How authority goes on, in milliseconds: mostly slowly, at times not at all, back, or far.
_PACES_MS = (0, 0, 1, 7, 40, 130, 300, -3, -1_000, 2_500, 11_000)
_PACE_WEIGHTS = (6, 6, 6, 6, 6, 6, 6, 3, 1, 2, 1)
#: Of events.
VALUES = (None, math.nan, math.inf, -math.inf, -0.0, 0.0, 0.1, 0.2, -7.5, 1e300, -1e300, 1.7e308, 5e-324, 20.25)
_NAMES = ("s", "sensor-7", 'a"b\\c', "Füllstand/\n\x7f", "\U0001f321", "x" * 250)
_POISON = (None, b"", b"\xc3", b"\xc3\x01" + bytes(20), b"{}", b"\xff\xfe")


class Step(NamedTuple):
    """An entry, and what the twin is told of it; None: nothing."""

    row: Row
    fact: Data | Heartbeat | Change | None


def event_value(source: str, event_id: str, local_us: int, kind: str, value: float | None) -> bytes:
    """The bytes of an event."""
    fields = {"event_id": event_id, "source": source, "local_timestamp": local_us, "kind": kind, "value": value}
    return encode("Event", fields)


def _wide(rng: random.Random) -> float:
    return rng.choice((-1, 1)) * math.ldexp(1 + rng.random(), rng.randint(-60, 60))


def random_window(rng: random.Random, name: str, kinds: Sequence[Kind] = tuple(Kind)) -> WindowDefinition:
    """A definition with lengths of the order of what happens in a history."""
    kind, frame, late = rng.choice(kinds), rng.choice(tuple(Frame)), rng.choice(tuple(Late))
    if kind is Kind.SLIDING and frame is Frame.CORRECTED:
        frame = Frame.LOCAL
    if kind is Kind.SLIDING and late is Late.UPDATE:
        late = Late.DROP
    size_us = rng.choice((1_000, 100_000, 1_000_000, 2_000_003, 7_000_000, 10_000_000, 3_600_000_000))
    fields: dict[str, Any] = {}
    if kind is Kind.HOPPING:
        size_us = max(size_us, 100_000)
        fields["slide_us"] = size_us // rng.choice((2, 3, 4, 7)) + rng.choice((0, 1, 1_000))
    if late is Late.UPDATE:
        fields["update_us"] = rng.choice((1, 1_000, 700_000, 5_000_000, 60_000_000))
    if frame is not Frame.AUTHORITY:
        fields["max_ahead_us"] = rng.choice((0, 1_000_000, 5_000_000, 60_000_000))
    if frame is Frame.CORRECTED:
        fields["red"] = rng.choice(tuple(Doubtful))
        fields["unknown"] = rng.choice((Doubtful.AUTHORITY, Doubtful.EXCLUDE, Doubtful.SIDE))
    if kind is not Kind.SLIDING:
        fields["early_us"] = rng.choice((0, 0, 1_000, 500_000, 3_000_000))
    return WindowDefinition(
        name,
        size_us,
        kind,
        frame=frame,
        by=rng.choice(tuple(By)),
        late=late,
        functions=tuple(rng.sample(tuple(Function), rng.randint(0, len(Function)))),
        percentiles=tuple(rng.sample((1, 1_000, 50_000, 99_000, 99_900, 100_000), rng.randint(0, 4))),
        lateness_us=rng.choice((0, 1, 500_000, 5_000_000)),
        max_behind_us=rng.choice((0, 1_000_000, 60_000_000)),
        **fields,
    )


def change(name: str, definition: WindowDefinition | None, authority_ms: int = START_MS) -> Row:
    """The entry that puts a window in force, or withdraws it."""
    body = WITHDRAWN if definition is None else definition.canonical()
    return control("Definition", authority_ms, name=entry_name(name), body=body)


def heartbeat(predecessor_appended_ms: int | None, authority_ms: int | None = None) -> Row:
    """A HEARTBEAT entry; appended with its predecessor unless another instant is given."""
    if authority_ms is None:
        authority_ms = START_MS if predecessor_appended_ms is None else predecessor_appended_ms
    body = {"predecessor_appended_ms": predecessor_appended_ms, "input_end_offset": 1, "worker_us": 1}
    return control("Heartbeat", authority_ms, **body)


class _World:
    def __init__(
        self, rng: random.Random, sources: int, values: Sequence[float | None], window_kinds: Sequence[Kind]
    ) -> None:
        self.rng = rng
        self.window_kinds = window_kinds
        self.values = values
        self.sources = [f"{rng.choice(_NAMES)}{i}" for i in range(sources)]
        self.moods = [0] * sources
        self.kinds = ("temperature", "", 'ü"')
        self.sent: list[tuple[str, Data]] = []
        self.known: set[tuple[str, str]] = set()
        self.count = 0
        self.now_ms = START_MS + rng.randrange(20_000)
        self.steps: list[Step] = []

    @property
    def index(self) -> int:
        return len(self.steps) + 1

    def put(self, row: Row, fact: Data | Heartbeat | Change | None = None) -> None:
        self.steps.append(Step(row, fact))

    def event(self) -> None:
        rng = self.rng
        self.count += 1
        at = rng.randrange(len(self.sources))
        if rng.random() < 0.1:
            self.moods[at] = rng.choices(range(len(_MOODS)), _MOOD_WEIGHTS)[0]
        local_us = self.now_ms * 1000 + rng.choice(_MOODS[self.moods[at]]) + rng.choice((0, 0, -rng.randrange(10**6)))
        if rng.random() < 0.2:
            local_us -= local_us % rng.choice((500_000, 1_000_000))
        if rng.random() < 0.01:
            local_us = rng.choice(_ENDS_US)
        value = rng.choice(self.values) if self.values else _wide(rng)
        self._event(self.sources[at], f"e{self.count}", local_us, rng.choice(self.kinds), value)

    def again(self) -> None:
        """A duplicate, or a conflict: windows take neither."""
        if self.sent:
            event_id, before = self.rng.choice(self.sent[-50:])
            local_us = before.local_us - (self.rng.random() < 0.5 and before.local_us > 0)
            self._event(before.source, event_id, local_us, before.kind, before.value)

    def _event(self, source: str, event_id: str, local_us: int, kind: str, value: float | None) -> None:
        counted = (source, event_id) not in self.known
        self.known.add((source, event_id))
        fact = Data(self.index, self.now_ms, counted, local_us, source, kind, value)
        self.sent.append((event_id, fact))
        self.put(Row(event_value(source, event_id, local_us, kind, value), self.now_ms), fact)

    def poison(self) -> None:
        rng = self.rng
        if rng.random() < 0.5:
            row = Row(rng.choice(_POISON), self.now_ms)
        else:
            state = rng.choice((ValueState.OMITTED, ValueState.ERASED))
            row = Row(event_value("s", "gone", self.now_ms * 1000, "k", 1.0), self.now_ms, state=state)
        self.put(row, Data(self.index, self.now_ms))

    def beat(self) -> None:
        """What it proves is before now, as a rule by as much as one heartbeat is after the other."""
        now_ms = self.now_ms
        proved_ms = self.rng.choice((now_ms - 1_000, now_ms - 5, now_ms - now_ms % 500, now_ms + 9_000, START_MS, None))
        self.put(heartbeat(proved_ms, self.now_ms + 70_000), Heartbeat(self.index, proved_ms))

    def other(self) -> None:
        """Entries that say nothing to derive, among them definitions that cannot be read."""
        rng, now_ms = self.rng, self.now_ms + 70_000
        bad = rng.choice(("", "{}", "nul", '{"name":"a"}', WindowDefinition("b", 1_000_000).canonical()))
        self.put(
            rng.choice(
                (
                    control("Anchor", now_ms, source="s", anchor_timestamp=None),
                    control("FoldVersion", now_ms, fold="judge", version=1),
                    control("Definition", now_ms, name="judge", body='{"threshold_us":-1}'),
                    control("Definition", now_ms, name="window/a", body=bad),
                )
            )
        )

    def change(self, name: str) -> None:
        definition = None if self.rng.random() < 0.2 else random_window(self.rng, name, self.window_kinds)
        self.put(change(name, definition, self.now_ms), Change(self.index, name, definition))


def history(
    rng: random.Random,
    length: int,
    *,
    sources: int = 5,
    windows: Sequence[WindowDefinition] | None = None,
    values: Sequence[float | None] = VALUES,
    kinds: Sequence[Kind] = tuple(Kind),
) -> list[Step]:
    """About that many entries, with those windows throughout, or with such as come and go (None).

    values: to choose from; none: of any size between 2**-60 and 2**60, and either sign. kinds: of windows that come.
    """
    world = _World(rng, sources, values, kinds)
    for definition in windows or []:
        world.put(change(definition.name, definition), Change(world.index, definition.name, definition))
    while len(world.steps) < length:
        world.now_ms += rng.choices(_PACES_MS, _PACE_WEIGHTS)[0]
        chance = rng.random()
        if windows is None and (chance < 0.02 or not world.steps):
            world.change(rng.choice("abc"))
        elif chance < 0.05:
            world.other()
        elif chance < 0.15:
            world.beat()
        elif chance < 0.2:
            world.poison()
        elif chance < 0.25:
            world.again()
        else:
            world.event()
    return world.steps


def told(partition: int, steps: Sequence[Step], clock_at: Callable[[int], SourceClock]) -> DeriveOracle:
    """The plain twin after all of them. clock_at: what is known of its source's clock after the entry of an index."""
    oracle = DeriveOracle(partition)
    for step in steps:
        if isinstance(step.fact, Data):
            oracle.take(replace(step.fact, **clock_at(step.fact.index)._asdict()))
        elif step.fact is not None:
            oracle.take(step.fact)
    return oracle


class SourceClock(NamedTuple):
    """Its offset, and how far the truth may be from that; None where there is no estimate."""

    offset_us: int | None
    bound_us: int | None


def invented_clock(index: int) -> SourceClock:
    """Any that judge could have found: derive is to take what it is told."""
    rng = random.Random(index)
    if rng.random() < 0.2:
        return SourceClock(None, None)
    offsets_us = (0, -40_001, 2_000_000, 4_999_499, -4_999_500, 5_000_001, -86_400_000_000, 1 << 51, -(1 << 51))
    return SourceClock(rng.choice(offsets_us), rng.choice((0, 1, 1_000, 50_001, 700_000, 1 << 53)))
