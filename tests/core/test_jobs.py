"""Jobs without a broker: what is refused before anything is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lifecycle.jobs import Jobs
from lifecycle.steps import Job
from schemas.errors import BadInputError
from streams.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path


def test_what_is_to_come_back_is_told_by_workers_alone(tmp_path: Path) -> None:
    """Nobody else knows what was read, so that nothing is to be done would be no answer."""
    with (
        Jobs(Settings(data_dir=tmp_path), "nowhere:1") as jobs,
        pytest.raises(BadInputError, match="lifecycle run promote --dry-run"),
    ):
        jobs.planned(Job.PROMOTE)
