"""What a page asks for, and how a wrong question is told."""

from __future__ import annotations

from urllib.parse import parse_qsl

import pytest

from lifecycle.live_questions import LogQuestion, SourceQuestion, StatusQuestion, parse
from schemas.errors import BadInputError
from streams.alert_shelf import AlertsQuestion
from streams.causes import Cause
from streams.fleet_view import ROWS_MAX, FleetQuestion, Sort
from streams.severity import Severity


@pytest.mark.parametrize(
    ("view", "query", "asked"),
    [
        ("fleet", "", FleetQuestion(limit=ROWS_MAX)),
        (
            "fleet",
            "sort=source&desc=0&search=Pump&severity=RED,YELLOW&cause=STEP&partition=1&partition=3&offset=100&limit=50",
            FleetQuestion(
                Sort.SOURCE, False, "Pump", frozenset({Severity.RED, Severity.YELLOW}), frozenset({Cause.STEP}),  # noqa: FBT003
                frozenset({1, 3}), 100, 50,
            ),
        ),
        ("fleet", "limit=100000", FleetQuestion(limit=ROWS_MAX)),
        ("source", "source=a%20b&partition=2", SourceQuestion("a b", 2)),
        ("alerts", "open=1&search=x", AlertsQuestion(open=True, search="x")),
        ("alerts", "open=0&severity=RED", AlertsQuestion(open=False, severities=frozenset({Severity.RED}))),
        ("log", "source=a&limit=10", LogQuestion("a", 10)),
        ("status", "", StatusQuestion()),
    ],
)  # fmt: skip
def test_a_question_is_read(view: str, query: str, asked: object) -> None:
    """What is not given has its default."""
    assert parse(view, parse_qsl(query)) == asked


@pytest.mark.parametrize(
    ("view", "query", "told"),
    [
        ("fleet", "sort=colour", "sort: 'colour' is none of state, source"),
        ("fleet", "severity=BLUE", "severity: 'BLUE' is none of GREEN, YELLOW, RED"),
        ("fleet", "offset=-1", "offset: it is '-1', no whole number"),
        ("fleet", "limit=0", "limit: 0 is too little"),
        ("fleet", "desc=yes", "desc is 'yes'. Give 0 or 1"),
        ("fleet", f"search={'x' * 257}", "search has 257 characters"),
        ("fleet", "sort=state&sort=state", "sort is given 2 times"),
        ("fleet", "source=a", "unknown parameter 'source'"),
        ("source", "source=a", "source and partition say which one"),
        ("source", "source=a&source=b&partition=0", "source and partition say which one"),
        ("log", "source=a&source=b", "source is given 2 times"),
        ("alerts", "cause=LATE", "cause: 'LATE' is none of NONE, UNKNOWN"),
        ("status", "limit=1", "unknown parameter 'limit'"),
    ],
)
def test_a_wrong_question_is_told_by_name(view: str, query: str, told: str) -> None:
    """And what to give."""
    with pytest.raises(BadInputError, match=told.replace(".", r"\.").replace("(", r"\(")):
        parse(view, parse_qsl(query))
