"""Ledgers for tests of windows: events of every sort by clocks of the past, and the plain twin fed from a ledger."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from schemas.canonical import EntryKind
from schemas.codec import decode
from schemas.columns import Fault
from schemas.errors import BadInputError
from schemas.memory import bytes_at
from streams.control import encode_control, read_control
from streams.judge import Judge
from streams.judge_kernel import Flag
from streams.ledger_reader import read_entries, read_tail
from streams.windows import By, Kind, Late, WindowDefinition, read_entry, window_name
from tests.broker.harness import QUICK, Ledger, event_value, refold, time
from tests.broker.ledgers import produce
from tests.core.derive_oracle import Change, Data, DeriveOracle, Heartbeat

if TYPE_CHECKING:
    from tests.broker.harness import Output

#: One definition of each kind of window, and of each way to treat what is late.
WINDOWS: tuple[WindowDefinition, ...] = (
    *QUICK,
    WindowDefinition(
        "slide", 300_000, Kind.SLIDING, by=By.ALL, lateness_us=50_000, max_behind_us=300_000, late=Late.SIDE
    ),
)
#: One lane of two partitions, with a snapshot behind nearly every transaction.
OPTIONS: dict[str, Any] = {
    "partitions": 2,
    "lanes": 1,
    "batch_events_max": 100,
    "confirm_events": 2,
    "heartbeat_interval_ms": 0,
    "snapshot_interval_ms": 0,
    "windows": WINDOWS,
}
VALUES = (math.nan, -math.inf, -0.0, 0.1, 0.2, -7.5, 1e300, 5e-324, 20.25)


class Past:
    """Events that go through the last minutes by the clocks of their sources, however fast they are sent.

    Some late, some far ahead, some sent twice, some with what is no number, some that cannot be read.
    """

    def __init__(self, ledger: Ledger, *, beats: bool = True) -> None:
        self._ledger, self._random, self._beats = ledger, random.Random(1), beats
        self._local_us = {partition: time.now_us() - 600_000_000 for partition in ledger.partitions}
        self._count = 0

    def send(self, count: int) -> None:
        """So many to each partition, and between them heartbeats that prove what was before a moment."""
        for partition in self._ledger.partitions:
            for part in range(2):
                values = [self._event(partition) for _ in range(count // 2 + part * (count % 2))]
                produce_all(self._ledger, partition, values)
                if self._beats:
                    self._beat(partition)

    def _event(self, partition: int) -> bytes:
        rng = self._random
        self._count += 1
        self._local_us[partition] += rng.choice((0, 3_000, 17_001, 40_000))
        if rng.random() < 0.01:
            return rng.randbytes(20)
        number = self._count - (rng.random() < 0.02)
        local_us = self._local_us[partition] + rng.choice((0,) * 20 + (-300_000, -2_000_000, -9_000_000, 900_000_000))
        source = rng.choice(("pump", "Füllstand", 'say "x"'))
        return event_value(f"e{number}", f"{source}-{number % 5}", local_us, rng.choice(VALUES))

    def _beat(self, partition: int) -> None:
        """Of a frontier in the past, too, or of none."""
        with self._ledger.log() as log:
            end = log.ends(self._ledger.names.input, [partition])[partition]
        proved_ms = self._random.choice((None, self._local_us[partition] // 1_000))
        beat = {"predecessor_appended_ms": proved_ms, "input_end_offset": end, "worker_us": 0}
        tell(self._ledger, "Heartbeat", beat, partition)


def produce_all(ledger: Ledger, partition: int, values: list[bytes]) -> None:
    """Append to the input."""
    produce(ledger.settings, ledger.names.input, [(None, value, []) for value in values], partition)


def tell(ledger: Ledger, kind: str, body: dict[str, Any], partition: int = 0) -> None:
    """A control record."""
    ledger.append(ledger.names.control, partition, encode_control(kind, body, "test", "test"))


def expected(ledger: Ledger) -> dict[tuple[str, int], Output]:
    """Aggregates as the plain twin makes them of the ledger, and the letters it writes as their reasons."""
    found: dict[tuple[str, int], Output] = {}
    for partition in ledger.partitions:
        oracle = DeriveOracle(partition)
        for fact in facts(ledger, partition):
            oracle.take(fact)
        found["aggregates", partition] = [
            (key.encode(), json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode())
            for key, record in oracle.records
        ]
        found["letters", partition] = [(None, reason.encode()) for _, reason in oracle.letters]
    return found


def facts(ledger: Ledger, partition: int) -> list[Data | Heartbeat | Change]:
    """What the plain twin is told of each entry. Only which events are duplicates is judge's word."""
    judge = Judge()
    told: list[Data | Heartbeat | Change] = []
    state = judge.new_state(partition)
    with ledger.log() as log:
        tail = read_tail(log, ledger.names.sequenced, partition)
    assert tail is not None
    for batch in read_entries(ledger.bootstrap, ledger.names.sequenced, partition, 0, tail.offset + 1):
        entries, outputs = batch.entries, judge.step(state, batch.entries)
        for row, index in enumerate(entries.index.tolist()):
            value = bytes_at(int(entries.value_address[row]), max(0, int(entries.value_length[row])))
            if entries.kind[row] == EntryKind.CONTROL:
                told += _control_fact(index, int(entries.authority_ms[row]), value)
                continue
            fact = Data(index, int(entries.authority_ms[row]))
            again = outputs.verdicts.flags[row] & (Flag.DUPLICATE | Flag.CONFLICT)
            if outputs.verdicts.fault[row] == Fault.NONE and not again:
                event = decode("Event", value)
                local_us = int(outputs.events.local_us[row])
                fact = replace(
                    fact,
                    counted=True,
                    local_us=local_us,
                    source=event["source"],
                    kind=event["kind"],
                    value=event["value"],
                )
            told.append(fact)
    return told


