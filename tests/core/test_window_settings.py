"""Windows as they are written in a file: what they become, and how a fault leads to its line."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import BadInputError
from streams.window_settings import KEYS, read_windows
from streams.windows import By, Frame, Function, Kind, Late, WindowDefinition

WHOLE = """\
[[window]]
name = "source_10s"
size_ms = 10_000
slide_ms = 5_000
frame = "authority"
by = "kind"
whole = true
functions = ["last", "count", "variance"]
percentiles = [99.9, 50, 0.001]
lateness_ms = 1
max_behind_ms = 2
late = "update"
update_ms = 4
early_ms = 5
"""


def read(text: str) -> tuple[WindowDefinition, ...]:
    """The windows of the top level."""
    return read_windows(tomllib.loads(text)["window"], text, "f.toml")


def refusal(text: str, ledger: int | None = None) -> str:
    """What is said of a text that is refused."""
    table: dict[str, Any] = tomllib.loads(text)
    tables = table["window"] if ledger is None else table["ledger"][ledger]["window"]
    with pytest.raises(BadInputError) as refused:
        read_windows(tables, text, "f.toml", ledger)
    return str(refused.value)


def test_a_table_with_all_its_keys_becomes_a_definition() -> None:
    """Milliseconds become microseconds, percentiles thousandths of a percent, lists what the definition orders."""
    assert read(WHOLE) == (
        WindowDefinition(
            name="source_10s",
            size_us=10_000_000,
            kind=Kind.HOPPING,
            slide_us=5_000_000,
            frame=Frame.AUTHORITY,
            by=By.KIND,
            whole=True,
            functions=(Function.COUNT, Function.VARIANCE, Function.LAST),
            percentiles=(1, 50_000, 99_900),
            lateness_us=1_000,
            max_behind_us=2_000,
            late=Late.UPDATE,
            update_us=4_000,
            early_us=5_000,
        ),
    )


def test_a_table_with_what_it_must_have_gets_the_defaults() -> None:
    """Those of the definition."""
    assert read('[[window]]\nname = "w"\nsize_ms = 1\n') == (WindowDefinition("w", 1_000),)


@pytest.mark.parametrize(
    ("keys", "kind"),
    [
        ("", Kind.TUMBLING),
        ("slide_ms = 10", Kind.TUMBLING),
        ("slide_ms = 9", Kind.HOPPING),
        ("sliding = true", Kind.SLIDING),
        ("sliding = false", Kind.TUMBLING),
        ("sliding = false\nslide_ms = 9", Kind.HOPPING),
    ],
)
def test_the_kind_follows_from_what_is_said_of_the_slide(keys: str, kind: Kind) -> None:
    """A hop of the whole size is a tumbling window: one meaning, one definition."""
    (definition,) = read(f'[[window]]\nname = "w"\nsize_ms = 10\n{keys}\n')
    assert definition.kind is kind
    assert (definition == WindowDefinition("w", 10_000)) == (kind is Kind.TUMBLING)


def test_windows_stand_in_the_order_of_the_file_and_may_be_none() -> None:
    """However they are written."""
    assert read("window = []") == ()
    inline = read('window = [{name = "b", size_ms = 1}, {name = "a", size_ms = 1}]')
    assert inline == read('[[window]]\nname = "b"\nsize_ms = 1\n[[window]]\nname = "a"\nsize_ms = 1\n')
    assert [definition.name for definition in inline] == ["b", "a"]


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("name", '"A"', "[[window]] 'A': name = 'A' is not 1 to 64 lower-case letters, digits and underscores."),
        ("name", "5", "[[window]] number 1: name = 5 is not"),
        ("size_ms", "0", "size_ms = 0 is less than 1 ms. Give 1 ms to 366 d, as an integer"),
        ("size_ms", "1.5", "size_ms = 1.5 is not an integer. Give 1 ms to 366 d"),
        ("size_ms", "true", "size_ms = True is not an integer"),
        ("size_ms", "31_622_400_001", "size_ms = 31622400001 is more than 366 d"),
        ("size_ms", "9" * 4_000, "is more than 366 d"),
        ("slide_ms", "0", "slide_ms = 0 is less than 1 ms. Give 1 ms to 366 d"),
        ("slide_ms", "20_000", "slide_ms = 20000 is not below the size, 10 s:"),
        ("slide_ms", "9", "slide_ms = 9 puts each event into 1112 windows, more than 1000. Give at least 10 ms"),
        ("slide_ms", "'soon'", "slide_ms = 'soon' is not an integer"),
        ("sliding", "true", "slide_ms = 5000 contradicts sliding = true"),
        ("sliding", "1", "sliding = 1 is neither true nor false. Give one of the two"),
        ("frame", '"lokal"', "frame = 'lokal' is not one of local, authority, corrected. Name one of them"),
        ("frame", "[]", "frame = [] is not one of local, authority"),
        ("by", '"host"', "by = 'host' is not one of source, kind, all"),
        ("whole", "0", "whole = 0 is neither true nor false"),
        ("functions", '"sum"', "functions = 'sum' is no list of functions. List some of count, sum, min"),
        ("functions", '["avg"]', "functions = ['avg'] holds 'avg', which is none. List some of"),
        ("functions", '["sum", "sum"]', "functions = ['sum', 'sum'] holds 'sum' twice. Name it once"),
        ("percentiles", "99", "percentiles = 99 is no list of percentiles. List up to 8"),
        ("percentiles", "[50, 101]", "percentiles = [50, 101] holds 101, which is out of range."),
        ("percentiles", "[nan]", "percentiles = [nan] holds nan, which is out of range"),
        ("percentiles", "[0]", "holds 0, which is out of range"),
        ("percentiles", '["99"]', "percentiles = ['99'] holds '99', which is no number"),
        (
            "percentiles",
            "[99.9995]",
            "holds 99.9995, which has more decimals. List percentiles above 0 and at most 100",
        ),
        ("percentiles", "[50, 50.0]", "percentiles = [50, 50.0] holds 50 twice"),
        ("percentiles", "[1, 2, 3, 4, 5, 6, 7, 8, 9]", "holds 9, more than 8"),
        ("lateness_ms", "-1", "lateness_ms = -1 is less than 0. Give 0 to 366 d"),
        ("lateness_ms", "-1.0", "lateness_ms = -1.0 is not an integer. Give 0 to 366 d"),
        ("max_ahead_ms", "1", "max_ahead_ms = 1 has no meaning in frame authority:"),
        ("late", '"drop"', 'update_ms = 4 has no meaning with late = "drop": a closed window stays closed.'),
        ("update_ms", "0", "update_ms = 0 leaves no time for an update."),
        ("early_ms", "nan", "early_ms = nan is not an integer"),
        ("latness_ms", "1", "latness_ms = 1 is no key of a window. Mend its spelling: lateness_ms"),
        ("size", "1", "size = 1 is no key of a window. Mend its spelling: size_ms"),
        ("colour", "'red'", "colour = 'red' is no key of a window. Remove it; the keys are name, size_ms"),
        ("kind", "'hopping'", "kind = 'hopping' is no key of a window."),
        ("size_us", "1", "size_us = 1 is no key of a window."),
    ],
)
def test_a_fault_is_told_with_line_window_key_value_and_remedy(key: str, value: str, says: str) -> None:
    """The line is that of the key that is blamed."""
    lines = ["# a comment", 'prefix = "p"', "", *WHOLE.splitlines()]
    lines = [line for line in lines if not line.startswith(f"{key} =")]
    lines.insert(5 if key in {"name", "size_ms"} else 10, f"  {key}  = {value} # here")
    told = refusal("\n".join(lines))
    place, window, rest = told.split(": ", 2)
    blamed = says.removeprefix("[[window]] 'A': ").removeprefix("[[window]] number 1: ").split(" ")[0]
    if blamed in {"is", "holds"}:
        blamed = key
    number = next(at for at, line in enumerate(lines, 1) if line.split()[:2] == [blamed, "="])
    assert place == f"f.toml, line {number}"
    assert window.startswith("[[window]] ")
    assert says in f"{window}: {rest}"
    assert ". " in rest


def test_what_is_missing_is_told_with_the_line_of_its_table() -> None:
    """There is no other."""
    assert refusal('[[window]]\nname = "a"\nsize_ms = 1\n\n[[window]]\nname = "b"\n') == (
        "f.toml, line 5: [[window]] 'b': size_ms is missing. Every window has one"
    )
    assert refusal('[[window]]\nname = "a"\n[[window]]\nname = "b"\nsize_ms = 1\n') == (
        "f.toml, line 1: [[window]] 'a': size_ms is missing. Every window has one"
    )
    assert refusal("[[window]]\n") == "f.toml, line 1: [[window]] number 1: name is missing. Every window has one"
    assert refusal('[[window]]\nname = "w"\nsize_ms = 9\nlate = "update"\nsliding = true\n').startswith(
        "f.toml, line 4: [[window]] 'w': late = 'update' would"
    )


def test_two_windows_of_one_name_are_refused_at_the_second() -> None:
    """A name is a version's key."""
    assert refusal('[[window]]\nname = "a"\nsize_ms = 1\n[[window]]\nsize_ms = 2\nname = "a"\n') == (
        "f.toml, line 6: [[window]] 'a': name = 'a' is that of an earlier window. Rename one of the two"
    )
    many = "".join(f'[[window]]\nname = "w{number}"\nsize_ms = 1\n' for number in range(65))
    assert refusal(many).startswith("f.toml, line 194: [[window]] 'w64': name = 'w64' is one window more than the 64")


