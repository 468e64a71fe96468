"""Definitions of windows: what is valid, their one spelling, and which windows hold an instant."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import BadInputError
from streams.windows import (
    DEFAULT_WINDOWS,
    DEFINITIONS_MAX,
    DURATION_MAX_US,
    PERCENTILE_MAX,
    WINDOWS_PER_EVENT_MAX,
    WITHDRAWN,
    By,
    Doubtful,
    Frame,
    Function,
    Kind,
    Late,
    WindowDefinition,
    WindowFieldError,
    check_together,
    entry_name,
    percentile_text,
    read_entry,
    window_name,
)
from tests.core.derive_oracle import window_starts

if TYPE_CHECKING:
    from pathlib import Path

MINUTE = 60_000_000
SECOND = 1_000_000
DEFAULT_BODY = (
    '{"by":"source","early_us":0,"frame":"local","functions":["count","sum","min","max","mean"],"kind":"tumbling",'
    '"late":"drop","lateness_us":5000000,"max_ahead_us":60000000,"max_behind_us":60000000,"name":"source_minute",'
    '"percentiles":[50000,99000],"size_us":60000000,"slide_us":60000000,"update_us":0,"whole":false}'
)
DURATIONS = st.integers(0, DURATION_MAX_US)


@st.composite
def definitions(draw: st.DrawFn) -> WindowDefinition:
    """Any that is valid, with functions and percentiles in any order."""
    kind = draw(st.sampled_from(Kind))
    size = draw(st.integers(1_001, DURATION_MAX_US))
    fields: dict[str, Any] = {}
    if kind is Kind.HOPPING:
        fields["slide_us"] = draw(st.integers(max(1_000, -(-size // WINDOWS_PER_EVENT_MAX)), size - 1))
    if kind is not Kind.SLIDING:
        fields |= {"whole": draw(st.booleans()), "early_us": draw(DURATIONS)}
    frame = draw(st.sampled_from([Frame.LOCAL, Frame.AUTHORITY] if kind is Kind.SLIDING else list(Frame)))
    if frame is not Frame.AUTHORITY:
        fields["max_ahead_us"] = draw(DURATIONS)
    if frame is Frame.CORRECTED:
        fields["red"] = draw(st.sampled_from(Doubtful))
        fields["unknown"] = draw(st.sampled_from(Doubtful).filter(lambda way: way is not Doubtful.CORRECT))
    late = draw(st.sampled_from([Late.DROP, Late.SIDE] if kind is Kind.SLIDING else list(Late)))
    if late is Late.UPDATE:
        fields["update_us"] = draw(st.integers(1, DURATION_MAX_US))
    return WindowDefinition(
        name=draw(st.from_regex(r"[a-z0-9_]{1,64}", fullmatch=True)),
        size_us=size,
        kind=kind,
        frame=frame,
        by=draw(st.sampled_from(By)),
        functions=tuple(draw(st.lists(st.sampled_from(Function), unique=True))),
        percentiles=tuple(draw(st.lists(st.integers(1, PERCENTILE_MAX), unique=True, max_size=8))),
        lateness_us=draw(DURATIONS),
        max_behind_us=draw(DURATIONS),
        late=late,
        **fields,
    )


def test_the_canonical_form_of_a_default_is_pinned() -> None:
    """A change of these bytes would write a new entry into every ledger."""
    assert DEFAULT_WINDOWS[0].canonical() == DEFAULT_BODY


def test_a_ledger_without_definitions_has_two() -> None:
    """Each source by its own clock in minutes, and all of a partition by the broker's in ten seconds."""
    source_minute, all_10s = DEFAULT_WINDOWS
    assert (source_minute.name, source_minute.by, source_minute.frame) == ("source_minute", By.SOURCE, Frame.LOCAL)
    assert (all_10s.name, all_10s.by, all_10s.frame, all_10s.size_us) == ("all_10s", By.ALL, Frame.AUTHORITY, 10**7)
    for definition in DEFAULT_WINDOWS:
        assert definition.kind is Kind.TUMBLING
        assert [str(function) for function in definition.functions] == ["count", "sum", "min", "max", "mean"]
        assert definition.percentiles == (50_000, 99_000)


@given(definitions())
def test_a_definition_comes_back_from_its_canonical_form(definition: WindowDefinition) -> None:
    """As it was, also out of its entry."""
    assert WindowDefinition.parse(definition.canonical()) == definition
    assert read_entry(entry_name(definition.name), definition.canonical()) == definition


@given(definitions(), definitions())
def test_different_definitions_have_different_bodies(one: WindowDefinition, other: WindowDefinition) -> None:
    """And equal ones equal bodies."""
    assert (one.canonical() == other.canonical()) == (one == other)


