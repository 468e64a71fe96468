"""Clocks: the machine's, simulated true time, and the clocks of sources that are off."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import clock
from schemas.clock import (
    PPM,
    Checkpoint,
    Linear,
    Noisy,
    Periodic,
    SimulatedTime,
    SkewedTime,
    Step,
    SystemTime,
    Together,
    source,
    use,
    using,
)
from schemas.errors import BadInputError
from schemas.instants import NS_PER_MS, NS_PER_S, S_PER_DAY

if TYPE_CHECKING:
    from schemas.clock import Offset, TimeSource

NS_PER_DAY = S_PER_DAY * NS_PER_S
INSTANTS_NS = st.integers(-(2**70), 2**70)
OFFSETS = st.one_of(
    st.builds(Linear, st.integers(-(10**9), 10**9), INSTANTS_NS),
    st.builds(Periodic, st.integers(0, 10**15), st.integers(2, 10**15), INSTANTS_NS),
    st.builds(Step, st.integers(-(10**18), 10**18), st.none() | INSTANTS_NS),
    st.builds(Noisy, st.integers(0, 10**12), st.integers(0, 2**64), st.integers(1, 10**12)),
)


@pytest.fixture
def unchosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has not chosen its time source yet."""
    monkeypatch.setattr(clock, "_GLOBAL", clock._Global())


