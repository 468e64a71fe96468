"""Runs as they are remembered: as the jobs topic has them, bounded, and summed by job."""

from __future__ import annotations

import random

import orjson

from lifecycle.job_record import ENDED, LOST_MS, Did, Heard, Progress, State, decode, encode, folded, told
from lifecycle.run_view import OTHER, RUNS_MAX, Runs, run_row
from tests.core.lifecycle_histories import NOW_MS, run_of


def test_the_last_word_of_each_run_is_kept() -> None:
    """As `folded` has it, in the order in which they began."""
    rng, runs, heard = random.Random(7), Runs(), list[Heard]()
    for number in range(400):
        one = run_of(rng.randrange(60), rng.choice([state for state in State if state is not State.LOST]))
        heard.append(one._replace(offset=number))
        runs.apply(heard[-1])
    wanted = {name: each.job for name, each in folded(heard).items()}
    newest = runs.newest(0)
    assert {each.job.id: each.job for each in newest} == wanted
    first = list(dict.fromkeys(each.job.id for each in heard))
    assert [each.job.id for each in reversed(newest)] == first


def test_a_run_that_is_not_heard_of_is_lost() -> None:
    """And so is the last state of its job; where it has an end, that stands."""
    runs = Runs()
    runs.apply(run_of(0, State.RUNNING))
    runs.apply(run_of(1, State.FAILED, "verify"))
    for ago_ms, state in ((LOST_MS, State.RUNNING), (LOST_MS + 1, State.LOST)):
        assert runs.newest(NOW_MS + ago_ms)[1].job.state is state
        assert [row.state for row in runs.jobs(NOW_MS + ago_ms)] == [state, State.FAILED]


def test_rows_are_summed_by_job_as_they_are_done() -> None:
    """Of beats the last counts, of many runs each; of a job that has no name of ours, too."""
    runs, beats = Runs(), run_of(0, State.RUNNING)
    for rows in (10, 30, 30, 70):
        runs.apply(beats._replace(job=beats.job._replace(did=Did(rows=rows))))
    runs.apply(beats._replace(job=beats.job._replace(did=Did(rows=90), state=State.DONE)))
    runs.apply(beats._replace(job=beats.job._replace(did=Did(rows=1_000))))
    runs.apply(run_of(1, did=Did(rows=5)))
    runs.apply(run_of(2, job="\u202eanything", did=Did(rows=3)))
    seal, other = runs.jobs(NOW_MS)
    assert (seal.job, seal.runs, seal.rows, seal.done_ms) == ("seal", 2, 95, NOW_MS - 60_000)
    assert (other.job, other.runs, other.rows) == (OTHER, 1, 3)


def test_a_month_of_runs_takes_a_bounded_room() -> None:
    """The newest are kept, and it is said that there were others."""
    runs = Runs()
    for number in range(30_000, 0, -1):
        runs.apply(run_of(number))
    newest = runs.newest(NOW_MS)
    assert len(newest) == RUNS_MAX
    assert runs.cut
    assert newest[0].job.id == "run-000001"
    (row,) = runs.jobs(NOW_MS)
    assert row.runs == 30_000


def test_a_row_of_a_page_is_json_and_short() -> None:
    """Whatever went wrong."""
    row = run_row(run_of(3, State.FAILED, error="x" * 4_000, progress=None))
    assert len(orjson.dumps(row)) < 2_000
    assert (row["state"], row["done"], row["error"][-1]) == ("failed", None, "…")
    assert told(run_of(3), NOW_MS).state in ENDED


def test_what_a_record_may_hold_a_page_can_be_told() -> None:
    """Names as long as may be, and half a pair of surrogates."""
    half = "\ud800" + "x" * 3_000
    runs = Runs()
    one = run_of(1, State.FAILED, half, id=half, host=half, error=half, remedy=half, progress=Progress(1, 2, half))
    runs.apply(one._replace(job=decode(encode(one.job))))
    (heard,) = runs.newest(NOW_MS)
    assert len(orjson.dumps({heard.job.id: run_row(heard)})) < 7_000
    orjson.dumps(heard.job.row())
    assert run_row(heard)["job"].startswith("?x")
