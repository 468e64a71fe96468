"""Files of events: what becomes an event, what is rejected, and why."""

from __future__ import annotations

import io
import json
import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import BadInputError
from streams import publish
from streams.publish import Accepted, Format, Rejected, format_of, read

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULTS = {"source": "s", "kind": "k"}


def lines(data: str | bytes, form: Format, defaults: Mapping[str, str] | None = None) -> list[Accepted | Rejected]:
    """Everything in a file."""
    stream = io.BytesIO(data.encode() if isinstance(data, str) else data)
    return list(read(stream, form, DEFAULTS if defaults is None else defaults))


def event(found: Accepted | Rejected) -> dict[str, Any]:
    """The event of a line that was accepted."""
    assert isinstance(found, Accepted), found
    return found.event


def reasons(found: list[Accepted | Rejected]) -> list[tuple[int, str]]:
    """The lines that were rejected."""
    return [(line.number, line.reason) for line in found if isinstance(line, Rejected)]


@pytest.mark.parametrize(
    ("suffix", "form"),
    [
        (".csv", Format.CSV),
        (".CSV", Format.CSV),
        (".jsonl", Format.JSONL),
        (".ndjson", Format.JSONL),
        (".json", Format.JSONL),
    ],
)
def test_the_suffix_says_the_format(suffix: str, form: Format) -> None:
    """In either case of letters."""
    assert format_of(f"of/events{suffix}", suffix) is form


@pytest.mark.parametrize(("suffix", "said"), [("", "without suffix"), (".txt", r"\.txt"), (".gz", r"\.gz")])
def test_an_unknown_suffix_is_not_guessed(suffix: str, said: str) -> None:
    """The file is named, and the remedy is an option."""
    with pytest.raises(BadInputError, match=f"^of/events{suffix}: .*{said} .* --format"):
        format_of(f"of/events{suffix}", suffix)


def test_a_complete_json_line_is_taken_as_it_is() -> None:
    """Every field of Event."""
    document = {
        "event_id": "e1",
        "source": "pump",
        "local_timestamp": "1970-01-01T00:00:01Z",
        "kind": "pressure",
        "value": 4.5,
        "payload": {"b": [1]},
        "hlc": 7,
        "causes": [{"partition": 0, "sequence": 3}],
        "exchange": {"partition": 0, "offset": 1, "sent_us": 2, "acked_us": 3, "appended_ms": 4},
    }
    (found,) = lines(json.dumps(document), Format.JSONL)
    expected = {**document, "local_timestamp": 1_000_000, "payload": b'{"b":[1]}'}
    assert found == Accepted(1, expected)


def test_what_a_line_leaves_out_is_filled_in_or_left_to_the_sender() -> None:
    """Source and kind by the caller's defaults; id and time stay open; null is the same as absent."""
    for text in ("{}", '{"event_id": null, "source": null, "local_timestamp": null, "kind": null, "value": null}'):
        found = event(lines(text, Format.JSONL)[0])
        assert found == {
            "event_id": None,
            "source": "s",
            "local_timestamp": None,
            "kind": "k",
            "value": None,
            "payload": b"",
            "hlc": None,
            "causes": [],
            "exchange": None,
        }


def test_a_line_overrides_the_defaults() -> None:
    """They are for lines that say nothing."""
    found = event(lines('{"source": "own", "kind": "mine"}', Format.JSONL)[0])
    assert (found["source"], found["kind"]) == ("own", "mine")


def test_without_a_default_a_line_must_name_its_source() -> None:
    """An event without a source belongs to no clock."""
    assert reasons(lines('{"kind": "k"}', Format.JSONL, {})) == [(1, "source is missing")]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "not JSON"),
        ("[1]", "must be an object"),
        ("1", "must be an object"),
        ('{"sorce": "x"}', "unknown member 'sorce'"),
        ('{"source": ""}', "source has 0 bytes"),
        ('{"value": "four"}', "value is 'four'"),
        ('{"local_timestamp": "yesterday"}', "not an instant"),
        ('{"local_timestamp": 9223372036854775808}', "local_timestamp"),
        ('{"local_timestamp": 1.5}', "local_timestamp is 1.5, it must be RFC 3339 text or an integer of microseconds"),
        ('{"local_timestamp": true}', "RFC 3339"),
        ('{"causes": [{"partition": 0, "sequence": 1}, {"partition": 0}]}', "causes[1].sequence is missing"),
        ('{"causes": [{"partition": 0, "sequence": 1, "x": 1}]}', "causes[0]: unknown member 'x'; the members are"),
        ('{"causes": [7]}', "causes[0] is 7, it must be an object of partition, sequence"),
        ('{"causes": {"partition": 0}}', "causes is an object of 1, it must be a list"),
        ('{"exchange": {"partition": 0}}', "exchange.offset is missing"),
        ('{"payload": "a", "payload_base64": "YQ=="}', "exclude each other"),
    ],
)
def test_a_bad_line_costs_only_itself(line: str, reason: str) -> None:
    """The lines around it are read, and it is named with its number and what is wrong with it."""
    found = lines(f'{{"value": 1}}\n\n{line}\n{{"value": 2}}\n', Format.JSONL)
    assert [event(found[0])["value"], event(found[2])["value"]] == [1, 2]
    ((number, text),) = reasons(found)
    assert number == 3
    assert reason in text


