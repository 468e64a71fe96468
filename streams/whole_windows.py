"""Results of partitions as windows of the whole ledger: which of the topic's results belong together (see `merge`).

A definition has another version in each partition, the index of its entry there, so results belong together where those
entries say the same. Of a window that two versions saw in one partition the later version's result counts: a definition
that comes again begins anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from schemas.instants import format_us
from streams.aggregates import definition_at
from streams.merge import Part, Whole, merge_windows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from streams.aggregates import Result
    from streams.queries import Ledger
    from streams.windows import WindowDefinition


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
            **whole.functions,
            "partitions": list(whole.partitions),
        }


def merged(
    ledger: Ledger, results: Iterable[Result], closed: Mapping[str, Mapping[int, int]], asked: Callable[[Result], bool]
) -> list[WholeWindow]:
    """The windows of definitions with whole = true that have a result asked for, in order of name and end.

    results: all that are kept, the last revision of each: one that is left out would be missing from its window.
    closed: as of `silent_partitions`.
    """
    listed: set[tuple[str, int, str | None]] = set()
    definitions: dict[tuple[int, int, str], WindowDefinition | None] = {}
    parts: dict[str, dict[tuple[int, int, str | None], tuple[int, Part]]] = {}
    known: dict[str, WindowDefinition] = {}
    for result in results:
        place = result.partition, result.version, result.definition
        if place not in definitions:
            definitions[place] = definition_at(ledger, *place)
        definition = definitions[place]
        if definition is None or not definition.whole:
            continue
        body = definition.canonical()
        known[body] = definition
        windows = parts.setdefault(body, {})
        window = result.partition, result.window_start_us, result.key
        if window not in windows or windows[window][0] <= result.version:
            windows[window] = result.version, _part(result)
        if asked(result):
            listed.add((body, result.window_start_us, result.key))
    found = []
    for body in sorted(parts, key=lambda body: (known[body].name, body)):
        of_it = [part for _, part in parts[body].values()]
        wholes = merge_windows(of_it, ledger.partitions, closed.get(body, {}))
        of_body = [one for one in wholes if (body, one.window_start_us, one.key) in listed]
        found += [WholeWindow(known[body], whole) for whole in of_body]
    return found


def _part(result: Result) -> Part:
    return Part(
        partition=result.partition,
        key=result.key,
        window_start_us=result.window_start_us,
        window_end_us=result.window_end_us,
        final=result.final,
        count=result.count,
        values=result.values,
        functions=result.functions,
    )
