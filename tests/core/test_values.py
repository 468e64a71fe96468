"""Values of ledger entries for people: framings that change, control records, and rows."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest

from schemas.canonical import EntryKind, ValueState
from schemas.codec import Framing
from schemas.columns import Fault
from streams.definitions import JudgeSettings
from streams.values import EVENT_FIELDS, control_bodies, decode_values, event_row
from tests.core.judge_oracle import START_MS, Ledger, Row, control, definition, event

JSON = JudgeSettings(framing=Framing.JSON)
AVRO = JudgeSettings()
HEARTBEAT = control("Heartbeat", predecessor_appended_ms=None, input_end_offset=3, worker_us=5)


def test_a_value_is_read_in_the_framing_in_force_at_its_entry() -> None:
    """It changes at a DEFINITION of judge, and is handed on to the next batch."""
    avro, json = event("s", "avro", 5), event("s", "json", 6, framing=Framing.JSON)
    rows = [Row(avro), Row(json), definition(JSON), Row(avro), Row(json), definition(AVRO), Row(avro), definition(JSON)]
    ledger = Ledger(rows)
    decoded = decode_values(ledger.entries, Framing.SINGLE_OBJECT)
    assert [Fault(fault) for fault in decoded.events.fault.tolist()] == [
        Fault.NONE,
        Fault.UNKNOWN_FRAMING,
        Fault.CONTROL_ENTRY,
        Fault.BAD_UTF8,
        Fault.NONE,
        Fault.CONTROL_ENTRY,
        Fault.NONE,
        Fault.CONTROL_ENTRY,
    ]
    assert decoded.framing is Framing.JSON


def test_definitions_that_do_not_count_change_nothing() -> None:
    """Of another name, unreadable, or no control record at all."""
    rows = [
        control("Definition", name="windows", body=JSON.canonical()),
        control("Definition", name="judge", body="{}"),
        Row(b"judge", kind=EntryKind.CONTROL),
        Row(event("s", "e", 5)),
    ]
    ledger = Ledger(rows)
    decoded = decode_values(ledger.entries, Framing.SINGLE_OBJECT)
    assert decoded.events.fault[3] == Fault.NONE
    assert decoded.framing is Framing.SINGLE_OBJECT


def test_control_records_are_found_but_heartbeats() -> None:
    """Also those without a value and those that are none are passed over."""
    rows = [
        HEARTBEAT,
        Row(event("s", "e", 5)),
        control("Anchor", source="a", anchor_timestamp=None),
        Row(None, kind=EntryKind.CONTROL),
        Row(b"\xc3\x01 no control record", kind=EntryKind.CONTROL),
        HEARTBEAT,
        control("Verify", source="b", client_timestamp=7),
    ]
    ledger = Ledger(rows)
    found = list(control_bodies(ledger.entries))
    assert [(body.row, body.kind, body.body["source"]) for body in found] == [(2, "Anchor", "a"), (6, "Verify", "b")]


def test_a_row_shows_the_event() -> None:
    """Every instant as a number and as text."""
    ledger = Ledger([Row(event("pump", "e1", -1, 2.5), START_MS, key=b"pump")])
    decoded = decode_values(ledger.entries, Framing.SINGLE_OBJECT)
    row = event_row(3, ledger.entries, decoded.events, 0)
    assert set(row) <= set(EVENT_FIELDS)
    assert {name: row[name] for name in ("partition", "sequence", "index", "key", "event_id", "source", "value")} == {
        "partition": 3, "sequence": 1, "index": 1, "key": "pump", "event_id": "e1", "source": "pump", "value": 2.5,
    }  # fmt: skip
    assert (row["local_timestamp_us"], row["local_timestamp"]) == (-1, "1969-12-31T23:59:59.999999Z")
    assert row["authority_timestamp_ms"] == START_MS
    assert "payload" not in row


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, None), (0.0, 0.0), (float("nan"), "NaN"), (float("inf"), "Infinity"), (float("-inf"), "-Infinity")],
)
def test_numbers_that_json_cannot_spell_are_text(value: float | None, shown: object) -> None:
    """As in the JSON framing."""
    ledger = Ledger([Row(event("pump", "e1", 5, value))])
    assert event_row(0, ledger.entries, decode_values(ledger.entries, AVRO.framing).events, 0)["value"] == shown


def test_what_cannot_be_read_is_shown_as_it_is() -> None:
    """Text where it is text, base64 elsewhere, nothing where the bytes are not in the ledger."""
    omitted = Row(b"long", state=ValueState.OMITTED)
    rows = [Row(b"plain text"), Row(b"\x00\xff", key=b"\xfe"), Row(None), omitted, replace(omitted, key=b"")]
    ledger = Ledger(rows)
    events = decode_values(ledger.entries, AVRO.framing).events
    shown = [event_row(0, ledger.entries, events, row) for row in range(5)]
    assert [row["fault"] for row in shown] == ["UNKNOWN_FRAMING"] * 2 + ["NULL_VALUE", "OMITTED", "OMITTED"]
    assert shown[0]["raw"] == "plain text"
    assert [base64.b64decode(shown[1][name]) for name in ("raw_base64", "key_base64")] == [b"\x00\xff", b"\xfe"]
    assert not any("raw" in row or "raw_base64" in row for row in shown[2:])
    assert (shown[4]["key"], shown[3].get("key"), shown[3]["value_length"]) == ("", None, 4)
