"""Asks: what is written comes back, what is none is refused, and each is run once in each lane, whoever dies."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.asks import (
    ASK_BYTES_MAX,
    ASKED,
    FRESH_MS,
    RESUMED_MS,
    WAIT_MS_MAX,
    Ask,
    AskError,
    AskHeard,
    Asks,
    Due,
    decode_ask,
    encode_ask,
    lanes_of,
    refusal,
)
from lifecycle.job_record import LOST_MS, Asked, Heard, State
from lifecycle.job_record import Job as Run
from lifecycle.steps import Job
from schemas.instants import INT64_MAX, NS_PER_MS

ASK = Ask("an-ask", Job.PROMOTE, (1, 3), False, False, "a-host", 7, 30)  # noqa: FBT003 - a record
NUMBERS = st.integers(-INT64_MAX, INT64_MAX)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
ASKS = st.builds(
    Ask,
    id=TEXTS,
    job=st.sampled_from(ASKED),
    partitions=st.none() | st.lists(st.integers(0, 1_023), min_size=1, max_size=50).map(tuple),
    dry_run=st.booleans(),
    take_over=st.booleans(),
    host=TEXTS,
    pid=NUMBERS,
    at_us=NUMBERS,
    wait_ms=st.integers(0, WAIT_MS_MAX),
)
LOST_NS = LOST_MS * NS_PER_MS
LANES = {0: (0, 2), 1: (1, 3)}


@given(ask=ASKS)
def test_an_ask_comes_back(ask: Ask) -> None:
    """Whatever is in it."""
    assert decode_ask(encode_ask(ask)) == ask


def test_the_bytes_of_an_ask() -> None:
    """As docs/lifecycle.md has the fields; one of all partitions that a ledger can have fits."""
    assert encode_ask(ASK) == (
        b'{"id":"an-ask","job":"promote","partitions":[1,3],"dry_run":false,"take_over":false,"host":"a-host","pid":7,'
        b'"at_us":30,"wait_ms":0}'
    )
    assert decode_ask(encode_ask(ASK).replace(b',"wait_ms":0', b"")) == ASK  # of a release that had none
    longest = ASK._replace(partitions=tuple(range(1_024)), id="x" * 200, host="y" * 200)
    assert len(encode_ask(longest)) < ASK_BYTES_MAX
    assert decode_ask(encode_ask(longest)) == longest


@pytest.mark.parametrize(
    "change",
    [
        {"job": "compact"},
        {"job": "dance"},
        {"partitions": []},
        {"partitions": [True]},
        {"partitions": "all"},
        {"partitions": list(range(1_025))},
        {"dry_run": 1},
        {"take_over": None},
        {"id": None},
        {"host": "x" * 201},
        {"pid": 2**63},
        {"wait_ms": -1},
        {"wait_ms": WAIT_MS_MAX + 1},
        {"wait_ms": 0.5},
    ],
    ids=str,
)
def test_an_ask_is_refused_that_says_otherwise(change: dict[str, Any]) -> None:
    """Never another error."""
    with pytest.raises(AskError, match="a record of an ask is none"):
        decode_ask(json.dumps(json.loads(encode_ask(ASK)) | change).encode())


@pytest.mark.parametrize("content", [b"", b"7", b"[]", b"{}", b"\xff", b"[" * 10_000, b" " * (ASK_BYTES_MAX + 1)])
def test_bytes_that_are_no_ask_are_refused(content: bytes) -> None:
    """Of any kind and length."""
    with pytest.raises(AskError):
        decode_ask(content)


def heard(ask: Ask = ASK, offset: int = 0) -> AskHeard:
    """An ask as the log has it."""
    return AskHeard(offset, 1_000, ask)


def run(state: State, lane: int, identity: str = "a-run", ask: str = ASK.id) -> Heard:
    """A record of a run that answers."""
    return Heard(1, 2_000, Run(identity, "promote", state, "b-host", 8, 40, 35, asked=Asked(ask, lane)))


def lanes_due(asks: Asks, now_ns: int = 0) -> list[tuple[int, bool]]:
    """Where the ask is to be run, and whether it was begun."""
    return [(due.lane, due.begun) for due in asks.due(LANES, now_ns)]


def test_an_ask_is_due_in_the_lanes_that_it_is_about() -> None:
    """Once each, however often its record is there; one of all partitions in all."""
    asks = Asks()
    asks.hear(heard(), 0)
    asks.hear(heard(offset=5), 0)
    assert lanes_due(asks) == [(1, False)]
    asks.hear(heard(ASK._replace(id="another", partitions=None), 6), 0)
    assert lanes_due(asks) == [(1, False), (0, False), (1, False)]
    assert ASK.within([0, 1, 2, 3]) == (1, 3)


@pytest.mark.parametrize("end", [State.DONE, State.FAILED])
def test_an_end_stands(end: State) -> None:
    """Whatever is told behind it, and however long ago it was."""
    asks = Asks()
    asks.hear(heard(), 0)
    for state in (State.PLANNED, State.RUNNING, end, State.RUNNING):
        asks.hear(run(state, 1), 0)
    assert lanes_due(asks, 100 * LOST_NS) == []


def test_the_next_owner_goes_on_with_what_is_cancelled_or_silent() -> None:
    """At once, or once nothing was heard for LOST_MS; not while the run is told of."""
    asks = Asks()
    asks.hear(heard(), 0)
    asks.hear(run(State.RUNNING, 1), 0)
    assert lanes_due(asks, LOST_NS) == []
    assert lanes_due(asks, LOST_NS + 1) == [(1, True)]
    asks.hear(run(State.RUNNING, 1), LOST_NS)  # it was slow
    assert lanes_due(asks, LOST_NS + 1) == []
    asks.hear(run(State.CANCELLED, 1), LOST_NS + 1)
    assert lanes_due(asks, LOST_NS + 1) == [(1, True)]
    asks.hear(run(State.PLANNED, 1, "another-run"), LOST_NS + 1)
    assert lanes_due(asks, LOST_NS + 2) == []


def test_runs_of_other_asks_and_of_none_are_no_answer() -> None:
    """Nor of another lane."""
    asks = Asks()
    asks.hear(heard(), 0)
    asks.hear(run(State.DONE, 0), 0)
    asks.hear(run(State.DONE, 1, ask="of-nobody"), 0)
    asks.hear(Heard(2, 3, run(State.DONE, 1).job._replace(asked=None)), 0)
    assert lanes_due(asks) == [(1, False)]


def test_what_is_too_old_is_refused() -> None:
    """By the broker's times; what was begun may be older."""
    fresh, begun = Due(heard(), 1, begun=False), Due(heard(), 1, begun=True)
    at_ms = fresh.heard.appended_ms
    assert refusal(fresh, at_ms + FRESH_MS) is None
    assert "61 s ago" in (refusal(fresh, at_ms + FRESH_MS + 1_000) or "")
    assert refusal(begun, at_ms + RESUMED_MS) is None
    assert "Ask again" in (refusal(begun, at_ms + RESUMED_MS + 1) or "")
    assert refusal(fresh, at_ms - 5_000) is None  # the broker's clock went back


def test_memory_is_bounded() -> None:
    """The oldest are forgotten, with their runs."""
    asks = Asks()
    for number in range(3_000):
        asks.hear(heard(ASK._replace(id=str(number)), number), 0)
        asks.hear(run(State.DONE, 1, f"run-{number}", str(number)), 0)
    asks.hear(heard(ASK._replace(id="last"), 3_000), 0)
    assert [due.heard.ask.id for due in asks.due(LANES, 0)] == ["last"]
    assert len(asks._asks) == 1_000
    assert len(asks._runs) == 999


@given(
    partitions=st.none() | st.frozensets(st.integers(0, 15), min_size=1),
    lanes=st.integers(1, 16),
)
def test_lanes_have_their_partitions(partitions: frozenset[int] | None, lanes: int) -> None:
    """Each partition that was asked for is in one lane."""
    found = lanes_of(partitions, 16, lanes)
    assert sorted(each for part in found.values() for each in part) == sorted(partitions or range(16))
    assert all(each % lanes == lane for lane, part in found.items() for each in part)
