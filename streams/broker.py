"""Where a Kafka is to be had: reach() finds one that runs, locate() starts one if none does."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final, Literal

from schemas.errors import UnreachableError
from streams.kafka_cluster import Cluster, answers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streams.settings import Settings

REACH_TIMEOUT_S: Final = 10


def reach(settings: Settings) -> str:
    """Address of a Kafka that runs and answers: the one of the settings, else the embedded one of the data folder.

    Raises UnreachableError.
    """
    if settings.bootstrap:
        if not answers(settings.bootstrap, 1, REACH_TIMEOUT_S):
            raise UnreachableError(
                f"no Kafka answers at {settings.bootstrap} within {REACH_TIMEOUT_S} s. Start it, or mend the setting "
                "bootstrap (DRIFTLEDGER_BOOTSTRAP or driftledger.toml)"
            )
        return settings.bootstrap
    cluster = Cluster.of_folder(settings.data_dir)
    if cluster is None or not cluster.pids:
        raise UnreachableError(
            f"no Kafka runs in {settings.data_dir}. Run `driftledger broker start`, or set DRIFTLEDGER_BOOTSTRAP"
        )
    if not answers(cluster.bootstrap, 1, REACH_TIMEOUT_S):
        raise UnreachableError(
            f"the Kafka of {settings.data_dir} at {cluster.bootstrap} does not answer. Run `driftledger broker start`, "
            "which ends and replaces one that is stuck"
        )
    return cluster.bootstrap


@contextlib.contextmanager
def locate(settings: Settings, nodes: Literal[1, 3] = 1) -> Iterator[str]:
    """A Kafka for the duration of a `with`: the settings' one, the one that runs, a new embedded one, else a container.

    Ends, on leaving, only what it started. Raises UnreachableError when none of the four is to be had.
    """
    if settings.bootstrap:
        yield reach(settings)
        return
    cluster = Cluster(settings.data_dir, nodes, java=settings.java)
    try:
        bootstrap = cluster.start()
    except UnreachableError as error:
        with _container(error) as bootstrap:
            yield bootstrap
        return
    try:
        yield bootstrap
    finally:
        if not cluster.adopted:
            cluster.stop()


@contextlib.contextmanager
def _container(reason: UnreachableError) -> Iterator[str]:
    """Kafka in a container, where the embedded one cannot run and Docker can; otherwise the reason is raised."""
    try:
        from streams.container import started  # noqa: PLC0415 - an optional dependency
    except ImportError:
        raise reason from None
    with started(reason) as bootstrap:
        yield bootstrap
