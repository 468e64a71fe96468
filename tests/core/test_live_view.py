"""What changed of a view, told and applied: the page has what the worker has."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from streams.live_view import HEARTBEAT, NOTHING_CHANGED, View, applied, change, event, failure

VALUES = st.one_of(st.none(), st.integers(-5, 5), st.text(max_size=3))
ROWS = st.dictionaries(st.sampled_from("abcde"), st.fixed_dictionaries({"x": VALUES, "y": VALUES}))


def _views(rows: dict[str, dict[str, Any]], turned: bool, fact: Any) -> View:  # noqa: FBT001 - drawn
    order = sorted(rows, reverse=turned)
    return View({"n": len(rows), "fact": fact}, tuple(order), rows)


VIEWS = st.builds(_views, ROWS, st.booleans(), VALUES)


@given(st.lists(VIEWS, max_size=6))
def test_who_is_told_each_change_has_each_view(views: list[View]) -> None:
    """Also over the wire, as text."""
    before: View | None = None
    page: View | None = None
    for view in views:
        said = change(before, view)
        if said is not None:
            page = applied(page, json.loads(json.dumps(said)))
        assert page == View(view.facts, view.order, {key: view.rows[key] for key in view.order})
        assert change(view, view) is None
        before = view


def test_only_what_changed_is_said() -> None:
    """Members of a row, too."""
    first = View({"n": 2, "at": 1}, ("a", "b"), {"a": {"x": 1, "y": 2}, "b": {"x": 3, "y": 4}})
    second = View({"n": 2, "at": 2}, ("a", "b"), {"a": {"x": 1, "y": 2}, "b": {"x": 3, "y": 5}})
    assert change(first, second) == {"whole": False, "facts": {"at": 2}, "rows": {"b": {"y": 5}}}
    third = View(second.facts, ("b",), {"b": second.rows["b"]})
    assert change(second, third) == {"whole": False, "facts": {}, "rows": {}, "order": ["b"]}
    whole = change(None, third)
    assert whole is not None
    assert whole["whole"]


def test_an_event_is_one_block_whatever_it_holds() -> None:
    """A line break in a name is part of the data and ends no line."""
    content = event("1.2.3", {"name": "a\n\nid: 9\r\ndata: x\u2028"})
    lines = content.decode().split("\n")
    assert lines[:2] == ["id: 1.2.3", "event: view"]
    assert json.loads(lines[2].removeprefix("data: "))["name"] == "a\n\nid: 9\r\ndata: x\u2028"
    assert lines[3:] == ["", ""]
    assert HEARTBEAT.startswith(b":")
    assert HEARTBEAT.endswith(b"\n\n")


def test_a_view_that_failed_is_told_without_an_id() -> None:
    """So who comes back goes on from the last one that he has; what he has stands."""
    lines = failure("OSError('\udcff\\n')").decode().split("\n")
    assert lines[0] == "event: failed"
    assert json.loads(lines[1].removeprefix("data: ")) == {"error": "OSError('?\\n')"}
    assert lines[2:] == ["", ""]
    view = View({"n": 1}, ("a",), {"a": {"x": 1}})
    assert applied(view, NOTHING_CHANGED) == view