BAD = 'name = "w"\nsize_ms = 0'


@pytest.mark.parametrize(
    ("text", "ledger", "line"),
    [
        pytest.param(f"[[window]]\n{BAD}", None, 3, id="plain"),
        pytest.param('[[ "window" ]]  # w\n"name" = "w"\n\'size_ms\'=0', None, 3, id="quoted"),
        pytest.param(f"[[window]]\r\n{BAD}\r\n", None, 3, id="crlf"),
        pytest.param(
            f'# [[window]]\nprefix = """\n[[window]]\nsize_ms = 0\n"""\n[[window]]\n{BAD}', None, 8, id="text"
        ),
        pytest.param(f"prefix = '''\n[[window]]''''\n[[window]]\n{BAD}", None, 5, id="literal"),
        pytest.param(f'prefix = """a\\"""\n[[window]]"""""\n[[window]]\n{BAD}', None, 5, id="escape"),
        pytest.param(f'prefix = "#"\n[[window]]\n{BAD}', None, 4, id="hash"),
        pytest.param(f'[[window]]\nname = "a"\nsize_ms = 1\n\n[[window]]\n{BAD}', None, 7, id="second"),
        pytest.param(f'[[ledger]]\nname = "a"\n[[window]]\n{BAD}', None, 5, id="top level below a ledger"),
        pytest.param(f'[[ledger]]\nname = "a"\n[[ledger.window]]\n{BAD}', 0, 5, id="of a ledger"),
        pytest.param(
            f"[[window]]\n{BAD}\n[[ledger]]\n[[ledger.window]]\n{BAD}\n[[ledger]]\n[[ledger . window]]\n{BAD}",
            1,
            11,
            id="of the second ledger",
        ),
        pytest.param('window = [{name = "w", size_ms = 0}]', None, 1, id="inline"),
        pytest.param('prefix = "p"\nwindow = [\n  {name = "w", size_ms = 0}\n]', None, 2, id="inline, many lines"),
        pytest.param(
            '[[ledger]]\nname = "a"\nwindow = []\n[[ledger]]\nwindow = [{name = "w", size_ms = 0}]',
            1,
            5,
            id="inline of",
        ),
        pytest.param('ledger = [\n {name = "a", window = [{name = "w", size_ms = 0}]}]', 0, 2, id="all inline"),
        pytest.param('[[window]]\nname = "w"\n[window.size_ms]\nx = 1\n', None, 3, id="a table for a key"),
        pytest.param('[[window]]\nname = "w"\nsize_ms.x = 1\n', None, 3, id="a dotted key"),
        pytest.param("window = 3", None, 1, id="no list"),
        pytest.param('prefix = "p"\n[window]\nname = "w"', None, 2, id="no list of tables"),
        pytest.param('prefix = "p"\nwindow.name = "w"', None, 2, id="dotted"),
        pytest.param('[[ledger]]\nname = "a"\n[ledger.window]\nname = "w"', 0, 3, id="of a ledger, no list"),
        pytest.param("window = [1, 2]", None, 1, id="a list of something else"),
    ],
)
def test_the_line_is_found_however_the_tables_are_written(text: str, ledger: int | None, line: int) -> None:
    """Headers in comments and in texts of many lines are none; tables without a header are told by their list."""
    assert refusal(text, ledger).startswith(f"f.toml, line {line}: ")


