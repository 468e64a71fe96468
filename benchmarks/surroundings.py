"""What every case is given."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

    from schemas.topics import TopicNames
    from streams.settings import Settings


class Surroundings(NamedTuple):
    """A ledger whose topics are there and empty, and where it is.

    brokers: processes of the Kafka at bootstrap, none where it runs elsewhere. folder: the case's own.
    """

    settings: Settings
    bootstrap: str
    names: TopicNames
    brokers: list[int]
    folder: Path
    cores: int
