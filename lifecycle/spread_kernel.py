"""How the values of many groups are spread, compiled: each (group, word) with how often it came.

Problem: percentiles of a hundred million values need no value but those at a few ranks. A word is the bin of a sketch
(see `streams.quantiles`), of which a group has some hundreds however many its values are; or, where the exact value at
a rank is asked for, the bits of the values in that rank's bin.

    Counts    an open-addressing table; group, word and count at the same place, count 0 for an empty one

The kernels that add return early, before they touch a sample, where the table is half full: then Python makes it larger
and calls them again from there. What is in a table at the end depends only on what was added, not on the order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lifecycle.sum_kernel import home_of
from schemas.memory import kernel
from streams.quantiles import bin_of, value_of
from streams.window_table import EXACT_VALUES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lifecycle.sum_kernel import Samples


class Counts(NamedTuple):
    """See the module. used: int64[1], entries; the other columns have a power of two of places."""

    used: NDArray[np.int64]
    group: NDArray[np.int64]
    word: NDArray[np.int64]
    count: NDArray[np.int64]  # type: ignore[assignment] # hides tuple.count


@kernel
def place_of(counts: Counts, group: int, word: int) -> int:
    """Where an entry is, or the empty place where it belongs."""
    mask = counts.count.size - 1
    place = home_of(word, group, counts.count.size)
    while counts.count[place] != 0 and (counts.word[place] != word or counts.group[place] != group):
        place = (place + 1) & mask
    return int(place)


@kernel
def _add(counts: Counts, group: int, word: int, count: int) -> None:
    """Add to an entry; there is an empty place."""
    place = place_of(counts, group, word)
    if counts.count[place] == 0:
        counts.used[0] += 1
        counts.group[place] = group
        counts.word[place] = word
    counts.count[place] += count


@kernel
def add_counts(counts: Counts, others: Counts) -> None:
    """Add all entries of another table, which there is room for."""
    for place in range(others.count.size):
        if others.count[place] != 0:
            _add(counts, others.group[place], others.word[place], others.count[place])


@kernel
def bin_samples(
    samples: Samples, at: int, taken: int, kept: int, values: NDArray[np.int64], counts: Counts
) -> tuple[int, int]:
    """Count the samples from `at` on by bin; those of groups of up to EXACT_VALUES values go to `kept` and behind it.

    values: of each group, how many there are. Returns (sample, kept): that one and those after it were not touched.
    """
    for i in range(at, taken):
        group, value = int(samples.group[i]), samples.value[i]
        if values[group] <= EXACT_VALUES:
            samples.group[kept] = group
            samples.value[kept] = value
            kept += 1
            continue
        if 2 * counts.used[0] >= counts.count.size:
            return i, kept
        _add(counts, group, bin_of(value), 1)
    return taken, kept


@kernel
def take_near(samples: Samples, at: int, taken: int, near: Counts, counts: Counts) -> int:
    """Count the samples from `at` on whose (group, bin) is in `near`, by the bits of their value.

    Returns the sample that was not touched, nor those after it.
    """
    for i in range(at, taken):
        group, value = int(samples.group[i]), samples.value[i]
        if near.count[place_of(near, group, bin_of(value))] == 0:
            continue
        if 2 * counts.used[0] >= counts.count.size:
            return i
        _add(counts, group, int(np.float64(value).view(np.int64)), 1)
    return taken


@kernel
def bins_of(values: NDArray[np.float64], bins: NDArray[np.int64]) -> None:
    """The bin of each value."""
    for i in range(values.size):
        bins[i] = bin_of(values[i])


@kernel
def values_of(bins: NDArray[np.int64], values: NDArray[np.float64]) -> None:
    """The value that stands for each bin."""
    for i in range(bins.size):
        values[i] = value_of(bins[i])