def test_a_list_that_no_line_shows_is_told_without_one() -> None:
    """Rather than with a wrong one."""
    assert refusal('"w\\u0069ndow" = 3').startswith(
        "f.toml: window = 3 is not how a window is written. Write [[window]]"
    )


def test_what_is_no_list_of_tables_is_told_how_to_write_one() -> None:
    """Of a ledger with the header that is right there."""
    assert "[window] is not how a window is written. Write [[window]] and below it" in refusal('[window]\nname = "w"')
    told = refusal('[[ledger]]\nname = "a"\n[ledger.window]\nname = "w"', 0)
    assert "[ledger.window] is not how a window is written. Write [[ledger.window]]" in told


SNIPPETS = st.sampled_from(
    [
        "# [[window]]",
        'x{} = "[[window]] # no"',
        "y{} = '''\n[[window]]\nsize_ms = 7\n'''",
        'z{} = """\n[[window]] \\""" #\n"""',
        "",
        "a{} = [\n  1,\n  2,  # [[window]]\n]",
    ]
)


@given(st.lists(SNIPPETS, max_size=5), st.integers(0, 3), st.integers(0, 3), st.sampled_from(KEYS[4:]))
def test_the_line_of_a_key_is_where_it_was_put(noise: list[str], before: int, after: int, key: str) -> None:
    """Among other windows and whatever else a file may hold."""
    head = "".join(snippet.format(number) + "\n" for number, snippet in enumerate(noise))
    good = '[[window]]\nname = "w{}"\nsize_ms = 1\n# [[window]]\n'
    text = head + "".join(good.format(number) for number in range(before))
    text += '[[window]]\nname = "bad"\n\nsize_ms = 1\n'
    line = text.count("\n") + 1
    text += f"{key} = -0.5\n" + "".join(good.format(number) for number in range(before, before + after))
    assert refusal(text).startswith(f"f.toml, line {line}: [[window]] 'bad': {key} = -0.5 is n")
