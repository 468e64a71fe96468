"""One node of an embedded Kafka: a folder with its configuration, and the JVM that runs it.

    server.properties, pid, output.log, log/ (Kafka's own data)

GUARANTEE a node ends with the process that started it, also when that is killed (streams/launcher.py), unless it was
started detached; then its pid file leads to it. A pid is believed only if that process runs this folder's
configuration.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil

from schemas.clock import SystemTime
from schemas.instants import NS_PER_S

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

EXEC_MAX_S: Final = 2.0
EXEC_POLL_S: Final = 0.001
OUTPUT_TAIL_BYTES: Final = 2_000

_time = SystemTime()


class Node:
    """One node, running or not. number: from 1."""

    def __init__(self, number: int, folder: Path) -> None:
        self.number = number
        self._folder = folder
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """Where Kafka keeps its data."""
        return self._folder / "log"

    def pid(self) -> int | None:
        """The node's process: our own child, or the one of its pid file, if that runs this node's configuration."""
        child = self._child
        if child is not None:
            if child.poll() is None:
                return child.pid
            self._child = None
        try:
            pid = int((self._folder / "pid").read_text(encoding="ascii"))
            command = _command_of(pid)
        except (OSError, ValueError, psutil.Error):
            return None
        return pid if command and command[-1] == str(self._configuration) else None

    def awaits_pid(self) -> bool:
        """Whether a launcher that was started detached has still to write the pid file."""
        return not (self._folder / "pid").exists()

    def was_killed(self) -> bool:
        """It has run, and did not write what Kafka writes at the end of a run."""
        return (self.log / "__cluster_metadata-0").is_dir() and not (self.log / ".kafka_cleanshutdown").exists()

    def output(self) -> str:
        """All that it has said since it was spawned."""
        return (self._folder / "output.log").read_text(errors="replace")

    def output_tail(self) -> str:
        """The last of it, "none" where it said nothing."""
        output = (self._folder / "output.log").read_bytes()
        return output[-OUTPUT_TAIL_BYTES:].decode(errors="replace").strip() or "none"

    def configure(self, properties: Mapping[str, str]) -> None:
        """Write the configuration."""
        self._folder.mkdir(exist_ok=True)
        text = "".join(f"{key}={value}\n" for key, value in properties.items())
        self._configuration.write_text(text, encoding="utf-8")

    def is_prepared(self) -> bool:
        """Whether its data folder is prepared."""
        return (self.log / "meta.properties").exists()

    def prepare(self, program: Sequence[str], cluster_id: str) -> subprocess.Popen[bytes]:
        """Begin to prepare the data folder; the tool that does so tells in its output what went wrong."""
        return subprocess.Popen(
            [*program, "kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(self._configuration)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def spawn(self, program: Sequence[str], *, detached: bool) -> None:
        """Start it; whether it comes up is seen in its pid and its output."""
        owner = "detached" if detached else str(os.getpid())
        launcher = [
            sys.executable,
            "-I",
            "-S",
            str(Path(__file__).with_name("launcher.py")),
            owner,
            str(self._folder / "pid"),
        ]
        (self._folder / "pid").unlink(missing_ok=True)
        with (self._folder / "output.log").open("wb") as output:
            child = subprocess.Popen(
                [*launcher, *program, "kafka.Kafka", str(self._configuration)],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is for us; we stop Kafka in order
            )
        if detached:
            child.wait()
        else:
            self._child = child

    @property
    def _configuration(self) -> Path:
        return self._folder / "server.properties"


def _command_of(pid: int) -> list[str]:
    """The command line of a process. Raises psutil.Error.

    While the kernel puts another program into a process, as our launcher asks, it tells none (0.1 ms, more on a busy
    machine); so none is believed only after EXEC_MAX_S.
    """
    process = psutil.Process(pid)
    deadline_ns = _time.monotonic_ns() + int(EXEC_MAX_S * NS_PER_S)
    command: list[str] = []
    while not (command := process.cmdline()) and _time.monotonic_ns() < deadline_ns:
        _time.sleep_s(EXEC_POLL_S)
    return command
