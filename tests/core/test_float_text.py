"""Numbers as text against Python's own repr and str: every double, to the byte."""

from __future__ import annotations

import random
import struct
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.memory import JIT, address_of, kernel
from streams import float_text
from streams.float_text import FLOAT_BYTES_MAX, INT_BYTES_MAX, put_float, put_int
from tests.core.interpreted import interpreted

if TYPE_CHECKING:
    from numpy.typing import NDArray

RANDOM_DOUBLES = 1_000_000 if JIT else 3_000
GUARD = 0xA5


@kernel
def put_floats(values: NDArray[np.float64], target: int, ends: NDArray[np.int64]) -> None:
    """One behind the other."""
    at = target
    for i in range(values.size):
        at = put_float(at, values[i])
        ends[i] = at - target


@kernel
def put_ints(values: NDArray[np.int64], target: int, ends: NDArray[np.int64]) -> None:
    """One behind the other."""
    at = target
    for i in range(values.size):
        at = put_int(at, int(values[i]))
        ends[i] = at - target


def _cut(memory: NDArray[np.uint8], ends: NDArray[np.int64]) -> list[str]:
    text, bounds = memory.tobytes().decode("latin-1"), [0, *ends.tolist()]
    return [text[start:end] for start, end in pairwise(bounds)]


def float_texts(values: NDArray[np.float64]) -> list[str]:
    """What the kernel writes."""
    memory, ends = np.empty((values.size + 1) * FLOAT_BYTES_MAX, np.uint8), np.empty(values.size, np.int64)
    put_floats(values, address_of(memory), ends)
    return _cut(memory, ends)


def int_texts(values: NDArray[np.int64]) -> list[str]:
    """What the kernel writes."""
    memory, ends = np.empty((values.size + 1) * INT_BYTES_MAX, np.uint8), np.empty(values.size, np.int64)
    put_ints(values, address_of(memory), ends)
    return _cut(memory, ends)


def assert_as_repr(values: NDArray[np.float64]) -> None:
    """Every one, and the same with the other sign."""
    for signed in (values, -values):
        wrong = [
            (value, text)
            for value, text in zip(signed.tolist(), float_texts(signed), strict=True)
            if repr(value) != text
        ]
        assert not wrong, f"{len(wrong)} of {values.size}, the first {wrong[:3]}"


def hard_doubles() -> NDArray[np.float64]:
    """Powers of two and of ten, and both neighbours of each; ends of ranges; ties; what papers name."""
    named = [
        "0.0", "5e-324", "2.2250738585072011e-308", "2.2250738585072014e-308", "1.7976931348623157e308",
        "123456789012345680.0", "9007199254740993", "9007199254740994", "4503599627370497.5", "2251799813685248.25",
        "1e16", "9999999999999998", "1e15", "0.0001", "0.00009999999999999999", "9.5367431640625e-07",
        "1e22", "1e23", "9e-265", "2e-323", "4.9e-324", "5.684341886080802e-14", "2.9802322387695312e-08",
        "1.3076622631878654e65", "8.41e21", "2.0919495182368195e19", "7.1202363472230444e-307", "3.5e-320",
        "9999999.99999999", "9999999.999999999", "1e7", "12345678.25", "0.1", "0.3", "0.30000000000000004", "100.0",
    ]  # fmt: skip
    powers = [2.0**exponent for exponent in range(-1074, 1024)] + [float(f"1e{e}") for e in range(-323, 309)]
    values = np.array([*map(float, named), *powers])
    bits = values.view(np.int64)
    around = np.concatenate([bits, bits + 1, np.maximum(bits - 1, 0)]).view(np.float64)
    return around[np.isfinite(around)]


def random_doubles(count: int) -> NDArray[np.float64]:
    """Of all bit patterns the finite ones."""
    values = np.frombuffer(random.Random(11).randbytes(8 * count), np.float64)
    return values[np.isfinite(values)]


def decimals(count: int) -> NDArray[np.float64]:
    """As sensors give them: few digits, and sums and means of such."""
    rng = random.Random(12)
    short = [round(rng.uniform(-1, 1) * 10 ** rng.randint(-4, 12), rng.randint(0, 9)) for _ in range(count)]
    return np.array([*short, *(sum(short[i : i + 5]) / 5 for i in range(count))])


