"""Instants as text: RFC 3339, and beyond its years to the ends of int64."""

from __future__ import annotations

import contextlib
import datetime as dt

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.errors import BadInputError
from schemas.instants import INT64_MAX, INT64_MIN, format_ms, format_us, parse_us

INT64 = st.integers(INT64_MIN, INT64_MAX)
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("instant_us", "text"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (-1, "1969-12-31T23:59:59.999999Z"),
        (951_782_400_000_000, "2000-02-29T00:00:00.000000Z"),
        (-62_135_596_800_000_000, "0001-01-01T00:00:00.000000Z"),
        (-62_167_219_200_000_000, "0000-01-01T00:00:00.000000Z"),
        (-62_167_219_200_000_001, "-000001-12-31T23:59:59.999999Z"),
        (253_402_300_799_999_999, "9999-12-31T23:59:59.999999Z"),
        (253_402_300_800_000_000, "+010000-01-01T00:00:00.000000Z"),
        (INT64_MAX, "+294247-01-10T04:00:54.775807Z"),
        (INT64_MIN, "-290308-12-21T19:59:05.224192Z"),
    ],
)
def test_instants_are_written_in_utc_with_extended_years_where_needed(instant_us: int, text: str) -> None:
    """Known pairs, both ways; the ends are those ECMAScript and PostgreSQL give for the same microseconds."""
    assert format_us(instant_us) == text
    assert parse_us(text) == instant_us


@pytest.mark.parametrize(("text", "instant_us"), [("0" * 5_000 + "7", 7), ("-" + "0" * 5_000 + "7", -7), ("+0", 0)])
def test_zeros_in_front_of_an_integer_say_nothing(text: str, instant_us: int) -> None:
    """However many: Python itself refuses to convert so many digits."""
    assert parse_us(text) == instant_us


@given(INT64)
@example(INT64_MIN)
@example(INT64_MAX)
def test_every_int64_survives_a_round_trip(instant_us: int) -> None:
    """As text and as a plain integer."""
    assert parse_us(format_us(instant_us)) == instant_us
    assert parse_us(str(instant_us)) == instant_us


@given(st.datetimes(timezones=st.just(dt.UTC)))
def test_it_agrees_with_the_standard_library_where_that_has_an_answer(moment: dt.datetime) -> None:
    """Which is from the year 1 to the year 9999."""
    instant_us = (moment - EPOCH) // dt.timedelta(microseconds=1)
    assert format_us(instant_us) == moment.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
    assert parse_us(moment.isoformat()) == instant_us


@given(st.datetimes(), st.integers(-1_439, 1_439))
def test_offsets_from_utc_are_taken_off(civil: dt.datetime, offset_min: int) -> None:
    """Local time with any offset in whole minutes names the instant that lies that much earlier in UTC."""
    text = civil.isoformat() + f"{'-' if offset_min < 0 else '+'}{abs(offset_min) // 60:02d}:{abs(offset_min) % 60:02d}"
    assert parse_us(text) == parse_us(civil.isoformat() + "Z") - offset_min * 60_000_000


@pytest.mark.parametrize(
    ("text", "instant_us"),
    [
        ("1970-01-01t00:00:01z", 1_000_000),
        ("1970-01-01 00:00:01Z", 1_000_000),
        ("  1970-01-01T00:00:01.5Z\n", 1_500_000),
        ("1970-01-01T00:00:00.0000019Z", 1),
        ("1969-12-31T23:59:59.9999999999Z", -1),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1969-12-31T12:00:00-12:00", 0),
        ("1990-12-31T15:59:60-08:00", 662_688_000_000_000),
        ("+12", 12),
        ("-12", -12),
        ("000000000000000000000000000000012", 12),
    ],
)
def test_it_reads_what_rfc_3339_allows(text: str, instant_us: int) -> None:
    """Lower case, a space, any number of decimals (cut after six), offsets, leap seconds; and plain integers."""
    assert parse_us(text) == instant_us


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "neither"),
        ("yesterday", "neither"),
        ("1.5", "neither"),
        ("1970-01-01", "neither"),
        ("1970-1-1T00:00:00Z", "neither"),
        ("\u0661970-01-01T00:00:00Z", "neither"),
        ("1970-01-01T00:00:00.Z", "neither"),
        ("1970-01-01T00:00:00", "offset from UTC"),
        ("1970-13-01T00:00:00Z", "calendar"),
        ("1970-00-01T00:00:00Z", "calendar"),
        ("1970-01-00T00:00:00Z", "calendar"),
        ("1900-02-29T00:00:00Z", "calendar"),
        ("1970-01-01T24:00:00Z", "no such time"),
        ("1970-01-01T00:60:00Z", "no such time"),
        ("1970-01-01T00:00:61Z", "no such time"),
        ("1970-01-01T00:00:00+24:00", "no such offset"),
        ("1970-01-01T00:00:00+00:60", "no such offset"),
        ("1970-01-01T12:00:60Z", "leap second"),
        (str(INT64_MAX + 1), "64 bits"),
        (str(INT64_MIN - 1), "64 bits"),
        ("+294247-01-10T04:00:54.775808Z", "64 bits"),
        ("-999999999-01-01T00:00:00Z", "64 bits"),
        ("9" * 10_000, "64 bits"),
    ],
)
def test_what_is_no_instant_is_refused_with_the_reason(text: str, reason: str) -> None:
    """One line that names the text, shortened where it is long, what is wrong and what to write instead."""
    with pytest.raises(BadInputError, match=reason) as refused:
        parse_us(text)
    assert "write for example" in str(refused.value)
    assert len(str(refused.value)) < 300


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused_and_nothing_else(text: str) -> None:
    """No other error escapes; what is read lies in int64."""
    with contextlib.suppress(BadInputError):
        assert INT64_MIN <= parse_us(text) <= INT64_MAX


@given(INT64)
@example(INT64_MIN)
@example(INT64_MAX)
def test_milliseconds_are_written_at_any_size(instant_ms: int) -> None:
    """The year takes as many digits as it needs; in the range of microseconds the text is that of format_us."""
    text = format_ms(instant_ms)
    assert text.endswith("Z")
    if INT64_MIN <= instant_ms * 1_000 <= INT64_MAX:
        assert text == format_us(instant_ms * 1_000)[:-4] + "Z"
