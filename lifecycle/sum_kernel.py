"""Sums over lines and rows, compiled: for each group of an answer, and rounded once.

Problem: an answer must be the same whether it comes from the statistics in the headers, from rows, or from both; and
sums of doubles depend on their order. So sums are exact until the end: a group's sum is a wide integer in units of
2^-1074, which every double is a multiple of, and it is rounded once, to the nearest double, ties to even (as by
math.fsum). Adding in another order, or from other parts, gives the same integer.

    limb j of a group    counts multiples of 2^(32 * (base + j) - 1074), as int64: an addition touches three limbs and
                         carries nothing, so that 2^29 of them fit before limbs must be carried

Only as many limbs are held as the values seen need. Groups are found by (window, key) in an open-addressing table.
`add_lines` and `add_rows` return early, before they touch a line or a row, where Python must act first (`Stop`), and
are called again from there.
"""

from __future__ import annotations

import enum
import math
from typing import TYPE_CHECKING, Final, NamedTuple

from lifecycle.exact_sum import merge
from lifecycle.query_kernel import NO_FAULT, UNCOUNTED, Decision, below, minutes_inside
from schemas.instants import INT64_MIN
from schemas.memory import kernel

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lifecycle.query_kernel import Limits, Lines, RowsIn, Span, Wanted


class Stop(enum.IntEnum):
    """Why a kernel came back."""

    DONE = 0
    #: The groups' arrays are full: grow them.
    GROW = 1
    #: A value needs limbs that are not held: widen them.
    WIDEN = 2


class Grouping(NamedTuple):
    """by: 0 all, 1 source, 2 kind. size and slide of windows in the unit of the times; slide 0: no windows."""

    by: int
    size: int
    slide: int


class Groups(NamedTuple):
    """Groups of an answer, in order of their first appearance; state: see the places below."""

    state: NDArray[np.int64]
    table: NDArray[np.int64]  # group + 1, 0 for an empty place
    window: NDArray[np.int64]
    key: NDArray[np.int64]
    count: NDArray[np.int64]  # type: ignore[assignment] # hides tuple.count
    values: NDArray[np.int64]
    minimum: NDArray[np.float64]
    maximum: NDArray[np.float64]
    limbs: NDArray[np.int64]  # [groups, limbs], without limbs where no sum is asked for


class Samples(NamedTuple):
    """Values for percentiles, each with its group; no room where no percentile is asked for."""

    group: NDArray[np.int32]
    value: NDArray[np.float64]


#: Places of `Groups.state`: groups in use, limb where limbs begin, additions since limbs were carried, samples taken,
#: and for Stop.WIDEN the first of the three limbs that are missing.
GROUPS: Final = 0
BASE: Final = 1
ADDED: Final = 2
TAKEN: Final = 3
MISSING: Final = 4
STATE: Final = 5

#: Each adds less than 2^33 to a limb.
ADDITIONS_MAX: Final = 2**29
#: An addition touches so many.
LIMBS_TOUCHED: Final = 3
_LIMB: Final = 2**32
_LIMB_MASK: Final = _LIMB - 1
_MANTISSA: Final = 2**52
_EXPONENT_MASK: Final = 0x7FF
_HASH_MASK: Final = 2**30 - 1
_STATISTICS, _EDGES = int(Decision.STATISTICS), int(Decision.EDGES)
_DONE, _GROW, _WIDEN = (int(stop) for stop in Stop)


@kernel
def home_of(window: int, key: int, places: int) -> int:
    """Where probing begins in a table of so many places, a power of two."""
    folded = (window ^ (window >> 30)) & _HASH_MASK
    mixed = folded * 1_640_531_527 + (key & _HASH_MASK) * 1_500_450_271  # two products below 2^61
    return (mixed >> 17) & (places - 1)


@kernel
def find_group(
    table: NDArray[np.int64], windows: NDArray[np.int64], keys: NDArray[np.int64], used: int, window: int, key: int
) -> int:
    """The group of a window and a key; where there is none it becomes number `used`, for which there is room."""
    mask = table.size - 1
    place = home_of(window, key, table.size)
    while table[place] != 0:
        group = table[place] - 1
        if windows[group] == window and keys[group] == key:
            return int(group)
        place = (place + 1) & mask
    table[place] = used + 1
    windows[used] = window
    keys[used] = key
    return used


@kernel
def place_groups(groups: Groups) -> None:
    """Put all groups into an empty table."""
    mask = groups.table.size - 1
    for group in range(groups.state[GROUPS]):
        place = home_of(groups.window[group], groups.key[group], groups.table.size)
        while groups.table[place] != 0:
            place = (place + 1) & mask
        groups.table[place] = group + 1


@kernel
def _first_limb(bits: int) -> int:
    """The lowest limb that a double touches."""
    exponent = (bits >> 52) & _EXPONENT_MASK
    return (exponent - 1 if exponent > 0 else 0) >> 5


