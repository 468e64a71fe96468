"""`driftledger broker`: the embedded Kafka of the data folder, started so that it outlives the command."""

from __future__ import annotations

from typing import Annotated

import typer

from streams.cli.context import WRONG, settings_of
from streams.cli.listing import Listing
from streams.cli.output import Output, OutputOption, emit

app = typer.Typer(
    cls=Listing, help="The embedded Apache Kafka: real, on loopback, kept in the data folder.", no_args_is_help=True
)


@app.command()
def start(
    context: typer.Context,
    nodes: Annotated[int | None, typer.Option(help="1 or 3; what the folder holds, or 1, unless given.")] = None,
) -> None:
    """Start it, or find it running; print its bootstrap address, alone, on stdout.

    It runs until `driftledger broker stop`.

    Examples:

        driftledger broker start

        export DRIFTLEDGER_BOOTSTRAP=$(driftledger broker start --nodes 3)
    """
    from schemas.errors import BadInputError
    from streams.kafka_cluster import Cluster

    settings = settings_of(context)
    if nodes not in (None, 1, 3):
        raise BadInputError(f"--nodes {nodes}: a cluster has 1 node or 3. Give one of the two")
    existing = Cluster.of_folder(settings.data_dir)
    size = nodes or (existing.nodes if existing else 1)
    cluster = Cluster(settings.data_dir, 3 if size == 3 else 1, java=settings.java, detached=True)  # noqa: PLR2004
    typer.echo(cluster.start())


@app.command()
def stop(context: typer.Context) -> None:
    """Stop it; its data stays. Fine if it does not run.

    Example:

        driftledger broker stop
    """
    from streams.kafka_cluster import Cluster

    cluster = Cluster.of_folder(settings_of(context).data_dir)
    if cluster is None or not cluster.pids:
        typer.echo("no broker is running", err=True)
        return
    cluster.stop()
    typer.echo("stopped", err=True)


@app.command()
def status(context: typer.Context, output: OutputOption = Output.TABLE) -> None:
    """List its nodes; exit code 0 if all of them answer, 1 if not.

    Examples:

        driftledger broker status

        driftledger broker status --output jsonl
    """
    from streams.kafka_cluster import ADOPT_TIMEOUT_S, Cluster

    cluster = Cluster.of_folder(settings_of(context).data_dir)
    states = cluster.states() if cluster else []
    rows = [
        {"node": s.node, "address": s.address, "pid": s.pid, "state": "running" if s.pid else "stopped"} for s in states
    ]
    emit(rows, ("node", "address", "pid", "state"), output)
    if cluster is None or not all(state.pid for state in states):
        typer.echo("the broker is not running: `driftledger broker start`", err=True)
        raise typer.Exit(WRONG)
    if not cluster.answers(ADOPT_TIMEOUT_S):
        typer.echo("the broker runs but does not answer: `driftledger broker start` replaces it", err=True)
        raise typer.Exit(WRONG)


@app.command()
def fetch() -> None:
    """Download and verify what the broker needs, so that later starts need no network.

    Example:

        driftledger broker fetch
    """
    from streams import java

    jars = java.fetch()
    typer.echo(f"Apache Kafka {java.KAFKA_VERSION}: {len(jars)} jars verified", err=True)


@app.command()
def lock() -> None:
    """For maintainers: resolve the broker's jars anew and rewrite streams/kafka.lock with what the repository serves.

    Example:

        driftledger broker lock && git diff streams/kafka.lock
    """
    from streams import java

    jars = java.resolve()
    java.write_lock(jars)
    typer.echo(f"{java.LOCK}: {len(jars)} jars", err=True)