def whole_numbers() -> NDArray[np.int64]:
    """Around every power of ten and of two, and the ends."""
    edges = [sign * base**exponent for sign in (1, -1) for base in (2, 10) for exponent in range(64)]
    near = {edge + step for edge in edges for step in (-1, 0, 1)}
    return np.array(sorted(number for number in near if -(2**63) <= number < 2**63), np.int64)


def test_a_million_random_doubles_are_written_as_repr_writes_them() -> None:
    """Every bit pattern is as likely as any other: exponents of all sizes, subnormals, both signs."""
    assert_as_repr(random_doubles(RANDOM_DOUBLES))


def test_hard_doubles_are_written_as_repr_writes_them() -> None:
    """Where intervals are lopsided, where the point and the exponent change places, where digits tie."""
    assert_as_repr(hard_doubles())


def test_decimals_and_their_means_are_written_as_repr_writes_them() -> None:
    """With and without the short way."""
    assert_as_repr(decimals(RANDOM_DOUBLES // 10))


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_any_double_is_written_as_repr_writes_it(value: float) -> None:
    """Those that hypothesis thinks of."""
    assert float_texts(np.array([value])) == [repr(value)]


@given(st.integers(-(2**63), 2**63 - 1))
def test_any_int64_is_written_as_str_writes_it(value: int) -> None:
    """Also the least, whose absolute value is no int64."""
    assert int_texts(np.array([value], np.int64)) == [str(value)]


def test_whole_numbers_of_every_length_are_written_as_str_writes_them() -> None:
    """The digits are cut into eights; no cut shows."""
    values = whole_numbers()
    assert int_texts(values) == [str(value) for value in values.tolist()]


@pytest.mark.parametrize("which", ["finite", "not finite", "integers"])
def test_nothing_is_written_beyond_the_longest_text(which: str) -> None:
    """Words of eight digits are stored whole, but within the room that is asked for; also for what has no digits."""
    most = INT_BYTES_MAX if which == "integers" else FLOAT_BYTES_MAX
    memory = np.empty(most + 16, np.uint8)
    values = {
        "finite": np.concatenate([hard_doubles(), -hard_doubles()]),
        "not finite": np.array([float("nan"), float("inf"), float("-inf")]),
        "integers": whole_numbers(),
    }[which]
    for value in values:
        memory.fill(GUARD)
        target = address_of(memory) + 8
        end = put_int(target, int(value)) if which == "integers" else put_float(target, float(value))
        assert 0 < end - target <= most
        assert (memory[:8] == GUARD).all()
        assert (memory[-8:] == GUARD).all()


def test_the_longest_texts_fill_their_room() -> None:
    """The limits are no larger than they must be."""
    assert max(map(len, float_texts(-hard_doubles()))) == FLOAT_BYTES_MAX == len(repr(-2.2250738585072014e-308))
    assert max(map(len, int_texts(whole_numbers()))) == INT_BYTES_MAX


def test_the_powers_of_ten_are_exact_to_their_last_bit() -> None:
    """150 bits each, rounded up: the error that the search allows for."""
    for power, limbs in enumerate(float_text._POWERS.reshape(-1, 5).tolist(), float_text._POWER_MIN):
        g = sum(limb << (30 * place) for place, limb in enumerate(limbs))
        assert all(0 <= limb < 1 << 30 for limb in limbs)
        exact = Fraction(10) ** power / Fraction(2) ** (((power * 1_741_647) >> 19) - 149)
        assert 2**149 <= exact <= g < exact + 1


def dump() -> bytes:
    """Everything above in one text, to compare two processes."""
    floats = np.concatenate([hard_doubles()[::7], random_doubles(2_000), decimals(500)])
    return "\n".join([*float_texts(floats), *int_texts(whole_numbers())]).encode()


def test_kernels_write_the_same_bytes_interpreted() -> None:
    """NUMBA_DISABLE_JIT=1 in a process of its own, where numbers do not wrap."""
    assert interpreted("tests.core.test_float_text", "dump()") == dump()


def test_a_digit_less_would_be_another_double() -> None:
    """What shortest means, checked without repr: the text reads back, and no text with a digit less does."""
    for value, text in zip(values := random_doubles(2_000), float_texts(values), strict=True):
        assert struct.pack("d", float(text)) == struct.pack("d", value)
        digits = len(text.lstrip("-").split("e")[0].replace(".", "").strip("0"))
        assert digits == 1 or float(f"{value:.{digits - 2}e}") != value