def test_what_follows_from_other_fields_is_filled_in() -> None:
    """The broker's clock needs no patience; a window that takes late events does so for a minute."""
    local, authority = WindowDefinition("w", MINUTE), WindowDefinition("w", MINUTE, frame=Frame.AUTHORITY)
    corrected = WindowDefinition("w", MINUTE, frame=Frame.CORRECTED)
    assert (corrected.lateness_us, corrected.max_behind_us, corrected.max_ahead_us) == (5 * SECOND, MINUTE, MINUTE)
    assert (corrected.red, corrected.unknown) == (Doubtful.CORRECT, Doubtful.AUTHORITY)
    assert "unknown" in corrected.canonical()
    assert "unknown" not in local.canonical()
    assert (local.slide_us, local.lateness_us, local.max_behind_us) == (MINUTE, 5 * SECOND, MINUTE)
    assert (authority.lateness_us, authority.max_behind_us) == (0, 0)
    assert (local.max_ahead_us, authority.max_ahead_us) == (MINUTE, 0)
    assert (local.update_us, WindowDefinition("w", MINUTE, late=Late.UPDATE).update_us) == (0, MINUTE)
    assert WindowDefinition("w", MINUTE, kind=Kind.SLIDING).slide_us == 0


def test_functions_and_percentiles_are_put_in_order() -> None:
    """One meaning, one body; the count is always there."""
    definition = WindowDefinition("w", MINUTE, functions=(Function.LAST, Function.SUM), percentiles=(99_900, 50_000))
    assert definition.functions == (Function.COUNT, Function.SUM, Function.LAST)
    assert definition.percentiles == (50_000, 99_900)
    assert WindowDefinition("w", MINUTE, functions=()).functions == (Function.COUNT,)


