"""The values of ledger entries, decoded for people: which framing was in force, which event a row holds.

Problem: a command that lists events reads anywhere in the ledger, and what a value means depends on the judge's
DEFINITION in force there. So reading carries the framing along: it begins with the one given and changes at each
DEFINITION entry that is passed, exactly where judge changes it.

HAZARD a reader that begins in the middle must know the framing in force there; a wrong one shows values as unreadable,
never as other values: no bytes are an event in both framings.

Bytes become text where they are UTF-8 and base64 elsewhere, under another name, so that nothing is guessed.
"""

from __future__ import annotations

import base64
import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from schemas.canonical import ValueState
from schemas.columns import Fault, allocate_events, decode_events, slice_rows
from schemas.errors import BadInputError
from schemas.instants import format_ms, format_us
from schemas.memory import bytes_at
from streams.control import control_values, is_heartbeat, read_control
from streams.definitions import JUDGE, JudgeSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from schemas.codec import Framing
    from schemas.columns import Entries, Events

#: A row of a listing of events, for people; programs get `EVENT_FIELDS`.
EVENT_COLUMNS: Final = (
    "sequence", "authority_timestamp", "source", "local_timestamp", "kind", "value", "payload", "event_id", "fault",
)  # fmt: skip
EVENT_FIELDS: Final = (
    "partition", "sequence", "index", "input_offset", "authority_timestamp_ms", "authority_timestamp", "key",
    "key_base64", "event_id", "source", "local_timestamp_us", "local_timestamp", "kind", "value", "payload",
    "payload_base64", "hlc", "fault", "raw", "raw_base64", "value_length", "value_hash", "chain_hash",
)  # fmt: skip


class ControlBody(NamedTuple):
    """A control record that is no heartbeat."""

    row: int
    kind: str
    body: dict[str, Any]


def control_bodies(entries: Entries) -> Iterator[ControlBody]:
    """The CONTROL rows but heartbeats, in order; one that is no control record means nothing and is left out."""
    for row, value in control_values(entries):
        kind, body = ("", {}) if is_heartbeat(value) else read_control(value)
        if kind:
            yield ControlBody(row, kind, body)


def judge_settings_in(control: ControlBody) -> JudgeSettings | None:
    """The judge's settings that a control record puts in force, None where it puts none."""
    if control.kind != "Definition" or control.body["name"] != JUDGE:
        return None
    try:
        return JudgeSettings.parse(control.body["body"])
    except BadInputError:  # judge passes it over, so does everybody
        return None


class Decoded(NamedTuple):
    """Events of a batch, what they point into, its control records, and the framing in force after it."""

    events: Events
    keep: list[object]
    controls: list[ControlBody]
    framing: Framing


def decode_values(entries: Entries, framing: Framing) -> Decoded:
    """Decode every row under the framing in force at it, `framing` at the first."""
    rows = entries.kind.size
    events = allocate_events(rows)
    controls = list(control_bodies(entries))
    keep: list[object] = []
    start = 0
    for control in controls:
        settings = judge_settings_in(control)
        if settings is not None and settings.framing is not framing:
            keep.append(
                decode_events(slice_rows(entries, start, control.row), slice_rows(events, start, control.row), framing)
            )
            start, framing = control.row, settings.framing
    keep.append(decode_events(slice_rows(entries, start, rows), slice_rows(events, start, rows), framing))
    return Decoded(events, keep, controls, framing)


def event_row(partition: int, entries: Entries, events: Events, row: int) -> dict[str, Any]:
    """One DATA entry with its event, or with its fault and raw value; the keys are EVENT_FIELDS, absent for none."""
    authority_ms = int(entries.authority_ms[row])
    shown: dict[str, Any] = {
        "partition": partition,
        "sequence": int(entries.sequence[row]),
        "index": int(entries.index[row]),
        "input_offset": int(entries.input_offset[row]),
        "authority_timestamp_ms": authority_ms,
        "authority_timestamp": format_ms(authority_ms),
        "value_length": int(entries.value_length[row]),
        "value_hash": entries.value_hash[row].tobytes(),
        "chain_hash": entries.chain_hash[row].tobytes(),
    }
    if entries.key_length[row] >= 0:
        shown |= _plain("key", bytes_at(int(entries.key_address[row]), int(entries.key_length[row])))
    fault = Fault(int(events.fault[row]))
    if fault is not Fault.NONE:
        shown["fault"] = fault.name
        if entries.value_state[row] == ValueState.PRESENT:
            shown |= _plain("raw", bytes_at(int(entries.value_address[row]), int(entries.value_length[row])))
        return shown
    local_us = int(events.local_us[row])
    shown |= {
        "event_id": text_at(events.event_id_address[row], events.event_id_length[row]),
        "source": text_at(events.source_address[row], events.source_length[row]),
        "local_timestamp_us": local_us,
        "local_timestamp": format_us(local_us),
        "kind": text_at(events.kind_address[row], events.kind_length[row]),
        "value": _number(float(events.value[row])) if events.has_value[row] else None,
        "hlc": int(events.hlc[row]) if events.has_hlc[row] else None,
    }
    payload = bytes_at(int(events.payload_address[row]), int(events.payload_length[row]))
    return shown | (_plain("payload", payload) if payload else {})


def text_at(address: int, length: int) -> str:
    """The text of a decoded column."""
    return bytes_at(int(address), int(length)).decode()


def _number(value: float) -> float | str:
    """As in schemas/event_json.py: what JSON cannot spell is text."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _plain(name: str, content: bytes) -> dict[str, str]:
    try:
        return {name: content.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(content).decode()}
