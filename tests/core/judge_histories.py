"""Ledgers invented from a seed: sources with moods, retries, forgeries, poison, control entries, changing settings."""

from __future__ import annotations

import random
from dataclasses import replace

from schemas.canonical import EntryKind, ValueState
from schemas.codec import Framing
from streams.definitions import JudgeSettings
from tests.core.judge_oracle import START_MS, Row, control, definition, event, heartbeat, lock

#: Where a clock may stand, in microseconds from the authority: every boundary of the rules and a little beside it.
_MOODS = (
    (0, 999_499, -999_499, 250_000, -3),
    (999_500, -999_500, 2_000_000, -4_999_499, 4_999_499),
    (4_999_500, -4_999_500, 5_000_000, 5_000_001, -5_000_001, 86_400_000_000, -86_400_000_000),
)
_ENDS = (2**63 - 1, -(2**63), 0, 253_402_300_799_999_999, -62_135_596_800_000_000)
_POISON = (b"", b"\xc3", b"\xc3\x01", b"\x00\x00\x00\x00\x01abc", b"\xc3\x01" + bytes(20), b"{", b"[]", b"\xff\xfe")


class _Fleet:
    def __init__(self, seed: int, sources: int) -> None:
        self.rng = random.Random(seed)
        self.names = [self._name(i) for i in range(sources)]
        self.mood = [0] * sources
        self.sent: list[tuple[str, str, int]] = []
        self.count = 0
        #: Who beats for the partition, how far off its clock is, and its last round trip.
        self.worker, self.off_us = "w-1", 0
        self.trip: tuple[int, int] | None = None

    def _name(self, number: int) -> str:
        stem = self.rng.choice(("s", "sensor-", "a-source-of-a-rather-long-name-", "Füllstand/", "x" * 240))
        return f"{stem}{number:04d}"

    def pick(self) -> int:
        """Some sources speak often, most seldom."""
        rng = self.rng
        return rng.randrange(min(6, len(self.names))) if rng.random() < 0.6 else rng.randrange(len(self.names))

    def heartbeat(self, now_ms: int) -> Row:
        """Of a worker whose clock is wrong for a while, now and then, or of another worker."""
        rng = self.rng
        if rng.random() < 0.1:
            self.off_us = rng.choice(rng.choice(_MOODS))
        if rng.random() < 0.03:
            self.worker, self.trip = rng.choice(("w-1", "w-2", "")), None
        sent_us = now_ms * 1_000 + self.off_us - rng.choice((0, 900, 40_000, 2_000_000))
        if rng.random() < 0.02:
            sent_us = rng.choice(_ENDS)
        beat = heartbeat(sent_us, now_ms, self.trip, self.worker)
        self.trip = rng.choice((None, (now_ms, now_ms * 1_000 + self.off_us + rng.choice((700, 3_000_000)))))
        return beat

    def event(self, now_ms: int, framing: Framing) -> bytes:
        rng = self.rng
        self.count += 1
        chance = rng.random()
        value = rng.choice((None, 1.5, float("nan"), float("inf"), float("-inf"))) if rng.random() < 0.1 else 20.25
        if framing is Framing.JSON and value is not None and not abs(value) < float("inf"):
            value = None
        if self.sent and chance < 0.15:
            back = int(rng.paretovariate(0.7))
            name, event_id, local_us = self.sent[-min(back, len(self.sent))]
            if chance < 0.05:
                local_us ^= 1
            return event(name, event_id, local_us, 20.25, framing)
        source = self.pick()
        if rng.random() < 0.25:
            self.mood[source] = rng.randrange(3)
        mood = self.mood[source] if rng.random() < 0.93 else rng.randrange(3)
        local_us = now_ms * 1000 + rng.choice(_MOODS[mood])
        if rng.random() < 0.02:
            local_us = rng.choice(_ENDS)
        event_id = f"e{self.count}" if rng.random() < 0.97 else f"e{rng.randrange(self.count)}"
        self.sent.append((self.names[source], event_id, local_us))
        return event(self.names[source], event_id, local_us, value, framing)


def _other_settings(rng: random.Random, now: JudgeSettings) -> JudgeSettings:
    match rng.randrange(5):
        case 0:
            return replace(now, framing=rng.choice(tuple(Framing)))
        case 1:
            return replace(now, threshold_us=rng.choice((0, 999_500, 5_000_000, 5_000_001, 9 * 10**18)))
        case 2:
            return replace(now, confirm_events=min(rng.choice((1, 2, 3, 5)), now.of_events))
        case 3:
            return replace(now, dedupe_horizon=rng.choice((0, 1, 2, 7, 60, 500, 2_000)))
        case _:
            return replace(now, sources_max=rng.choice((1, 2, 5, 9, 30, 200_000)))


def _rules(rng: random.Random) -> JudgeSettings:
    """Of alerts; but for confirm_events they stay, for the plain twin asks them of all answers there ever were."""
    of_events = rng.choice((1, 2, 5, 9, 62))
    return JudgeSettings(
        confirm_events=rng.randint(1, min(of_events, 5)),
        of_events=of_events,
        clear_events=rng.choice((1, 2, 5)),
        hysteresis_ms=rng.choice((0, 1, 100, 999)),
        hold_ms=rng.choice((0, 20, 500, 10_000)),
        fleet_hold_ms=rng.choice((0, 20, 500, 5_000)),
    )


