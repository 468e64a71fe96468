"""`python -m benchmarks.store`: our stores beside others. Tables on stdout, everything else on stderr."""

from __future__ import annotations

import os
import sys
from pathlib import Path  # noqa: TC003 - typer reads annotations when the program runs
from typing import Annotated, Final

import typer

from benchmarks.command import BarsOption, status_of, tell
from schemas.errors import BadInputError
from streams.cli.context import WRONG

_ROWS: Final = 2_000_000
_ROUNDS: Final = 31
_ROWS_MIN: Final = 20_000

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command(context_settings={"help_option_names": ["-h", "--help"]})
def store(
    *,
    rows: Annotated[int, typer.Option(min=_ROWS_MIN, help="Rows that each store is given.")] = _ROWS,
    rounds: Annotated[int, typer.Option(min=5, help="How often each kind of question is asked.")] = _ROUNDS,
    only: Annotated[
        list[str] | None, typer.Option("--store", help="Only this store; may be given several times. All unless given.")
    ] = None,
    threads: Annotated[
        int, typer.Option(min=0, help="Threads that a store may use; 0 for as many as there are cores.")
    ] = 0,
    packages: Annotated[
        Path | None, typer.Option(help="A folder with the packages of other stores: where make bench-store puts them.")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Where the stores are meanwhile; the system's temporary folder.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Append JSON lines to this file.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Draw the figures into this PNG.")] = None,
    drawn_from: Annotated[
        Path | None,
        typer.Option(
            "--from",
            exists=True,
            dir_okay=False,
            help="Measure nothing: draw the last run in such a file of JSON lines.",
        ),
    ] = None,
    bars_too: BarsOption = False,
) -> None:
    """Measure our hot tier and our archives beside other stores: the same rows, questions and answers.

    Stores: driftledger (both tiers, their sizes, and the jobs), duckdb, chdb, postgresql, victoriametrics, influxdb.
    Those that are not installed are named, with how to install them. Servers are started on loopback, with data in a
    folder that is removed.

    Examples:

        python -m benchmarks.store --packages .bench-store

        python -m benchmarks.store --store driftledger --store duckdb --rows 100000000 --output figures.jsonl

        python -m benchmarks.store --from figures.jsonl --picture docs/pictures/store.png
    """  # noqa: D412, D413 - laid out for the terminal
    # Heavy modules, which --help does without.
    from benchmarks.store.bars import bars  # noqa: PLC0415
    from benchmarks.store.others import OTHERS  # noqa: PLC0415
    from benchmarks.store.report import stores_in  # noqa: PLC0415
    from benchmarks.store.run import OURS, Options, run  # noqa: PLC0415

    names = (OURS, *OTHERS)
    chosen = tuple(only or names)
    if unknown := [name for name in chosen if name not in names]:
        raise BadInputError(f"--store {unknown[0]} is none of {', '.join(names)}")
    if drawn_from is not None and picture is None:
        raise BadInputError("--from draws, so say what: give --picture, too")
    for option, path in (("output", output), ("picture", picture)):
        _check_writable(option, path)
    if drawn_from is None:
        count = threads or os.cpu_count() or 1
        report = run(Options(rows, rounds, chosen, count, packages, data_dir, output))
        stores, failed = report.stores, bool(report.failed)
    else:
        stores, failed = stores_in(drawn_from.read_bytes()), False
    if picture is not None and stores:
        from benchmarks.store.picture import draw  # noqa: PLC0415

        draw(stores, picture)
    if bars_too and drawn_from is None:
        failed = not tell(bars(report)) or failed
    if failed:
        raise typer.Exit(WRONG)


def _check_writable(option: str, path: Path | None) -> None:
    """Found out before anything is measured."""
    try:
        if path is not None:
            path.open("ab").close()
    except OSError as error:
        raise BadInputError(f"--{option} {path}: {error.strerror}. Name a file that can be written") from error


def main(arguments: list[str]) -> int:
    """See `status_of`."""
    return status_of(app, arguments, "python -m benchmarks.store")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
