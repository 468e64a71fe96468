"""A table of Iceberg in a folder of its own: catalog, data and metadata, for every engine that reads Iceberg.

    FOLDER/catalog.db                    the catalog, SQLite: `driftledger.events`
    FOLDER/events/data/part-*.parquet    rows
    FOLDER/events/metadata/              the table's own

GUARANTEE the table is there, with all its rows, from one commit of the catalog on, and before that it is not, or has
the rows that it had. What a killed run leaves is removed by the next.
HAZARD metadata have the folder's place in them: a folder that is moved is registered anew.
Needs the extra `iceberg`. Instants are in microseconds, flags an int; sources' instants have no statistics: by them no
file is left out.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import uuid
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from lifecycle.arrow import AUTHORITY, LOCAL
from lifecycle.exporting import Grouped
from lifecycle.whole_file import WriteError
from schemas.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAMESPACE: Final = "driftledger"
TABLE: Final = "driftledger.events"
#: Rows of a file: half a gigabyte or so.
_FILE_ROWS: Final = 8_388_608
_SIMPLER: Final = {AUTHORITY: LOCAL, pa.uint8(): pa.int32()}
#: Instants of sources, in any year: pyiceberg has none beyond 9999 in the statistics of a file.
_WILD: Final = ("local_timestamp", "corrected_timestamp")


@contextlib.contextmanager
def iceberg_table(folder: Path, schema: pa.Schema, *, force: bool) -> Iterator[TableWriter]:
    """What is written to it is the table when this ends without an error, else nothing is.

    Raises BadInputError where pyiceberg is not installed, where there is such a table already, without `force`, or with
    other columns, and where another writes it now; WriteError where the system refuses.
    """
    catalogs = _pyiceberg()
    simple = pa.schema([(field.name, _SIMPLER.get(field.type, field.type)) for field in schema])
    try:
        folder = folder.absolute()
        data = folder / "events" / "data"
        data.mkdir(parents=True, exist_ok=True)
        with _alone(folder), contextlib.closing(_Catalog(catalogs, folder)) as catalog:
            catalog.check(simple, force=force)
            writer = TableWriter(data, simple)
            try:
                yield writer
                writer.close()
            except BaseException:
                writer.abandon()
                raise
            catalog.commit(simple, writer.paths)  # an error may come behind it: the next run knows what is named
    except OSError as error:
        raise WriteError(f"{folder} cannot be written: {error.strerror or error}. The table is not there") from error


def _pyiceberg() -> Any:
    try:
        from pyiceberg.catalog import sql  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise BadInputError(
            f"a table of Iceberg needs pyiceberg, which is not installed here ({error}). Run "
            "`pip install 'driftledger[iceberg]'`, or choose another --format"
        ) from None
    return sql


class TableWriter:
    """The data files of a table. Attributes: paths."""

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        self._folder, self._schema = folder, schema
        self.paths: list[Path] = []
        self._writer: Grouped | None = None
        self._rows = 0

    def write(self, table: pa.Table) -> None:
        """The next rows."""
        if self._writer is None:
            self.paths.append(self._folder / f"part-{uuid.uuid4()}.parquet")
            names = [name for name in self._schema.names if name not in _WILD]
            self._writer = Grouped(
                pq.ParquetWriter(self.paths[-1], self._schema, compression="zstd", write_statistics=names)
            )
        self._writer.write(table.cast(self._schema))
        self._rows += table.num_rows
        if self._rows >= _FILE_ROWS:
            self._end_file()

    def close(self) -> None:
        """No more follow; all are on disk."""
        self._end_file()
        for path in (*self.paths, self._folder):
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

    def abandon(self) -> None:
        """Remove what was written."""
        with contextlib.suppress(OSError, pa.ArrowException):
            self._end_file()
        for path in self.paths:
            path.unlink(missing_ok=True)

    def _end_file(self) -> None:
        if self._writer is not None:
            writer, self._writer, self._rows = self._writer, None, 0
            writer.close()


class _Catalog:
    """That of a folder."""

    def __init__(self, catalogs: Any, folder: Path) -> None:
        self._folder = folder
        self._catalog = catalogs.SqlCatalog(
            NAMESPACE, uri=f"sqlite:///{folder / 'catalog.db'}", warehouse=folder.as_uri()
        )
        self._catalog.create_namespace_if_not_exists(NAMESPACE)
        self._there = self._catalog.table_exists(TABLE)

    def check(self, schema: pa.Schema, *, force: bool) -> None:
        """Raise BadInputError where the table is in the way; else remove what a killed run has left."""
        if self._there and not force:
            raise BadInputError(f"{self._folder} has a table already. Name another folder, or give --force")
        named: set[str] = set()
        if self._there:
            table = self._catalog.load_table(TABLE)
            names = [field.name for field in table.schema().fields]
            if names != schema.names:
                raise BadInputError(
                    f"the table in {self._folder} has other columns: {', '.join(names)}. Name another folder"
                )
            named = _named(table)
        for path in (self._folder / "events" / "data").glob("part-*.parquet"):
            if path.name not in named:
                path.unlink()

    def commit(self, schema: pa.Schema, paths: list[Path]) -> None:
        """The table is these files from here on."""
        if self._there:
            from pyiceberg.expressions import AlwaysTrue  # noqa: PLC0415 - an extra

            transaction = self._catalog.load_table(TABLE).transaction()
            transaction.delete(AlwaysTrue())
        else:
            location = (self._folder / "events").as_uri()
            transaction = self._catalog.create_table_transaction(TABLE, schema, location=location)
        if paths:
            transaction.add_files([path.as_uri() for path in paths])
        transaction.commit_transaction()

    def close(self) -> None:
        """Let go of it."""
        self._catalog.close()


def _named(table: Any) -> set[str]:
    """Names of the data files of all of its snapshots."""
    return {
        entry.data_file.file_path.rpartition("/")[2]
        for snapshot in table.snapshots()
        for manifest in snapshot.manifests(table.io)
        for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=False)
    }


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise BadInputError(f"{folder} is being written by another process. Wait for it, or name another") from None
    finally:
        os.close(handle)
