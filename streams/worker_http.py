"""Asks a worker of this machine over its loopback HTTP, where no answer is an answer too."""

from __future__ import annotations

from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlsplit

import orjson


def ask(address: str, path: str, timeout_s: float) -> Any | None:
    """The JSON at a path of "http://host:port", whatever its status; None where none comes in time."""
    connection = HTTPConnection(urlsplit(address).netloc, timeout=timeout_s)
    try:
        connection.request("GET", path)
        return orjson.loads(connection.getresponse().read())
    except (OSError, HTTPException, orjson.JSONDecodeError):
        return None
    finally:
        connection.close()
