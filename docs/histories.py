"""Ledgers told in a few lines, what derive makes of them, and what a plain stream engine would.

The pictures of windows.md are drawn from these runs, and tests/core/test_clock_faults.py judges the same ones. Instants
are milliseconds from START_MS on, which is a multiple of ten seconds.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from schemas.canonical import EntryKind, ValueState
from schemas.codec import decode, encode
from schemas.columns import allocate_entries, slice_rows
from schemas.memory import address_of, bytes_at
from streams.derive import Derive
from streams.derive_kernel import N_WATERMARK, NEVER
from streams.judge import Judge
from streams.windows import Late, WindowDefinition, entry_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from schemas.columns import Entries

START_MS: Final = 1_795_000_000_000
SECOND: Final = 1_000
#: The first step is the second entry: the definition stands before it.
FIRST_INDEX: Final = 2
#: From the broker's append to the lane, where nothing is held up.
_ON_THE_WAY_MS: Final = 20
#: Input records of a batch, of a lane that catches up.
_BATCH: Final = 40
_US_PER_MS: Final = 1_000


class Event(NamedTuple):
    """Appended at an instant, and of another by its source's clock."""

    at_ms: int
    local_ms: int
    source: str
    value: float


class Beat(NamedTuple):
    """A heartbeat: what was appended before proved_ms is among the first input_end events."""

    at_ms: int
    proved_ms: int | None
    input_end: int


class Held(NamedTuple):
    """What is appended from an instant on is read only at another, and then at once."""

    from_ms: int
    to_ms: int


class Step(NamedTuple):
    """An entry, and when the lane read it."""

    read_ms: int
    said: Event | Beat


class Run(NamedTuple):
    """What the fold showed. Numbers of steps are from 0.

    results: of windows, as they are in the topic, with the step that caused each as "step". aside: LATE or AHEAD of the
    steps that were; only where the definition has late = "side". watermark_ms: after each step, None before the first.
    late: counts by source that were reported.
    """

    results: list[dict[str, Any]]
    aside: dict[int, str]
    watermark_ms: list[int | None]
    late: list[dict[str, Any]]


class Plain(NamedTuple):
    """What a plain engine would have done. late: steps. closed: windows by step, unclosed: left open at the end."""

    late: list[int]
    watermark_ms: list[int | None]
    closed: dict[int, list[tuple[str, int]]]
    unclosed: list[tuple[str, int]]


def beats(events: Sequence[Event], until_ms: int, every_ms: int = SECOND) -> list[Beat]:
    """Heartbeats at a steady tick; the first proves nothing."""
    found: list[Beat] = []
    for at_ms in range(0, until_ms + 1, every_ms):
        end = sum(event.at_ms < at_ms for event in events)
        found.append(Beat(at_ms, found[-1].at_ms if found else None, end))
    return found


def read(events: Iterable[Event], heartbeats: Iterable[Beat], held: Held | None = None) -> list[Step]:
    """The entries in their order: input in order of appending, a heartbeat once the input has got to what it names."""
    steps: list[Step] = []
    waiting = deque(heartbeats)
    position = ready_ms = 0
    for read_ms, batch in _batches(sorted(events), held or Held(0, 0)):
        steps += _let_in(waiting, position, ready_ms, read_ms)
        steps += [Step(read_ms, event) for event in batch]
        position, ready_ms = position + len(batch), read_ms
    return [*steps, *_let_in(waiting, position, ready_ms, None)]


def _batches(events: Sequence[Event], held: Held) -> Iterator[tuple[int, list[Event]]]:
    """What is read at once: one event, or many of those that were held up."""
    waited = [event for event in events if held.from_ms <= event.at_ms < held.to_ms]
    yield from ((event.at_ms + _ON_THE_WAY_MS, [event]) for event in events if event.at_ms < held.from_ms)
    for start in range(0, len(waited), _BATCH):
        yield held.to_ms + start // _BATCH * _ON_THE_WAY_MS, waited[start : start + _BATCH]
    yield from ((event.at_ms + _ON_THE_WAY_MS, [event]) for event in events if event.at_ms >= held.to_ms)


def _let_in(waiting: deque[Beat], position: int, ready_ms: int, until_ms: int | None) -> Iterator[Step]:
    """Heartbeats that may enter now. ready_ms: when the input got to position; until_ms: when it goes on, or never."""
    while waiting and (until_ms is None or waiting[0].at_ms <= until_ms) and waiting[0].input_end <= position:
        beat = waiting.popleft()
        yield Step(max(beat.at_ms, ready_ms), beat)


def _value(step: Step, number: int) -> bytes:
    match step.said:
        case Event(_, local_ms, source, value):
            local_us = (START_MS + local_ms) * _US_PER_MS
            fields = {"event_id": f"e{number}", "source": source, "local_timestamp": local_us, "kind": "pressure"}
            return encode("Event", fields | {"value": value})
        case Beat(_, proved_ms, input_end):
            proved = None if proved_ms is None else START_MS + proved_ms
            return _control("Heartbeat", predecessor_appended_ms=proved, input_end_offset=input_end, worker_us=0)


