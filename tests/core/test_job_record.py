"""Records of jobs: what is written comes back, what is none is refused, and the last word of a run stands."""

from __future__ import annotations

import contextlib
import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.job_record import (
    ENDED,
    LOST_MS,
    Asked,
    Did,
    Heard,
    Job,
    JobRecordError,
    Progress,
    State,
    decode,
    encode,
    folded,
    lives,
    told,
)
from lifecycle.steps import Job as OfStep
from lifecycle.steps import Step
from lifecycle.tiers import Grain, Tier
from lifecycle.told_steps import Told
from schemas.instants import INT64_MAX

JOB = Job("one", "seal", State.RUNNING, "a-host", 7, 30, 10, lease=True, beats=3, progress=Progress(1, None, "rows"))
NUMBERS = st.integers(-INT64_MAX, INT64_MAX)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
STEPS = st.builds(
    Step,
    job=st.sampled_from(OfStep),
    partition=NUMBERS,
    period=TEXTS,
    tier=st.sampled_from(Tier),
    grain=st.none() | st.sampled_from(Grain),
    paths=st.lists(TEXTS, max_size=3).map(tuple),
    first_index=NUMBERS,
    last_index=NUMBERS,
    rows=NUMBERS,
    size_bytes=NUMBERS,
    reads=st.floats(allow_nan=False, allow_infinity=False),
    why=TEXTS,
)
ASKED = st.builds(
    Asked,
    ask=TEXTS,
    lane=NUMBERS,
    code=st.none() | NUMBERS,
    told=st.builds(Told, st.lists(STEPS, max_size=3).map(tuple), NUMBERS),
)
JOBS = st.builds(
    Job,
    id=TEXTS,
    job=TEXTS,
    state=st.sampled_from([state for state in State if state is not State.LOST]),
    host=TEXTS,
    pid=NUMBERS,
    at_us=NUMBERS,
    started_us=NUMBERS,
    ended_us=st.none() | NUMBERS,
    lease=st.booleans(),
    beats=NUMBERS,
    progress=st.none() | st.builds(Progress, NUMBERS, st.none() | NUMBERS, TEXTS),
    did=st.builds(Did, *[NUMBERS] * len(Did._fields)),
    error=st.none() | TEXTS,
    remedy=st.none() | TEXTS,
    asked=st.none() | ASKED,
)


@given(job=JOBS)
def test_a_record_comes_back(job: Job) -> None:
    """Whatever is in it."""
    assert decode(encode(job)) == job


def test_the_bytes_of_a_record() -> None:
    """As docs/lifecycle.md has the fields."""
    assert encode(JOB._replace(state=State.FAILED, ended_us=40, error="e", remedy="r", did=Did(1, 2, 3, 4, 5, 6))) == (
        b'{"id":"one","job":"seal","state":"failed","host":"a-host","pid":7,"at_us":30,"started_us":10,"ended_us":40,'
        b'"lease":true,"beats":3,"progress":{"done":1,"of":null,"unit":"rows"},"did":{"rows":1,"bytes_in":2,'
        b'"bytes_out":3,"added":4,"dropped":5,"commits":6},"error":"e","remedy":"r"}'
    )


def test_a_long_error_is_cut() -> None:
    """What is left can be read."""
    found = decode(encode(JOB._replace(error="x" * 100_000, remedy="y" * 4_000)))
    assert found.error == "x" * 3_999 + "…"
    assert found.remedy == "y" * 4_000


def test_fields_of_a_later_release_are_let_pass() -> None:
    """It may tell more."""
    document = json.loads(encode(JOB)) | {"mood": "good"}
    document["did"]["naps"] = 3
    assert decode(json.dumps(document).encode()) == JOB


@pytest.mark.parametrize(
    "change",
    [
        {"state": "lost"},
        {"state": "asleep"},
        {"pid": "7"},
        {"pid": True},
        {"pid": 2**63},
        {"lease": 1},
        {"beats": None},
        {"id": None},
        {"host": "x" * 4_001},
        {"progress": 7},
        {"progress": {"done": 1}},
        {"did": {}},
        {"did": None},
        {"error": 7},
        {"ended_us": "now"},
    ],
    ids=str,
)
def test_a_record_is_refused_that_says_otherwise(change: dict[str, Any]) -> None:
    """Never another error."""
    with pytest.raises(JobRecordError, match="a record of a job is none"):
        decode(json.dumps(json.loads(encode(JOB)) | change).encode())


@pytest.mark.parametrize(
    "content", [b"", b"7", b"[]", b"{}", b"null", b"\xff", b"{", b"[" * 60_000, b" " * 65_537], ids=range(9)
)
def test_bytes_that_are_no_record_are_refused(content: bytes) -> None:
    """Of any kind and length."""
    with pytest.raises(JobRecordError):
        decode(content)


@given(data=st.data())
def test_any_flipped_byte_gives_a_record_or_a_refusal(data: st.DataObject) -> None:
    """Never another error."""
    content = bytearray(encode(JOB))
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(JobRecordError):
        assert isinstance(decode(bytes(content)), Job)


@given(seed=st.integers(0, 2**32))
def test_the_last_word_of_each_run_stands_and_an_end_is_the_last(seed: int) -> None:
    """In the order of those words."""
    rng = random.Random(seed)
    heard = [
        Heard(offset, offset, JOB._replace(id=rng.choice("abc"), state=rng.choice(list(State)[:-1]), beats=offset))
        for offset in range(rng.randrange(12))
    ]
    wanted: dict[str, Heard] = {}
    for name in {each.job.id for each in heard}:
        of_run = [each for each in heard if each.job.id == name]
        ends = [each for each in of_run if each.job.state in ENDED]
        wanted[name] = ends[0] if ends else of_run[-1]
    found = folded(heard)
    assert found == wanted
    assert list(found.values()) == sorted(wanted.values())


@pytest.mark.parametrize("state", [State.PLANNED, State.RUNNING])
def test_a_run_that_is_not_heard_of_is_lost(state: State) -> None:
    """One that has ended is not."""
    heard = Heard(1, 1_000, JOB._replace(state=state))
    assert told(heard, 1_000 + LOST_MS).state is state
    assert lives(heard, 1_000 + LOST_MS)
    assert told(heard, 1_001 + LOST_MS).state is State.LOST
    assert not lives(heard, 1_001 + LOST_MS)
    for end in ENDED:
        ended = Heard(1, 1_000, JOB._replace(state=end))
        assert told(ended, 10**9).state is end
        assert not lives(ended, 1_000)


def test_a_run_as_a_row() -> None:
    """Who, when, how far, what."""
    row = JOB._replace(progress=Progress(1_000, 2_000, "rows"), did=Did(rows=5), ended_us=1_000_000).row()
    assert row["by"] == "a-host:7"
    assert row["started"] == "1970-01-01T00:00:00.000010Z"
    assert row["ended"] == "1970-01-01T00:00:01.000000Z"
    assert (row["progress"], row["rows"], row["state"], row["error"]) == ("1,000 of 2,000 rows", 5, "running", None)
    bare = JOB._replace(progress=Progress(7, None, "files")).row()
    assert (bare["progress"], bare["ended"]) == ("7 files", None)
    assert JOB._replace(progress=None).row()["progress"] is None
