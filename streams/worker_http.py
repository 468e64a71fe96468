"""Asks a worker of this machine over its loopback HTTP, where no answer is an answer too."""

from __future__ import annotations

from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlsplit

import orjson


def authorization(token: str | None) -> dict[str, str]:
    """The header by which a worker knows who may ask; none without a token."""
    return {} if token is None else {"Authorization": f"Bearer {token}"}


def ask(address: str, path: str, timeout_s: float, token: str | None = None) -> Any | None:
    """The JSON at a path of "http://host:port", whatever its status; None where none comes in time."""
    connection = HTTPConnection(urlsplit(address).netloc, timeout=timeout_s)
    try:
        connection.request("GET", path, headers=authorization(token))
        return orjson.loads(connection.getresponse().read())
    except (OSError, HTTPException, orjson.JSONDecodeError):
        return None
    finally:
        connection.close()
