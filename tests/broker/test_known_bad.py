"""The checks can fail: runners that are wrong in known ways are caught by them, where the real one passes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from confluent_kafka import Producer

from schemas.errors import HaltCode
from schemas.memory import bytes_at
from streams.derive import Derive
from streams.fold import Messages
from streams.kafka_cluster import Cluster
from streams.progress import read_lane
from streams.transactions import Point
from streams.window_run import WindowRun, first_numbers
from tests.broker.harness import POLL_BROKER_S, Blow, Ledger, Load, check_exactly_once, refold, wait_for
from tests.broker.ledgers import sequence
from tests.broker.window_ledgers import OPTIONS, Past

if TYPE_CHECKING:
    from pathlib import Path

    from schemas.columns import Entries
    from streams.derive import DeriveState
    from streams.derived import Derived
    from streams.judge import Outputs

#: Longer than the real lane waits for a commit (6 s).
REAL_GIVES_UP_MS = 9_000
#: Longer than the twin waits for one (3 s); and so short that what the broker then does first is to carry it out: after
#: the transaction's time (6 s) it would abort that, after its own session's (9 s) it would refuse all that it is asked.
TWIN_GIVES_UP_MS = 4_500


def _over_a_stopped_broker(tmp_path: Path, lane: str, stopped_ms: int) -> None:
    """The broker stands still from when a commit's request is sent, until the lane has given that commit up."""
    with Cluster(tmp_path / f"kafka-{lane}") as broker:
        ledger = Ledger(broker.bootstrap, lane, tmp_path, _options()).create()
        load = Load(ledger)
        load.send(5_000)
        load.flush()
        [pid] = broker.pids
        blow = Blow(Point.COMMITTING, 5, "SIGSTOP", target=pid, resume_ms=stopped_ms)
        with ledger.worker(blow, lane, deliver_first=True) as worker:
            wait_for(lambda: ledger.is_level() or "partition_halted" in worker.output, "an end", poll_s=POLL_BROKER_S)
            worker.stop()
        assert check_exactly_once(ledger) == 5_000


def _options() -> dict[str, Any]:
    return {"partitions": 1, "batch_events_max": 100, "transaction_timeout_ms": 6_000, "heartbeat_interval_ms": 0}


def test_aborting_a_commit_that_failed_and_going_on_is_caught(tmp_path: Path) -> None:
    """The broker stands still between a commit's request and its answer; afterwards it carries the commit out.

    The twin writes that batch a second time, and the check says so. The real lane gives the producer up, reads the
    tail, and passes. A broker that wakes late, on a busy machine, may yet abort the commit: then the twin goes again.
    """
    with ThreadPoolExecutor(2) as threads:
        twin = threads.submit(_is_caught, tmp_path / "1")
        real = threads.submit(_over_a_stopped_broker, tmp_path, "real", REAL_GIVES_UP_MS)
        real.result()
        assert twin.result() or _is_caught(tmp_path / "2") or _is_caught(tmp_path / "3")


def _is_caught(folder: Path) -> bool:
    """Whether the twin's double is seen; any other failure is raised."""
    folder.mkdir()
    try:
        _over_a_stopped_broker(folder, "abort_and_go_on", TWIN_GIVES_UP_MS)
    except AssertionError as error:
        if "INDEX at index" not in str(error):
            raise
        return True
    return False


def _foreign(ledger: Ledger) -> Producer:
    """A writer with a transactional.id of its own."""
    producer = Producer({"bootstrap.servers": ledger.bootstrap, "transactional.id": f"{ledger.prefix}-foreign"})
    producer.init_transactions(30)
    producer.begin_transaction()
    return producer


def test_a_second_writer_on_a_ledger_partition_is_caught(kafka: Any, prefix: str, tmp_path: Path) -> None:
    """With its transaction open, when a lane opens: it hides the tail. With it committed: by the check of the chain."""
    ledger = Ledger(kafka.bootstrap, prefix, tmp_path, _options()).create()
    load = Load(ledger)
    load.send(500)
    load.flush()
    with ledger.worker() as worker:
        ledger.wait_level(worker)
        worker.stop()
    assert check_exactly_once(ledger) == 500

    again = ledger.records(ledger.names.sequenced, 0)[-1]
    writer = _foreign(ledger)
    writer.produce(ledger.names.sequenced, again.value(), again.key(), 0)
    assert writer.flush(30) == 0
    with ledger.worker() as worker, ledger.log() as log:
        wait_for(lambda: read_lane(log, ledger.names.progress, 0).halts, f"it halts:\n{worker.output[-2000:]}")
        halt = read_lane(log, ledger.names.progress, 0).halts[0]
        assert halt.code is HaltCode.SECOND_WRITER
        assert "find-hanging" in halt.remedy
        worker.stop()
    writer.commit_transaction(30)
    with pytest.raises(AssertionError, match="INDEX at index"):
        check_exactly_once(ledger)


class ByDefinition(Derive):
    """Known bad: writes the records of a step definition by definition, so that batches show."""

    def step(self, state: DeriveState, entries: Entries, judged: Outputs) -> Derived:
        """In another order."""
        derived = Derive.step(self, state, entries, judged)
        at_index, key, key_length, value, value_length, kept = derived.aggregates
        names = [bytes_at(*place).partition(b"/")[0] for place in zip(key.tolist(), key_length.tolist(), strict=True)]
        order = np.array(sorted(range(len(names)), key=names.__getitem__), np.int64)
        columns = Messages(at_index[order], key[order], key_length[order], value[order], value_length[order], kept)
        return derived._replace(aggregates=columns)


class Forgetful(Derive):
    """Known bad: a new owner has the definitions and the clock, and no window that was open."""

    def load(self, partition: int, data: bytes) -> DeriveState:
        """All anew."""
        state = Derive.load(self, partition, data)
        hopping = [(name, run) for name, run in state.running.items() if isinstance(run, WindowRun)]
        for name, run in hopping:
            state.running[name] = WindowRun(partition, run.definition, run.version, first_numbers(state.clock))
        return state


@pytest.mark.parametrize(("derive", "caught"), [(Derive(), False), (ByDefinition(), True), (Forgetful(), True)])
def test_a_derive_in_whose_results_batches_or_owners_show_is_caught(
    kafka: Any, prefix: str, tmp_path: Path, derive: Derive, *, caught: bool
) -> None:
    """By what an observer folds."""
    ledger = Ledger(kafka.bootstrap, prefix, tmp_path, OPTIONS).create()
    past = Past(ledger)
    for _ in range(2):
        past.send(200)
        sequence(ledger.settings, derive=derive)
    assert check_exactly_once(ledger) == 800
    assert (ledger.outputs() != refold(ledger)) == caught
