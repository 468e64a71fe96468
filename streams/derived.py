"""What derive makes of a step: records for the topics, gathered from several definitions and put in one order.

GUARANTEE records stand in the order of the entries that caused them, those of one entry by name of the definition, and
each definition's in its own order: no batch shows in it.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import orjson

from schemas.memory import address_of
from streams.derive_kernel import N_RESULTS
from streams.fold import NO_MESSAGES, Messages
from streams.results import AT_INDEX, encode_results

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from streams.fold import Record
    from streams.results import Layout, Results

    Int64s = NDArray[np.int64]


class WindowCounts(NamedTuple):
    """Of one definition in one step. doubtful: events left out for their source's clock, in frame corrected."""

    taken: int
    late: int
    ahead: int
    doubtful: int
    results: int


class Derived(NamedTuple):
    """Of one step. letters: dead letters of late events. counts: by definition. refused: definitions passed over."""

    aggregates: Messages
    letters: list[Record]
    counts: dict[str, WindowCounts]
    suspended: list[str]
    refused: int


class Gathered:
    """Records of a step as they come: of one definition after the other."""

    def __init__(self) -> None:
        self._parts: list[tuple[Int64s, ...]] = []
        self._keep: list[object] = []
        self.letters: list[Record] = []
        self.counts: dict[str, WindowCounts] = {}
        self.suspended: list[str] = []
        self.refused = 0

    def take_results(self, layout: Layout, results: Results, numbers: Int64s) -> int:
        """Take what a kernel has written, as records, so that it can write again; returns how many there were."""
        count = int(numbers[N_RESULTS])
        if count:
            encoded = encode_results(layout, results, count)
            at_index = results.ints[:count, AT_INDEX].copy()
            keys, values = (start + address_of(encoded.memory) for start in (encoded.key_start, encoded.value_start))
            self._parts.append((at_index, keys, encoded.key_length, values, encoded.value_length))
            self._keep.append(encoded.memory)
            numbers[N_RESULTS] = 0
        return count

    def add_documents(self, documents: list[tuple[bytes, dict[str, Any]]], index: int) -> None:
        """Key and JSON object of each record that an entry caused."""
        content = io.BytesIO()  # a list would hold the 4 KB that each was made in
        sizes = [content.write(key) for key, _ in documents]
        sizes += [content.write(orjson.dumps(document)) for _, document in documents]
        content.write(b"\0")
        memory = np.frombuffer(content.getvalue(), np.uint8)
        lengths = np.array(sizes, np.int64)
        addresses = np.cumsum(lengths) - lengths + address_of(memory)
        count = len(documents)
        at_index = np.full(count, index, np.int64)
        self._parts.append((at_index, addresses[:count], lengths[:count], addresses[count:], lengths[count:]))
        self._keep.append(memory)

    def all(self) -> Derived:
        """Everything, in order. Definitions must have been gone through in order of name."""
        aggregates = self._aggregates() if self._parts else NO_MESSAGES  # as a rule
        letters = sorted(self.letters, key=lambda record: record.at_index)
        return Derived(aggregates, letters, self.counts, self.suspended, self.refused)

    def _aggregates(self) -> Messages:
        at_index, *places = (np.concatenate(part) for part in zip(*self._parts, strict=True))
        if np.any(at_index[1:] < at_index[:-1]):
            order = np.argsort(at_index, kind="stable")
            at_index, *places = (column[order] for column in (at_index, *places))
        key_address, key_length, value_address, value_length = places
        return Messages(at_index, key_address, key_length, value_address, value_length, self._keep)
