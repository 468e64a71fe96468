"""Jobs asked of workers, from any machine: the ask is written, and the runs that answer it are followed to their end.

Problem: who asks does not know which worker has what, nor whether there is one. So nothing is sent to anybody: the ask
stands in the jobs topic, and whoever owns a lane that it is about answers there.

GUARANTEE what is returned is the end of all runs that answered, one for each lane; where one of them failed, or nobody
answered, that is an error with its remedy, once the others have ended.
HAZARD who is ended while a run goes on has not ended the run: `driftledger lifecycle history` tells of it.
"""

from __future__ import annotations

import os
import secrets
import socket
from typing import TYPE_CHECKING, Final, NamedTuple

from lifecycle.asks import FRESH_MS, RESUMED_MS, WAIT_MS_MAX, Ask, lanes_of
from lifecycle.job_log import JobLog
from lifecycle.job_record import LOST_MS, Heard, State
from schemas.clock import source as time_source
from schemas.errors import DriftledgerError, UnreachableError
from schemas.instants import MS_PER_S, NS_PER_MS, NS_PER_S
from schemas.producer import uuid7
from schemas.topics import topic_names

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from lifecycle.job_record import Job as Run
    from lifecycle.steps import Job, Step
    from streams.settings import Settings

    #: Is told how many rows are done of how many (None: not known yet), and in words how it stands.
    Follow = Callable[[int, int | None, str], None]

#: A worker that lives looks once a second. A lane that changes hands takes some seconds more.
ANSWER_S: Final = 15.0
#: How long the next owner of a lane may take to go on, once nothing is heard of the one before.
HANDOVER_S: Final = 60.0
_LOOK_S: Final = 0.25
_UUID_RANDOM_BYTES: Final = 8


class NobodyAnswersError(UnreachableError):
    """No worker took an ask, or went on with it. Attributes: partitions (of which nothing was heard)."""

    def __init__(self, text: str, partitions: tuple[int, ...]) -> None:
        super().__init__(text)
        self.partitions = partitions


class AskedJobError(DriftledgerError):
    """A worker has run what was asked, and it failed. Attributes: code, the exit code that belongs to that."""

    def __init__(self, run: Run) -> None:
        told = (run.error or "").partition(": ")[2] or str(run.error)
        super().__init__(f"{run.job} of {run.by} failed: {told}")
        self.code = 1 if run.asked is None or run.asked.code is None else run.asked.code


class Answer(NamedTuple):
    """What workers did, or would do. left_out: steps that their records had no room for."""

    steps: tuple[Step, ...]
    left_out: int


class Workers:
    """Those of a ledger, whichever they are. A method is for one thread."""

    def __init__(self, settings: Settings, bootstrap: str) -> None:
        self._settings, self._bootstrap = settings, bootstrap
        self._topic = topic_names(settings.prefix, settings.ledger, settings.input_topic).jobs

    def ask(
        self,
        job: Job,
        follow: Follow,
        *,
        partitions: Collection[int] | None = None,
        dry_run: bool = False,
        take_over: bool = False,
        answer_s: float = ANSWER_S,
        wait_s: float = 0.0,
    ) -> Answer:
        """Have a job of ASKED done where its data is, and wait for the end.

        partitions: only those (None: all). answer_s: until a worker has to have taken it. wait_s: how long the worker
        waits for another run that has the lease, where that is longer than it does by itself. Raises
        NobodyAnswersError, AskedJobError, UnreachableError.
        """
        now_us = time_source().now_us()
        lanes = lanes_of(partitions, self._settings.partitions, self._settings.lanes)
        chosen = None if partitions is None else tuple(sorted(partitions))
        identity = str(uuid7(now_us, secrets.token_bytes(_UUID_RANDOM_BYTES)))
        wait_ms = min(round(wait_s * MS_PER_S), WAIT_MS_MAX)
        ask = Ask(identity, job, chosen, dry_run, take_over, socket.gethostname(), os.getpid(), now_us, wait_ms)
        with JobLog(self._bootstrap, self._topic) as log:
            ends, silent = _followed(log, ask, lanes, answer_s, follow)
        failed = next((run for run in ends if run.state is State.FAILED), None)
        if failed is not None:
            raise AskedJobError(failed)
        if silent:
            missing = tuple(sorted(partition for lane in silent for partition in lanes[lane]))
            raise NobodyAnswersError(_why(ask, missing, silent, answer_s), missing)
        told = [run.asked.told for run in ends if run.asked is not None]
        steps = tuple(sorted((step for each in told for step in each.steps), key=lambda step: step.partition))
        return Answer(steps, sum(each.left_out for each in told))


