"""Results of partitions as windows of the whole ledger: which of the topic's results belong together (see `merge`).

A definition has another version in each partition, the index of its entry there, so results belong together where those
entries say the same.

A definition that comes again, resumed for one, begins anew: what the earlier version had open is lost. So a version
answers for those windows alone that start more than max_ahead after the authority time at which it came into force; one
that came before the first event, for all. Of a window that two versions saw in one partition the final result of the
one that answers for it counts, else the later version's.

HAZARD authority time when a version came into force is that of its entry and of the 1,000 entries before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from schemas.instants import INT64_MIN, format_us
from streams.aggregates import definition_at
from streams.ledger_reader import decode_entry
from streams.merge import Closed, Part, Whole, merge_windows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from streams.aggregates import Result
    from streams.queries import Ledger
    from streams.silent_partitions import Silent
    from streams.windows import WindowDefinition

_BACK_ENTRIES: Final = 1_000
_US_PER_MS: Final = 1_000


@dataclass(frozen=True, slots=True)
class WholeWindow:
    """A window of a definition over all partitions."""

    definition: WindowDefinition
    whole: Whole

    def row(self) -> dict[str, Any]:
        """For a listing; its times also as text."""
        whole = self.whole
        return {
            "definition": self.definition.name,
            "frame": str(self.definition.frame),
            "key": whole.key,
            "window_start": format_us(whole.window_start_us),
            "window_end": format_us(whole.window_end_us),
            "window_start_us": whole.window_start_us,
            "window_end_us": whole.window_end_us,
            "complete": whole.complete,
            "waiting_for": list(whole.waiting) or None,
            "count": whole.count,
            "values": whole.values,
            "near_edge": whole.near_edge,
            **whole.functions,
            "partitions": list(whole.partitions),
        }


class _Versions:
    """What the ledger says of versions of definitions, each read once."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._definitions: dict[tuple[int, int, str], WindowDefinition | None] = {}
        self._seen_from_us: dict[tuple[int, int], int] = {}

    def definition(self, partition: int, version: int, name: str) -> WindowDefinition | None:
        """None where the ledger has none of that name there, or none that is whole."""
        place = partition, version, name
        if place not in self._definitions:
            found = definition_at(self._ledger, partition, version, name)
            self._definitions[place] = found if found is not None and found.whole else None
        return self._definitions[place]

    def seen_from_us(self, partition: int, version: int, definition: WindowDefinition) -> int:
        """The first start of windows that it saw from their first event on."""
        place = partition, version
        if place not in self._seen_from_us:
            self._seen_from_us[place] = _begun_us(self._ledger, partition, version)
        begun_us = self._seen_from_us[place]
        return begun_us if begun_us == INT64_MIN else begun_us + definition.max_ahead_us + 1


def _begun_us(ledger: Ledger, partition: int, version: int) -> int:
    """Authority time at which the definition at that index came into force; INT64_MIN where no event was before.

    Of an entry that was cut it is at the latest that of the first entry that stayed: of windows that began before that
    nobody can say any more that they were seen whole.
    """
    tail = ledger.tail(partition)
    if tail is None:
        return INT64_MIN
    topic, begin = ledger.names.sequenced, max(1, version - _BACK_ENTRIES)
    offset = ledger.offset_of(partition, tail, begin, "index")
    latest_ms = 0
    for message in ledger.log.scan(topic, partition, offset, tail.offset + 1):
        entry = decode_entry(partition, message.value())
        latest_ms = max(latest_ms, entry["authority_timestamp"])
        if entry["index"] >= version:
            return latest_ms * _US_PER_MS if entry["sequence"] else INT64_MIN
    return INT64_MIN


def merged(
    ledger: Ledger, results: Iterable[Result], silent: Iterable[Silent], asked: Callable[[Result], bool]
) -> list[WholeWindow]:
    """The windows of definitions with whole = true that have a result asked for, in order of name and end.

    results: all that are kept, the last revision of each: one that is left out would be missing from its window.
    silent: of `silent_partitions`.
    """
    versions = _Versions(ledger)
    listed: set[tuple[str, int, str | None]] = set()
    parts: dict[str, dict[tuple[int, int, str | None], tuple[tuple[bool, int], Part]]] = {}
    known: dict[str, WindowDefinition] = {}
    for result in results:
        definition = versions.definition(result.partition, result.version, result.definition)
        if definition is None:
            continue
        body = definition.canonical()
        known[body] = definition
        part = _part(result, versions.seen_from_us(result.partition, result.version, definition))
        windows = parts.setdefault(body, {})
        window = result.partition, result.window_start_us, result.key
        rank = result.final and part.seen_from_us <= part.window_start_us, result.version
        if window not in windows or windows[window][0] <= rank:
            windows[window] = rank, part
        if asked(result):
            listed.add((body, result.window_start_us, result.key))
    closed: dict[str, list[Closed]] = {}
    for one in silent:
        seen_from_us = versions.seen_from_us(one.partition, one.version, one.definition)
        of_body = closed.setdefault(one.definition.canonical(), [])
        of_body.append(Closed(one.partition, seen_from_us, one.closed_us))
    found = []
    for body in sorted(parts, key=lambda body: (known[body].name, body)):
        of_it = [part for _, part in parts[body].values()]
        wholes = merge_windows(of_it, ledger.partitions, closed.get(body, ()))
        of_asked = (whole for whole in wholes if (body, whole.window_start_us, whole.key) in listed)
        found += [WholeWindow(known[body], whole) for whole in of_asked]
    return found


def _part(result: Result, seen_from_us: int) -> Part:
    return Part(
        partition=result.partition,
        key=result.key,
        window_start_us=result.window_start_us,
        window_end_us=result.window_end_us,
        final=result.final,
        count=result.count,
        values=result.values,
        functions=result.functions,
        near_edge=result.near_edge,
        seen_from_us=seen_from_us,
    )
