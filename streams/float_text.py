"""Numbers as text, written by kernels: the shortest digits that read back as the same double, and integers.

Problem: results are JSON, and a result has a dozen numbers. Through Python each number costs an object and a call of
`repr`, more than everything else that is done for the result.

GUARANTEE `put_float` writes, for every finite double, the bytes of Python's `repr`: the fewest digits that read back
as the same double, of those the nearest to it, in fixed notation from 1e-4 to below 1e16. So whoever writes the same
numbers with `json.dumps` has the same bytes. `put_int` writes the bytes of `str`.
HAZARD NaN and the infinities have no digits: `put_float` stays within its bytes for them and writes nonsense. Callers
ask first.

How: Schubfach (Raffaello Giulietti, "The Schubfach way to render doubles", 2020). A double v and the middles between it
and its neighbours, times 4 * 10**-k for the one k that leaves at most a digit too many, are integers of 59 bits; the
shortest digits are found among them by comparing. The three products need 10**-k to 126 bits; here it has 150, as five
limbs of 30 bits, rounded up:

    10**e = (g + error) * 2**(floor(log2(10**e)) - 149),   2**149 <= g <= 2**150,   -1 < error <= 0

so that every product of limbs, and the sum of a column of them, fits int64: kernels count alike compiled and
interpreted. The middles are kept with a sticky last bit, set where the product has bits below; those that the error of
g can reach (2**60) are not looked at, and no double comes nearer than 2**87 to an integer without being one.

Digits are written eight at a time by arithmetic within one int64: each byte of it one digit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from schemas.memory import kernel, store_i64, store_u8

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: The longest repr of a double: "-2.2250738585072014e-308". `put_float` writes nowhere beyond it, whatever the text.
FLOAT_BYTES_MAX: Final = 24
#: The longest int64: "-9223372036854775808". `put_int` writes nowhere beyond it, whatever the text.
INT_BYTES_MAX: Final = 20

_LIMB_BITS: Final = 30
_LIMB: Final = (1 << _LIMB_BITS) - 1
_LIMBS: Final = 5
#: Powers of ten that a double can need: 10**-k for k from -324 (the smallest subnormal) to 292 (the largest double).
_POWER_MIN: Final = -292
_POWER_MAX: Final = 324

_FRACTION_BITS: Final = 52
_HIDDEN: Final = 1 << _FRACTION_BITS
_EXPONENT_BIAS: Final = 1075  # of the fraction taken as an integer
_INT64_MIN: Final = -(1 << 63)

_HUNDRED, _E4, _E8, _E16 = (10**digits for digits in (2, 4, 8, 16))
#: Doubles in this range that are a number of at most 15 digits over this scale are written without a search.
_SHORT_MIN, _SHORT_MAX, _SHORT_SCALE = 1e-4, 1e7, 1e8
_DIGITS: Final = 17  # a double never needs more
_FIXED_MIN, _FIXED_MAX = -3, 16  # places of the point for which repr writes no exponent
_WORD: Final = 8  # digits in an int64

_ZERO, _MINUS, _PLUS, _POINT, _E = (ord(character) for character in "0-+.e")
#: Eight times "0", and "0.000000", as int64.
_ZEROS: Final = int.from_bytes(b"0" * _WORD, "little")
_ZERO_POINT: Final = int.from_bytes(b"0.000000", "little")
_SEVEN: Final = (1 << 56) - 1  # seven of eight digits


def _log2_floor(power: int) -> int:
    """Of 10**power, exactly."""
    size: int = 10 ** abs(power)
    return size.bit_length() - 1 if power >= 0 else -((size - 1).bit_length())


def _limbs(power: int) -> list[int]:
    """10**power as g of the module's text, lowest limb first."""
    shift = _LIMBS * _LIMB_BITS - 1 - _log2_floor(power)
    numerator = 10 ** max(power, 0) << max(shift, 0)
    denominator = 10 ** max(-power, 0) << max(-shift, 0)
    g = -(-numerator // denominator)
    return [(g >> (_LIMB_BITS * i)) & _LIMB for i in range(_LIMBS - 1)] + [g >> (_LIMB_BITS * (_LIMBS - 1))]


_POWERS: NDArray[np.int64] = np.array(
    [limb for power in range(_POWER_MIN, _POWER_MAX + 1) for limb in _limbs(power)], np.int64
)
_TENS: NDArray[np.int64] = np.array([10**zeros for zeros in range(_DIGITS)], np.int64)


@kernel
def _digits8(number: int) -> int:
    """The eight digits of a number below 10**8, the first in the lowest byte, as numbers from 0 to 9."""
    high = (number * 109_951_163) >> 40  # number // 10**4
    fours = high | ((number - high * _E4) << 32)
    hundreds = ((fours * 10_486) >> 20) & 0x7F_0000_007F
    twos = hundreds | ((fours - 100 * hundreds) << 16)
    tens = ((twos * 103) >> 10) & 0x000F_000F_000F_000F
    return tens | ((twos - 10 * tens) << 8)


@kernel
def _leading(digits: int) -> int:
    """How many of eight digits stand before the first that is not zero; 7 where all are."""
    lowest = digits | (1 << 56)
    lowest &= -lowest
    if lowest >= 1 << 32:
        if lowest >= 1 << 48:
            return 7 if lowest >= 1 << 56 else 6
        return 5 if lowest >= 1 << 40 else 4
    if lowest >= 1 << 16:
        return 3 if lowest >= 1 << 24 else 2
    return 1 if lowest >= 1 << 8 else 0


@kernel
def _used(digits: int) -> int:
    """How many of eight digits are left without the zeros at the end."""
    if digits >= 1 << 32:
        if digits >= 1 << 48:
            return 8 if digits >= 1 << 56 else 7
        return 6 if digits >= 1 << 40 else 5
    if digits >= 1 << 16:
        return 4 if digits >= 1 << 24 else 3
    if digits >= 1 << 8:
        return 2
    return 1 if digits else 0


@kernel
def _put_head(target: int, number: int) -> int:
    """A number below 10**8 without leading zeros; writes 8 bytes."""
    digits = _digits8(number)
    skipped = _leading(digits)
    store_i64(target, (digits | _ZEROS) >> (8 * skipped))
    return target + _WORD - skipped


@kernel
def put_int(target: int, value: int) -> int:
    """Any int64 as decimal text at an address with room for INT_BYTES_MAX; returns the address after the text."""
    if value < 0:
        store_u8(target, _MINUS)
        target += 1
        if value == _INT64_MIN:  # its absolute value is no int64: the first digit here, the other 18 below
            store_u8(target, _ZERO + 9)
            target += 1
            value = 223_372_036_854_775_808
        else:
            value = -value
    if value < _E8:
        return _put_head(target, value)
    rest = value // _E8
    if rest < _E8:
        target = _put_head(target, rest)
    else:
        head = rest // _E8
        target = _put_head(target, head)
        store_i64(target, _digits8(rest - head * _E8) | _ZEROS)
        target += _WORD
    store_i64(target, _digits8(value - rest * _E8) | _ZEROS)
    return target + _WORD


@kernel
def _carried(column0: int, column1: int, column2: int, column3: int, column4: int, column5: int) -> int:
    """Floor of a product over 2**150, from its columns; the last bit set also where the product has bits below."""
    column1 += column0 >> _LIMB_BITS
    column2 += column1 >> _LIMB_BITS
    column3 += column2 >> _LIMB_BITS
    column4 += column3 >> _LIMB_BITS
    column5 += column4 >> _LIMB_BITS
    return column5 | (1 if (column2 | column3 | column4) & _LIMB else 0)


@kernel
def _interval(number: int, binary: int, power: int, nearer: int) -> tuple[int, int, int]:
    """Times 4 * 10**-power: number * 2**binary, and the middles between it and the doubles below and above."""
    at = (-power - _POWER_MIN) * _LIMBS
    g0, g1, g2 = int(_POWERS[at]), int(_POWERS[at + 1]), int(_POWERS[at + 2])
    g3, g4 = int(_POWERS[at + 3]), int(_POWERS[at + 4])
    shift = binary + ((-power * 1_741_647) >> 19) + 1  # 1 to 4
    factor = (4 * number) << shift  # below 2**60
    low, high = factor & _LIMB, factor >> _LIMB_BITS
    column0, column1, column2 = g0 * low, g1 * low + g0 * high, g2 * low + g1 * high
    column3, column4, column5 = g3 * low + g2 * high, g4 * low + g3 * high, g4 * high
    value = _carried(column0, column1, column2, column3, column4, column5)
    half = shift + 1  # the middles are 2 << shift away, the lower one 1 << shift where it is nearer
    upper = _carried(
        column0 + (g0 << half),
        column1 + (g1 << half),
        column2 + (g2 << half),
        column3 + (g3 << half),
        column4 + (g4 << half),
        column5,
    )
    half -= nearer
    lower = _carried(
        column0 - (g0 << half),
        column1 - (g1 << half),
        column2 - (g2 << half),
        column3 - (g3 << half),
        column4 - (g4 << half),
        column5,
    )
    return lower, value, upper


@kernel
def _shortest(fraction: int, exponent: int) -> tuple[int, int]:
    """(digits as an integer, power of ten) of fraction and biased exponent, not both 0; zeros may stand at the end."""
    number = fraction | _HIDDEN if exponent else fraction
    binary = (exponent or 1) - _EXPONENT_BIAS
    # Below a power of two the next double is half as far away as above.
    nearer = 1 if fraction == 0 and exponent > 1 else 0
    power = (binary * 1_262_611 - 524_031 * nearer) >> 22  # floor of log10 of the distance
    lower, value, upper = _interval(number, binary, power, nearer)
    # The ends of the interval that reads back as this double belong to it where the fraction is even.
    lower += number & 1
    upper -= number & 1
    floor = value >> 2
    tens = floor // 10
    below = lower <= 40 * tens
    above = 40 * tens + 40 <= upper
    if below != above:
        return tens + (1 if above else 0), power + 1
    below = lower <= 4 * floor
    above = 4 * floor + 4 <= upper
    if below != above:
        return floor + (1 if above else 0), power
    middle = 4 * floor + 2
    up = value > middle or (value == middle and floor & 1 == 1)
    return floor + (1 if up else 0), power


@kernel
def _put_exponent(target: int, exponent: int) -> int:
    store_u8(target, _E)
    store_u8(target + 1, _MINUS if exponent < 0 else _PLUS)
    target += 2
    size = abs(exponent)
    if size >= _HUNDRED:
        store_u8(target, _ZERO + size // 100)
        target += 1
    store_u8(target, _ZERO + size // 10 % 10)
    store_u8(target + 1, _ZERO + size % 10)
    return target + 2


@kernel
def _put_digits(target: int, number: int, power: int) -> int:
    """Number * 10**power, 0 < number < 10**17, as repr would."""
    size = _DIGITS
    if number < _E16:
        size = _DIGITS - 1
        while number < int(_TENS[size - 1]):
            size -= 1
        number *= int(_TENS[_DIGITS - size])
    point = size + power  # digits before the point
    first = number // _E16
    number -= first * _E16
    number_high = number // _E8
    high, low = _digits8(number_high), _digits8(number - number_high * _E8)
    used = 1 + (_WORD + _used(low) if low else _used(high))
    first += _ZERO
    high |= _ZEROS
    low |= _ZEROS
    if 1 <= point <= _WORD:
        # The digits around the point, from one word: those before it, the point, those after it; then the others.
        around = first | ((high & _SEVEN) << 8)
        store_i64(target, around)
        store_u8(target + point, _POINT)
        store_i64(target + point + 1, (around >> (8 * point - 8)) >> 8)
        store_u8(target + 9, high >> 56)
        store_i64(target + 10, low)
        return target + 1 + max(used, point + 1)
    if _FIXED_MIN <= point <= 0:
        store_i64(target, _ZERO_POINT)
        target += 2 - point
        store_u8(target, first)
        store_i64(target + 1, high)
        store_i64(target + 9, low)
        return target + used
    store_u8(target, first)
    if _WORD < point <= _FIXED_MAX:
        store_i64(target + 1, high)
        bits = 8 * (point - _WORD - 1)  # of the low word, before the point
        after = (((low & _SEVEN) >> bits) << bits) << 8
        store_i64(target + 9, (low & ((1 << bits) - 1)) | (_POINT << bits) | after)
        store_u8(target + 17, low >> 56)
        return target + 1 + max(used, point + 1)
    store_u8(target + 1, _POINT)
    store_i64(target + 2, high)
    store_i64(target + 10, low)
    return _put_exponent(target + (1 if used == 1 else used + 1), point - 1)


@kernel
def _put_short(target: int, number: int) -> int:
    """Number / 10**8, number < 10**15."""
    whole = number // _E8
    target = _put_head(target, whole)
    digits = _digits8(number - whole * _E8)
    store_u8(target, _POINT)
    store_i64(target + 1, digits | _ZEROS)
    return target + 1 + max(_used(digits), 1)


@kernel
def put_float(target: int, value: float) -> int:
    """A finite double as `repr` at an address with room for FLOAT_BYTES_MAX; returns the address after the text."""
    bits = int(np.float64(value).view(np.int64))
    if bits < 0:
        store_u8(target, _MINUS)
        target += 1
        bits &= 0x7FFF_FFFF_FFFF_FFFF
    fraction, exponent = bits & (_HIDDEN - 1), bits >> _FRACTION_BITS
    whole_bits = _EXPONENT_BIAS - exponent  # bits after the binary point
    if bits == 0 or (0 <= whole_bits <= _FRACTION_BITS and (fraction & ((1 << whole_bits) - 1)) == 0):
        target = put_int(target, (fraction | _HIDDEN) >> whole_bits if bits else 0)
        store_u8(target, _POINT)
        store_u8(target + 1, _ZERO)
        return target + 2
    size = abs(value)
    if _SHORT_MIN <= size < _SHORT_MAX:
        rounded = int(size * _SHORT_SCALE + 0.5)
        if rounded / _SHORT_SCALE == size:
            return _put_short(target, rounded)
    number, power = _shortest(fraction, exponent)
    return _put_digits(target, number, power)
