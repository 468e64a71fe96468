"""Steps in records: as many as there is room for, and the number of the others."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lifecycle.job_record import Asked, JobRecordError, State, decode, encode
from lifecycle.job_record import Job as Run
from lifecycle.steps import Job, Step
from lifecycle.tiers import Grain, Tier
from lifecycle.told_steps import STEPS_BYTES_MAX, Told, told_of

STEP = Step(Job.DEMOTE, 3, "2026-01-30-07", Tier.HISTORICAL, Grain.HOURLY, (), 1, 900, 800, 70_000, 0.25, "it is old")
FILE = STEP._replace(grain=None, paths=("historical/daily/2026-01-30/data/x.parquet",), why="é" * 300)
RUN = Run("one", "demote", State.DONE, "a-host", 7, 30, 10, asked=Asked("an-ask", 2, 0, Told((STEP, FILE), 5)))


def test_what_was_asked_comes_back() -> None:
    """With its steps."""
    assert decode(encode(RUN)) == RUN
    running = RUN._replace(state=State.RUNNING, asked=Asked("an-ask", 2))
    assert decode(encode(running)) == running


def test_a_record_has_room_for_some_steps() -> None:
    """The first; with all else that may be long it stays a record."""
    steps = [STEP._replace(partition=number) for number in range(10_000)]
    told = told_of(steps)
    assert told.steps == tuple(steps[: len(told.steps)])
    assert told.left_out == len(steps) - len(told.steps) > 0
    assert STEPS_BYTES_MAX - 500 < len(json.dumps(told.steps, separators=(",", ":"))) <= STEPS_BYTES_MAX + 1
    assert told_of([STEP, FILE]) == Told((STEP, FILE), 0)
    assert told_of([]) == Told()
    asked = Asked("an-ask", 2, 1, told)
    assert decode(encode(RUN._replace(asked=asked, error="e" * 4_000, remedy="r" * 4_000))).asked == asked


@pytest.mark.parametrize(
    "change",
    [
        {"ask": 7},
        {"lane": None},
        {"code": "0"},
        {"told": None},
        {"told": {"steps": [], "left_out": None}},
        {"told": {"steps": [], "left_out": 2**63}},
        {"told": {"steps": [[1, 2]], "left_out": 0}},
        {"told": {"steps": [["dance", *json.loads(json.dumps(STEP))[1:]]], "left_out": 0}},
    ],
    ids=str,
)
def test_a_record_is_refused_that_says_otherwise(change: dict[str, Any]) -> None:
    """Never another error."""
    document = json.loads(encode(RUN))
    document["asked"] |= change
    with pytest.raises(JobRecordError, match="a record of a job is none"):
        decode(json.dumps(document).encode())
