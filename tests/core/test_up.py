"""The parts of `driftledger up` that need no Kafka."""

from __future__ import annotations

import gzip
import json
import shlex
import subprocess
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import pytest
import typer

from schemas.codec import Framing, encode
from schemas.errors import BadInputError, DriftledgerError
from schemas.event_json import event_from_document
from streams import up
from streams.cli import main as command
from streams.cli.up import OWN_CLOCK, SUGGESTIONS, shell_lines
from streams.definitions import JudgeSettings
from streams.fold import Target
from streams.judge import Judge
from streams.up import Worker, lock, read_series
from streams.worker_http import ask
from tests.core.judge_oracle import Ledger, Row, definition

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    WaitUntil = Callable[[Callable[[], object], float, str], None]


def test_a_second_one_is_refused_as_long_as_the_first_runs(tmp_path: Path) -> None:
    """And says who the first is; afterwards the folder is free."""
    refused = pytest.raises(DriftledgerError, match=r"runs already in .*/data \(process \d+\)")
    with lock(tmp_path / "data"), refused, lock(tmp_path / "data"):
        pass
    with lock(tmp_path / "data"):
        pass


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """With what to do."""
    (tmp_path / "file").write_text("not a folder", encoding="ascii")
    with pytest.raises(BadInputError, match=r"file cannot be written.*DRIFTLEDGER_DATA_DIR"), lock(tmp_path / "file"):
        pass


def test_a_worker_that_ends_by_itself_leaves_its_exit_code_and_its_last_words(
    tmp_path: Path, wait_until: WaitUntil
) -> None:
    """It never listened, so there is no address and no health."""
    worker = Worker(tmp_path, "127.0.0.1:1", ["--no-such-option"])
    wait_until(lambda: worker.exit_code() is not None, 30, "it ends")
    assert worker.exit_code() == 2
    assert "No such option" in worker.log_tail()
    assert worker.health() is None
    assert worker.ask_hot() is None
    worker.stop()


def test_a_worker_that_does_not_stop_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wait_until: WaitUntil
) -> None:
    """And its exit code says how, as a shell's does."""
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); signal.pause()"
    monkeypatch.setattr(up, "_COMMAND", ("-c", deaf))
    monkeypatch.setattr(up, "WORKER_STOP_TIMEOUT_S", 0.1)
    worker = Worker(tmp_path, "127.0.0.1:1", [])
    wait_until(lambda: "deaf" in worker.log_tail(), 10, "it runs")
    assert worker.exit_code() is None
    worker.stop()
    assert worker.exit_code() == 137


@pytest.mark.parametrize("event", ["kernels_compiling", "http_listening_soon"])
def test_a_worker_compiles_where_its_log_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wait_until: WaitUntil, event: str
) -> None:
    """One that only takes long to begin does not."""
    logs = (
        f"import structlog; from streams.cli import main; main._log_to_stderr(); structlog.get_logger().info('{event}')"
    )
    monkeypatch.setattr(up, "_COMMAND", ("-c", logs))
    worker = Worker(tmp_path, "127.0.0.1:1", [])
    assert not worker.compiles()
    wait_until(lambda: worker.exit_code() is not None, 30, "it ends")
    assert event in worker.log_tail()
    assert worker.compiles() == (event == "kernels_compiling")


def test_the_log_of_a_worker_has_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wait_until: WaitUntil
) -> None:
    """The worker goes on writing at the new beginning; one old piece is kept."""
    monkeypatch.setattr(up, "_COMMAND", ("-c", "import sys; print(sys.stdin.read(), 'x' * 99, flush=True)"))
    monkeypatch.setattr(up, "LOG_BYTES_MAX", 50)
    worker = Worker(tmp_path, "127.0.0.1:1", [])
    wait_until(lambda: worker.exit_code() is not None, 10, "it ends")
    worker.limit_log()
    assert worker.log.stat().st_size == 0
    assert (tmp_path / "worker.log.1").stat().st_size > 50
    worker.limit_log()
    assert (tmp_path / "worker.log.1").stat().st_size > 50
    assert worker.log_tail() == "empty"


def test_the_log_of_the_worker_before_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wait_until: WaitUntil
) -> None:
    """The traceback of one that died outlives the next start, and the new log begins empty."""
    monkeypatch.setattr(up, "_COMMAND", ("-c", "import sys; print(sys.argv[1])"))
    first = Worker(tmp_path, "127.0.0.1:1", ["first"])
    wait_until(lambda: first.exit_code() is not None, 10, "it ends")
    second = Worker(tmp_path, "127.0.0.1:1", ["second"])
    wait_until(lambda: second.exit_code() is not None, 10, "it ends")
    assert second.log_tail() == "second"
    assert (tmp_path / "worker.log.1").read_text() == "first\n"


