"""The drift rules, row for row against the reference and, beyond its range, against exact fractions."""

from __future__ import annotations

import json
from fractions import Fraction
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streams.severity import AUTHORITY_LIMIT_MS, Severity, drift_seconds
from streams.severity_kernel import delta_ms_of, is_warned, severity_of

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

#: The rules look at the difference only; any authority will do, so the reference is tried at several.
AUTHORITIES_MS = (0, 1, -1, 1_795_000_000_123, -62_135_596_800_000, 253_402_300_799_999)
THRESHOLD_US = 5_000_000
INT64 = st.integers(-(2**63), 2**63 - 1)
AUTHORITY = st.integers(-AUTHORITY_LIMIT_MS, AUTHORITY_LIMIT_MS)


def _rows(cases: Path, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((cases / "seed_rules" / "postgres16.json").read_text())[name]
    assert rows
    return rows


def _us(milliseconds: str) -> int:
    exact = Fraction(milliseconds) * 1000
    assert exact.denominator == 1
    return int(exact)


def _severity(local_us: int, authority_ms: int) -> Severity:
    return Severity(severity_of(delta_ms_of(local_us, authority_ms)))


@pytest.mark.cases
def test_the_reference_severities_hold_row_for_row(cases: Path) -> None:
    """seed_rules drift_severity (PostgreSQL 16.2); where the reference overflows, ours is RED."""
    for row in _rows(cases, "drift_severity"):
        for authority_ms in AUTHORITIES_MS:
            local_us = authority_ms * 1000 + _us(row["client_minus_server_ms"])
            if "error" in row:
                assert _severity(local_us, authority_ms) is Severity.RED
            else:
                assert delta_ms_of(local_us, authority_ms) == row["delta_ms"], row
                assert _severity(local_us, authority_ms).name == row["severity"], row


@pytest.mark.cases
def test_the_reference_warnings_hold_row_for_row(cases: Path) -> None:
    """seed_rules drift_warning; where the reference refuses the event, ours is RED and warned."""
    for row in _rows(cases, "drift_warning"):
        for authority_ms in AUTHORITIES_MS:
            local_us = authority_ms * 1000 + _us(row["local_minus_authority_ms"])
            warned = is_warned(local_us, authority_ms, THRESHOLD_US)
            if not row["accepted"]:
                assert warned
                assert _severity(local_us, authority_ms) is Severity.RED
                continue
            assert warned == row["warned"], row
            if warned:
                assert drift_seconds(delta_ms_of(local_us, authority_ms)) == row["drift_seconds"], row


@given(INT64, AUTHORITY, st.integers(0, 9 * 10**18))
@example(2**63 - 1, -(2**62), 9 * 10**18)
@example(-(2**63), 2**62, 9 * 10**18)
@example(9 * 10**18, 0, 9 * 10**18)
@example(9 * 10**18 + 1, 0, 9 * 10**18)
@example(-9 * 10**18 - 1, 0, 9 * 10**18)
def test_every_rule_is_exact_for_any_instant(local_us: int, authority_ms: int, threshold_us: int) -> None:
    """Delta, severity and warning agree with exact arithmetic over the whole range."""
    delta_us = local_us - authority_ms * 1000
    size_ms = int(Fraction(abs(delta_us), 1000) + Fraction(1, 2))
    delta_ms = delta_ms_of(local_us, authority_ms)
    assert delta_ms == (-size_ms if delta_us < 0 else size_ms)
    assert severity_of(delta_ms) == (0 if size_ms < 1000 else 1 if size_ms < 5000 else 2)
    assert is_warned(local_us, authority_ms, threshold_us) == (abs(delta_us) > threshold_us)
    assert drift_seconds(delta_ms) == f"{size_ms // 1000}.{size_ms % 1000:03d}"


@given(
    st.integers(-3, 3), st.sampled_from([0, 499, 500, 501, 999, 1000, 4_999, 5_000]), st.sampled_from(AUTHORITIES_MS)
)
def test_boundaries_are_exact_to_the_microsecond(beside_us: int, at_ms: int, authority_ms: int) -> None:
    """A microsecond to either side of a boundary, ahead and behind, decides as the fractions say."""
    for sign in (1, -1):
        for half in (0, 500):
            delta_us = sign * (at_ms * 1000 + half + beside_us)
            size_ms = int(Fraction(abs(delta_us), 1000) + Fraction(1, 2))
            found = delta_ms_of(authority_ms * 1000 + delta_us, authority_ms)
            assert found == (-size_ms if delta_us < 0 else size_ms)


@given(INT64, st.sampled_from([-(2**63), 2**63 - 1, 2**62 + 1]))
def test_an_authority_out_of_reason_is_red_and_warned(local_us: int, authority_ms: int) -> None:
    """Beyond the authority's limit nothing overflows or raises."""
    assert _severity(local_us, authority_ms) is Severity.RED
    assert is_warned(local_us, authority_ms, 9 * 10**18)


def test_the_threshold_is_strict() -> None:
    """At the threshold there is no warning, a microsecond beyond there is, on both sides; zero is a threshold."""
    assert not is_warned(5_000_000, 0, THRESHOLD_US)
    assert is_warned(5_000_001, 0, THRESHOLD_US)
    assert not is_warned(-5_000_000, 0, THRESHOLD_US)
    assert is_warned(-5_000_001, 0, THRESHOLD_US)
    assert not is_warned(7_000, 7, 0)
    assert is_warned(6_999, 7, 0)
