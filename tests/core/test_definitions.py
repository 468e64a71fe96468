"""Settings of the judge as they stand in the ledger."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.codec import Framing
from schemas.errors import BadInputError
from streams.definitions import JudgeSettings, threshold_us_from_ms

DEFAULT_BODY = (
    '{"clear_events":5,"confirm_events":3,"dedupe_horizon":100000,"estimate_interval_ms":60000,"fleet_hold_ms":5000,'
    '"framing":"single_object","hold_ms":10000,"hysteresis_ms":100,"of_events":5,"sources_max":200000,'
    '"threshold_us":5000000}'
)

settings = st.builds(
    JudgeSettings,
    framing=st.sampled_from(Framing),
    threshold_us=st.integers(0, 9 * 10**18),
    confirm_events=st.integers(1, 5),
    of_events=st.integers(5, 62),
    clear_events=st.integers(1, 10_000),
    hysteresis_ms=st.integers(0, 999),
    hold_ms=st.integers(0, 86_400_000),
    fleet_hold_ms=st.integers(0, 86_400_000),
    dedupe_horizon=st.integers(0, 2_000_000),
    sources_max=st.integers(1, 1_000_000),
    estimate_interval_ms=st.integers(1, 86_400_000),
)


def test_the_canonical_form_of_the_defaults_is_pinned() -> None:
    """A change of these bytes would write a new entry into every ledger."""
    assert JudgeSettings().canonical() == DEFAULT_BODY


@given(settings)
def test_settings_come_back_from_their_canonical_form(chosen: JudgeSettings) -> None:
    """As they were."""
    assert JudgeSettings.parse(chosen.canonical()) == chosen


def test_a_body_from_before_a_field_was_added_holds_with_its_default() -> None:
    """Ledgers outlive releases. Any other field must be there."""
    earlier = DEFAULT_BODY.replace('"estimate_interval_ms":60000,', "").replace("100000", "7")
    assert JudgeSettings.parse(earlier) == JudgeSettings(dedupe_horizon=7)


@given(settings, settings)
def test_different_settings_have_different_bodies(one: JudgeSettings, other: JudgeSettings) -> None:
    """And equal ones equal bodies."""
    assert (one.canonical() == other.canonical()) == (one == other)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("threshold_us", -1),
        ("threshold_us", 9 * 10**18 + 1),
        ("threshold_us", float("nan")),
        ("threshold_us", 5e6),
        ("threshold_us", True),
        ("confirm_events", 0),
        ("confirm_events", 6),
        ("of_events", 2),
        ("of_events", 63),
        ("clear_events", 0),
        ("clear_events", 10_001),
        ("hysteresis_ms", -1),
        ("hysteresis_ms", 1_000),
        ("hold_ms", -1),
        ("hold_ms", 86_400_001),
        ("fleet_hold_ms", -1),
        ("fleet_hold_ms", 86_400_001),
        ("dedupe_horizon", -1),
        ("dedupe_horizon", 2_000_001),
        ("sources_max", 0),
        ("sources_max", 1_000_001),
        ("estimate_interval_ms", 0),
        ("estimate_interval_ms", 86_400_001),
        ("framing", "json"),
    ],
)
def test_a_value_out_of_its_limits_is_refused_by_name(field: str, value: Any) -> None:
    """The message names the field."""
    with pytest.raises(BadInputError, match=field):
        replace(JudgeSettings(), **{field: value})


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        "[]",
        "null",
        "[" * 100_000,
        "{}",
        DEFAULT_BODY.replace(",", ", "),
        DEFAULT_BODY.replace('"confirm_events":3,', ""),
        DEFAULT_BODY.replace("{", '{"also":1,'),
        DEFAULT_BODY.replace("5000000", "5000000.0"),
        DEFAULT_BODY.replace("5000000", "NaN"),
        DEFAULT_BODY.replace("5000000", "-1"),
        DEFAULT_BODY.replace("5000000", "9" * 5000),
        DEFAULT_BODY.replace('"single_object"', '"bare"'),
        DEFAULT_BODY.replace('"single_object"', "[]"),
        json.dumps(dict(reversed(json.loads(DEFAULT_BODY).items())), separators=(",", ":")),
        DEFAULT_BODY.replace("{", '{"confirm_events":3,'),
    ],
)
def test_any_other_body_is_refused(body: str) -> None:
    """Also the same object written in another way: one meaning, one body."""
    with pytest.raises(BadInputError):
        JudgeSettings.parse(body)


@pytest.mark.parametrize(
    ("given_ms", "expected_us"),
    [(5000.0, 5_000_000), (0.3, 300), (0.0015, 1), (0, 0), ("4999.9999", 4_999_999), (Decimal("1e3"), 1_000_000)],
)
def test_a_threshold_in_milliseconds_becomes_whole_microseconds(
    given_ms: float | str | Decimal, expected_us: int
) -> None:
    """Rounded down: distances are whole microseconds, so strictly more than 1.5 us is strictly more than 1 us."""
    assert threshold_us_from_ms(given_ms) == expected_us


@pytest.mark.parametrize("bad", [-1, -0.001, float("nan"), float("inf"), "soon", "", 1e18])
def test_a_threshold_that_is_no_length_of_time_is_refused(bad: float | str) -> None:
    """Negative, NaN, infinite, no number, or beyond the limit."""
    with pytest.raises(BadInputError, match="threshold"):
        threshold_us_from_ms(bad)
