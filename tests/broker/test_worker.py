"""The process of a worker: how it ends, and Faust's own command for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

from streams.kafka_cluster import Cluster
from tests.broker.harness import ROOT, STOP_WITHIN_S, Ledger, Load, time, wait_for
from tests.broker.ledgers import Message, event, produce


def _faust(ledger: Ledger, output: Path) -> subprocess.Popen[bytes]:
    """`faust -A streams.app worker`."""
    program = Path(sys.executable).parent / "faust"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DRIFTLEDGER_")} | ledger.environment()
    with output.open("wb") as file:
        return subprocess.Popen(
            [program, "-A", "streams.app", "worker", "-l", "warn"],
            cwd=ROOT,
            env=environment | {"PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )


def test_a_worker_whose_broker_is_away_ends_in_time_and_says_what_it_waited_for(tmp_path: Path) -> None:
    """SIGTERM while the broker stands still and a commit waits for its answer."""
    with Cluster(tmp_path / "kafka") as cluster:
        ledger = Ledger(cluster.bootstrap, "away", tmp_path).create()
        load = Load(ledger)
        with ledger.worker() as worker:
            worker.wait_live(ledger.settings.lanes)
            load.send(1_000)
            load.flush()
            cluster.pause()
            try:
                begun_ns = time.monotonic_ns()
                worker.signal(signal.SIGTERM)
                worker.process.wait(STOP_WITHIN_S)
                assert (time.monotonic_ns() - begun_ns) / 1e9 < STOP_WITHIN_S
                assert worker.process.returncode == 0 or "stop_forced" in worker.output, worker.output[-3000:]
            finally:
                cluster.resume()
        with ledger.worker() as worker:
            ledger.wait_level(worker)
            worker.stop()


def test_a_lane_that_the_settings_do_not_know_ends_the_worker(kafka: Any, prefix: str, tmp_path: Path) -> None:
    """Rather than leave a member of the group that serves nothing."""
    Ledger(kafka.bootstrap, prefix, tmp_path, {"partitions": 4, "lanes": 4}).create()
    with Ledger(kafka.bootstrap, prefix, tmp_path, {"partitions": 4, "lanes": 2}).worker() as worker:
        wait_for(lambda: worker.process.poll() is not None, f"it ends:\n{worker.output[-3000:]}")
        assert worker.process.returncode == 1
        assert f"{prefix}.events.progress has 4 partitions, one for each lane, but lanes=2" in worker.output


def test_fausts_command_runs_the_same_worker(kafka: Any, prefix: str, tmp_path: Path) -> None:
    """It refuses a ledger without topics in one line; with them it takes the lanes, and ends in time."""
    ledger = Ledger(kafka.bootstrap, prefix, tmp_path)
    refused = _faust(ledger, tmp_path / "refused.log")
    assert refused.wait(60) == 1
    said = (tmp_path / "refused.log").read_text()
    assert "driftledger: the topics do not fit the ledger" in said
    assert "Traceback" not in said
    ledger.create()
    load = Load(ledger)
    load.send(1_000)
    load.flush()
    process = _faust(ledger, tmp_path / "worker.log")
    try:
        output = (tmp_path / "worker.log").read_text
        wait_for(lambda: process.poll() is not None or ledger.is_level(), f"level:\n{output()}")
        listening = {
            c.laddr.ip for c in psutil.Process(process.pid).net_connections() if c.status == psutil.CONN_LISTEN
        }
        assert listening == {"127.0.0.1"}  # Faust's own site has no place here
        begun_ns = time.monotonic_ns()
        process.terminate()
        assert process.wait(60) == 0, output()
        assert (time.monotonic_ns() - begun_ns) / 1e9 < STOP_WITHIN_S
        assert "Traceback" not in output(), output()
        assert output().count("worker_stopped") == 1
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def test_a_source_that_is_loud_hides_none_in_the_log(kafka: Any, prefix: str, tmp_path: Path) -> None:
    """A thousand events of a day ahead, then one of a slow source: a line of each."""
    ledger = Ledger(kafka.bootstrap, prefix, tmp_path).create()
    with ledger.worker() as worker:
        worker.wait_live(ledger.settings.lanes)
        now_us = time.now_us()
        loud: list[Message] = [(None, event("day-ahead", f"e{n}", now_us + 86_400_000_000), []) for n in range(1_000)]
        slow: list[Message] = [(None, event("slow", "once", now_us - 7_000_000), [])]
        produce(ledger.settings, ledger.settings.input_topic, [*loud, *slow])

        def lines() -> list[str]:
            said = [line for line in worker.output.splitlines() if "clock_drift_detected" in line]
            return [source for line in said for source in ("day-ahead", "slow") if source in line]

        wait_for(lambda: "slow" in lines(), "it is said")
        assert sorted(lines()) == ["day-ahead", "slow"]
        worker.stop()
