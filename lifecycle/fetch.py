"""A question on its way to a worker: one GET, and what an answer that is none says. Imports little, for commands."""

from __future__ import annotations

import contextlib
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import orjson

from schemas.errors import UnreachableError
from streams.worker_http import authorization

if TYPE_CHECKING:
    from collections.abc import Iterator

#: How long an answer may be on its way: longer than a worker waits for Kafka, or asks.
TIMEOUT_S: Final = 60.0
#: How long a partition that is not level, or a worker that is busy, is waited for.
WAIT_S: Final = 10.0
ARROW: Final = "application/vnd.apache.arrow.stream"


def fetch(
    address: str, path: str, timeout_s: float = TIMEOUT_S, *, token: str | None = None
) -> tuple[int, float | None, bytes]:
    """Status, how long to wait, and body, as Arrow where it can be. Raises UnreachableError."""
    with answered(address, path, timeout_s, token=token) as answer:
        return answer.status, retry_after(answer), answer.read()


@contextlib.contextmanager
def answered(
    address: str, path: str, timeout_s: float = TIMEOUT_S, *, token: str | None = None
) -> Iterator[HTTPResponse]:
    """An answer, read as it comes and given up by leaving. Raises UnreachableError, also where it breaks off."""
    connection = HTTPConnection(urlsplit(address).netloc, timeout=timeout_s)
    try:
        connection.request("GET", path, headers={"Accept": ARROW, **authorization(token)})
        yield connection.getresponse()
    except (OSError, HTTPException) as error:
        raise UnreachableError(f"the worker at {address} does not answer ({error!r}). Ask again") from error
    finally:
        connection.close()


def retry_after(answer: HTTPResponse) -> float | None:
    """The seconds that an answer asks to wait; None where it does not, or names a date, as no worker does."""
    text = answer.getheader("Retry-After", "")
    return float(text) if text.isascii() and text.isdigit() else None


def error_in(status: int, body: bytes) -> str:
    """Why a worker does not answer. Raises UnreachableError where it does not say."""
    try:
        return str(orjson.loads(body)["error"])
    except (orjson.JSONDecodeError, LookupError, TypeError):
        raise UnreachableError(f"a worker answered {status} and not why. See its log") from None
