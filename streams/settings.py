"""What a deployment may choose, read once and never changed.

Three sources, the first that names a field wins: the environment (DRIFTLEDGER_<FIELD>), driftledger.toml, the defaults
below. `settings_file` reads the file, with its tables of ledgers and windows.

GUARANTEE a Settings object is valid: every limit is in range and the relations between limits hold, so no code below
checks them again.
HAZARD folds see no setting. What a judge must know (framing, drift_threshold_ms, dedupe_horizon, sources_max,
estimate_interval_ms, the rules of alerts) and each window become DEFINITION entries of the ledger and take effect
there; changing them here changes nothing that is already sequenced.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self

from pydantic import Field, InstanceOf, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from schemas.codec import Framing
from schemas.topics import TABLE, VALUE_BYTES_MAX
from streams.archive_uri import parse as parse_archive_uri
from streams.definitions import (
    CLEAR_EVENTS_MAX,
    DEDUPE_HORIZON_MAX,
    ESTIMATE_INTERVAL_MAX_MS,
    HOLD_MAX_MS,
    OF_EVENTS_MAX,
    SOURCES_MAX,
    JudgeSettings,
    threshold_us_from_ms,
)
from streams.http_access import is_loopback
from streams.severity import THRESHOLD_LIMIT_US, YELLOW_FROM_MS
from streams.windows import DEFAULT_WINDOWS, WindowDefinition, check_together

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

ENVIRONMENT_PREFIX: Final = "DRIFTLEDGER_"
DEFAULT_LEDGER: Final = "events"

#: What the name of a topic of ours ends in.
_OWN_ENDINGS: Final = tuple(topic.name("", "").removeprefix(".") for topic in TABLE if not topic.foreign)
#: host:port; an IPv6 address stands in brackets.
_ADDRESS: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:,/]+):([0-9]{1,5})", re.ASCII)
_PORT_MAX: Final = 65_535
#: Fewer characters can be tried one after another.
TOKEN_LENGTH_MIN: Final = 16
_TOKEN: Final = re.compile(rf"[!-~]{{{TOKEN_LENGTH_MIN},256}}", re.ASCII)
#: Never shown, logged or handed on.
SECRETS: Final = ("http_token",)
#: Not repeated where they are refused: somebody may have put a key there.
NOT_REPEATED: Final = (*SECRETS, "archive_uri")

#: More lanes than this cost more transactions than they win, whatever the partition count.
LANES_DEFAULT_MAX: Final = 8
#: Kafka's rule for topic names, shortened so that "{prefix}.{ledger}.{x}" stays under its 249 characters.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$", max_length=100)]
Milliseconds = Annotated[int, Field(ge=0, le=86_400_000)]
#: A lane that waits for longer keeps everybody waiting for what it has fetched.
BATCH_INTERVAL_MS_MAX: Final = 1_000
#: Filled from other fields unless given.
DERIVED: Final = ("input_topic", "lanes")
#: The field that comes from tables of the file, which no variable could hold.
FROM_TABLES: Final = "windows"
#: Where the reference cases are looked for, from the root of the checkout.
CASES_PLACES: Final = ("cases", "../shared/cases")


def find_cases() -> Path | None:
    """The first folder of CASES_PLACES that is there, None where a clone has neither."""
    root = Path(__file__).resolve().parent.parent
    return next((folder for place in CASES_PLACES if (folder := (root / place).resolve()).is_dir()), None)


class _Variables(EnvSettingsSource):
    """The environment, for the fields that it may give."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        if field_name == FROM_TABLES:
            return None, field_name, False
        return super().get_field_value(field, field_name)