HOP: dict[str, Any] = {"kind": Kind.HOPPING, "slide_us": MINUTE // 2}
SLIDE: dict[str, Any] = {"kind": Kind.SLIDING, "slide_us": 0}
BAD: list[tuple[str, Any, dict[str, Any]]] = [
    ("name", "", {}),
    ("name", "Minute", {}),
    ("name", "a/b", {}),
    ("name", "w" * 65, {}),
    ("name", "w\n", {}),
    ("name", "\u0663", {}),
    ("name", 5, {}),
    ("size_us", 999, {}),
    ("size_us", DURATION_MAX_US + 1, {}),
    ("size_us", 6e7, {}),
    ("size_us", True, {}),
    ("slide_us", MINUTE - 1, {}),
    ("slide_us", -1, {"kind": Kind.HOPPING}),
    ("slide_us", MINUTE, {"kind": Kind.HOPPING}),
    ("slide_us", 2 * MINUTE, {"kind": Kind.HOPPING}),
    ("slide_us", 999, {"kind": Kind.HOPPING, "size_us": SECOND}),
    ("slide_us", MINUTE // 1_000 - 1, {"kind": Kind.HOPPING}),
    ("slide_us", SECOND, {"kind": Kind.SLIDING}),
    ("kind", "tumbling", {}),
    ("frame", "authority", {}),
    ("by", None, {}),
    ("late", "lose", {}),
    ("whole", 1, {}),
    ("whole", True, SLIDE),
    ("functions", [Function.SUM], {}),
    ("functions", ("sum",), {}),
    ("functions", (Function.SUM, Function.SUM), {}),
    ("percentiles", [50_000], {}),
    ("percentiles", (50.0,), {}),
    ("percentiles", (0,), {}),
    ("percentiles", (100_001,), {}),
    ("percentiles", (True,), {}),
    ("percentiles", (50_000, 50_000), {}),
    ("percentiles", tuple(range(1, 10)), {}),
    ("lateness_us", -2, {}),
    ("max_behind_us", DURATION_MAX_US + 1, {}),
    ("max_ahead_us", 1.5, {}),
    ("max_ahead_us", 1, {"frame": Frame.AUTHORITY}),
    ("update_us", 1, {}),
    ("update_us", 0, {"late": Late.UPDATE}),
    ("early_us", -1, {}),
    ("early_us", SECOND, SLIDE),
    ("late", Late.UPDATE, {**SLIDE, "update_us": MINUTE}),
    ("red", "correct", {}),
    ("red", Doubtful.EXCLUDE, {}),
    ("unknown", Doubtful.SIDE, {"frame": Frame.AUTHORITY}),
    ("unknown", Doubtful.CORRECT, {"frame": Frame.CORRECTED}),
    ("frame", Frame.CORRECTED, SLIDE),
]


@pytest.mark.parametrize(("field", "value", "others"), BAD)
def test_a_field_that_a_window_cannot_have_is_refused(field: str, value: Any, others: dict[str, Any]) -> None:
    """By its name and value, with the reason and what to do."""
    fields: dict[str, Any] = {"name": "w", "size_us": MINUTE, **others, field: value}
    with pytest.raises(WindowFieldError) as refused:
        WindowDefinition(**fields)
    assert refused.value.field == field
    shown = [str(item) if isinstance(item, Function) else item for item in value] if type(value) is tuple else value
    shown = str(shown) if isinstance(shown, Late | Doubtful | Frame) else shown
    assert str(refused.value) == f"{field} = {shown!r} {refused.value.reason}. {refused.value.remedy}"
    assert refused.value.reason
    assert refused.value.remedy


@pytest.mark.parametrize(
    ("field", "value", "others"),
    [
        ("size_us", 1_000, {}),
        ("size_us", DURATION_MAX_US, {}),
        ("slide_us", MINUTE - 1, HOP),
        ("slide_us", MINUTE // 1_000, HOP),
        ("percentiles", (1, 100_000), {}),
        ("percentiles", (), {}),
        ("name", "w" * 64, {}),
        ("early_us", 1, HOP),
    ],
)
def test_a_field_at_its_limit_is_taken(field: str, value: Any, others: dict[str, Any]) -> None:
    """Limits are inclusive."""
    fields: dict[str, Any] = {"name": "w", "size_us": MINUTE, **others, field: value}
    assert getattr(WindowDefinition(**fields), field) == value


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
        DEFAULT_BODY.replace('"whole":false', '"whole":0'),
        DEFAULT_BODY.replace('"early_us":0,', ""),
        DEFAULT_BODY.replace("{", '{"also":1,'),
        DEFAULT_BODY.replace("5000000,", "5000000.0,"),
        DEFAULT_BODY.replace('"size_us":60000000', '"size_us":NaN'),
        DEFAULT_BODY.replace('"size_us":60000000', f'"size_us":{"9" * 5_000}'),
        DEFAULT_BODY.replace('"slide_us":60000000', '"slide_us":-1'),
        DEFAULT_BODY.replace('"lateness_us":5000000', '"lateness_us":-1'),
        DEFAULT_BODY.replace('"update_us":0', '"update_us":-1'),
        DEFAULT_BODY.replace('"by":"source"', '"by":[]'),
        DEFAULT_BODY.replace('"kind":"tumbling"', '"kind":"session"'),
        DEFAULT_BODY.replace('"count","sum"', '"sum","count"'),
        DEFAULT_BODY.replace('"count",', ""),
        DEFAULT_BODY.replace('"count"', '["count"]'),
        DEFAULT_BODY.replace("[50000,99000]", "[99000,50000]"),
        DEFAULT_BODY.replace("[50000,99000]", "{}"),
        DEFAULT_BODY.replace("[50000,99000]", "[50000,[99000]]"),
        json.dumps(dict(reversed(json.loads(DEFAULT_BODY).items())), separators=(",", ":")),
        DEFAULT_BODY.replace("{", '{"by":"source",'),
    ],
)
def test_any_other_body_is_refused(body: str) -> None:
    """Also the same definition written in another way: one meaning, one body."""
    with pytest.raises(BadInputError):
        WindowDefinition.parse(body)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"size_us": 1_000_001, "slide_us": 1_000_001}, "is not below the size, 1000001 us"),
        ({"size_us": 90 * SECOND, "slide_us": 90 * SECOND}, "is not below the size, 90 s"),
        (
            {"size_us": 1_500 * 1_000, "slide_us": 1_000},
            "puts each event into 1500 windows, more than 1000. Give at least",
        ),
        ({"size_us": 1_500 * 1_000, "slide_us": 1_000}, "Give at least 2 ms"),
        ({"size_us": 1_001_000, "slide_us": 1_000}, "Give at least 2 ms"),
    ],
)
def test_durations_are_told_in_the_largest_whole_unit(fields: dict[str, Any], says: str) -> None:
    """And a remedy in milliseconds, of which a file may give whole ones."""
    with pytest.raises(WindowFieldError) as refused:
        WindowDefinition("w", kind=Kind.HOPPING, **fields)
    assert says in str(refused.value)


def test_an_entry_defines_the_window_it_is_named_after_or_withdraws_it() -> None:
    """A body under another name would have two meanings."""
    assert entry_name("source_minute") == "window/source_minute"
    assert window_name("window/source_minute") == "source_minute"
    assert window_name("judge") is None
    assert read_entry("window/source_minute", WITHDRAWN) is None
    with pytest.raises(BadInputError, match="'window/other' has the body of window 'source_minute'"):
        read_entry("window/other", DEFAULT_BODY)


