"""What every command shares: exit codes, which file and which ledger were asked for, the settings they lead to.

Settings are loaded by the command, not before it, so that a bad file cannot keep `--help` from answering.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    import typer

    from streams.settings import Settings


#: Exit codes of every command.
FINE, WRONG, USAGE, UNREACHABLE = 0, 1, 2, 3


@dataclass(frozen=True, slots=True)
class Asked:
    """The options given before the command's name."""

    config: Path | None = None
    ledger: str | None = None


def settings_of(context: typer.Context, **overrides: Any) -> Settings:
    """Load the settings for this call; overrides are the command's own options, None meaning not given.

    Raises BadInputError.
    """
    from streams.settings_file import load

    asked = context.find_object(Asked) or Asked()
    return load(asked.config, asked.ledger, **overrides)
