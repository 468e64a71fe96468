"""`driftledger lifecycle`: how data lies, what jobs would do, jobs that are run, and those that were."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from lifecycle.steps import Job
from schemas.instants import format_ms
from streams.cli import lifecycle_run
from streams.cli.context import settings_of
from streams.cli.lifecycle_run import PartitionsOption, check_partitions, emit_steps
from streams.cli.listing import Listing
from streams.cli.output import JsonOption, Output, OutputOption, chosen, emit

if TYPE_CHECKING:
    from lifecycle.manifest import Segment

app = typer.Typer(
    cls=Listing, help="Data from hot to archives, by jobs: status, plan, run, history, rules.", no_args_is_help=True
)

LimitOption = Annotated[int, typer.Option("--last", min=1, help="So many runs, the newest last.")]

_STATUS = (
    "tier", "grain", "partition", "segments", "rows", "size_bytes", "age", "entropy", "first_sequence",
    "last_sequence",
)  # fmt: skip
_STATUS_FIELDS = (
    "tier", "grain", "partition", "segments", "rows", "size_bytes", "age_s_min", "age_s_max", "entropy_min",
    "entropy_max", "first_sequence", "last_sequence", "from", "to",
)  # fmt: skip
_FILES = (
    "path", "tier", "grain", "partition", "rows", "size_bytes", "first_sequence", "last_sequence", "from", "to",
    "merkle_root",
)  # fmt: skip
_HISTORY = (
    "id", "job", "state", "by", "started", "seconds", "progress", "rows", "rows_per_s", "bytes_in", "bytes_per_s",
    "added", "dropped", "error",
)  # fmt: skip
_HISTORY_FIELDS = (*_HISTORY, "ended", "bytes_out", "commits", "remedy", "asked")


@app.command()
def status(
    context: typer.Context,
    files: Annotated[bool, typer.Option("--files", help="A line for each file of the archive.")] = False,
    output: OutputOption = Output.TABLE,
    json: JsonOption = False,
) -> None:
    """How data lies: segments, rows, bytes, age and entropy by tier, kind of period and partition.

    live and recent are the hours in the hot stores on this machine, as of their last flush; historical and deep are
    the files of the archive, as its manifest has them. An hour that is in both is told in both. age is that of the
    ends of their periods. entropy is in bits: the age in half-lives, less what reads take off; above limit_bits an
    archived hour leaves the hot tier.

    Examples:

        driftledger lifecycle status

        driftledger lifecycle status --files --json
    """
    from lifecycle.jobs import Jobs
    from lifecycle.standing import tier_rows
    from schemas.clock import source as time_source
    from streams.broker import reach

    settings = settings_of(context)
    with Jobs(settings, reach(settings)) as jobs:
        tree, root = jobs.tree(), jobs.files.root
        rows = [] if files else tier_rows(tree, jobs.hot_hours(), jobs.rules(), time_source().now_us())
    form = chosen(output, json=json)
    if files:
        emit((_file_row(segment) for segment in tree.segments()), _FILES, form)
    else:
        emit(rows, _STATUS if form is Output.TABLE else _STATUS_FIELDS, form)
    if not tree.parts:
        typer.echo(f"nothing is archived yet in {root}; `driftledger lifecycle plan` says what would be", err=True)


@app.command()
def plan(
    context: typer.Context,
    job: Annotated[Job | None, typer.Argument(help="Only this job; all unless given.")] = None,
    partition: PartitionsOption = None,
    output: OutputOption = Output.TABLE,
    json: JsonOption = False,
) -> None:
    """What jobs would do now: each step with why, its rows and bytes, and the reads that become slower by it.

    Nothing is changed, and a job that runs is not disturbed. Of the hot tier it knows what is on this machine, and not
    what was read of it: `run demote --dry-run` asks the worker, and so does `run promote --dry-run`, without which
    nobody knows what is to come back. verify, reindex and restore are planned when they are named, and else not.

    Examples:

        driftledger lifecycle plan

        driftledger lifecycle plan compact --json
    """
    from lifecycle.jobs import Jobs
    from streams.broker import reach

    settings = settings_of(context)
    check_partitions(settings, partition)
    with Jobs(settings, reach(settings)) as jobs:
        steps = jobs.planned(job, partitions=partition)
    emit_steps(steps, chosen(output, json=json))


app.command("run")(lifecycle_run.run)


@app.command()
def history(
    context: typer.Context, last: LimitOption = 20, output: OutputOption = Output.TABLE, json: JsonOption = False
) -> None:
    """The runs of jobs: how they stand or ended, how long they took, and what they did at which rate.

    A run that was not heard of for 15 seconds and has no end is lost: it was killed, or its machine is gone.

    Examples:

        driftledger lifecycle history

        driftledger lifecycle history --last 1 --json
    """
    from lifecycle.job_log import JobLog
    from schemas.topics import topic_names
    from streams.broker import reach

    settings = settings_of(context)
    names = topic_names(settings.prefix, settings.ledger, settings.input_topic)
    with JobLog(reach(settings), names.jobs) as log:
        found = log.history(last)
    form = chosen(output, json=json)
    emit((job.row() for job in found), _HISTORY if form is Output.TABLE else _HISTORY_FIELDS, form, sparing={"error"})
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
