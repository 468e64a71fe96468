"""Archives in a store of objects, on a real ledger: every job by its settings, and the same answers."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest

from lifecycle.jobs import Jobs
from lifecycle.layout import index_of
from lifecycle.object_tree import ObjectStoreUnavailableError
from lifecycle.packing import DamagedError
from lifecycle.steps import Job
from lifecycle.tiers import Tier
from tests.broker.harness import Ledger
from tests.broker.job_ledgers import fill, live, run
from tests.broker.test_cut import entries
from tests.broker.test_jobs import check_bytes, segments_of
from tests.broker.test_tiers import answers, turn
from tests.core.test_object_jobs import objects_in, put

if TYPE_CHECKING:
    from pathlib import Path

    from tests.core.s3_server import Server

EVENTS = 24_000
#: Rules of retention.
CUT = '{"version": 1, "ledger": "cut_when_proved", "ledger_keep_hours": 0}'


def test_archives_of_a_ledger_in_a_store_of_objects(s3: Server, kafka: Any, prefix: str, tmp_path: Path) -> None:
    """Sealed, joined, brought back, made deep, sent away, made again, proved, cut behind; none of it lies here."""
    uri = f"s3://cold/{prefix}?endpoint_override={s3.address}&scheme=http&region=us-east-1"
    settings: dict[str, Any] = {"partitions": 1, "lanes": 1, "snapshot_interval_ms": 1_000}
    settings |= {"archive_uri": uri, "archive_uri_tiers": "historical,deep"}
    ledger = Ledger(kafka.bootstrap, prefix, tmp_path, settings).create()
    fill(ledger, EVENTS, in_snapshots=True)
    (folder,) = ledger.settings.data_dir.glob("hot/*/*/lane-0")
    wanted, _ = answers(ledger)

    gone = turn(ledger, folder, 9)
    found, how = answers(ledger)
    assert found == wanted
    assert how["chunks_archived"] == gone >= EVENTS // 8_192 - 1
    check_bytes(ledger, 0)

    assert turn(ledger, folder, 10.5, reads=2_000) == 0  # brought back; the file is joined meanwhile
    assert answers(ledger)[0] == wanted

    rules = tmp_path / "temporal" / f"{prefix}.events" / "configuration" / "lifecycle_rules.json"
    rules.parent.mkdir(parents=True, exist_ok=True)
    rules.write_text('{"version": 1, "deep_days": 10}')
    assert run(ledger, Job.DEMOTE, 12)
    (segment,) = segments_of(ledger, 0)
    assert segment.tier is Tier.DEEP
    assert turn(ledger, folder, 30) == gone
    found, how = answers(ledger)
    assert found == wanted
    assert how["chunks_archived"] == gone
    with Jobs(ledger.settings, ledger.bootstrap) as jobs:
        jobs.files.remove(index_of(segment.path))
    assert run(ledger, Job.REINDEX, 12)
    with Jobs(ledger.settings, ledger.bootstrap) as jobs:
        jobs.files.remove(segment.path)
    assert run(ledger, Job.RESTORE, 12)
    assert run(ledger, Job.VERIFY, 12)
    check_bytes(ledger, 0)

    rules.with_name("retention_policies.json").write_text(CUT)
    check_cut(ledger, s3.address, segment.path)
    assert answers(ledger)[0] == wanted

    root = tmp_path / "temporal" / f"{prefix}.events"
    assert not [each for each in root.rglob("*") if each.suffix in (".parquet", ".index", ".new")]

    # A machine that never had a file of them has the same answers, but for what is hot.
    shutil.rmtree(root)
    assert answers(ledger)[0] == wanted
    away = ledger.settings.model_copy(update={"archive_uri": uri.replace("/cold/", "/cold/elsewhere-")})
    with Jobs(away, ledger.bootstrap) as jobs, pytest.raises(ObjectStoreUnavailableError, match="was ever put there"):
        jobs.run(Job.VERIFY, lambda *_: None)


def check_cut(ledger: Ledger, address: str, path: str) -> None:
    """The ledger is cut where what the store gives proves it, and not where that is damaged."""
    place = f"{ledger.prefix}/{ledger.prefix}.events"
    content = objects_in(address, place)[path]
    put(address, place, path, content[:-1])
    with pytest.raises(DamagedError, match="is damaged"):
        run(ledger, Job.CUT, 31)
    assert 1 in entries(ledger)
    put(address, place, path, content)
    with live(ledger):
        assert run(ledger, Job.CUT, 31)
    assert min(entries(ledger)) > EVENTS // 2
