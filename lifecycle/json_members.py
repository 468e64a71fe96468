"""Members of JSON documents that others wrote: each is what it must be, or a ValueError says what it is instead."""

from __future__ import annotations

from typing import Any

from schemas.instants import INT64_MAX


def text_in(value: Any, characters_max: int) -> str:
    """A text of so many characters at most."""
    if not isinstance(value, str) or len(value) > characters_max:
        raise ValueError(f"{value!r:.80} is no text, or too long")
    return value


def count_in(value: Any) -> int:
    """A whole number of 64 bits, and no truth."""
    if type(value) is not int or not -INT64_MAX <= value <= INT64_MAX:
        raise ValueError(f"{value!r:.80} is no number of 64 bits")
    return value


def truth_in(value: Any) -> bool:
    """True or false, and no number."""
    if not isinstance(value, bool):
        raise ValueError(f"{value!r:.80} is neither true nor false")  # noqa: TRY004 - all that is wrong is one error
    return value