def _control_fact(index: int, authority_ms: int, value: bytes) -> list[Heartbeat | Change]:
    kind, body = read_control(value)
    if kind == "Heartbeat":
        return [Heartbeat(index, body["predecessor_appended_ms"], authority_ms)]
    if kind == "Definition" and (name := window_name(body["name"])) is not None:
        try:
            return [Change(index, name, read_entry(body["name"], body["body"]))]
        except BadInputError:
            return []
    return []


def by_fold(outputs: dict[tuple[str, int], Output]) -> dict[tuple[str, int], Output]:
    """The same with the letters of each fold by themselves: one that was behind writes its own later."""
    parted = {place: output for place, output in outputs.items() if place[0] != "dead"}
    for (kind, partition), output in outputs.items():
        if kind == "dead":
            of_windows = [" " in decode("DeadLetter", value or b"")["reason"] for _, value in output]
            parted["faults", partition] = [pair for pair, late in zip(output, of_windows, strict=True) if not late]
            parted["late", partition] = [pair for pair, late in zip(output, of_windows, strict=True) if late]
    return parted


def check_against_the_twin(ledger: Ledger) -> int:
    """Everything on the topics is what an observer folds, and what the plain twin says. Returns how many results."""
    outputs, plain = by_fold(ledger.outputs()), expected(ledger)
    assert outputs == by_fold(refold(ledger))
    results = 0
    for partition in ledger.partitions:
        aggregates = outputs["aggregates", partition]
        for found, wanted in zip(aggregates, plain["aggregates", partition], strict=False):
            assert found == wanted
        assert len(aggregates) == len(plain["aggregates", partition])
        reasons = [decode("DeadLetter", value or b"")["reason"] for _, value in outputs["late", partition]]
        assert reasons == [(reason or b"").decode() for _, reason in plain["letters", partition]]
        results += len(aggregates)
    return results