class Settings(BaseSettings):
    """One ledger's settings, from `settings_file.load`; called directly it takes explicit values, then environment."""

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX, frozen=True, extra="forbid", validate_default=True, env_ignore_empty=True
    )

    #: Address of an existing Kafka, "host:port[,host:port]"; without it an embedded one is used.
    bootstrap: str | None = None
    #: First part of the name of every topic of ours.
    prefix: Name = "driftledger"
    #: Which ledger of the deployment.
    ledger: Name = DEFAULT_LEDGER
    #: The topic that is sequenced; "{prefix}.{ledger}" unless given.
    input_topic: str = Field(default="", pattern=r"^[A-Za-z0-9._-]*$", max_length=249)
    #: Partitions of the input and, one to one, of the ledger. Fixed at genesis.
    partitions: int = Field(default=4, ge=1, le=1024)
    #: Units of ownership; partition p belongs to lane p mod lanes. Fixed at genesis. As many as partitions, but at most
    #: 8, unless given.
    lanes: int = Field(default=0, ge=0, le=1024)
    #: Copies of each topic's data; at most the number of brokers.
    replication_factor: int = Field(default=1, ge=1, le=7)
    #: Where this machine keeps its own state: the embedded Kafka, logs of `up`, the hot tier, addresses of workers.
    data_dir: Path = Path(".driftledger")
    #: The java program for the embedded broker; the system's (17 or newer), else the bundled one, unless given.
    java: Path | None = None
    #: The public reference cases, for tests and the values of the sample fleet; None where there are none.
    cases: Path | None = Field(default_factory=find_cases)
    #: Tick of the heartbeats on the control topic; 0 turns them off.
    heartbeat_interval_ms: Milliseconds = 1_000
    #: How values of the input topic are framed. Never guessed.
    framing: Literal["single_object", "json"] = "single_object"
    #: Strictly beyond this, a clock difference is a warning. Not rounded, so fractions are allowed.
    drift_threshold_ms: float = Field(default=5_000.0, ge=0, le=THRESHOLD_LIMIT_US / 1_000, allow_inf_nan=False)
    #: So many of the last of_events events of a source must be over a limit before an alert opens or rises.
    confirm_events: int = Field(default=3, ge=1, le=OF_EVENTS_MAX)
    of_events: int = Field(default=5, ge=1, le=OF_EVENTS_MAX)
    #: So many events in a row must be below a limit, by hysteresis_ms, before an alert falls or closes.
    clear_events: int = Field(default=5, ge=1, le=CLEAR_EVENTS_MAX)
    hysteresis_ms: int = Field(default=100, ge=0, lt=YELLOW_FROM_MS)
    #: Of authority time: an alert stays open that long at least.
    hold_ms: int = Field(default=10_000, ge=0, le=HOLD_MAX_MS)
    #: Of authority time: an alert that is not proved waits that long, to tell a source's fault from the broker's.
    fleet_hold_ms: int = Field(default=5_000, ge=0, le=HOLD_MAX_MS)
    #: Sequences of a partition within which a repeated (source, event_id) is recognised.
    dedupe_horizon: int = Field(default=100_000, ge=0, le=DEDUPE_HORIZON_MAX)
    #: Sources judged one by one in a partition; beyond it the longest silent one is forgotten.
    sources_max: int = Field(default=200_000, ge=1, le=SOURCES_MAX)
    #: In each such interval of authority time the estimate of a source's clock is told once, while it sends.
    estimate_interval_ms: int = Field(default=60_000, ge=1, le=ESTIMATE_INTERVAL_MAX_MS)
    #: Longer values stay in the input; the ledger keeps their hash and length.
    max_value_bytes: int = Field(default=1_048_576, ge=1, le=VALUE_BYTES_MAX)
    #: Input records of one transaction, at most; the control records that may go in come on top.
    batch_events_max: int = Field(default=5_000, ge=1, le=100_000)
    #: While events keep coming, transactions of a lane begin at least this far apart: each costs the worker and the
    #: broker the same, however little is in it. An event after a pause does not wait.
    batch_interval_ms: int = Field(default=0, ge=0, le=BATCH_INTERVAL_MS_MAX)
    #: A snapshot of each fold's state after this time ...
    snapshot_interval_ms: Milliseconds = 10_000
    #: ... or after this many entries, whichever comes first.
    snapshot_entries: int = Field(default=500_000, ge=1)
    #: The broker aborts a lane's transaction that has been open for longer.
    transaction_timeout_ms: int = Field(default=10_000, ge=1_000, le=900_000)
    #: A worker that has been silent for longer loses its lanes.
    session_timeout_ms: int = Field(default=6_000, ge=6_000, le=300_000)
    #: Keep events in the hot tier, RocksDB below data_dir, for questions.
    hot_store: bool = True
    #: How often a worker looks whether data is to move, and jobs are due; 0: only what is run by hand.
    lifecycle_interval_s: int = Field(default=60, ge=0, le=86_400)
    #: Where the tiers of archive_uri_tiers lie, if not below data_dir: s3://, gs:// or file:///. Never with a key.
    archive_uri: str | None = None
    archive_uri_tiers: Literal["deep", "historical,deep"] = "deep"
    #: What the jobs of a worker read and write of files in a second, at most; 0: as fast as they can. By hand there is
    #: an option for it.
    lifecycle_bytes_per_s: int = Field(default=32 * 1_048_576, ge=0)
    #: What a job gathers of events before it writes a row group; it takes some ten times that.
    lifecycle_buffer_bytes: int = Field(default=16 * 1_048_576, ge=1_048_576, le=256 * 1_048_576)
    #: What a lock halts that is engaged from here: the lane takes no more input, nothing is put.
    lock_halts: Literal["sequence,put", "sequence", "put"] = "sequence,put"
    #: Whether a worker locks a partition when the guardian finds its own clock RED; a person releases it.
    guardian_locks: bool = False
    #: What events are gathered into. From the tables of the file, never from the environment.
    windows: tuple[InstanceOf[WindowDefinition], ...] = DEFAULT_WINDOWS
    #: The page, health, metrics, puts and questions; 0 takes a free port.
    http_port: int = Field(default=8_411, ge=0, le=65_535)
    #: The address that is listened on; other than loopback it wants http_token.
    http_host: str = Field(default="127.0.0.1", pattern=r"^[A-Za-z0-9.:-]+$", max_length=253)
    #: Who asks a worker by HTTP must name it; of ASCII that a header can hold. None: whoever is on loopback may ask.
    http_token: SecretStr | None = None

    @model_validator(mode="before")
    @classmethod
    def _derive(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Fill what follows from other fields."""
        values = dict(values)
        prefix, ledger, partitions = (
            values.get(name, cls.model_fields[name].default) for name in ("prefix", "ledger", "partitions")
        )
        if not values.get("input_topic"):
            values["input_topic"] = f"{prefix}.{ledger}"
        if not values.get("lanes"):
            try:
                values["lanes"] = min(int(partitions), LANES_DEFAULT_MAX)
            except (TypeError, ValueError):
                values["lanes"] = 1  # partitions is refused on its own account
        if not values.get("of_events"):
            with contextlib.suppress(TypeError, ValueError):  # confirm_events is refused on its own account
                least = cls.model_fields["of_events"].default
                values["of_events"] = min(max(least, 2 * int(values.get("confirm_events", 1)) - 1), OF_EVENTS_MAX)
        return values

    @field_validator("bootstrap")
    @classmethod
    def _addresses(cls, bootstrap: str | None) -> str | None:
        """Refuse what no client could reach, before one waits for it."""
        for address in [] if bootstrap is None else bootstrap.split(","):
            found = _ADDRESS.fullmatch(address)
            if found is None or not 1 <= int(found[2]) <= _PORT_MAX:
                message = f"{address!r} is no address; it is host:port[,host:port...]"
                raise ValueError(message)
        return bootstrap

    @field_validator("ledger")
    @classmethod
    def _own_name(cls, ledger: str) -> str:
        """Refuse a name under which a topic of another ledger would be this one's input."""
        other, ending = _split_ending(ledger)
        if ending:
            message = f"a name that ends in {ending} is that of a topic of the ledger {other!r}"
            raise ValueError(message)
        return ledger

    @field_validator("archive_uri")
    @classmethod
    def _place(cls, uri: str | None) -> str | None:
        """Refuse what no store could be found by, and what has a key in it."""
        if uri is not None:
            parse_archive_uri(uri)
        return uri

    @field_validator("http_token")
    @classmethod
    def _guessed_by_nobody(cls, token: SecretStr | None) -> SecretStr | None:
        """Refuse what is short, or does not fit in a header."""
        if token is not None and _TOKEN.fullmatch(token.get_secret_value()) is None:
            message = f"it is no token, which is {TOKEN_LENGTH_MIN} to 256 characters of ASCII, without spaces"
            raise ValueError(message)
        return token

    @field_validator("windows")
    @classmethod
    def _windows_together(cls, windows: tuple[WindowDefinition, ...]) -> tuple[WindowDefinition, ...]:
        """Refuse two of one name, or too many."""
        check_together(windows)
        return windows

    @model_validator(mode="after")
    def _relations(self) -> Self:
        """Relations between limits, each with its reason."""
        if self.lanes > self.partitions:
            message = (
                f"lanes={self.lanes} exceeds partitions={self.partitions}: a lane without a partition does nothing"
            )
            raise ValueError(message)
        if self.transaction_timeout_ms < self.session_timeout_ms:
            message = (
                f"transaction_timeout_ms={self.transaction_timeout_ms} is below session_timeout_ms="
                f"{self.session_timeout_ms}: a lane's transaction must outlive a pause that its worker survives"
            )
            raise ValueError(message)
        if self.heartbeat_interval_ms and self.snapshot_interval_ms < self.heartbeat_interval_ms:
            message = (
                f"snapshot_interval_ms={self.snapshot_interval_ms} is below heartbeat_interval_ms="
                f"{self.heartbeat_interval_ms}: an idle lane would snapshot without having moved"
            )
            raise ValueError(message)
        if self.batch_events_max > self.snapshot_entries:
            message = (
                f"batch_events_max={self.batch_events_max} exceeds snapshot_entries={self.snapshot_entries}: "
                "snapshots are taken between batches"
            )
            raise ValueError(message)
        if self.http_token is None and not is_loopback(self.http_host):
            message = (
                f"http_host={self.http_host!r} is not loopback and there is no http_token: who can reach the worker "
                "could put events and read all"
            )
            raise ValueError(message)
        if self.confirm_events > self.of_events:
            message = (
                f"confirm_events={self.confirm_events} exceeds of_events={self.of_events}: of so many events never "
                "more can be over a limit"
            )
            raise ValueError(message)
        if self.input_topic.startswith(f"{self.prefix}.{self.ledger}."):
            message = f"input_topic={self.input_topic!r} has the form of this ledger's own topics: choose another name"
            raise ValueError(message)
        other, ending = _split_ending(self.input_topic)
        if ending and other.startswith(f"{self.prefix}."):
            message = (
                f"input_topic={self.input_topic!r} is a topic of the ledger {other.removeprefix(f'{self.prefix}.')!r} "
                f"of prefix={self.prefix!r}, which only that ledger writes: choose another name"
            )
            raise ValueError(message)
        return self

    def judge(self) -> JudgeSettings:
        """What they say to the judge; it becomes a DEFINITION entry."""
        return JudgeSettings(
            framing=Framing(self.framing),
            threshold_us=threshold_us_from_ms(self.drift_threshold_ms),
            confirm_events=self.confirm_events,
            of_events=self.of_events,
            clear_events=self.clear_events,
            hysteresis_ms=self.hysteresis_ms,
            hold_ms=self.hold_ms,
            fleet_hold_ms=self.fleet_hold_ms,
            dedupe_horizon=self.dedupe_horizon,
            sources_max=self.sources_max,
            estimate_interval_ms=self.estimate_interval_ms,
        )

    @property
    def token(self) -> str | None:
        """What who asks a worker must name."""
        return None if self.http_token is None else self.http_token.get_secret_value()

    @property
    def command(self) -> str:
        """What a command of this ledger begins with, for remedies."""
        return "driftledger" if self.ledger == DEFAULT_LEDGER else f"driftledger --ledger {self.ledger}"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read explicit values and the environment; `load` passes the file's values where the environment is silent."""
        del env_settings, dotenv_settings, file_secret_settings
        return (init_settings, _Variables(settings_cls))


def _split_ending(name: str) -> tuple[str, str]:
    """What stands before the ending of our own topics, and that ending; two empty texts where it has none."""
    ending = next((ending for ending in _OWN_ENDINGS if name.endswith(ending)), "")
    return (name.removesuffix(ending), ending) if ending else ("", "")
