"""`driftledger lifecycle`: how data lies, what jobs would do, jobs that are run, and those that were."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from lifecycle.steps import Job
from schemas.instants import format_ms
from streams.cli.context import WRONG, settings_of
from streams.cli.listing import Listing
from streams.cli.output import Output, OutputOption, emit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lifecycle.manifest import Segment, Tree
    from lifecycle.steps import Step

app = typer.Typer(
    cls=Listing, help="Data from hot to archives, by jobs: status, plan, run, history, rules.", no_args_is_help=True
)

JobArgument = Annotated[Job, typer.Argument(help="The job.")]
LimitOption = Annotated[int, typer.Option("--last", min=1, help="So many runs, the newest last.")]

_STATUS = ("tier", "grain", "partition", "files", "rows", "size_bytes", "first_sequence", "last_sequence", "from", "to")
_FILES = (
    "path", "tier", "grain", "partition", "rows", "size_bytes", "first_sequence", "last_sequence", "from", "to",
    "merkle_root",
)  # fmt: skip
_STEPS = ("job", "partition", "what", "rows", "size_bytes", "reads", "why")
_STEP_FIELDS = (*_STEPS, "tier", "grain", "period", "first_index", "last_index", "paths")
_HISTORY = ("id", "job", "state", "by", "started", "ended", "progress", "rows", "bytes_in", "added", "dropped", "error")
_HISTORY_FIELDS = (*_HISTORY, "bytes_out", "commits", "remedy")


@app.command()
def status(
    context: typer.Context,
    files: Annotated[bool, typer.Option("--files", help="A line for each file.")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """The archive as its manifest has it: files, rows and bytes by tier, kind of period and partition.

    What is hot is told by `driftledger status`.

    Examples:

        driftledger lifecycle status

        driftledger lifecycle status --files --output jsonl
    """
    from lifecycle.jobs import Jobs
    from streams.broker import reach

    settings = settings_of(context)
    with Jobs(settings, reach(settings)) as jobs:
        tree, root = jobs.tree(), jobs.files.root
    if files:
        emit((_file_row(segment) for segment in _segments(tree)), _FILES, output)
    else:
        emit(_tier_rows(tree), _STATUS, output)
    if not tree.parts:
        typer.echo(f"nothing is archived yet in {root}; `driftledger lifecycle plan` says what would be", err=True)


@app.command()
def plan(
    context: typer.Context,
    job: Annotated[Job | None, typer.Argument(help="Only this job; all unless given.")] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """What jobs would do now: each step with why, its rows and bytes, and the reads that become slower by it.

    Nothing is changed, and a job that runs is not disturbed.

    Examples:

        driftledger lifecycle plan

        driftledger lifecycle plan compact --output jsonl
    """
    from lifecycle.jobs import Jobs
    from streams.broker import reach

    settings = settings_of(context)
    with Jobs(settings, reach(settings)) as jobs:
        steps = jobs.planned(job)
    _emit_steps(steps, output)


@app.command()
def run(
    context: typer.Context,
    job: JobArgument,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would do, and change nothing.")] = False,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="Also where another job runs: that one is ended by it.")
    ] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Run a job to its end: seal, compact, demote, prune, cut, verify, reindex or restore; the steps it did are listed.

    cut has the ledger begin behind entries that are archived, once the files were read again from disk and proved; it
    needs a worker that is live, and no worker runs it by itself.
    reindex makes indices of archives again, and enters archives into a manifest that does not know them any more.
    restore makes archives again that are lost or damaged, from the ledger.

    One job of a ledger runs at a time. One that was ended, in any way, is gone on with by running it again.

    Examples:

        driftledger lifecycle run seal --dry-run

        driftledger lifecycle run seal

        driftledger lifecycle run verify --output jsonl
    """
    from lifecycle.jobs import Jobs
    from lifecycle.packing import DamagedError
    from streams.broker import reach
    from streams.cli.progress import entries_progress

    settings = settings_of(context)
    with Jobs(settings, reach(settings)) as jobs:
        if dry_run:
            _emit_steps(jobs.planned(job), output)
            return
        with entries_progress() as progress:
            task = progress.add_task(job, total=None)

            def tell(step: Step, done: int, of: int) -> None:
                progress.update(task, description=f"{job}: {step.what}", completed=done, total=of)

            try:
                outcome = jobs.run(job, tell, take_over=take_over)
            except DamagedError as error:
                typer.echo(f"error: {error}", err=True)
                raise typer.Exit(WRONG) from error
    _emit_steps(outcome.steps, output)
    if outcome.tidied:
        typer.echo(f"{outcome.tidied} files that an earlier run had left were removed", err=True)


