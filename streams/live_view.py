"""What a page shows, and what of it changed: rows by key, their order, and facts beside them.

Problem: a page that is sent whole twice a second is megabytes a minute, and one whose connection broke must not miss
what happened meanwhile. So each event says what changed since the one before, and has an id; who comes back with the id
of the last event that he has is told what changed since that one, as long as it is remembered, else all.

    id: 5f3c9a12.4.17
    event: view
    data: {"whole": false, "facts": {"found": 812}, "order": ["0:17", "3:2"], "rows": {"3:2": {"offset_ms": 3.1}}}

Where a view cannot be made there is an event `failed` instead, without an id: its data has the `error`, and what was
said before stands until the next event of a view, which comes as soon as it can be made again.

`whole` says that nothing from before holds. `facts` and the members of a row that are not named are as before; so is
the order where it is missing. A row that is in the order no more is gone.

GUARANTEE `applied(before, change(before, after))` is `after`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

if TYPE_CHECKING:
    from collections.abc import Mapping

#: What comes while nothing changes, so that either side notices when the other is gone.
HEARTBEAT: Final = b": here\n\n"
#: To who was told that his view failed, and has what there is.
NOTHING_CHANGED: Final[Mapping[str, Any]] = {"whole": False, "facts": {}, "rows": {}}
_MISSING: Final = object()


class View(NamedTuple):
    """Rows by key, in order, each with the same members, and facts, always of the same names."""

    facts: Mapping[str, Any]
    order: tuple[str, ...]
    rows: Mapping[str, Mapping[str, Any]]


def change(before: View | None, after: View) -> dict[str, Any] | None:
    """What has to be said to who has one view (None: nothing) so that he has the other; None where that is nothing."""
    if before is None:
        return {"whole": True, "facts": dict(after.facts), "order": list(after.order), "rows": dict(after.rows)}
    facts = _differing(before.facts, after.facts)
    rows: dict[str, Mapping[str, Any]] = {}
    for key, row in after.rows.items():
        earlier = before.rows.get(key)
        differing = row if earlier is None else _differing(earlier, row)
        if differing:
            rows[key] = differing
    found = {"whole": False, "facts": facts, "rows": rows}
    if after.order != before.order:
        found["order"] = list(after.order)
    elif not facts and not rows:
        return None
    return found


def applied(view: View | None, said: Mapping[str, Any]) -> View:
    """The view of who had one and is told of a change: the browser does the same."""
    if view is None or said["whole"]:
        view = View({}, (), {})
    order = tuple(said.get("order", view.order))
    rows = {key: {**view.rows.get(key, {}), **said["rows"].get(key, {})} for key in order}
    return View({**view.facts, **said["facts"]}, order, rows)


def event(event_id: str, data: Mapping[str, Any]) -> bytes:
    """A server-sent event; JSON has no line breaks, so one line of data holds it."""
    return b"id: %b\nevent: view\ndata: %b\n\n" % (event_id.encode(), orjson.dumps(data))


def failure(error: str) -> bytes:
    """The event of a view that cannot be made now. error: why, as `repr` says it, so of any text."""
    return b"event: failed\ndata: %b\n\n" % orjson.dumps({"error": error.encode(errors="replace").decode()})


def _differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in after.items() if before.get(name, _MISSING) != value}