def test_bytes_that_are_not_utf8_cost_only_their_line() -> None:
    """In both formats."""
    assert reasons(lines(b'{"kind": "\xff"}\n{}\n', Format.JSONL)) == [(1, "it is not UTF-8")]
    assert reasons(lines(b"kind\n\xff\nfine\n", Format.CSV)) == [(2, "it is not UTF-8")]


@pytest.mark.parametrize("form", list(Format))
def test_a_line_that_is_too_long_costs_only_itself_and_no_memory(form: Format, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is skipped without being held."""
    monkeypatch.setattr(publish, "LINE_BYTES_MAX", 40)
    first, long, last = ("kind\n", "x" * 200 + "\n", "b\n")
    if form is Format.JSONL:
        first, long, last = ('{"kind": "a"}\n', f'{{"kind": "{"x" * 200}"}}\n', '{"kind": "b"}\n')
    found = lines(first + long + last, form)
    assert reasons(found) == [(2, "it is longer than 40 bytes")]
    assert event(found[-1])["kind"] == "b"
    assert found[-1].number == 3


def test_a_line_of_just_the_longest_length_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its line end, and without one at the end of the file."""
    text = '{"kind": "a"}\n'
    monkeypatch.setattr(publish, "LINE_BYTES_MAX", len(text))
    assert len(lines(text * 3, Format.JSONL)) == 3
    assert reasons(lines(text + text[:-1], Format.JSONL)) == []


@pytest.mark.parametrize("form", list(Format))
def test_a_byte_order_mark_is_no_part_of_the_first_line(form: Format) -> None:
    """Spreadsheets write one."""
    text = "kind\nx\n" if form is Format.CSV else '{"kind": "x"}'
    assert event(lines(b"\xef\xbb\xbf" + text.encode(), form)[0])["kind"] == "x"


def test_csv_cells_become_fields() -> None:
    """Numbers in any usual spelling, times as text or integer, JSON in causes and exchange; empty is absent."""
    found = lines(
        "event_id,local_timestamp,value,payload,hlc,causes\n"
        'e1,1970-01-01T00:00:01Z,4,"a, ""b""\nc",7,"[{""partition"": 1, ""sequence"": 2}]"\n'
        "\n"
        ",-5,-.5e1,123,,\n"
        ",,NaN,,,\n",
        Format.CSV,
    )
    assert [line.number for line in found] == [2, 5, 6]
    first, second, third = (event(line) for line in found)
    assert (first["event_id"], first["local_timestamp"], first["value"]) == ("e1", 1_000_000, 4.0)
    assert (first["payload"], first["hlc"]) == (b'a, "b"\nc', 7)
    assert first["causes"] == [{"partition": 1, "sequence": 2}]
    assert (second["event_id"], second["local_timestamp"], second["value"]) == (None, -5, -5.0)
    assert (second["payload"], second["hlc"], second["causes"]) == (b"123", None, [])
    assert math.isnan(third["value"])


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("1,2", "has 2 cells, the header row 4"),
        ("x,,,", "value is 'x'"),
        ("1_0,,,", "value is '1_0'"),
        (",x,,", "hlc is 'x'"),
        (",,{,", "causes is not JSON"),
        (",,7,", "causes is 7"),
        (',,,"a"b', "expected after"),
    ],
)
def test_a_bad_row_costs_only_itself(row: str, reason: str) -> None:
    """The rows around it are read."""
    found = lines(f"value,hlc,causes,kind\n1,,,\n{row}\n2,,,\n", Format.CSV)
    assert [event(found[0])["value"], event(found[2])["value"]] == [1, 2]
    ((number, text),) = reasons(found)
    assert number == 3
    assert reason in text


def test_a_quote_that_is_never_closed_is_one_bad_line() -> None:
    """Named by the line it begins on."""
    found = lines('kind\na\n"b\nc\nd\n', Format.CSV)
    assert event(found[0])["kind"] == "a"
    assert [number for number, _ in reasons(found)] == [3]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no header row"),
        ("\n", "no header row"),
        ("value,colour\n1,red\n", "'colour'"),
        ("value,value\n1,2\n", "twice"),
        ('"value', "cannot be read"),
    ],
)
def test_a_file_without_a_usable_header_is_refused_before_anything_is_read(text: str, reason: str) -> None:
    """Every row would mean something else."""
    with pytest.raises(BadInputError, match=reason):
        next(read(io.BytesIO(text.encode()), Format.CSV, DEFAULTS))


def test_a_header_may_have_blanks_around_its_names() -> None:
    """As written by hand."""
    assert event(lines("kind , value\nx,1\n", Format.CSV)[0])["value"] == 1


@given(data=st.binary(max_size=200), form=st.sampled_from(Format))
def test_any_bytes_are_read_or_rejected(data: bytes, form: Format) -> None:
    """Numbers rise, and no other error than that of a header escapes."""
    try:
        found = lines(b"kind,value\n" + data if form is Format.CSV else data, form)
    except BadInputError:
        assert form is Format.CSV
    else:
        numbers = [line.number for line in found]
        assert numbers == sorted(set(numbers))