def test_windows_of_one_ledger_have_different_names_and_a_bounded_number() -> None:
    """The message names the one too many."""
    many = [WindowDefinition(f"w{number}", MINUTE) for number in range(DEFINITIONS_MAX + 1)]
    check_together(many[:-1])
    with pytest.raises(WindowFieldError, match="name = 'w64' is one window more than the 64"):
        check_together(many)
    with pytest.raises(WindowFieldError, match="name = 'w1' is that of an earlier window"):
        check_together([*many[:3], replace(many[1], size_us=SECOND, slide_us=SECOND)])


@given(definitions().filter(lambda definition: definition.kind is not Kind.SLIDING), st.integers(-(2**63), 2**63 - 1))
def test_the_windows_of_an_instant_are_those_that_hold_it(definition: WindowDefinition, t_us: int) -> None:
    """All of them and no other, ascending, at multiples of the slide, before 1970 too."""
    size, slide = definition.size_us, definition.slide_us
    starts = window_starts(definition, t_us)
    assert starts == sorted(set(starts))
    assert all(start % slide == 0 and start <= t_us < start + size for start in starts)
    assert starts[0] - slide + size <= t_us < starts[-1] + slide
    assert len(starts) == (starts[-1] - starts[0]) // slide + 1
    assert definition.windows_per_event - 1 <= len(starts) <= definition.windows_per_event


def test_the_windows_around_zero_are_as_drawn() -> None:
    """Size 10, slide 5 seconds.

    -10       -5         0         5         10
     [-------------------)
               [-------------------)
                         [-------------------)
                       ^ -1      ^ 4
    """
    hop = WindowDefinition("w", 10 * SECOND, kind=Kind.HOPPING, slide_us=5 * SECOND)
    assert window_starts(hop, -1 * SECOND) == [-10 * SECOND, -5 * SECOND]
    assert window_starts(hop, 0) == [-5 * SECOND, 0]
    assert window_starts(hop, 4 * SECOND) == [-5 * SECOND, 0]
    assert window_starts(replace(hop, slide_us=3 * SECOND), 0) == [-9 * SECOND, -6 * SECOND, -3 * SECOND, 0]
    assert window_starts(WindowDefinition("w", 10 * SECOND), -1) == [-10 * SECOND]


@given(st.integers(-(2**63), 2**63 - 1), st.integers(1_000, DURATION_MAX_US))
def test_a_sliding_window_ends_with_its_event(t_us: int, size_us: int) -> None:
    """Over (t - size, t]."""
    definition = WindowDefinition("w", size_us, kind=Kind.SLIDING)
    assert window_starts(definition, t_us) == [t_us - size_us + 1]
    assert definition.windows_per_event == 1


@pytest.mark.cases
def test_the_windows_of_the_published_bids_hold_them(cases: Path) -> None:
    """cases/windows/flink_windows.json: the sums of its tumble and hop tables, by window."""
    case = json.loads((cases / "windows/flink_windows.json").read_text(encoding="utf-8"))
    tumble = WindowDefinition("w", 10 * MINUTE)
    hop = WindowDefinition("w", 10 * MINUTE, kind=Kind.HOPPING, slide_us=5 * MINUTE)
    for definition, table in ((tumble, "tumble_10min_sum_price"), (hop, "hop_size_10min_slide_5min_sum_price")):
        sums: dict[int, float] = {}
        for at, price, _ in case["bids"]["rows"]:
            for start in window_starts(definition, minutes(at)):
                sums[start] = sums.get(start, 0.0) + price
        assert sums == {minutes(start): total for start, _, total in case[table]}
        assert all(minutes(end) - minutes(start) == definition.size_us for start, end, _ in case[table])


def minutes(clock: str) -> int:
    """Microseconds since midnight of "hh:mm"."""
    hours, rest = clock.split(":")
    return (int(hours) * 60 + int(rest)) * MINUTE


@pytest.mark.parametrize(
    ("thousandths", "text"),
    [(50_000, "50"), (99_900, "99.9"), (99_990, "99.99"), (100_000, "100"), (1, "0.001"), (10_000, "10"), (500, "0.5")],
)
def test_a_percentile_is_written_without_zeros_at_its_end(thousandths: int, text: str) -> None:
    """As the key of a result."""
    assert percentile_text(thousandths) == text


@given(st.integers(1, PERCENTILE_MAX), st.integers(1, PERCENTILE_MAX))
def test_different_percentiles_are_written_differently(one: int, other: int) -> None:
    """And read back as what they are."""
    assert (percentile_text(one) == percentile_text(other)) == (one == other)
    assert round(float(percentile_text(one)) * 1_000) == one
