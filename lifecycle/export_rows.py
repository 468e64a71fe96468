"""Events as lines of files that may be put again.

    events      the members that `publish` and `put` read: event_id, source, local_timestamp (integer microseconds),
                kind, value, payload or payload_base64, hlc; what could not be read is not among them
    rows        everything that `range` tells of an event; not to be put again, for it says more than an event does

GUARANTEE an event that is put again from its line is the same to its last bit but for causes and exchange, which only
the ledger has, and for an id or kind of no characters in CSV, which a cell cannot tell from one that is absent.
"""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any, Final

import orjson

from lifecycle.planner import Field
from lifecycle.rows import names_in, rows_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

#: What events are made of.
EVENT_FIELDS: Final = (
    Field.EVENT_ID, Field.SOURCE, Field.LOCAL_US, Field.KIND, Field.VALUE, Field.PAYLOAD, Field.HLC,
)  # fmt: skip
_EVENT_MEMBERS: Final = (
    "event_id", "source", "local_timestamp", "kind", "value", "payload", "payload_base64", "hlc",
)  # fmt: skip


def events_in(table: pa.Table) -> pa.Table:
    """The rows that are events, of EVENT_FIELDS."""
    readable = table["source"].is_valid()
    return table.filter(readable)


def json_lines(table: pa.Table, *, events: bool) -> bytes:
    """A line each."""
    rows = _events(table) if events else rows_in(table)
    return b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows)


def csv_head(schema: pa.Schema, *, events: bool) -> bytes:
    """The line of names."""
    return _written([list(_EVENT_MEMBERS if events else names_in(schema))])


def csv_lines(table: pa.Table, *, events: bool) -> bytes:
    """A line each, of the cells that the head names."""
    if events:
        return _written([row.get(name) for name in _EVENT_MEMBERS] for row in _events(table))
    return _written(row.values() for row in rows_in(table))


def _events(table: pa.Table) -> Iterator[dict[str, Any]]:
    for row in rows_in(table):
        event = {
            "event_id": row["event_id"],
            "source": row["source"],
            "local_timestamp": row["local_timestamp_us"],
            "kind": row["kind"],
            "value": row["value"],
        }
        if row["payload_base64"] is not None:
            event["payload_base64"] = row["payload_base64"]
        elif row["payload"] is not None:
            event["payload"] = row["payload"]
        if row["hlc"] is not None:
            event["hlc"] = row["hlc"]
        yield event


def _written(rows: Any) -> bytes:
    """Texts are in quotes: a carriage return within would else end a line for who reads it."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC).writerows(rows)
    return text.getvalue().encode()