def _control(kind: str, **body: object) -> bytes:
    return encode("Control", {"body": (kind, body), "actor": "docs", "reason": "to be drawn"})


def entries_of(steps: Sequence[Step], definition: WindowDefinition) -> tuple[Entries, NDArray[np.uint8]]:
    """The definition, then the steps, as columns; and the memory they point into."""
    values = [_control("Definition", name=entry_name(definition.name), body=definition.canonical())]
    values += [_value(step, number) for number, step in enumerate(steps)]
    is_event = np.array([False] + [isinstance(step.said, Event) for step in steps])
    return columns_of(values, is_event, START_MS + np.array([0] + [step.said.at_ms for step in steps]))


def columns_of(
    values: Sequence[bytes], is_event: NDArray[np.bool_], authority_ms: NDArray[np.int64]
) -> tuple[Entries, NDArray[np.uint8]]:
    """Entries of these values as columns, the others CONTROL; and the memory they point into."""
    memory = np.frombuffer(b"".join(values), np.uint8)
    entries = allocate_entries(len(values))
    entries.index[:] = np.arange(1, len(values) + 1)
    entries.value_length[:] = [len(value) for value in values]
    entries.value_address[:] = address_of(memory) + np.cumsum(entries.value_length) - entries.value_length
    entries.value_state[:] = ValueState.PRESENT
    entries.key_length[:] = -1
    entries.kind[:] = np.where(is_event, EntryKind.DATA, EntryKind.CONTROL)
    entries.sequence[:] = np.cumsum(is_event)
    entries.input_offset[:] = entries.sequence - 1
    entries.control_offset[:] = np.cumsum(~is_event) - 1
    entries.authority_ms[:] = authority_ms
    return entries, memory


def fold(steps: Sequence[Step], definition: WindowDefinition) -> Run:
    """Judge and derive over the steps, entry by entry, so that the watermark is seen after each."""
    entries, memory = entries_of(steps, definition)
    judge, derive = Judge(), Derive()
    judged, state = judge.new_state(0), derive.new_state(0)
    run = Run([], {}, [], [])
    for row in range(entries.kind.size):
        one = slice_rows(entries, row, row + 1)
        derived = derive.step(state, one, judge.step(judged, one))
        records = derived.aggregates
        for place, length in zip(records.value_address.tolist(), records.value_length.tolist(), strict=True):
            record = json.loads(bytes_at(place, length))
            (run.results if "window_start_us" in record else run.late).append(record | {"step": row - 1})
        for letter in derived.letters:
            run.aside[row - 1] = decode("DeadLetter", letter.value)["reason"].split()[0]
        watermark_us = int(state.running[definition.name].numbers[N_WATERMARK])
        run.watermark_ms.append(None if watermark_us == NEVER else watermark_us // _US_PER_MS - START_MS)
    del memory
    return run._replace(watermark_ms=run.watermark_ms[1:])


def aside(steps: Sequence[Step], definition: WindowDefinition) -> dict[int, str]:
    """Which events that definition finds late or ahead, whatever it does with them."""
    return fold(steps, replace(definition, late=Late.SIDE, update_us=0)).aside


def plain(steps: Sequence[Step], definition: WindowDefinition, timer_behind_ms: int | None = None) -> Plain:
    """The rule of most engines: the watermark is the largest event time seen, less the lateness.

    It is Flink's for bounded out-of-orderness, and with other names that of Kafka Streams and Spark. timer_behind_ms:
    where events may stay away, it is helped on by the worker's clock: to that long before now.
    """
    size_ms, lateness_ms = definition.size_us // _US_PER_MS, definition.lateness_us // _US_PER_MS
    found = Plain([], [], {}, [])
    watermark_ms: int | None = None
    opened: dict[tuple[str, int], int] = {}
    for number, step in enumerate(steps):
        candidates = [] if watermark_ms is None else [watermark_ms]
        if timer_behind_ms is not None:
            candidates.append(step.read_ms - timer_behind_ms)
        if isinstance(step.said, Event):
            start_ms = step.said.local_ms // size_ms * size_ms
            candidates.append(step.said.local_ms - lateness_ms)
        watermark_ms = max(candidates, default=None)
        found.watermark_ms.append(watermark_ms)
        if isinstance(step.said, Event):
            if watermark_ms is not None and start_ms + size_ms <= watermark_ms:
                found.late.append(number)
            else:
                opened.setdefault((step.said.source, start_ms), number)
        if watermark_ms is not None:
            ended = sorted(window for window in opened if window[1] + size_ms <= watermark_ms)
            if ended:
                found.closed[number] = ended
                opened = {window: at for window, at in opened.items() if window not in ended}
    return found._replace(unclosed=sorted(opened))
