"""The list of commands in the help of a group."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

#: Longer than any first sentence: none is cut off.
_UNCUT = 1_000


class Listing(TyperGroup):
    """A group whose help has the whole first sentence of each command, on as many lines as that takes."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """In place of typer's, which cuts at the end of the line."""
        commands = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        with formatter.section("Commands"):
            formatter.write_dl([(name, each.get_short_help_str(_UNCUT)) for name, each in commands.items() if each])
