"""`driftledger topics`: the topics of a ledger, made, compared with what they must be, and looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from streams.cli.context import WRONG, settings_of
from streams.cli.listing import Listing
from streams.cli.output import Output, OutputOption, emit

if TYPE_CHECKING:
    from schemas.topics import Difference

app = typer.Typer(cls=Listing, help="The topics of a ledger: create, check, inspect.", no_args_is_help=True)


@app.command()
def create(
    context: typer.Context,
    partitions: Annotated[int | None, typer.Option(help="Of the input and the ledger; fixed from then on.")] = None,
    lanes: Annotated[int | None, typer.Option(help="Units of ownership; fixed from then on.")] = None,
    replication_factor: Annotated[int | None, typer.Option(help="Copies of each topic's data.")] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Create the topics that are missing; what exists is compared and left as it is.

    Nothing is created beside a topic that no lane would accept: then the differences are listed, exit code 1.

    Examples:

        driftledger topics create

        driftledger --ledger meters topics create --partitions 12 --lanes 4

        driftledger topics create --replication-factor 3
    """
    from streams.broker import reach
    from streams.topics_admin import TopicsAdmin, specs_of

    settings = settings_of(context, partitions=partitions, lanes=lanes, replication_factor=replication_factor)
    wanted = specs_of(settings)
    admin = TopicsAdmin(reach(settings))
    creation = admin.create(wanted)
    if any(difference.refused for difference in creation.differences):
        _emit_differences(creation.differences, output)
        typer.echo("topics that exist are not as they must be; mend them, then run this again", err=True)
        raise typer.Exit(WRONG)
    rows = [
        {
            "topic": spec.name,
            "partitions": found.partitions if found else spec.partitions,
            "replication_factor": found.replication_factor if found else spec.replication_factor,
            "key": spec.topic.key,
            "record": spec.topic.record,
            "state": "exists" if found else "created",
        }
        for spec in wanted
        for found in (creation.found.get(spec.name),)
    ]
    emit(rows, ("topic", "partitions", "replication_factor", "key", "record", "state"), output)
    standing = settings_of(context)
    for name in ("partitions", "lanes", "replication_factor"):
        if name == "replication_factor" and not creation.created:
            continue  # nothing has it
        if getattr(settings, name) != getattr(standing, name):
            typer.echo(
                f"note: set {name} = {getattr(settings, name)} (driftledger.toml or DRIFTLEDGER_{name.upper()}): other "
                f"commands read the setting, which is {getattr(standing, name)}",
                err=True,
            )
    for difference in creation.differences:
        typer.echo(f"note: {difference}", err=True)
    copies = creation.found.get(settings.input_topic)
    if copies and copies.replication_factor < settings.replication_factor:  # the user's own, so no difference
        typer.echo(
            f"note: {copies.name} exists with replication factor {copies.replication_factor}, not "
            f"{settings.replication_factor}. It is left as it is; kafka-reassign-partitions.sh adds replicas",
            err=True,
        )


@app.command()
def check(context: typer.Context, output: OutputOption = Output.TABLE) -> None:
    """Compare every topic with what it must be: exit code 0 and no rows, or 1 and each difference with its remedy.

    Example:

        driftledger topics check --output jsonl
    """
    from streams.broker import reach
    from streams.topics_admin import TopicsAdmin, specs_of

    settings = settings_of(context)
    wanted = specs_of(settings)
    differences = TopicsAdmin(reach(settings)).check(wanted)
    if not differences:
        typer.echo(f"all {len(wanted)} topics are as they must be", err=True)
        return
    _emit_differences(differences, output)
    raise typer.Exit(WRONG)


@app.command()
def inspect(context: typer.Context, output: OutputOption = Output.TABLE) -> None:
    """Show every partition of the topics that exist: topic id, leader, replicas, first and end offsets.

    stable_end_offset is the end of what is committed; where it stays below end_offset a transaction is open. Exit code
    1 when a topic is missing.

    Example:

        driftledger topics inspect
    """
    from streams.broker import reach
    from streams.topics_admin import PartitionFacts, TopicsAdmin, specs_of

    settings = settings_of(context)
    names = [spec.name for spec in specs_of(settings)]
    facts = TopicsAdmin(reach(settings)).partitions(names)
    emit((fact._asdict() for fact in facts), PartitionFacts._fields, output)
    missing = [name for name in names if name not in {fact.topic for fact in facts}]
    if missing:
        typer.echo(f"missing: {', '.join(missing)}. Run `{settings.command} topics create`", err=True)
        raise typer.Exit(WRONG)


def _emit_differences(differences: list[Difference], output: Output) -> None:
    columns = ("topic", "setting", "wanted", "found", "refused", "remedy")
    emit(({column: getattr(difference, column) for column in columns} for difference in differences), columns, output)
