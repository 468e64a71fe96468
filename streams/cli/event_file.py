"""What `publish` and `put` share: the file they read events from, and what they tell about it."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from schemas.errors import BadInputError
from streams.publish import Accepted, Format, Rejected, format_of, read

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.progress import Progress

FileArgument = Annotated[str, typer.Argument(help="JSON lines or CSV with a header row; - is standard input.")]
FormatOption = Annotated[
    Format | None, typer.Option("--format", help="By the file's suffix, jsonl for -, unless given.")
]
EventSourceOption = Annotated[str | None, typer.Option(help="Source of lines that name none.")]
EventKindOption = Annotated[str, typer.Option(help="Kind of lines that name none.")]

_STDIN = "-"


def format_in(file: str, form: Format | None) -> Format:
    """The format that was asked for, else that of the file's name. Raises BadInputError for a directory."""
    if file != _STDIN and Path(file).is_dir():
        raise BadInputError(f"{file} is a directory. Name a file, or - for stdin")
    return form or (Format.JSONL if file == _STDIN else format_of(file, Path(file).suffix))


@contextlib.contextmanager
def opened_file(file: str) -> Iterator[BinaryIO]:
    """The bytes of a file, or of stdin. Raises BadInputError."""
    if file == _STDIN:
        yield sys.stdin.buffer
        return
    try:
        stream = Path(file).open("rb")  # noqa: SIM115 - closed below; only the opening may be refused
    except OSError as error:
        raise BadInputError(f"{file}: cannot be read: {error.strerror}. Name a readable file, or - for stdin") from None
    with stream:
        yield stream


def lines_of(stream: BinaryIO, form: Format, source: str | None, kind: str) -> Iterator[Accepted | Rejected]:
    """Every line, with the source and kind of those that name none."""
    return read(stream, form, {"kind": kind} if source is None else {"kind": kind, "source": source})


def size_of(stream: BinaryIO) -> int | None:
    """Bytes of the file, None where the end is not known."""
    if not stream.seekable():
        return None
    begin = stream.tell()
    size = stream.seek(0, os.SEEK_END)
    stream.seek(begin)
    return size


def position_of(stream: BinaryIO) -> int:
    """Bytes that were read, 0 where they cannot be told."""
    return stream.tell() if stream.seekable() else 0


def tell_bad_line(progress: Progress, file: str, number: int, reason: str) -> None:
    """On stderr, above the bar."""
    progress.console.print(f"{file}:{number}: {reason}", markup=False, highlight=False, emoji=False, soft_wrap=True)


def counted(number: int, what: str) -> str:
    """1 event, 2 events."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
