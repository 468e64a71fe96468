"""Percentiles of more values than can be kept: a DDSketch, in exact integers.

Problem: a percentile of any number of values in fixed memory, with a promise for the tails too, that does not depend
on the order of the values and comes out the same on every machine, compiled or interpreted.

A sketch counts values by bin; borders grow geometrically, so a bin's one number stands for each of its values within
the same relative error (Masson, Rim, Lee: DDSketch, VLDB 2019). The borders are those of its cubically interpolated
mapping: a value 2**e * (1 + s), 0 <= s < 1, is in bin floor(35 * e + 6s^3 - 21s^2 + 50s). The usual factor for 1 %
is 34.9988; it is rounded up to 35, so each octave has the same 35 bins and their borders are a table of mantissas, cut
out here with Python's integers. No logarithm, no rounding: a bin is found and spelled with shifts and comparisons.

GUARANTEE bins ascend with the values, to the last bit. value_of(bin) is within RELATIVE_ERROR of every value of the
bin, for each finite double from 2**-1022 on, negative ones alike. A percentile is value_of the bin of the exact nearest
rank. The bytes of a sketch depend only on what was added: not on the order, nor on how it was merged.
HAZARD zero and the subnormals (below 2.3e-308) share a bin, whose number is 0.

    sketch   int64[2048]   [0] distinct bins; the others a hash table by bin, 0 for an empty place:
                           bits 44-62 bin + 2**18, bits 0-43 count

The table is an ordered one (Amble, Knuth 1974): probing steps to the next place, and of two bins that want a place the
greater has it, whoever came first. Bins next to each other stand next to each other: values of one sign within 29
octaves never meet. HAZARD values chosen so that they do can cost some microseconds each.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np

from schemas.memory import kernel
from streams.sorting import sort_first

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Of a percentile from a sketch, at most: tanh(1 / 100) = 0.0099997.
RELATIVE_ERROR: Final = 0.01
#: Of int64 a sketch has: 16 KiB.
SKETCH_SLOTS: Final = 2_048
#: Distinct bins that a sketch takes, 51 octaves; with more, probing would take long.
SKETCH_BINS_MAX: Final = 1_792
#: Of a percent: percentiles are counted in them.
WHOLE_THOUSANDTHS: Final = 100_000

_BINS_OF_OCTAVE: Final = 35
_MANTISSA_BITS: Final = 52
_ONE: Final = 1 << _MANTISSA_BITS
_MANTISSA: Final = _ONE - 1
_EXPONENT: Final = 0x7FF
#: An octave in 64 cells, narrower than any bin: a cell meets one border at most.
_CELL_BITS: Final = _MANTISSA_BITS - 6

_PLACES: Final = SKETCH_SLOTS - 1
#: How far the negative bins stand from the positive ones, so that values around zero do not meet.
_HALF: Final = _PLACES // 2
_COUNT_BITS: Final = 44
_COUNT: Final = (1 << _COUNT_BITS) - 1
_BIN_OFFSET: Final = 1 << 18


def _position(mantissa: int) -> int:
    """6s^3 - 21s^2 + 50s of s = mantissa / 2**52, times 2**156; it ascends."""
    return ((6 * mantissa - 21 * _ONE) * mantissa + 50 * _ONE * _ONE) * mantissa


#: The least mantissa of each bin of an octave, and the end of the last.
_BORDERS: Final = [bisect_left(range(_ONE), number * _ONE**3, key=_position) for number in range(_BINS_OF_OCTAVE + 1)]
#: Of a bin from a to b the number whose relative error is the same at both: their harmonic mean.
_MIDDLES: Final = [2 * (_ONE + a) * (_ONE + b) // (2 * _ONE + a + b) - _ONE for a, b in pairwise(_BORDERS)]

_NEXT_BORDER: Final = np.array(_BORDERS[1:], np.int64)
_MIDDLE: Final = np.array(_MIDDLES, np.int64)
#: The bin that each cell begins in.
_FIRST: Final = np.searchsorted(_NEXT_BORDER, np.arange(0, _ONE, 1 << _CELL_BITS), side="right").astype(np.int64)


@kernel
def bin_of(value: float) -> int:
    """The bin of a finite value: 0 for zero and subnormals, else 35 to 71,644 with the value's sign."""
    bits = int(np.float64(value).view(np.int64))
    exponent = (bits >> _MANTISSA_BITS) & _EXPONENT
    if exponent == 0:
        return 0
    mantissa = bits & _MANTISSA
    within = int(_FIRST[mantissa >> _CELL_BITS])
    if mantissa >= _NEXT_BORDER[within]:
        within += 1
    number = _BINS_OF_OCTAVE * exponent + within
    return number if bits >= 0 else -number


@kernel
def value_of(number: int) -> float:
    """The one value that stands for all of a bin that bin_of gave."""
    size = abs(number)
    if size == 0:
        return 0.0
    bits = (size // _BINS_OF_OCTAVE) << _MANTISSA_BITS | int(_MIDDLE[size % _BINS_OF_OCTAVE])
    value = float(np.int64(bits).view(np.float64))
    return value if number > 0 else -value


@kernel
def rank(count: int, percentile: int) -> int:
    """The nearest rank, from 1: ceil(percentile * count / 100,000). Count is from 1 to 2**43."""
    return (percentile * count + WHOLE_THOUSANDTHS - 1) // WHOLE_THOUSANDTHS


@kernel
def sketch_add(sketch: NDArray[np.int64], number: int, count: int) -> bool:
    """Count a bin (count from 1, in all below 2**43); False if it is one bin too many: then nothing has changed."""
    shifted = number + _BIN_OFFSET
    place = (number if number >= 0 else _HALF - number) % _PLACES + 1
    while True:
        held = sketch[place] >> _COUNT_BITS
        if held == shifted:
            sketch[place] += count
            return True
        if held < shifted:
            break
        place = place % _PLACES + 1
    if sketch[0] == SKETCH_BINS_MAX:
        return False
    sketch[0] += 1
    carried = shifted << _COUNT_BITS | count
    while True:
        entry = int(sketch[place])
        if entry < carried:
            sketch[place] = carried
            if entry == 0:
                return True
            carried = entry
        place = place % _PLACES + 1


@kernel
def sketch_sorted(sketch: NDArray[np.int64], bins: NDArray[np.int64], counts: NDArray[np.int64]) -> int:
    """Write bins, ascending, and their counts, at most SKETCH_BINS_MAX of them; returns how many."""
    entries = 0
    for place in range(1, SKETCH_SLOTS):
        if sketch[place] != 0:
            bins[entries] = sketch[place]
            entries += 1
    sort_first(bins, entries)
    for entry in range(entries):
        counts[entry] = bins[entry] & _COUNT
        bins[entry] = (bins[entry] >> _COUNT_BITS) - _BIN_OFFSET
    return entries


@kernel
def sketch_percentile(
    bins: NDArray[np.int64], counts: NDArray[np.int64], entries: int, total: int, percentile: int
) -> float:
    """The value of the bin that holds the nearest rank; bins, counts and entries as sketch_sorted left them.

    total: the sum of the counts, at least 1.
    """
    rest = rank(total, percentile)
    for entry in range(entries - 1):
        rest -= int(counts[entry])
        if rest <= 0:
            return value_of(int(bins[entry]))
    return value_of(int(bins[entries - 1]))
