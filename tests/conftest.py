"""What tests share: one real broker, a fresh topic prefix each, the reference cases, and a way to wait.

A broker that cannot be started fails the tests that need it: a green run means that they ran.
"""

from __future__ import annotations

import atexit
import itertools
import os
import posix
import shutil
import signal
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import hypothesis
import pytest
import structlog

from schemas.clock import SystemTime
from streams.kafka_cluster import Cluster
from streams.settings import Settings
from tests.browser.chromium import find_chromium
from tests.core.s3_server import ENVIRONMENT, Server, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Predicate = Callable[[], object]
    WaitUntil = Callable[[Predicate, float, str], None]

POLL_S = 0.02

# How fast this machine is today is no property of the code.
hypothesis.settings.register_profile(
    "driftledger", deadline=None, print_blob=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("driftledger")

# Where this run was started in the background of a shell, Ctrl-C is ignored, and every command it starts inherits that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Where these are set, pytest explains a failed comparison whole. Known-bad twins fail with megabytes: it takes minutes.
for name in ("CI", "BUILD_NUMBER"):
    os.environ.pop(name, None)

_prefixes = itertools.count(1)
_session = pytest.StashKey[pytest.Session]()


@dataclass(frozen=True, slots=True)
class Kafka:
    """The broker of this run."""

    bootstrap: str


def _cases_folder() -> Path | None:
    """None where they are not."""
    folder = Settings().cases
    return folder if folder is not None and folder.is_dir() else None


def pytest_configure(config: pytest.Config) -> None:
    """Absence of the cases, or of a browser, is a failure where they are required."""
    del config
    if os.environ.get("DRIFTLEDGER_REQUIRE_BROWSER") == "1" and find_chromium() is None:
        pytest.exit("DRIFTLEDGER_REQUIRE_BROWSER=1 but there is no Chromium. On Debian: apt install chromium", 2)
    if os.environ.get("DRIFTLEDGER_REQUIRE_CASES") == "1" and _cases_folder() is None:
        pytest.exit("DRIFTLEDGER_REQUIRE_CASES=1 but there are no cases. Point DRIFTLEDGER_CASES at the folder", 2)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Remember what knows the exit code."""
    session.config.stash[_session] = session


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """End the process as a worker does (streams/worker.py).

    Python would wait for ever for a thread that a failed test left behind, and a client's thread may outlive Python.
    """
    session = config.stash.get(_session, None)
    if session is not None and sys.exc_info()[0] is None:
        config._cleanup_stack.close()  # what it finds fails the run
        atexit._run_exitfuncs()  # pytest's own among them: its folders are unlocked
        sys.stdout.flush()
        sys.stderr.flush()
        posix._exit(session.exitstatus)  # that of os is coverage's own, which saves: it has saved already


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests marked `cases` or `browser` are left out, with one line, where there are none."""
    if _cases_folder() is None:
        _leave_out(config, items, "cases", "no reference cases. Point DRIFTLEDGER_CASES at them")
    if find_chromium() is None:
        _leave_out(config, items, "browser", "no Chromium. On Debian: apt install chromium")


def _leave_out(config: pytest.Config, items: list[pytest.Item], marker: str, why: str) -> None:
    without = [item for item in items if item.get_closest_marker(marker)]
    if without:
        items[:] = [item for item in items if item not in without]
        config.hook.pytest_deselected(items=without)
        reporter = config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            reporter.write_line(f"{len(without)} tests deselected: {why}")


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that speaks S3, and its keys in the environment."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        with serving(tmp_path_factory.mktemp("s3")) as server:
            yield server


@pytest.fixture(scope="session")
def cases() -> Path:
    """The folder of public reference cases; a test that uses it is marked `cases`."""
    folder = _cases_folder()
    assert folder is not None, "no reference cases: point DRIFTLEDGER_CASES at them"
    return folder


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """A real broker for the whole run: DRIFTLEDGER_BOOTSTRAP's, else an embedded one of its own."""
    bootstrap = os.environ.get("DRIFTLEDGER_BOOTSTRAP")
    if bootstrap:
        yield Kafka(bootstrap)
        return
    folder = tmp_path_factory.mktemp("kafka")
    with Cluster(folder) as cluster:
        yield Kafka(cluster.bootstrap)
    shutil.rmtree(folder)  # pytest would keep three runs of it, gigabytes


@pytest.fixture(autouse=True)
def _own_log() -> Iterator[None]:
    """A command run in this process logs to the stderr it was given, which is closed when its test has ended."""
    yield
    structlog.reset_defaults()


@pytest.fixture
def prefix() -> str:
    """A topic prefix that nobody has used: tests share a broker and see nothing of one another."""
    return f"t{os.getpid()}-{SystemTime().now_us():x}-{next(_prefixes)}"


@pytest.fixture(scope="session")
def wait_until() -> WaitUntil:
    """Poll until a predicate is true, or fail saying what did not happen: (predicate, timeout_s, what)."""
    time = SystemTime()

    def wait(predicate: Predicate, timeout_s: float, what: str) -> None:
        deadline_ns = time.monotonic_ns() + int(timeout_s * 1e9)
        while not predicate():
            if time.monotonic_ns() > deadline_ns:
                pytest.fail(f"not within {timeout_s} s: {what}")
            time.sleep_s(POLL_S)

    return wait
