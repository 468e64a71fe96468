"""Where a worker can be asked: a file in the data directory for each, while it lives.

    {data_dir}/workers/{worker id}.json
    {"worker": ..., "address": "http://127.0.0.1:8411", "pid": ..., "host": ..., "prefix": ..., "ledger": ...,
     "started_at": "2026-01-31T12:00:00.000000Z"}

Problem: a port that is taken is replaced by a free one, so nobody can know where a worker listens; and a worker that
was killed leaves its file behind. So whoever reads a file asks the address whether it is that worker, and removes what
can never be right again: the file of a process that is gone, or of an address where another answers or nobody listens.

GUARANTEE a file is whole or not there: it is written beside its place and renamed.
HAZARD a directory shared by machines or containers holds addresses of each one's own loopback: those of another host
are neither asked nor removed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
from dataclasses import asdict, dataclass
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import psutil

from schemas.clock import source as time_source
from schemas.errors import BadInputError
from schemas.instants import format_us
from streams.worker_http import authorization

if TYPE_CHECKING:
    from pathlib import Path

    from streams.settings import Settings

#: A worker that is busy answers later than one that is not; loopback itself takes no time.
ASK_TIMEOUT_S: Final = 2.0
#: What no host and port has: a user, and what the client library refuses.
_NO_HOST: Final = re.compile(r"[@\x00-\x20\x7f]")


@dataclass(frozen=True, slots=True)
class WorkerAddress:
    """A worker, and where it listens: address is "http://host:port"."""

    worker: str
    address: str
    pid: int
    host: str
    prefix: str
    ledger: str
    started_at: str


def announce(settings: Settings, worker: str, address: str) -> Path:
    """Write the file of this process, which listens from now on; returns its path, for `withdraw`."""
    folder = _folder(settings)
    folder.mkdir(parents=True, exist_ok=True)
    started_at = format_us(time_source().now_us())
    facts = WorkerAddress(
        worker, address, os.getpid(), socket.gethostname(), settings.prefix, settings.ledger, started_at
    )
    file = folder / f"{worker}.json"
    beside = file.with_suffix(".new")
    beside.write_text(json.dumps(asdict(facts)) + "\n", encoding="utf-8")
    beside.replace(file)
    return file


def withdraw(file: Path) -> None:
    """Remove the file, before the worker stops to listen."""
    file.unlink(missing_ok=True)


def find_workers(settings: Settings) -> list[WorkerAddress]:
    """Workers of the ledger on this machine that answer now, the longest running first.

    Files that can never be right again are removed, where this user may.
    """
    found = []
    for file in sorted(_folder(settings).glob("*.json")):
        worker = _read(file)
        if worker is None:
            continue
        if worker.host != socket.gethostname() or (worker.prefix, worker.ledger) != (settings.prefix, settings.ledger):
            continue
        if not psutil.pid_exists(worker.pid):
            _remove(file)
            continue
        answers = _answers(worker, settings.token)
        if answers:
            found.append(worker)
        elif answers is False:
            _remove(file)
    return sorted(found, key=lambda worker: (worker.started_at, worker.worker))


def parse_address(text: str) -> str:
    """The "http://host:port" that somebody wrote, who may have left out the scheme. Raises BadInputError."""
    try:
        found = urlsplit(text if "//" in text else f"//{text}", "http")
        host, port = found.hostname, found.port
        (host or "").encode("idna")  # as it is looked up
    except ValueError:
        host, port = None, None
    if not host or not port or found.scheme != "http" or _NO_HOST.search(found.netloc):
        raise BadInputError(f"{text!r:.80} is no address of a worker. Write for example http://127.0.0.1:8411")
    return f"http://{found.netloc}"


def _remove(file: Path) -> None:
    """Unless it is another user's, who will do it."""
    with contextlib.suppress(PermissionError):
        withdraw(file)


def _folder(settings: Settings) -> Path:
    return settings.data_dir / "workers"


def _read(file: Path) -> WorkerAddress | None:
    """None for a file that is no worker's, or is gone by now."""
    try:
        return WorkerAddress(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _answers(worker: WorkerAddress, token: str | None) -> bool | None:
    """Whether it is that worker who answers; None where that is not known: nobody did in time, or it wants a token."""
    connection = HTTPConnection(urlsplit(worker.address).netloc, timeout=ASK_TIMEOUT_S)
    try:
        connection.request("GET", "/health", headers=authorization(token))
        answer = connection.getresponse()
        facts = answer.read()
    except ConnectionRefusedError:
        return False
    except (OSError, HTTPException):
        return None
    finally:
        connection.close()
    if answer.status == HTTPStatus.UNAUTHORIZED:
        return None
    try:
        return bool(json.loads(facts)["worker"] == worker.worker)
    except (ValueError, TypeError, LookupError):
        return False