@kernel
def _add(limbs: NDArray[np.int64], group: int, base: int, bits: int) -> None:
    """Add a finite double, by its bits, to a group's limbs, which are those it touches."""
    exponent = (bits >> 52) & _EXPONENT_MASK
    mantissa = bits & (_MANTISSA - 1)
    position = 0
    if exponent > 0:
        mantissa |= _MANTISSA
        position = exponent - 1
    limb = (position >> 5) - base
    shift = position & 31
    low = (mantissa & _LIMB_MASK) << shift
    high = (mantissa >> 32) << shift
    sign = bits >> 63  # x ^ sign - sign is -x for -1: signs are as good as random, and a branch on them is dear
    limbs[group, limb] += ((low & _LIMB_MASK) ^ sign) - sign
    limbs[group, limb + 1] += (((low >> 32) + (high & _LIMB_MASK)) ^ sign) - sign
    limbs[group, limb + 2] += ((high >> 32) ^ sign) - sign


@kernel
def windows_at(time: int, grouping: Grouping) -> tuple[int, int]:
    """The first and the last window that hold an instant; the one of number 0 where there are no windows."""
    if grouping.slide == 0:
        return 0, 0
    last = time // grouping.slide
    return last + (time % grouping.slide - grouping.size) // grouping.slide + 1, last


