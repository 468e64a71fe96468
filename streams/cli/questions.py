"""What the commands that ask for stored events share: options, and the parameters of a question made of them."""

from __future__ import annotations

import enum
import sys
from typing import Annotated, Any

import typer

from schemas.errors import BadInputError


class Form(enum.StrEnum):
    """The form of an answer."""

    TABLE = "table"
    JSONL = "jsonl"
    CSV = "csv"
    ARROW = "arrow"


class Clock(enum.StrEnum):
    """Whose time is meant."""

    LOCAL = "local"
    AUTHORITY = "authority"
    CORRECTED = "corrected"


class Unknown(enum.StrEnum):
    """What becomes, in frame corrected, of events of sources whose clocks are not known yet."""

    AUTHORITY = "authority"
    EXCLUDE = "exclude"


FormOption = Annotated[
    Form, typer.Option("--output", "-o", help="A table to read; JSON lines, CSV or an Arrow stream to process.")
]
FrameOption = Annotated[
    Clock,
    typer.Option(
        help="Whose time: the source's own clock, the broker's, or the source's put right: less its estimated offset."
    ),
]
UnknownOption = Annotated[
    Unknown | None,
    typer.Option(
        help="With --frame corrected, events of sources whose offset is not known yet: dated by the broker, unless "
        "given, or left out."
    ),
]
FromOption = Annotated[
    str | None, typer.Option("--from", help="At this instant or later: RFC 3339, or integer microseconds since 1970.")
]
ToOption = Annotated[
    str | None, typer.Option("--to", help="Before this instant: RFC 3339, or integer microseconds since 1970.")
]
LastOption = Annotated[str | None, typer.Option(help="The time up to now, as 90s, 15m, 1h or 2d; in place of a range.")]
SourcesOption = Annotated[list[str] | None, typer.Option("--source", help="Only this source; may be repeated.")]
KindsOption = Annotated[list[str] | None, typer.Option("--kind", help="Only this kind; may be repeated.")]
PartitionsOption = Annotated[
    list[int] | None, typer.Option("--partition", "-p", help="Only this partition; may be repeated.")
]
SequencesOption = Annotated[
    list[str] | None,
    typer.Option("--sequences", help="Only these of a partition, both ends included: PARTITION:FIRST-LAST."),
]
ColumnsOption = Annotated[
    str | None,
    typer.Option(
        help="Which, by commas, as the answer calls them: sequence,source,local_timestamp,value. local_us, "
        "authority_ms and corrected_us are taken, too."
    ),
]


def given(**options: Any) -> list[tuple[str, str]]:
    """The options that were given, as parameters; those of a list one by one."""
    pairs = []
    for name, value in options.items():
        values = value if isinstance(value, list) else [] if value is None else [value]
        pairs += [(name, str(one)) for one in values]
    return pairs


def check_form(form: Form) -> None:
    """Refuse bytes for a terminal, before anything is asked. Raises BadInputError."""
    if form is Form.ARROW and sys.stdout.isatty():
        raise BadInputError("an Arrow stream is bytes, and this is a terminal. Send it to a file or a program")
