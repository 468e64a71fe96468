"""The sample fleet: what it promises about its clocks, its rates and its values."""

from __future__ import annotations

import gzip
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.instants import NS_PER_S
from streams.sample_fleet import GROUPS, Clock, describe_clocks, fleet, generate, parse_nab
from streams.severity import GREEN, RED, YELLOW
from streams.severity_kernel import severity_of
from streams.up import offset_of

if TYPE_CHECKING:
    from pathlib import Path

SERIES = [f"s{number}" for number in range(7)]
BEGIN_NS = 1_800_000_000 * NS_PER_S


def severities_after(elapsed_s: int) -> dict[str, int]:
    """What each source's clock deserves when so many seconds have passed since the start."""
    now_ns = BEGIN_NS + elapsed_s * NS_PER_S
    return {
        source.name: severity_of(offset_of(source.clock, BEGIN_NS, number).at(now_ns) // 1_000_000)
        for number, source in enumerate(fleet(SERIES))
    }


def test_there_are_200_sources_with_names_of_their_own() -> None:
    """And they are the same ones at every start."""
    assert len({source.name for source in fleet(SERIES)}) == 200
    assert fleet(SERIES) == fleet(SERIES)


def test_a_clock_is_as_wrong_as_its_name_says_from_the_start() -> None:
    """Steady and quartz are right, 2 s is YELLOW, 7 s and a day are RED."""
    at_start = severities_after(1)
    for name, severity in at_start.items():
        if name.startswith(("fast-2s", "slow-2s", "corrected-1")):
            assert severity == YELLOW, name
        elif name.startswith(("fast-7s", "slow-7s", "day-ahead", "corrected-2")):
            assert severity == RED, name
        else:
            assert severity == GREEN, name


def test_drift_shows_within_minutes_and_honest_quartz_does_not() -> None:
    """The fastest is YELLOW within half a minute; within ten minutes all five are RED."""
    assert severities_after(30)["drift+50000ppm"] == YELLOW
    later = severities_after(600)
    assert {severity for name, severity in later.items() if name.startswith("drift")} == {RED}
    assert {severity for name, severity in later.items() if name.startswith(("quartz", "steady"))} == {GREEN}


def test_some_clocks_become_right_again() -> None:
    """So that alerts close: corrected ones after a minute, swaying ones each time they pass through zero."""
    assert severities_after(59)["corrected-1"] == YELLOW
    assert severities_after(59)["corrected-2"] == RED
    assert severities_after(61)["corrected-1"] == severities_after(61)["corrected-2"] == GREEN
    assert [severities_after(s)["sway-in-1min"] for s in (0, 15, 30, 45, 60)] == [GREEN, YELLOW, GREEN, YELLOW, GREEN]


def test_clocks_that_are_set_are_right_before() -> None:
    """And wrong for good behind it."""
    for elapsed_s, severity in ((29, GREEN), (31, YELLOW), (600, YELLOW)):
        later = severities_after(elapsed_s)
        assert {later[name] for name in later if name.startswith("step")} == {severity}


def test_a_path_that_is_cut_gives_everything_back_late() -> None:
    """Nothing while it is cut, then twice the rate, until it is level; each event once."""
    for source in fleet(SERIES):
        if not source.name.startswith("cut-off"):
            assert source.passed(77 * NS_PER_S) == source.due(77 * NS_PER_S)
            continue
        passed = [source.passed(second * NS_PER_S) for second in range(130)]
        due = [source.due(second * NS_PER_S) for second in range(130)]
        assert passed[:21] == due[:21]
        assert set(passed[20:61]) == {due[20]}
        assert [passed[second + 1] - passed[second] for second in range(60, 99)] == [2 * source.rate_hz] * 39
        assert passed[102:] == due[102:]
        assert all(sent <= made for sent, made in zip(passed, due, strict=True))


def test_all_faults_of_a_clock_add_up() -> None:
    """Without jitter the sum is exact."""
    clock = Clock(ahead_ms=100, rate_ppm=1_000, sway_ms=8, sway_period_s=40, jitter_ms=0)
    at = offset_of(clock, BEGIN_NS, 0).at
    assert at(BEGIN_NS) == 100_000_000
    assert at(BEGIN_NS + 10 * NS_PER_S) == 100_000_000 + 10_000_000 + 8_000_000


def test_each_source_sends_3_to_6_events_a_second() -> None:
    """All rates occur, and nobody begins at the same moment as all the others."""
    sources = fleet(SERIES)
    assert {source.rate_hz for source in sources} == set(range(3, 7))
    assert len({source.phase_ns for source in sources}) == 200


@given(elapsed_ns=st.integers(0, 10**15), number=st.integers(0, 199))
def test_a_second_always_holds_as_many_events_as_the_rate_says(elapsed_ns: int, number: int) -> None:
    """However long it runs."""
    source = fleet(SERIES)[number]
    assert source.due(elapsed_ns + NS_PER_S) - source.due(elapsed_ns) == source.rate_hz
    assert source.due(elapsed_ns + 1) - source.due(elapsed_ns) in (0, 1)


def test_series_are_dealt_in_turn() -> None:
    """Two sources that share one are at different places in it."""
    sources = fleet(SERIES)
    counts = Counter(source.series for source in sources)
    assert max(counts.values()) - min(counts.values()) == 1
    assert len({(source.series, source.first_value) for source in sources}) == 200


def test_the_clocks_can_be_told_in_a_line() -> None:
    """Numbers of sources and what is wrong with them."""
    assert describe_clocks().startswith("134 steady; 14 ordinary quartz")
    assert sum(int(part.split()[0]) for part in describe_clocks().split("; ")) == 200
    assert len(describe_clocks().split("; ")) == len(GROUPS)


def test_generated_series_are_always_the_same_and_vary() -> None:
    """Finite, not negative, with more than a few values each."""
    series = generate()
    assert series == generate()
    for values in series.values():
        assert min(values) >= 0
        assert len(set(values)) > 100
    assert generate()["cpu_percent"][:3].tolist() == [62.789, 63.077, 61.816]


@pytest.mark.cases
def test_a_file_of_nab_is_read(cases: Path) -> None:
    """NAB, realAWSCloudwatch/ec2_network_in_5abac7: its first values, whatever its timestamps."""
    path = cases / "nab/data/realAWSCloudwatch/ec2_network_in_5abac7.csv.gz"
    assert parse_nab(gzip.decompress(path.read_bytes()).decode())[:4].tolist() == [42.0, 94.8, 42.0, 68.4]


@pytest.mark.parametrize(
    "text", ["", "timestamp,value", "a,b\n1,2", "timestamp,value\n2014-01-01 00:00:00,", "timestamp,value\nnothing"]
)
def test_a_file_of_something_else_is_refused(text: str) -> None:
    """Rather than measured as zeros."""
    with pytest.raises(ValueError, match=r"expected timestamp,value|could not convert"):
        parse_nab(text)
