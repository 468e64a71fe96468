"""`driftledger up`: everything on this machine by one command, and something to look at."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streams.cli.context import FINE, WRONG, Asked, settings_of

if TYPE_CHECKING:
    from rich.console import Console

    from streams.cli.up_view import Overview, View
    from streams.settings import Settings
    from streams.up import Fleet, Worker

#: Columns of what is written where there is no terminal.
_PLAIN_WIDTH = 160
_HEALTH_INTERVAL_NS = 1_000_000_000
#: One question to the hot tier in so long.
_QUESTION_INTERVAL_NS = 5_000_000_000
_POLL_S = 0.25
_LABEL_WIDTH = 9
_NAME = "driftledger"

#: What there is to try: words after `driftledger`, and what they show.
SUGGESTIONS = (
    ("drift alerts --last 5", "who is off, by how much, since when"),
    ("drift sources --limit 5", "where each clock is, to the ms, and its rate"),
    ("drift log --last 5", "the last verdicts, bound to the chain"),
    ("aggregates all_10s --last 5", "windows that closed, each final once"),
    ("aggregate --last 1m --frame authority --explain", "ask the stored events, by any clock"),
    ("sequence check", "recompute every number and every hash"),
    ("status", "each partition: live? hot? how far behind?"),
)
#: Three times, for that many readings confirm a new severity. Ahead, which an event proves by itself: of a clock that
#: is behind there is no alert before another event comes, fleet_hold_ms later.
OWN_CLOCK = """yes '{"source": "mine", "local_timestamp": "2050-01-01T00:00:00Z"}' | head -3"""


def up(
    context: typer.Context,
    sample: Annotated[bool, typer.Option("--sample", help="With 200 sources that are wrong in known ways.")] = False,
) -> None:
    """Run Kafka, topics and a worker until Ctrl-C, and show what happens.

    Kafka is the one of DRIFTLEDGER_BOOTSTRAP, else a real one of its own in the data folder. Topics that are missing
    are created. Ctrl-C or SIGTERM ends what was started and keeps the data, exit code 0; if the worker ends by itself,
    its exit code.

    Examples:

        driftledger up --sample

        DRIFTLEDGER_BOOTSTRAP=kafka:9092 driftledger up
    """
    settings = settings_of(context)
    interruption = _Interruption()
    with interruption.handled(), contextlib.suppress(KeyboardInterrupt):
        raise typer.Exit(_Run(settings, _options(context), interruption).run(sample=sample))


class _Interruption:
    """Ctrl-C and SIGTERM, counted once.

    While things start it is raised as KeyboardInterrupt; later it is only noted, so that no ending is cut short.
    """

    def __init__(self) -> None:
        self.requested = False
        self.raises = True

    @contextlib.contextmanager
    def handled(self) -> Iterator[None]:
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(number, self._handle) for number in numbers]
        try:
            yield
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)

    def _handle(self, *_: Any) -> None:
        first, self.requested = not self.requested, True
        if first and self.raises:
            raise KeyboardInterrupt


class _Run:
    """One run, from the lock to the last process ended."""

    def __init__(self, settings: Settings, options: list[str], interruption: _Interruption) -> None:
        from rich.console import Console

        from schemas.clock import SystemTime

        self._settings, self._options, self._interruption = settings, options, interruption
        self._time = SystemTime()
        self._live = sys.stdout.isatty()
        self._console: Console = Console(width=None if self._live else _PLAIN_WIDTH, highlight=False, soft_wrap=True)

    def run(self, *, sample: bool) -> int:
        """Return the exit code."""
        from streams.broker import locate
        from streams.cli.up_view import Overview
        from streams.kafka_cluster import Cluster
        from streams.up import Worker, lock

        settings = self._settings
        with contextlib.ExitStack() as stack:
            stack.enter_context(lock(settings.data_dir))
            self._say("", "Ctrl-C ends all of this; the data stays")
            ended = stack.enter_context(contextlib.ExitStack())  # says so after Kafka has ended, if it ever ran
            with self._busy("starting Kafka"):
                bootstrap = stack.enter_context(locate(settings))
            embedded = None if settings.bootstrap else Cluster.of_folder(settings.data_dir)
            if embedded is not None and bootstrap != embedded.bootstrap:
                embedded = None  # a container
            ended.callback(self._say, "", self._ending(bootstrap, embedded))
            self._say("kafka", bootstrap if embedded is None else f"{bootstrap}   its data: {embedded.directory}")
            if not self._create_topics(bootstrap):
                return WRONG
            worker = Worker(settings.data_dir, bootstrap, self._options, settings.token)
            stack.callback(worker.stop)
            overview = Overview(partitions=settings.partitions)
            # Before the worker is ready: what is sent while it compiles is judged by when it was appended all the same.
            fleet = self._start_fleet(stack, bootstrap, overview) if sample else None
            stack.callback(self._say, "", "ending ...")
            self._interruption.raises = False
            code = self._wait_for_worker(worker)
            if code is None and not self._interruption.requested:
                self._say_where(worker, bootstrap if embedded is None else None)
                code = self._watch(worker, fleet, embedded, overview, bootstrap)
            if code is not None:
                self._complain(f"the worker ended by itself, exit code {code}; its log, {worker.log}, ends with:")
                self._complain(worker.log_tail())
            return FINE if code is None else code

    def _ending(self, bootstrap: str, embedded: Any) -> str:
        """What to say at the end of where the data is."""
        if embedded is not None:
            return f"ended; `driftledger up` goes on with the data in {self._settings.data_dir}"
        if self._settings.bootstrap:
            return f"ended; the data is in the Kafka at {bootstrap}"
        return "ended; the data is gone with the container of its Kafka"

    # ------------------------------------------------------------------------------------------------------- starting

    def _create_topics(self, bootstrap: str) -> bool:
        from streams.topics_admin import TopicsAdmin, specs_of

        wanted = specs_of(self._settings)
        with self._busy("creating topics"):
            creation = TopicsAdmin(bootstrap).create(wanted)
        for difference in creation.differences:
            self._complain(str(difference))
        if any(difference.refused for difference in creation.differences):
            self._complain("topics that exist are not as they must be: mend them, then run this again")
            return False
        missing = len(creation.created)
        self._say(
            "topics", f"{missing} created, {len(wanted) - missing} there before; {wanted[0].partitions} partitions"
        )
        return True

    def _start_fleet(self, stack: contextlib.ExitStack, bootstrap: str, overview: Overview) -> Fleet:
        from streams.sample_fleet import describe_clocks, fleet
        from streams.up import Fleet, read_series

        series, origin = read_series(self._settings.cases)
        sources = fleet(list(series))
        overview.sources = [source.name for source in sources]
        running = Fleet(self._settings, bootstrap, sources, series)
        stack.callback(self._stop_fleet, running)
        self._say("fleet", f"{len(sources)} sources, {sum(s.rate_hz for s in sources)} events/s in all")
        self._say("clocks", describe_clocks())
        self._say("values", origin)
        return running

    def _stop_fleet(self, fleet: Fleet) -> None:
        from schemas.producer import DeliveryError

        try:
            fleet.stop()
        except DeliveryError as error:
            self._complain(f"the fleet: {error}")

    def _wait_for_worker(self, worker: Worker) -> int | None:
        """Until it listens; its exit code if it ends before."""
        told = False
        with self._busy("starting the worker") as busy:
            while worker.address() is None and not self._interruption.requested:
                code = worker.exit_code()
                if code is not None:
                    return code
                if not told and worker.compiles():
                    told = True
                    busy("the worker compiles its kernels: once, about 40 seconds on two cores")
                self._time.sleep_s(_POLL_S)
        return None

    # ------------------------------------------------------------------------------------------------------- watching

    def _watch(
        self, worker: Worker, fleet: Fleet | None, embedded: Any, overview: Overview, bootstrap: str
    ) -> int | None:
        """Show what happens until it is interrupted, None, or the worker ends: its exit code."""
        from schemas.errors import UnreachableError
        from schemas.topics import topic_names
        from streams.overview import RateMeter
        from streams.up import AlertFeed, WindowFeed

        settings = self._settings
        names = topic_names(settings.prefix, settings.ledger, settings.input_topic)
        meter = RateMeter()
        looked_ns = asked_ns = 0
        with (
            contextlib.closing(AlertFeed(bootstrap, names.drift_alerts, settings.partitions)) as feed,
            contextlib.closing(WindowFeed(bootstrap, names.aggregates, settings.partitions)) as windows,
            self._view() as view,
        ):
            while not self._interruption.requested:
                code = worker.exit_code()
                if code is not None:
                    return code
                if fleet is not None:
                    fleet.check()
                news = feed.poll(_POLL_S)
                for alert, appended_ms, _ in news:
                    overview.board.apply(alert, appended_ms)
                for record, fresh in windows.poll():
                    overview.windows.apply(record, fresh=fresh)
                now_ns = self._time.monotonic_ns()
                if now_ns - looked_ns >= _HEALTH_INTERVAL_NS:
                    looked_ns = now_ns
                    if embedded is not None and not embedded.pids:
                        raise UnreachableError(f"Kafka ended by itself: see {embedded.directory}/node-1/output.log")
                    worker.limit_log()
                    overview.health = worker.health()
                    if overview.health is not None:
                        meter.observe(now_ns, overview.health.partitions)
                        overview.events_per_s = meter.events_per_s()
                if now_ns - asked_ns >= _QUESTION_INTERVAL_NS:
                    asked_ns = now_ns
                    overview.hot = worker.ask_hot()
                view.show(overview, news, now_ns)
        return None

    def _view(self) -> View:
        from streams.cli.up_view import LiveView, PlainView

        return LiveView(self._console) if self._live else PlainView(self._console)

    # --------------------------------------------------------------------------------------------------------- telling

    def _say_where(self, worker: Worker, bootstrap: str | None) -> None:
        """Where things are, and what to try. bootstrap: only where commands would not find it by themselves."""
        self._say("worker", f"process {worker.pid}, log: {worker.log}")
        asks = "" if self._settings.token is None else "   it asks for http_token"
        self._say("page", f"{worker.address()}/page/{asks}")
        self._say("health", f"{worker.address()}/health")
        self._say("metrics", f"{worker.address()}/metrics")
        self._say("", "")
        self._say("", "to try in another terminal:")
        for line in shell_lines(self._options, bootstrap):
            self._console.print(line, style="cyan", markup=False)
        self._say("", "")

    def _say(self, label: str, text: str) -> None:
        """A line of its own; on a terminal what is too long goes on below itself."""
        from rich.table import Table
        from rich.text import Text

        if not label or not self._live:
            self._console.print(Text.assemble((label.ljust(_LABEL_WIDTH) if label else "", "bold"), text))
            return
        row = Table.grid(padding=(0, 1))
        row.add_column(width=_LABEL_WIDTH - 1, style="bold")
        row.add_column(overflow="fold")
        row.add_row(Text(label), Text(text))
        self._console.print(row, soft_wrap=False)

    @staticmethod
    def _complain(text: str) -> None:
        typer.echo(f"driftledger: {text}", err=True)

    @contextlib.contextmanager
    def _busy(self, text: str) -> Iterator[Any]:
        """Show that something is being waited for; gives a function that changes what."""
        if not self._live:
            yield lambda more: self._say("", f"{more} ...")
            return
        with self._console.status(text) as status:
            yield status.update


def shell_lines(options: list[str], bootstrap: str | None) -> list[str]:
    """What to type in another terminal so that it reaches the same ledger: folder, environment, commands.

    options: those before the command's name. bootstrap: set where the command would not find it.
    """
    from streams.settings import ENVIRONMENT_PREFIX, SECRETS

    environment = {key: value for key, value in os.environ.items() if key.startswith(ENVIRONMENT_PREFIX) and value}
    secret = [key for key in environment if key.removeprefix(ENVIRONMENT_PREFIX).lower() in SECRETS]
    for key in secret:
        del environment[key]
    if bootstrap is not None:
        environment[f"{ENVIRONMENT_PREFIX}BOOTSTRAP"] = bootstrap
    ours = Path(sys.executable).with_name(_NAME)
    found = shutil.which(_NAME)
    known = found is not None and Path(found) == ours
    command = shlex.join([_NAME, *options])
    width = max(len(words) for words, _ in SUGGESTIONS)
    return [
        f"  cd {shlex.quote(str(Path.cwd()))}",
        *([] if known else [f"  alias {_NAME}={shlex.quote(str(ours))}"]),
        *(f"  export {key}={shlex.quote(value)}" for key, value in sorted(environment.items())),
        *(f"  # and {key}, as here" for key in secret),
        *(f"  {command} {words.ljust(width)}  # {meaning}" for words, meaning in SUGGESTIONS),
        "  # a clock of your own, in the year 2050; its alert is here a second later:",
        f"  {OWN_CLOCK} | {command} publish -",
    ]


def _options(context: typer.Context) -> list[str]:
    """The options given before the command's name, for commands that are to mean the same ledger."""
    asked = context.find_object(Asked) or Asked()
    config = [] if asked.config is None else ["--config", str(asked.config)]
    return [*config, *([] if asked.ledger is None else ["--ledger", asked.ledger])]