class _Lane:
    """What was heard of an ask in a lane, and when, by the monotonic clock."""

    def __init__(self, began_ns: int) -> None:
        self.heard_ns = began_ns
        self.last: Run | None = None

    @property
    def end(self) -> Run | None:
        """The run that has ended it."""
        ended = self.last is not None and self.last.state in (State.DONE, State.FAILED)
        return self.last if ended else None

    def hear(self, run: Run, now_ns: int) -> None:
        """The next record of a run there; an end stands."""
        if self.end is None:
            self.last, self.heard_ns = run, now_ns

    def is_given_up(self, now_ns: int, answer_s: float) -> bool:
        """Whether nobody is waited for any more."""
        patience_ns = answer_s * NS_PER_S if self.last is None else LOST_MS * NS_PER_MS + HANDOVER_S * NS_PER_S
        return now_ns - self.heard_ns > patience_ns


def _followed(
    log: JobLog, ask: Ask, lanes: Mapping[int, tuple[int, ...]], answer_s: float, follow: Follow
) -> tuple[list[Run], dict[int, bool]]:
    """The ends of all lanes that answered; the others, each with whether a run of it was begun."""
    clock = time_source()
    offset = log.ask(ask).offset
    states = {lane: _Lane(clock.monotonic_ns()) for lane in lanes}
    while True:
        for found in log.everything_behind(offset):
            offset = found.offset
            asked = found.job.asked if isinstance(found, Heard) else None
            if isinstance(found, Heard) and asked is not None and asked.ask == ask.id and asked.lane in states:
                states[asked.lane].hear(found.job, clock.monotonic_ns())
        now_ns = clock.monotonic_ns()
        open_lanes = {lane: state for lane, state in states.items() if state.end is None}
        if all(state.is_given_up(now_ns, answer_s) for state in open_lanes.values()):
            ends = [state.end for state in states.values() if state.end is not None]
            return ends, {lane: state.last is not None for lane, state in open_lanes.items()}
        follow(*_standing(states, now_ns))
        clock.sleep_s(_LOOK_S)


def _standing(states: Mapping[int, _Lane], now_ns: int) -> tuple[int, int | None, str]:
    """How far all runs are together, and in words what is waited for."""
    runs = [state.last for state in states.values() if state.last is not None]
    progress = [run.progress for run in runs if run.progress is not None]
    known = len(progress) == len(states) and all(each.of is not None for each in progress)
    silent = sum(
        state.end is None and state.last is not None and now_ns - state.heard_ns > LOST_MS * NS_PER_MS
        for state in states.values()
    )
    ended = sum(state.end is not None for state in states.values())
    if not runs:
        text = "asked, no worker has answered yet"
    elif silent:
        text = f"nothing is heard of {silent} of {len(states)} lanes: the next owner goes on"
    else:
        text = f"{ended} of {len(states)} lanes done by {', '.join(sorted({run.by for run in runs}))}"
    return sum(each.done for each in progress), sum(each.of or 0 for each in progress) if known else None, text


def _why(ask: Ask, missing: tuple[int, ...], silent: Mapping[int, bool], answer_s: float) -> str:
    which = f"partitions {', '.join(map(str, missing))}"
    if any(silent.values()):
        return (
            f"{ask.job} of {which} was begun, and nothing is heard of it any more: its worker is gone, and no other "
            f"went on within {HANDOVER_S:.0f} s. One does that comes within {RESUMED_MS // MS_PER_S} s of the ask; "
            "see `driftledger lifecycle history`, or start a worker and run this again"
        )
    return (
        f"no live worker that has the hot store of {which} took {ask.job} within {answer_s:.0f} s. Start one "
        f"(`driftledger worker`, with hot_store on), or wait until its lanes are served (`driftledger status`), and "
        f"run this again. One that comes within {FRESH_MS // MS_PER_S} s of the ask runs it still"
    )
