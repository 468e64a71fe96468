"""Which other stores there are, which of them are installed, and how the others would be."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from benchmarks.store.embedded import ChDb, DuckDb
from benchmarks.store.report import StoreFigures
from benchmarks.store.servers import Influx, Postgres, Victoria, program
from benchmarks.store.subjects import measure

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.store.rows import Rows
    from benchmarks.store.subjects import Questions

_PIP: Final = "make bench-store installs it"


class Other(NamedTuple):
    """A store of somebody else. how: to install what is missing."""

    kind: Any
    modules: tuple[str, ...]
    programs: tuple[str, ...]
    how: str


#: By the name that --store takes.
OTHERS: Final = {
    "duckdb": Other(DuckDb, ("duckdb",), (), _PIP),
    "chdb": Other(ChDb, ("chdb",), (), _PIP),
    "postgresql": Other(
        Postgres,
        ("adbc_driver_postgresql", "adbc_driver_manager"),
        ("initdb", "postgres", "setpriv"),
        f"apt-get install postgresql-15; {_PIP}, its driver",
    ),
    "victoriametrics": Other(Victoria, (), ("victoria-metrics", "setpriv"), "apt-get install victoria-metrics"),
    "influxdb": Other(Influx, (), ("influxd", "setpriv"), "apt-get install influxdb"),
}


def use(packages: Path | None) -> None:
    """Look for packages in a folder too, behind our own: of what both have, ours is taken."""
    if packages is not None and str(packages) not in sys.path:
        sys.path.append(str(packages))


def missing(name: str) -> str:
    """What of a store is not installed, and how to; empty where it is all there."""
    other = OTHERS[name]
    lacking = [module for module in other.modules if find_spec(module) is None]
    lacking += [each for each in other.programs if program(each) is None]
    return f"{', '.join(lacking)} not found; {other.how}" if lacking else ""


def measure_other(
    name: str, packages: Path | None, folder: Path, rows: Rows, wanted: Questions, threads: int
) -> StoreFigures:
    """Load all rows, ask, and let go."""
    use(packages)
    store = OTHERS[name].kind(folder, rows, threads)
    try:
        timings = measure(store, rows, wanted)
    finally:
        store.close()
    return StoreFigures(
        store.name, store.version, rows.count, threads, timings, store.load_s, store.size_bytes / rows.count
    )