def history(seed: int, length: int, *, sources: int = 40, changes: float = 0.01, poison: float = 0.05) -> list[Row]:
    """That many entries; changes and poison are shares of them."""
    fleet = _Fleet(seed, sources)
    rng = fleet.rng
    settings, now_ms = JudgeSettings(), START_MS
    rows: list[Row] = []
    if changes > 0:
        settings = _rules(rng)
        rows.append(definition(settings, now_ms))
    while len(rows) < length:
        now_ms += rng.choice((0, 0, 1, 2, 40, -3))
        key = rng.choice((None, b"", b"key"))
        chance = rng.random()
        if chance < changes:
            settings = _other_settings(rng, settings)
            rows.append(definition(settings, now_ms))
        elif chance < changes + 0.02:
            rows.append(_control_row(fleet, now_ms))
        elif chance < changes + 0.06:
            rows.append(fleet.heartbeat(now_ms))
        elif chance < changes + 0.06 + poison:
            rows.append(_poison_row(fleet, now_ms, settings.framing, key))
        else:
            rows.append(Row(fleet.event(now_ms, settings.framing), now_ms, key=key))
    return rows


def _control_row(fleet: _Fleet, now_ms: int) -> Row:
    rng = fleet.rng
    match rng.randrange(8):
        case 0:
            body = {"cluster_id": "c", "topic": "t", "topic_id": "i", "partition": 0, "partitions": 1, "lanes": 1}
            return control("Genesis", now_ms, **body, base_offset=0, format_version=1)
        case 1:
            scope = rng.choice((None, *fleet.names[:3], "x" * 257, ""))
            actor = rng.choice(("ada", "guardian", "x" * 300))
            return lock(scope, now_ms, actor, engaged=rng.random() < 0.7, off_us=rng.choice((0, -7_000_000)))
        case 6:
            return lock(None, now_ms, engaged=False)
        case 2:
            return control("Definition", now_ms, name="windows", body='{"judge":1}')
        case 3:
            return control("Definition", now_ms, name="judge", body='{"threshold_us":-1}')
        case 4:
            return control("FoldVersion", now_ms, fold="judge", version=1)
        case _:
            return replace(control("Anchor", now_ms, source="judge", anchor_timestamp=None), value=b"\xc3\x01 judge?")


def _poison_row(fleet: _Fleet, now_ms: int, framing: Framing, key: bytes | None) -> Row:
    rng = fleet.rng
    match rng.randrange(6):
        case 0:
            return Row(None, now_ms, key=key)
        case 1:
            return Row(rng.choice(_POISON), now_ms, key=key)
        case 2:
            return Row(fleet.event(now_ms, framing)[:-1], now_ms, key=key)
        case 3:
            return Row(fleet.event(now_ms, framing) + b"x", now_ms, key=key)
        case 4:
            return Row(fleet.event(now_ms, framing), now_ms, state=ValueState.OMITTED, key=key)
        case _:
            return Row(fleet.event(now_ms, framing), now_ms, state=ValueState.ERASED, key=key)


def leader_steps(seed: int, by_ms: int, *, exchanges: bool) -> list[Row]:
    """Twenty sources, an event each second and source, for three minutes; in the second the leader's clock is wrong.

    Two clocks are wrong all the time. With exchanges every tenth event tells a round trip of the one before. The worker
    beats each second; its clock is right.
    """
    rng = random.Random(seed)
    offsets_us = {f"right {number}": rng.randrange(-300_000, 300_000) for number in range(18)}
    offsets_us |= {"wrong 0": 3_000_000, "wrong 1": -7_000_000}
    found: list[tuple[int, bytes, EntryKind]] = []
    trip: tuple[int, int] | None = None
    for second in range(180):
        true_ms = START_MS + second * 1_000 + 500
        beat = heartbeat(true_ms * 1_000 - 2_000, trip=trip).value or b""
        found.append((true_ms, beat, EntryKind.CONTROL))
        trip = _stamped(true_ms, by_ms), true_ms * 1_000 + 4_000
    for name, offset_us in offsets_us.items():
        exchange = None
        for second in range(180):
            made_us = START_MS * 1_000 + second * 1_000_000 + rng.randrange(300_000)
            true_ms = made_us // 1_000 + rng.randrange(2, 30)
            local_us = made_us + offset_us
            value = event(name, f"{name}{second}", local_us, exchange=exchange if second % 10 == 0 else None)
            found.append((true_ms, value, EntryKind.DATA))
            acked_us = true_ms * 1_000 + rng.randrange(2_000, 30_000) + offset_us
            exchange = None
            if exchanges:
                exchange = {"partition": 3, "offset": second, "sent_us": local_us, "acked_us": acked_us}
                exchange["appended_ms"] = _stamped(true_ms, by_ms)
    found.sort()
    return [Row(value, _stamped(true_ms, by_ms), kind) for true_ms, value, kind in found]


def _stamped(true_ms: int, by_ms: int) -> int:
    """By a leader whose clock is wrong in the second minute."""
    return true_ms + (by_ms if 60_000 <= true_ms - START_MS < 120_000 else 0)