@app.command()
def history(context: typer.Context, last: LimitOption = 20, output: OutputOption = Output.TABLE) -> None:
    """The runs of jobs: how they stand or ended, and what they did.

    A run that was not heard of for 15 seconds and has no end is lost: it was killed, or its machine is gone.

    Examples:

        driftledger lifecycle history

        driftledger lifecycle history --last 1 --output jsonl
    """
    from lifecycle.job_log import JobLog
    from schemas.topics import topic_names
    from streams.broker import reach

    settings = settings_of(context)
    names = topic_names(settings.prefix, settings.ledger, settings.input_topic)
    with JobLog(reach(settings), names.jobs) as log:
        found = log.history(last)
    columns = _HISTORY if output is Output.TABLE else _HISTORY_FIELDS
    emit((job.row() for job in found), columns, output, sparing={"error"})
    if not found:
        typer.echo("no job has run", err=True)


@app.command()
def rules(context: typer.Context) -> None:
    """The rules that hold, as the files that would say so; what is not set has its default.

    docs/lifecycle_rules.md has each member.

    Example:

        driftledger lifecycle rules
    """
    from lifecycle.file_tree import root_of
    from lifecycle.rules import rendered
    from lifecycle.rules_reader import read_rules
    from schemas.topics import topic_names

    settings = settings_of(context)
    names = topic_names(settings.prefix, settings.ledger, settings.input_topic)
    root = root_of(settings.data_dir, names.manifest)
    for name, content in rendered(read_rules(root)).items():
        typer.echo(f"{root / name}")
        typer.echo(content)


def _emit_steps(steps: tuple[Step, ...], output: Output) -> None:
    emit((_step_row(step) for step in steps), _STEPS if output is Output.TABLE else _STEP_FIELDS, output)
    if not steps:
        typer.echo("there is nothing to do", err=True)


def _step_row(step: Step) -> dict[str, Any]:
    return step._asdict() | {"what": step.what, "reads": round(step.reads, 1)}


def _segments(tree: Tree) -> Iterator[Segment]:
    for partition in sorted(tree.parts):
        yield from tree.parts[partition]


def _file_row(segment: Segment) -> dict[str, Any]:
    facts = segment.facts
    return segment._asdict() | {
        "partition": facts.partition,
        "rows": facts.rows,
        "first_sequence": facts.first_sequence,
        "last_sequence": facts.last_sequence,
        "from": format_ms(facts.authority_ms_min),
        "to": format_ms(facts.authority_ms_max),
        "merkle_root": facts.merkle_root,
    }


def _tier_rows(tree: Tree) -> list[dict[str, Any]]:
    rows: dict[tuple[str, str, int], dict[str, Any]] = {}
    for segment in _segments(tree):
        one = _file_row(segment)
        key = segment.tier, segment.grain, one["partition"]
        row = rows.setdefault(key, one | {"files": 0, "rows": 0, "size_bytes": 0})
        row["files"] += 1
        row["rows"] += one["rows"]
        row["size_bytes"] += one["size_bytes"]
        row["last_sequence"], row["to"] = one["last_sequence"], max(row["to"], one["to"])
    return list(rows.values())
