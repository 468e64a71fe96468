"""Entropy against its definition, and what it decides."""

from __future__ import annotations

import math
from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.ageing import COLD, Ageing, after_read, entropy, merged, reads
from schemas.errors import BadInputError

HALF_LIFE = 3_600_000_000
#: Of a segment's heat, by rounding: some hundred sums of doubles of some hundred bits.
ROUNDING = 1e-9

written = st.integers(-(2**62), 2**62)
#: In half-lives after the write.
read_after = st.floats(-50, 200)


def heat_of(written_us: int, read_us: list[int]) -> float:
    """Of reads in that order."""
    return reduce(lambda heat, at: after_read(heat, written_us, at, HALF_LIFE), read_us, COLD)


def slowly(written_us: int, read_us: list[int], now_us: int) -> float:
    """By the definition, of instants told from now so that doubles hold them."""
    weights = sorted(2.0 ** ((at - now_us) / HALF_LIFE) for at in [written_us, *read_us])
    return -math.log2(math.fsum(weights))


@given(written, written, st.integers(1, 2**50))
def test_without_reads_entropy_is_age_in_half_lives_exactly(written_us: int, now_us: int, half_life_us: int) -> None:
    """To the last bit: any instants, any half-life."""
    assert entropy(written_us, COLD, now_us, half_life_us) == (now_us - written_us) / half_life_us


@given(written, st.lists(read_after, max_size=30), st.floats(0, 100))
def test_entropy_is_what_its_definition_says(written_us: int, after: list[float], later: float) -> None:
    """Reads before and after the write, and up to 250 half-lives of age."""
    read_us = [written_us + int(each * HALF_LIFE) for each in after]
    now_us = max([written_us, *read_us]) + int(later * HALF_LIFE)
    found = entropy(written_us, heat_of(written_us, read_us), now_us, HALF_LIFE)
    assert found == pytest.approx(slowly(written_us, read_us, now_us), abs=ROUNDING)


@given(written, st.lists(read_after, min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_reads_in_any_order_make_the_same_heat(written_us: int, after: list[float], random: object) -> None:
    """But for rounding."""
    read_us = [written_us + int(each * HALF_LIFE) for each in after]
    heat = heat_of(written_us, read_us)
    random.shuffle(read_us)  # type: ignore[attr-defined]
    assert heat_of(written_us, read_us) == pytest.approx(heat, abs=ROUNDING)


@given(
    st.lists(st.tuples(st.integers(0, 10**12), st.lists(st.integers(0, 10**12), max_size=8)), min_size=1, max_size=8)
)
def test_segments_as_one_are_as_young_as_the_youngest_and_read_as_all_were(parts: list[tuple[int, list[int]]]) -> None:
    """In any order to the last bit, by turns but for rounding; and what was never read stays cold."""
    heats = [(written_us, heat_of(written_us, read_us)) for written_us, read_us in parts]
    written_us, heat = merged(heats, HALF_LIFE)
    assert written_us == max(written for written, _ in parts)
    assert merged(heats[::-1], HALF_LIFE) == (written_us, heat)
    all_reads = [at for _, read_us in parts for at in read_us]
    assert heat == pytest.approx(heat_of(written_us, all_reads), abs=ROUNDING)
    by_turns = reduce(lambda one, other: merged([one, other], HALF_LIFE), heats)
    assert by_turns[0] == written_us
    assert by_turns[1] == pytest.approx(heat, abs=ROUNDING)
    if not all_reads:
        assert heat == COLD


def test_no_segment_has_no_age() -> None:
    """Whoever merges nothing has made a mistake."""
    with pytest.raises(BadInputError, match="no segment has no age"):
        merged([], HALF_LIFE)


def test_entropy_grows_by_one_bit_in_a_half_life_and_each_read_lowers_it() -> None:
    """The hundredth read too."""
    heat = COLD
    before = entropy(0, heat, 10 * HALF_LIFE, HALF_LIFE)
    for _ in range(100):
        heat = after_read(heat, 0, 10 * HALF_LIFE, HALF_LIFE)
        assert entropy(0, heat, 10 * HALF_LIFE, HALF_LIFE) < before
        before = entropy(0, heat, 10 * HALF_LIFE, HALF_LIFE)
        assert entropy(0, heat, 11 * HALF_LIFE, HALF_LIFE) == pytest.approx(before + 1)


@given(st.lists(read_after, max_size=30), st.floats(0, 100))
def test_reads_count_half_after_each_half_life(after: list[float], later: float) -> None:
    """Against a sum over all of them."""
    read_us = [int(each * HALF_LIFE) for each in after]
    now_us = max([0, *read_us]) + int(later * HALF_LIFE)
    counted = math.fsum(2.0 ** ((at - now_us) / HALF_LIFE) for at in read_us)
    assert reads(0, heat_of(0, read_us), now_us, HALF_LIFE) == pytest.approx(counted, rel=ROUNDING)


def test_instants_far_apart_overflow_nothing() -> None:
    """Clocks of the broker may say anything of 64 bits."""
    ends = -(2**63), 2**63 - 1
    for written_us in ends:
        for read_us in ends:
            heat = after_read(COLD, written_us, read_us, 1)
            for now_us in ends:
                bits = entropy(written_us, heat, now_us, 1)
                assert math.isfinite(bits)
                assert math.isfinite(reads(written_us, heat, now_us, 1))


def test_data_leaves_above_the_limit_and_comes_back_below_it_less_the_hysteresis() -> None:
    """Never at them, and never both."""
    rules = Ageing(HALF_LIFE, limit=7.0, hysteresis=2.0, stay_us=0)
    assert [rules.leaves(bits, 0, 0) for bits in (6.9, 7.0, 7.1)] == [False, False, True]
    assert [rules.returns(bits, 0, 0) for bits in (4.9, 5.0, 5.1)] == [True, False, False]
    assert not any(rules.leaves(bits / 10, 0, 0) and rules.returns(bits / 10, 0, 0) for bits in range(-100, 200))


def test_what_was_moved_stays() -> None:
    """Until exactly its stay is over; time that goes back moves nothing."""
    rules = Ageing(HALF_LIFE, limit=7.0, hysteresis=2.0, stay_us=100)
    assert [rules.leaves(8.0, 1_000, now) for now in (999, 1_000, 1_099, 1_100)] == [False, False, False, True]
    assert [rules.returns(0.0, 1_000, now) for now in (999, 1_000, 1_099, 1_100)] == [False, False, False, True]


@pytest.mark.parametrize(
    ("half_life_us", "limit", "hysteresis", "stay_us", "said"),
    [
        (0, 7.0, 1.0, 0, "a half-life of 0 us is none"),
        (-1, 7.0, 1.0, 0, "a half-life of -1 us is none"),
        (1, 7.0, 7.1, 0, "cannot leave at 7.0"),
        (1, 7.0, -0.1, 0, "cannot leave at 7.0"),
        (1, math.inf, 1.0, 0, "cannot leave at inf"),
        (1, math.nan, 1.0, 0, "cannot leave at nan"),
        (1, 7.0, math.nan, 0, "cannot leave at 7.0"),
        (1, 7.0, 1.0, -1, "cannot stay for -1 us"),
    ],
)
def test_numbers_that_contradict_each_other_are_refused(
    half_life_us: int, limit: float, hysteresis: float, stay_us: int, said: str
) -> None:
    """NaN contradicts any."""
    with pytest.raises(BadInputError, match=said):
        Ageing(half_life_us, limit, hysteresis, stay_us)
