"""Rows as CSV (RFC 4180), for people and their spreadsheets.

HAZARD a spreadsheet takes a text that begins with = + - or @ for a formula and runs it, some also one that begins with
the full-width forms of these, and names of sources are what producers chose. Such a text gets an apostrophe in front,
as OWASP's "CSV Injection" advises, and quotes; numbers stay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

#: What a formula begins with, and what some programs strip before they look.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_QUOTED: Final = frozenset(',"\r\n')


def csv_line(values: Iterable[Any]) -> str:
    """One row with its end; None is an empty cell."""
    return ",".join(map(_cell, values)) + "\r\n"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    text = str(value)
    if text.startswith(_FORMULA):
        text = f"'{text}"
    elif not _QUOTED.intersection(text):
        return text
    return '"' + text.replace('"', '""') + '"'