@kernel
def add_lines(
    lines: Lines,
    limits: Limits,
    wanted: Wanted,
    decisions: NDArray[np.uint8],
    grouping: Grouping,
    groups: Groups,
    at_chunk: int,
    at: int,
) -> tuple[int, int, int]:
    """Add the lines of chunks that statistics answer for, whose minute lies inside the range, from one line on.

    Windows in minutes. Returns (chunk, line, Stop): that line and those after it were not touched.
    """
    state, limbs = groups.state, groups.limbs
    base, end = state[BASE], state[BASE] + limbs.shape[1] - LIMBS_TOUCHED
    sums = limbs.shape[1] > 0
    windows = 1 if grouping.slide == 0 else -(-grouping.size // grouping.slide)
    whole = grouping.by == 0 and grouping.slide == 0 and not wanted.filter_sources and not wanted.filter_kinds
    group, last_window, last_key = -1, 0, 0
    for c in range(at_chunk, decisions.size):
        if decisions[c] != _STATISTICS and decisions[c] != _EDGES:
            continue
        if c > at_chunk:
            at = 0
        inside_first, inside_last = minutes_inside(lines, limits, c)
        for run in range(wanted.sources.size if wanted.filter_sources else 1):
            start, stop = lines.start[c], lines.start[c + 1]
            if wanted.filter_sources:
                start = below(lines.source, start, stop, wanted.sources[run])
                stop = below(lines.source, start, stop, wanted.sources[run] + 1)
            total = lines.start[decisions.size] + c
            if whole and lines.low[c] >= inside_first and lines.high[c] <= inside_last and lines.exact[total] != 0:
                start, stop = total, total + 1
            for i in range(max(start, at), stop):
                minute = lines.minute[i]
                if minute < inside_first or minute > inside_last:
                    continue
                if wanted.filter_kinds and wanted.kinds[lines.kind[i]] == 0:
                    continue
                if state[GROUPS] + windows > groups.window.size:
                    return c, i, _GROW
                for part in range(lines.sum.shape[1] if sums else 0):
                    limb = _first_limb(lines.sum[i, part])
                    if lines.sum[i, part] != 0 and (limb < base or limb >= end):
                        state[MISSING] = limb
                        return c, i, _WIDEN
                key = 0
                if grouping.by == 1:
                    key = int(lines.source[i])
                elif grouping.by != 0:
                    key = int(lines.kind[i])
                first, last = windows_at(minute, grouping)
                for window in range(first, last + 1):
                    if group < 0 or window != last_window or key != last_key:
                        used = state[GROUPS]
                        group = find_group(groups.table, groups.window, groups.key, used, window, key)
                        last_window, last_key = window, key
                        if group == used:
                            state[GROUPS] = used + 1
                    groups.count[group] += lines.count[i]
                    if lines.values[i] == 0:
                        continue
                    if groups.values[group] == 0:
                        groups.minimum[group] = lines.minimum[i]
                        groups.maximum[group] = lines.maximum[i]
                    groups.values[group] += lines.values[i]
                    groups.minimum[group] = min(groups.minimum[group], lines.minimum[i])
                    groups.maximum[group] = max(groups.maximum[group], lines.maximum[i])
                    for part in range(lines.sum.shape[1] if sums else 0):
                        if lines.sum[i, part] != 0:
                            _add(limbs, group, base, lines.sum[i, part])
    return decisions.size, 0, _DONE


@kernel
def total_of(sums: NDArray[np.float64], total: NDArray[np.float64]) -> bool:
    """Add the sums of lines to total, float64[1, 3] of zeros; False where three doubles cannot hold it."""
    whole = True
    for line in range(sums.shape[0]):
        whole = whole and merge(total, 0, sums, line)
    return whole


@kernel
def add_rows(
    rows: RowsIn, span: Span, grouping: Grouping, groups: Groups, samples: Samples, at: int
) -> tuple[int, int]:
    """Add the counted rows from `at` on that are in the span and wanted; windows in the unit of the times.

    Returns (row, Stop): that row and those after it were not touched.
    """
    state, limbs = groups.state, groups.limbs
    base, end = state[BASE], state[BASE] + limbs.shape[1] - LIMBS_TOUCHED
    sums = limbs.shape[1] > 0
    windows = 1 if grouping.slide == 0 else -(-grouping.size // grouping.slide)
    group, last_window, last_key = -1, 0, 0
    for i in range(max(at, span.first), span.last):
        if rows.fault.size > 0 and (rows.fault[i] != NO_FAULT or rows.flags[i] & UNCOUNTED != 0):
            continue
        time = 0
        if rows.time.size > 0:
            time = rows.time[i]
            if time < span.low or time > span.high or span.skip_low <= time <= span.skip_high:
                continue
        source = kind = 0
        if rows.source.size > 0:
            source = int(rows.source_of[rows.source[i]])
        if rows.kind.size > 0:
            kind = int(rows.kind_of[rows.kind[i]])
        if source < 0 or kind < 0:
            continue
        value = rows.value[i] + 0.0  # -0.0 is 0.0
        finite = math.isfinite(value)
        if state[GROUPS] + windows > groups.window.size:
            return i, _GROW
        adds = sums and finite and value != 0.0  # nothing, and a limb that others need not have
        if adds:
            limb = _first_limb(rows.bits[i])
            if limb < base or limb >= end:
                state[MISSING] = limb
                return i, _WIDEN
        key = 0
        if grouping.by == 1:
            key = source
        elif grouping.by != 0:
            key = kind
        first, last = windows_at(time, grouping)
        for window in range(first, last + 1):
            if group < 0 or window != last_window or key != last_key:
                used = state[GROUPS]
                group = find_group(groups.table, groups.window, groups.key, used, window, key)
                last_window, last_key = window, key
                if group == used:
                    state[GROUPS] = used + 1
            groups.count[group] += 1
            if not finite:
                continue
            if groups.values[group] == 0:
                groups.minimum[group] = value
                groups.maximum[group] = value
            groups.values[group] += 1
            groups.minimum[group] = min(groups.minimum[group], value)
            groups.maximum[group] = max(groups.maximum[group], value)
            if adds:
                _add(limbs, group, base, rows.bits[i])
            if samples.value.size > 0:
                taken = state[TAKEN]
                samples.group[taken] = group
                samples.value[taken] = value
                state[TAKEN] = taken + 1
    return span.last, _DONE


@kernel
def group_values(samples: Samples, places: NDArray[np.int64], ordered: NDArray[np.float64]) -> None:
    """Put each value behind the others of its group; places: where each group begins, used up."""
    for i in range(ordered.size):
        group = samples.group[i]
        ordered[places[group]] = samples.value[i]
        places[group] += 1


@kernel
def carry(limbs: NDArray[np.int64], count: int) -> None:
    """Bring the limbs of the first `count` groups into 0 to 2^32 - 1, but for the last, which keeps the sign."""
    for group in range(count):
        for j in range(limbs.shape[1] - 1):
            over = limbs[group, j] >> 32
            limbs[group, j] -= over << 32
            limbs[group, j + 1] += over


@kernel
def _limb(limbs: NDArray[np.int64], j: int) -> int:
    return int(limbs[j]) if 0 <= j < limbs.size else 0


@kernel
def round_sums(limbs: NDArray[np.int64], base: int, count: int, bits: NDArray[np.int64]) -> None:
    """bits[g] = the bits of the double that is nearest to the sum of group g; limbs are used up.

    Infinity where the sum is beyond the largest double.
    """
    carry(limbs, count)
    for group in range(count):
        row = limbs[group]
        sign = 0
        if row[row.size - 1] < 0:
            sign = INT64_MIN
            for j in range(row.size):
                row[j] = -row[j]
            carry(limbs[group : group + 1], 1)
        top = row.size - 1
        while top >= 0 and row[top] == 0:
            top -= 1
        if top < 0:
            bits[group] = 0
            continue
        length = 32 * (base + top)  # of the sum in bits
        rest = row[top]
        while rest > 0:
            rest >>= 1
            length += 1
        exponent = max(length - 53, 0)
        j = (exponent >> 5) - base
        shift = exponent & 31
        mantissa = (_limb(row, j) >> shift) | (_limb(row, j + 1) << (32 - shift))
        if shift > 0:
            mantissa |= _limb(row, j + 2) << (64 - shift)
        if exponent > 0:
            half = exponent - 1
            j = (half >> 5) - base
            shift = half & 31
            if (_limb(row, j) >> shift) & 1:
                below = _limb(row, j) & ((1 << shift) - 1)
                for k in range(min(j, row.size)):
                    below |= row[k]
                if below != 0 or mantissa & 1:
                    mantissa += 1
        if exponent + (mantissa >> 52) >= _EXPONENT_MASK:
            bits[group] = sign | (_EXPONENT_MASK << 52)
        else:
            bits[group] = sign | ((exponent << 52) + mantissa)