def test_the_machine_shows_a_date_and_measures_durations_on_another_clock() -> None:
    """Both units agree, and a sleep takes at least as long as it says by the monotonic clock."""
    time = SystemTime()
    before = time.create_checkpoint()
    time.sleep_s(0.002)
    after = time.create_checkpoint()
    assert before.elapsed_ns(after) >= 2 * NS_PER_MS
    assert abs(time.now_us() - time.now_ns() // 1_000) < 1_000_000
    assert time.now_us() > 1_700_000_000_000_000


def test_real_time_cannot_be_advanced() -> None:
    """Asking for it is a mistake of the caller, and said so."""
    with pytest.raises(BadInputError, match="use SimulatedTime"):
        SystemTime().advance_simulation(1)


def test_simulated_time_stands_still_until_it_is_moved() -> None:
    """Reading does not move it; advancing moves both clocks by the same amount."""
    time = SimulatedTime(start_ns=5 * NS_PER_S, monotonic_ns=100)
    assert [time.now_ns(), time.now_ns(), time.monotonic_ns()] == [5 * NS_PER_S, 5 * NS_PER_S, 100]
    time.advance_simulation(1_500)
    assert [time.now_ns(), time.now_us(), time.monotonic_ns()] == [5 * NS_PER_S + 1_500, 5_000_001, 1_600]


def test_simulated_sleep_returns_at_once_and_moves_time() -> None:
    """An hour of sleep takes no hour."""
    time = SimulatedTime()
    time.sleep_s(3_600)
    assert time.now_ns() == 3_600 * NS_PER_S


def test_simulated_time_never_goes_back() -> None:
    """A clock that is set back is an offset, not a negative duration."""
    time = SimulatedTime()
    with pytest.raises(BadInputError, match="cannot go back"):
        time.advance_simulation(-1)
    assert time.now_ns() == 0


def test_a_simulation_goes_on_from_its_checkpoint() -> None:
    """A resumed source reads what the first one did."""
    time = SimulatedTime(7, 8)
    time.advance_simulation(10)
    resumed = SimulatedTime.resume(time.create_checkpoint())
    assert (resumed.now_ns(), resumed.monotonic_ns()) == (17, 18)


def test_two_checkpoints_tell_a_step_of_the_wall_clock_from_time_that_passed() -> None:
    """The monotonic clock gives the duration, the rest is the step."""
    true = SimulatedTime()
    own = SkewedTime(true, Step(by_ns=-NS_PER_DAY, from_ns=NS_PER_S))
    before = own.create_checkpoint()
    true.advance_simulation(2 * NS_PER_S)
    after = own.create_checkpoint()
    assert before.elapsed_ns(after) == 2 * NS_PER_S
    assert before.stepped_ns(after) == -NS_PER_DAY
    assert after == Checkpoint(2 * NS_PER_S - NS_PER_DAY, 2 * NS_PER_S)


def test_a_linear_clock_gains_its_rate() -> None:
    """200 ppm are 17.28 s a day; a slow clock loses."""
    assert Linear(200 * PPM).at(NS_PER_DAY) == 17_280 * NS_PER_MS
    assert Linear(-200 * PPM, since_ns=NS_PER_DAY).at(2 * NS_PER_DAY) == -17_280 * NS_PER_MS
    assert Linear(1, since_ns=5).at(5) == 0


def test_a_periodic_clock_sways_like_a_sine() -> None:
    """Zero at the start and middle, the amplitude at the quarters, within 0.2 % of the sine between."""
    wave = Periodic(amplitude_ns=NS_PER_S, period_ns=NS_PER_DAY, since_ns=NS_PER_S)
    quarter = NS_PER_DAY // 4
    assert [wave.at(NS_PER_S + i * quarter) for i in range(5)] == [0, NS_PER_S, 0, -NS_PER_S, 0]
    for i in range(1_000):
        exact = math.sin(2 * math.pi * i / 1_000) * NS_PER_S
        assert abs(wave.at(NS_PER_S + i * NS_PER_DAY // 1_000) - exact) < 0.002 * NS_PER_S


def test_a_step_holds_from_its_moment_on_or_always() -> None:
    """A clock that is a day ahead is a step without a beginning."""
    assert [Step(10, from_ns=3).at(t) for t in (2, 3, 4)] == [0, 10, 10]
    assert Step(NS_PER_DAY).at(-(2**80)) == NS_PER_DAY


def test_noise_is_bounded_centred_and_the_same_for_the_same_seed() -> None:
    """Uniform between the amplitudes, constant within an interval, another sequence for another seed."""
    noise = Noisy(amplitude_ns=1_000, seed=7, interval_ns=10)
    draws = [noise.at(t * 10) for t in range(20_000)]
    assert min(draws) == -1_000
    assert max(draws) == 1_000
    assert abs(sum(draws) / len(draws)) < 20
    assert noise.at(125) == noise.at(129)
    assert draws != [Noisy(1_000, 8, 10).at(t * 10) for t in range(20_000)]
    assert draws[:6] == [Noisy(1_000, 7, 10).at(t * 10) for t in range(6)]


def test_noise_is_pinned() -> None:
    """Simulations recorded today read the same instants on every machine, for ever."""
    noise = Noisy(amplitude_ns=1_000_000, seed=42)
    assert [noise.at(t * NS_PER_MS) for t in range(-2, 4)] == [61761, 595339, -313416, 900877, -106824, 955554]


@pytest.mark.parametrize(
    "wrong", [lambda: Noisy(-1, 0), lambda: Noisy(1, 0, interval_ns=0), lambda: Periodic(1, period_ns=1)]
)
def test_offsets_without_a_meaning_are_refused(wrong: object) -> None:
    """A negative amplitude, an empty interval, a period without halves."""
    assert callable(wrong)
    with pytest.raises(BadInputError):
        wrong()


@given(offsets=st.lists(OFFSETS, max_size=4), instants=st.lists(INSTANTS_NS, max_size=5))
def test_offsets_compose_and_do_not_depend_on_earlier_reads(offsets: list[Offset], instants: list[int]) -> None:
    """The clock reads true time plus the sum, in any order of reading, as integers."""
    together = Together(tuple(offsets))
    expected = [sum(o.at(t) for o in offsets) for t in instants]
    assert [together.at(t) for t in reversed(instants)] == expected[::-1]
    for instant, offset_ns in zip(instants, expected, strict=True):
        own = SkewedTime(SimulatedTime(instant), together)
        assert own.now_ns() == instant + offset_ns
        assert own.now_us() == (instant + offset_ns) // 1_000
        assert type(own.now_ns()) is int


@given(amplitude=st.integers(-(10**15), 10**15), period=st.integers(2, 10**6), t=st.integers(-(10**7), 10**7))
def test_a_periodic_clock_never_leaves_its_amplitude(amplitude: int, period: int, t: int) -> None:
    """For any period, odd ones included."""
    assert abs(Periodic(amplitude, period).at(t)) <= abs(amplitude)


def test_clocks_of_one_fleet_share_true_time() -> None:
    """Moving time through any of them moves all; durations are those of true time."""
    true = SimulatedTime()
    fast, ahead = SkewedTime(true, Linear(1_000 * PPM)), SkewedTime(true, Step(NS_PER_DAY))
    fast.advance_simulation(NS_PER_S)
    ahead.sleep_s(1)
    assert fast.now_ns() == 2 * NS_PER_S + 2 * NS_PER_MS
    assert ahead.now_ns() == 2 * NS_PER_S + NS_PER_DAY
    assert fast.monotonic_ns() == ahead.monotonic_ns() == true.monotonic_ns() == 2 * NS_PER_S


@pytest.mark.usefixtures("unchosen")
def test_the_machine_is_the_source_of_a_process_that_chose_none() -> None:
    """Library users need not choose."""
    assert isinstance(source(), SystemTime)
    assert source() is source()


@pytest.mark.usefixtures("unchosen")
def test_the_source_of_a_process_is_chosen_once() -> None:
    """The same again is harmless, another one is refused and changes nothing."""
    first: TimeSource = SimulatedTime()
    use(first)
    use(first)
    with pytest.raises(BadInputError, match="already chosen"):
        use(SystemTime())
    assert source() is first


@pytest.mark.usefixtures("unchosen")
def test_a_block_may_use_another_source_and_gives_it_back() -> None:
    """Also when the block fails."""
    chosen = SystemTime()
    use(chosen)
    with using(SimulatedTime(5)) as time:
        assert source() is time
    assert source() is chosen
    with pytest.raises(ZeroDivisionError), using(SimulatedTime(0)):
        _ = 1 // source().now_ns()
    assert source() is chosen
