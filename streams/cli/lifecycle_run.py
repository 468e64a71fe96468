"""`driftledger lifecycle run`: a job where its data is, here or by the worker that has it, as one command."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import typer

from lifecycle.steps import Job
from streams.cli.context import WRONG, settings_of
from streams.cli.output import JsonOption, Output, OutputOption, chosen, emit

if TYPE_CHECKING:
    from rich.progress import Progress

    from lifecycle.jobs import Jobs
    from lifecycle.steps import Step
    from streams.settings import Settings

STEPS: Final = ("job", "partition", "what", "rows", "size_bytes", "reads", "why")
_STEP_FIELDS: Final = (*STEPS, "tier", "grain", "period", "first_index", "last_index", "paths")


class Where(enum.StrEnum):
    """Who runs a job."""

    AUTO = "auto"
    HERE = "here"
    WORKER = "worker"


PartitionsOption = Annotated[
    list[int] | None, typer.Option("--partition", "-p", min=0, help="Only this partition; may be given several times.")
]


class _Places(NamedTuple):
    """Partitions of which a job is run here (None: all, as none was chosen), and those that workers are asked for."""

    here: frozenset[int] | None
    asked: frozenset[int]


def run(
    context: typer.Context,
    job: Annotated[Job, typer.Argument(help="The job.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would do, and change nothing.")] = False,
    partition: PartitionsOption = None,
    where: Annotated[
        Where,
        typer.Option(
            help="Who runs it. auto: archives here; what touches the hot tier here where that can be, else the worker "
            "that has it."
        ),
    ] = Where.AUTO,
    wait: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help="Seconds to wait for another job that runs to end, and for a worker to answer; 0 and 15 unless given. "
            "A worker waits two minutes at least.",
        ),
    ] = None,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="Also where another job runs: that one is ended by it.")
    ] = False,
    bytes_per_s: Annotated[
        int,
        typer.Option("--bytes-per-s", min=0, help="Bytes of files to read and write in a second, here; 0: no limit."),
    ] = 0,
    output: OutputOption = Output.TABLE,
    json: JsonOption = False,
) -> None:
    """Run a job to its end: seal, compact, demote, promote, prune, cut, verify, reindex or restore.

    The steps it did are listed.

    demote and promote move hours of the hot tier, which the worker that has it does: it is asked, from any machine, and
    followed to the end. seal is asked of it where the hot store is not on this machine.
    cut has the ledger begin behind entries that are archived, once the files were read again from disk and proved; it
    needs a worker that is live, and no worker runs it by itself.
    reindex makes indices of archives again, and enters archives into a manifest that does not know them any more.
    restore makes archives again that are lost or damaged, from the ledger.

    One job of a ledger runs at a time. One that was ended, in any way, is gone on with by running it again.

    Exit code 0: all that is due is done, or nothing is due; 1: damage was found, or the job failed; 2: it cannot be
    asked so; 3: no worker answers, another job runs, or Kafka or the disk cannot be used.

    Examples:

        driftledger lifecycle run seal --dry-run

        driftledger lifecycle run seal --wait 600

        driftledger lifecycle run promote --partition 3

        driftledger lifecycle run verify --json
    """
    from lifecycle.jobs import Jobs
    from lifecycle.pace import Pace
    from schemas.errors import DriftledgerError
    from streams.broker import reach
    from streams.cli.progress import entries_progress

    form = chosen(output, json=json)
    settings = settings_of(context)
    check_partitions(settings, partition)
    bootstrap = reach(settings)
    done = _Done()
    try:
        with Jobs(settings, bootstrap, pace=Pace(bytes_per_s)) as jobs, entries_progress() as progress:
            places = _places(jobs, settings, job, partition, where)
            _check_pace(bytes_per_s, job, places)
            told = _Told(progress, job)
            if places.here is None or places.here:
                _run_here(jobs, job, places, done, told, dry_run=dry_run, take_over=take_over, wait_s=wait or 0.0)
            if places.asked:
                _ask(settings, bootstrap, job, places, done, told, dry_run=dry_run, take_over=take_over, wait_s=wait)
    except DriftledgerError as error:
        if done.steps:
            emit_steps(done.steps, form)
        _leave(error)
    emit_steps(done.steps, form)
    for line in done.notes:
        typer.echo(line, err=True)


class _Done:
    """What is listed at the end."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.notes: list[str] = []


