"""Reads the rules of an archive's root (`rules`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lifecycle.rules import MEMBERS, Configuration, parse
from schemas.errors import BadInputError

if TYPE_CHECKING:
    from pathlib import Path

#: A file of rules has some hundred bytes: what is longer is something else.
_BYTES_MAX: Final = 64 * 1024


def read_rules(root: Path) -> Configuration:
    """The configuration below the root of an archive. Raises BadInputError also for a file that cannot be read."""
    contents: dict[str, bytes] = {}
    for name in MEMBERS:
        try:
            with (root / name).open("rb") as file:
                contents[name] = file.read(_BYTES_MAX + 1)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise BadInputError(f"{root / name} cannot be read: {error.strerror}. Mend it, or remove it") from error
        if len(contents[name]) > _BYTES_MAX:
            raise BadInputError(f"{root / name} has more than {_BYTES_MAX} bytes: it is no file of rules. Mend it")
    return parse(contents)