def test_without_nab_series_are_generated_and_that_is_said(tmp_path: Path) -> None:
    """A clone has no reference cases."""
    series, origin = read_series(tmp_path)
    assert "generated" in origin
    assert read_series(None) == (series, f"{len(series)} generated series")
    assert len(series["cpu_percent"]) > 1_000


def test_nab_is_used_where_it_is(tmp_path: Path) -> None:
    """Each file a series, by its name."""
    folder = tmp_path / "nab" / "data" / "kind"
    folder.mkdir(parents=True)
    (folder / "one.csv.gz").write_bytes(gzip.compress(b"timestamp,value\n2014-01-01 00:00:00,1.5\n"))
    series, origin = read_series(tmp_path)
    assert series["one"].tolist() == [1.5]
    assert origin.startswith("1 series of the Numenta Anomaly Benchmark")


@pytest.mark.parametrize(
    "content", [b"not gzip", gzip.compress(b"other,columns\n1,2\n"), gzip.compress(b"x" * 99)[:40]]
)
def test_a_damaged_file_of_nab_is_named(tmp_path: Path, content: bytes) -> None:
    """Not skipped: the user would look at something else than was said."""
    folder = tmp_path / "nab" / "data" / "kind"
    folder.mkdir(parents=True)
    (folder / "one.csv.gz").write_bytes(content)
    with pytest.raises(BadInputError, match=r"one\.csv\.gz: not a series of NAB"):
        read_series(tmp_path)


def test_an_answer_is_json_and_anything_else_is_none() -> None:
    """Whatever its status: a worker that is not well says so with 503."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/well" else 503)
            self.end_headers()
            self.wfile.write(b"not JSON" if self.path == "/odd" else b'{"healthy": false}\n')

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Answers) as server, ThreadPoolExecutor(1) as thread:
        address = f"http://127.0.0.1:{server.server_address[1]}"
        thread.submit(server.serve_forever, 0.01)
        assert ask(address, "/well", 5) == ask(address, "/ill", 5) == {"healthy": False}
        assert ask(address, "/odd", 5) is None
        server.shutdown()
    assert ask(address, "/well", 5) is None


def test_every_suggested_command_exists() -> None:
    """With its options."""
    for words, _ in SUGGESTIONS:
        group: Any = typer.main.get_command(command.app)
        rest = shlex.split(words)
        while hasattr(group, "commands"):
            group = group.commands[rest.pop(0)]
        assert {word for word in rest if word.startswith("-")} <= {o for p in group.params for o in p.opts}


def test_the_suggested_clock_has_an_alert_by_its_own_events() -> None:
    """They come at once and nothing follows: no later event has to say that it is time."""
    lines = subprocess.run(["/bin/sh", "-c", OWN_CLOCK], capture_output=True, check=True).stdout.splitlines()
    told = [{"event_id": f"own-{n}", "kind": "event"} | json.loads(line) for n, line in enumerate(lines)]
    rows = [Row(encode("Event", event_from_document(event), Framing.SINGLE_OBJECT)) for event in told]
    judge, ledger = Judge(), Ledger([definition(JudgeSettings()), *rows])
    (entries,) = ledger.batches(iter([len(rows) + 1]))
    ((_, record),) = judge.step(judge.new_state(0), entries).messages(Target.DRIFT_ALERTS)
    alert = json.loads(record)
    assert (alert["state"], alert["source"]) == ("OPENED", "mine")


def test_a_secret_is_not_among_the_suggested_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is only named."""
    monkeypatch.setenv("DRIFTLEDGER_HTTP_TOKEN", "correct-horse-battery")
    lines = shell_lines([], None)
    assert not [line for line in lines if "correct-horse-battery" in line]
    assert [line for line in lines if "DRIFTLEDGER_HTTP_TOKEN" in line] == ["  # and DRIFTLEDGER_HTTP_TOKEN, as here"]


def test_suggested_lines_work_in_a_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of this one is set in that one, quoted; the options before the command are repeated."""
    folder = tmp_path / "a folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("DRIFTLEDGER_PREFIX", "it's")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    lines = shell_lines(["--ledger", "meters"], "127.0.0.1:1234")
    assert any("driftledger --ledger meters drift alerts" in line for line in lines)
    assert any(line.strip().startswith("alias driftledger=") for line in lines)
    setting = [line for line in lines if line.strip().startswith(("cd", "export"))]
    script = "\n".join([*setting, 'printf "%s|%s|%s" "$PWD" "$DRIFTLEDGER_PREFIX" "$DRIFTLEDGER_BOOTSTRAP"'])
    out = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=True, cwd="/").stdout
    assert out == f"{folder}|it's|127.0.0.1:1234"