class _Told:
    """The line of a job on a terminal."""

    def __init__(self, progress: Progress, job: Job) -> None:
        self._progress, self._job = progress, job
        self._task = progress.add_task(job, total=None)

    def step(self, step: Step, done: int, of: int) -> None:
        """As `jobs.Tell`."""
        self.follow(done, of, step.what)

    def follow(self, done: int, of: int | None, text: str) -> None:
        """As `asking.Follow`."""
        self._progress.update(self._task, description=f"{self._job}: {text}", completed=done, total=of)


def check_partitions(settings: Settings, partitions: list[int] | None) -> None:
    """Raise BadInputError for one that the ledger does not have."""
    from schemas.errors import BadInputError

    unknown = [each for each in partitions or [] if each >= settings.partitions]
    if unknown:
        raise BadInputError(
            f"there is no partition {unknown[0]}: the ledger has 0 to {settings.partitions - 1}. Name one of them"
        )


def _places(jobs: Jobs, settings: Settings, job: Job, partitions: list[int] | None, where: Where) -> _Places:
    from lifecycle.asks import ASKED
    from schemas.errors import BadInputError

    wanted = frozenset(range(settings.partitions) if partitions is None else partitions)
    here_alone = _Places(None if partitions is None else wanted, frozenset())
    if where is Where.HERE:
        return here_alone
    if job not in ASKED:
        if where is Where.WORKER:
            raise BadInputError(
                f"{job} touches no hot tier, so no worker is asked for it. Run it where the archives are"
            )
        return here_alone
    if where is Where.WORKER or job is Job.PROMOTE:
        return _Places(frozenset(), wanted)
    if job is Job.DEMOTE:
        return _Places(here_alone.here if jobs.files.root.is_dir() else frozenset(), wanted)
    here, elsewhere = jobs.held_here(wanted)
    return _Places(here_alone.here if not elsewhere else frozenset(here), frozenset(elsewhere))


def _check_pace(bytes_per_s: int, job: Job, places: _Places) -> None:
    from schemas.errors import BadInputError

    if bytes_per_s and places.asked:
        raise BadInputError(
            f"{job} is asked of a worker, whose pace is its setting lifecycle_bytes_per_s. Leave out --bytes-per-s, or "
            "run what can be run on this machine with --where here"
        )


def _run_here(
    jobs: Jobs, job: Job, places: _Places, done: _Done, told: _Told, *, dry_run: bool, take_over: bool, wait_s: float
) -> None:
    if dry_run:
        planned = jobs.planned(job, partitions=places.here)
        # What the hot tier has of it says the worker that has it.
        done.steps += [step for step in planned if job is not Job.DEMOTE or step.paths or not places.asked]
        return
    outcome = jobs.run(job, told.step, take_over=take_over, partitions=places.here, wait_s=wait_s)
    done.steps += outcome.steps
    if outcome.tidied:
        done.notes.append(f"{outcome.tidied} files that an earlier run had left were removed")


def _ask(
    settings: Settings,
    bootstrap: str,
    job: Job,
    places: _Places,
    done: _Done,
    told: _Told,
    *,
    dry_run: bool,
    take_over: bool,
    wait_s: float | None,
) -> None:
    from lifecycle.asking import ANSWER_S, Workers

    every = len(places.asked) == settings.partitions
    answer = Workers(settings, bootstrap).ask(
        job,
        told.follow,
        partitions=None if every else places.asked,
        dry_run=dry_run,
        take_over=take_over,
        answer_s=ANSWER_S if wait_s is None else wait_s,
        wait_s=wait_s or 0.0,
    )
    listed = {path for step in done.steps for path in step.paths}  # the worker plans files, too
    done.steps += [step for step in answer.steps if not listed.intersection(step.paths)]
    if answer.left_out:
        done.notes.append(f"and {answer.left_out} steps more, which the records of the runs had no room for")


def _leave(error: Exception) -> None:
    """With the code that belongs to what went wrong; the others are told by `main`."""
    from lifecycle.asking import AskedJobError
    from lifecycle.packing import DamagedError

    if isinstance(error, AskedJobError | DamagedError):
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(error.code if isinstance(error, AskedJobError) else WRONG) from error
    raise error


def emit_steps(steps: list[Step] | tuple[Step, ...], output: Output) -> None:
    """A row for each; nothing to do is said."""
    emit((_row(step) for step in steps), STEPS if output is Output.TABLE else _STEP_FIELDS, output)
    if not steps:
        typer.echo("there is nothing to do", err=True)


def _row(step: Step) -> dict[str, Any]:
    return step._asdict() | {"what": step.what, "reads": round(step.reads, 1)}
