"""`driftledger worker`: one process that owns lanes of a ledger."""

from __future__ import annotations

import typer

from streams.cli.context import settings_of


def worker(
    context: typer.Context,
    http_port: int | None = typer.Option(
        None, help="The page, health, metrics, puts and questions; 0 takes a free port."
    ),
) -> None:
    """Sequence, judge, aggregate and keep events hot until Ctrl-C or SIGTERM.

    Any number of workers share the lanes of a ledger; each takes what the group gives it. Needs the topics
    (`driftledger topics create`).

    Examples:

        driftledger worker

        driftledger --ledger meters worker --http-port 0
    """
    from streams.app import check_topics
    from streams.broker import reach
    from streams.worker import run

    settings = settings_of(context, http_port=http_port)
    bootstrap = reach(settings)
    check_topics(settings, bootstrap)
    run(settings, bootstrap)
