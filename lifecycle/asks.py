"""Jobs that are asked of workers: what is asked, what a run says in answer, and which worker begins what.

Problem: an hour in the hot tier is moved by the worker that has it, wherever that runs and whoever asks; and it may
change hands, or be killed, at any moment. So who asks writes one record, whoever owns a lane that it is about runs it
there, and both stand in one log, in one order: the jobs topic.

    ask --> a run for each lane: planned --> running --> done | failed          that ends the ask there
                                    `-----------+-----> cancelled, or silent    the next owner of the lane runs it

GUARANTEE an ask that ended in a lane is run there no more, however often its record stands in the log.
GUARANTEE an ask that nobody has begun within FRESH_MS is refused, and one that was begun within RESUMED_MS, by the
broker's times alone: what somebody wanted yesterday is not done today.
HAZARD two owners of a lane, of which one does not know yet that it lost it, may run an ask side by side: all that jobs
do may be done twice, and what is committed is guarded by the lease.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from lifecycle.job_record import ENDED, LOST_MS, State
from lifecycle.json_members import count_in, text_in, truth_in
from lifecycle.steps import Job
from schemas.errors import DriftledgerError
from schemas.instants import NS_PER_MS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from lifecycle.job_record import Heard

#: What a worker may be asked for: it has the hot tier.
ASKED: Final = (Job.SEAL, Job.DEMOTE, Job.PROMOTE)
#: How old an ask may be when the first run of it in a lane begins, and how old when a later one does.
FRESH_MS: Final = 60_000
RESUMED_MS: Final = 600_000
#: How long a worker may be asked to wait for the lease: a day.
WAIT_MS_MAX: Final = 86_400_000
#: An ask takes a few hundred bytes, and eight for each partition that it names.
ASK_BYTES_MAX: Final = 16_384
#: Keys of asks on the jobs topic begin with it; those of runs are the job.
ASK_KEY: Final = "ask/"
_PARTITIONS_MAX: Final = 1_024
#: So many are remembered: who asks faster than they are run asks again.
_ASKS_MAX: Final = 1_000
_TEXT_CHARACTERS_MAX: Final = 200


class AskError(DriftledgerError):
    """A record of an ask that is none."""


class Ask(NamedTuple):
    """What somebody wants. id: a UUIDv7; partitions: None for all; at_us: when, by the clock of who asks.

    wait_ms: for the end of a run that has the lease.
    """

    id: str
    job: Job
    partitions: tuple[int, ...] | None
    dry_run: bool
    take_over: bool
    host: str
    pid: int
    at_us: int
    wait_ms: int = 0

    @property
    def key(self) -> bytes:
        """Of its record."""
        return f"{ASK_KEY}{self.job}".encode()

    def within(self, partitions: Iterable[int]) -> tuple[int, ...]:
        """Those of some partitions that it is about."""
        return tuple(each for each in partitions if self.partitions is None or each in self.partitions)


class AskHeard(NamedTuple):
    """An ask and where it stands. appended_ms: when the broker took it."""

    offset: int
    appended_ms: int
    ask: Ask


def encode_ask(ask: Ask) -> bytes:
    """As it stands in the topic: one JSON object."""
    return json.dumps(ask._asdict(), separators=(",", ":")).encode()


def decode_ask(content: bytes) -> Ask:
    """A record of the topic. Raises AskError."""
    try:
        if len(content) > ASK_BYTES_MAX:
            raise ValueError(f"it has {len(content):,} bytes, more than {ASK_BYTES_MAX:,}")  # noqa: TRY301
        document = json.loads(content)
        partitions = document["partitions"]
        job = Job(document["job"])
        if job not in ASKED:
            raise ValueError(f"{job} is asked of no worker")  # noqa: TRY301
        return Ask(
            text_in(document["id"], _TEXT_CHARACTERS_MAX),
            job,
            None if partitions is None else _partitions(partitions),
            truth_in(document["dry_run"]),
            truth_in(document["take_over"]),
            text_in(document["host"], _TEXT_CHARACTERS_MAX),
            count_in(document["pid"]),
            count_in(document["at_us"]),
            _wait(document.get("wait_ms", 0)),
        )
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise AskError(f"a record of an ask is none: {type(error).__name__} {error}") from error


class Due(NamedTuple):
    """An ask that is to be run in a lane now. begun: whether a run of it was, which ended without an end of the ask."""

    heard: AskHeard
    lane: int
    begun: bool

    @property
    def limit_ms(self) -> int:
        """How old the ask may be."""
        return RESUMED_MS if self.begun else FRESH_MS


class Asks:
    """What is known of asks and of the runs that answer them, as the log is read on. silent_ns: by the reader's clock.

    A run is silent that was not heard of for LOST_MS since its last record was read: no clock of another host counts.
    """

    def __init__(self) -> None:
        self._asks: dict[str, AskHeard] = {}
        #: By ask and lane: each run, the last that was heard of it, and when that was.
        self._runs: dict[tuple[str, int], dict[str, tuple[State, int]]] = {}

    def hear(self, found: AskHeard | Heard, now_ns: int) -> None:
        """The next record of the log."""
        if isinstance(found, AskHeard):
            self._asks.setdefault(found.ask.id, found)
            if len(self._asks) > _ASKS_MAX:
                gone = next(iter(self._asks))
                del self._asks[gone]
                self._runs = {key: runs for key, runs in self._runs.items() if key[0] != gone}
            return
        asked = found.job.asked
        if asked is not None and asked.ask in self._asks:
            runs = self._runs.setdefault((asked.ask, asked.lane), {})
            before = runs.get(found.job.id)
            if before is None or before[0] not in ENDED:
                runs[found.job.id] = found.job.state, now_ns

    def due(self, lanes: Mapping[int, Sequence[int]], now_ns: int) -> list[Due]:
        """Asks that are to be run in these lanes (with their partitions), in the order in which they were made."""
        found = []
        for heard in self._asks.values():
            for lane, partitions in lanes.items():
                runs = self._runs.get((heard.ask.id, lane), {}).values()
                if heard.ask.within(partitions) and not any(_stands(*run, now_ns) for run in runs):
                    found.append(Due(heard, lane, bool(runs)))
        return found


def _stands(state: State, heard_ns: int, now_ns: int) -> bool:
    """Whether a run is the end of an ask, or under way."""
    if state in ENDED:
        return state is not State.CANCELLED
    return now_ns - heard_ns <= LOST_MS * NS_PER_MS


def refusal(due: Due, planned_ms: int) -> str | None:
    """Why an ask is not run, by the broker's time of the run's first record; None where it is."""
    age_ms = planned_ms - due.heard.appended_ms
    if age_ms <= due.limit_ms:
        return None
    what = "goes on with" if due.begun else "begins"
    return (
        f"it was asked {age_ms // 1_000} s ago, and a worker {what} nothing that is older than "
        f"{due.limit_ms // 1_000} s. Ask again"
    )


def lanes_of(partitions: Collection[int] | None, of_all: int, lanes: int) -> dict[int, tuple[int, ...]]:
    """The lanes that some partitions (None: all) belong to, each with these, ascending."""
    wanted = range(of_all) if partitions is None else sorted(partitions)
    found: dict[int, tuple[int, ...]] = {}
    for partition in wanted:
        found[partition % lanes] = (*found.get(partition % lanes, ()), partition)
    return dict(sorted(found.items()))


def _partitions(values: Any) -> tuple[int, ...]:
    if not isinstance(values, list) or not 1 <= len(values) <= _PARTITIONS_MAX:
        raise ValueError(f"1 to {_PARTITIONS_MAX:,} partitions are asked for, or all")
    return tuple(count_in(value) for value in values)


def _wait(value: Any) -> int:
    if not 0 <= count_in(value) <= WAIT_MS_MAX:
        raise ValueError(f"nobody waits for {value!r:.80} ms: 0 to {WAIT_MS_MAX:,}")
    return count_in(value)
