"""Runs everything behind `phantoms up`: servers, migrations, sandbox, desk, metrics, workers and Dagster's processes.

Processes that do not depend on each other start in parallel. They stop in reverse order. Other commands find the stack through a
file in the data directory.
"""

from __future__ import annotations

import http.client
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal
from urllib.parse import urlsplit

from phantoms_dagster.cli.ports import Ports
from phantoms_dagster.cli.preparation import Prepared, make_ready_apart
from phantoms_dagster.domain import channels as channels_file
from phantoms_dagster.domain.models import Channel
from phantoms_dagster.embedded.preloaded import SUPPORTED, Preloaded
from phantoms_dagster.embedded.processes import ProcessSpec
from phantoms_dagster.embedded.servers import START_TRIES, EmbeddedServers, free_port, is_free, read_urls
from phantoms_dagster.embedded.supervisor import ProcessFailed, Supervisor
from phantoms_dagster.embedded.tasks import Task
from phantoms_dagster.embedded.valkey import write_private
from phantoms_dagster.execution.home import prepare
from phantoms_dagster.settings import RUNNING_FILE, Settings
from phantoms_dagster.settings.groups import DeskSite, Metrics, Web
from phantoms_dagster.wiring.addresses import desk_url, local_desk_url
from phantoms_dagster.wiring.channels_text import channels_text
from phantoms_dagster.wiring.endpoints import Endpoints, named_by
from phantoms_dagster.wiring.token_keys import first_key
from phantoms_dagster.wiring.up_lock import UpLock

READY_SECONDS = 180.0
GRACE_SECONDS = 15.0
MODULE = "phantoms_dagster.definitions"
PRELOADED, CODE_SERVER, DAEMON, DESK = "preloaded", "code-server", "daemon", "desk"
# Names for display. The plain process names are also those of the log files.
TITLES = {
    PRELOADED: "program code",
    CODE_SERVER: "Dagster's code server",
    DAEMON: "Dagster's daemon",
    "webserver": "Dagster UI",
}
# Modules that `PRELOADED` imports for the processes it forks, besides what Dagster needs.
COMMANDS = (
    "phantoms_dagster.cli.lazy",
    "phantoms_dagster.cli.desk",
    "phantoms_dagster.cli.metrics",
    "phantoms_dagster.wiring.sandbox",
)
WORKERS_SECONDS = 60.0  # the start waits at most this long for workers


@dataclass(frozen=True)
class Running:
    """The URLs of a running stack. `sandboxed` lists the integrations that the sandbox replaces."""

    home: Path
    web_url: str
    sandbox_url: str | None
    sandboxed: tuple[str, ...]
    settings: Settings
    metrics_url: str
    desk_url: str


class StartProgress:
    """The names that the start waits for. `told` is called with them on every change, from the thread that makes it."""

    def __init__(self, told: Callable[[Sequence[str]], None]) -> None:
        self._told = told
        self._names: list[str] = []
        self._lock = threading.Lock()

    def add(self, names: Sequence[str]) -> None:
        """Add names to wait for."""
        self._change(lambda known: [*known, *names])

    def remove(self, name: str) -> None:
        """Stop waiting for a name."""
        self._change(lambda known: [other for other in known if other != name])

    def _change(self, change: Callable[[list[str]], list[str]]) -> None:
        with self._lock:
            self._names = change(self._names)
            self._told(self._names)


class Stack:
    """The processes of one data directory. A context manager: leaving it stops everything it started.

    `module` is the module with the Dagster definitions; a benchmark passes one that replaces the slow parts. `waiting` is called
    from several threads with the names that the start waits for, whenever they change.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        say: Callable[[str], None],
        warn: Callable[[str], None],
        sandbox_seed: int = 1,
        module: str = MODULE,
        waiting: Callable[[Sequence[str]], None] = lambda _: None,
    ) -> None:
        self._home = settings.paths.home.expanduser().absolute()
        self._settings = settings
        self._say = say
        self._warn = warn
        self._seed = sandbox_seed
        self._module = module
        self._exit = ExitStack()
        self._supervisors: list[Supervisor] = []
        self._awaited = StartProgress(waiting)
        self._ports: Ports | None = None
        self._preloaded: Preloaded | None = None
        self._mark: UpLock | None = None

    def __enter__(self) -> Running:
        """Start everything. On failure nothing is left running. Raises PhantomsError, whose message has the next step."""
        with ExitStack() as starting:
            starting.callback(self._stop)
            try:
                running = self._start()
            except KeyboardInterrupt:
                self._say("stopping")
                raise
            starting.pop_all()
            return running

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop everything, in reverse order."""
        self._stop()

    def _stop(self) -> None:
        if self._mark is not None:
            self._mark.say("stopping")
        self._exit.close()

    def pids(self) -> dict[str, int]:
        """Return the process ids by name."""
        return {name: pid for supervisor in self._supervisors for name, pid in supervisor.pids.items()}

    def _start(self) -> Running:
        channels_text(self._settings)  # fail before anything runs when the configured channels file is missing
        self._home.mkdir(parents=True, exist_ok=True)
        self._mark = UpLock(self._home)
        self._exit.callback(self._mark.close)
        self._mark.say("starting")
        embedded = self._embedded()
        if embedded is not None and read_urls(self._home) is not None:
            self._exit.enter_context(embedded)  # another `phantoms up` may run here; then this raises before ports or files change
        settings = self._with_addresses()
        parent = self._preload()
        sandbox = None
        if settings.sandbox.url != self._settings.sandbox.url:
            sandbox = self._begin([self._sandbox(settings, self._plain_environment())])
        settings = self._with_servers(settings, embedded)
        (self._home / RUNNING_FILE).unlink(missing_ok=True)  # a killed stack leaves an outdated file behind
        environment = self._environment(settings)
        specs = self._dagster(settings, environment)
        # The code server takes longest to start and reads no tables, so it can start before they are prepared.
        code_server = self._begin([spec for spec in specs if spec.name == CODE_SERVER])
        for supervisor in parent:
            supervisor.wait()
        self._awaited.add(["tables"])
        prepared = self._prepare(settings, environment)
        self._awaited.remove("tables")
        if prepared.warning is not None:
            self._warn(prepared.warning)
        needed = prepared.needed
        if sandbox is not None and not needed:  # the database has a token for every account
            sandbox.stop()
            self._supervisors.remove(sandbox)
        others = self._begin([spec for spec in specs if spec.name != CODE_SERVER])
        metrics_url = self._start_metrics(settings, environment)
        for supervisor in (*([sandbox] if sandbox and needed else []), code_server, others):
            supervisor.wait()
        self._announce(environment)
        assert settings.web.url is not None
        sandbox_url = settings.sandbox.url if needed else None
        return Running(self._home, settings.web.url, sandbox_url, needed, settings, metrics_url, desk_url(settings))

    def _prepare(self, settings: Settings, environment: dict[str, str]) -> Prepared:
        """Prepare the tables and the data directory. Raises PhantomsError."""
        paths = {
            "PHANTOMS_CHANNELS": str(settings.channels_path),
            "PHANTOMS_INBOX": str(settings.inbox_path),
            "PHANTOMS_MEDIA": str(settings.media_path),
        }
        return make_ready_apart(lambda name, command: self._spec(name, command, {**environment, **paths}, None), say=self._say)

    def _begin(self, specs: list[ProcessSpec]) -> Supervisor:
        """Start these processes in parallel. If one fails, the supervisor stops all of them and its `wait` raises ProcessFailed."""
        supervisor = Supervisor(specs, logs=self._home / "logs", notify=self._warn, together=True, ready=self._ready)
        self._exit.callback(supervisor.stop)
        self._awaited.add([spec.called for spec in specs])
        supervisor.begin()
        self._supervisors.append(supervisor)
        return supervisor

    def _preload(self) -> list[Supervisor]:
        """Start the process that forks our Python processes, where forking is supported.

        Without it each process starts by itself and needs its own memory.
        """
        if not SUPPORTED:
            return []
        preloaded = Preloaded()
        command = (sys.executable, "-m", "phantoms_dagster.execution.preloaded", "--module", self._module)
        spec = ProcessSpec(
            name=PRELOADED,
            argv=(*command, *(word for name in COMMANDS for word in ("--also", name))),
            # Keeps setproctitle from overwriting the environment when a fork changes its process title.
            env={**self._plain_environment(), "SPT_NOENV": "1"},
            title=TITLES[PRELOADED],
            launch=preloaded.launch_parent,
            ready=preloaded.ready,
            ready_timeout=READY_SECONDS,
        )
        begun = [self._begin([spec])]
        self._preloaded = preloaded
        return begun

    def _ready(self, name: str, seconds: float, _: Sequence[str]) -> None:
        said = TITLES.get(name, name)
        self._say(f"{said}: started" if name == DAEMON else f"{said}: ready after {seconds:.1f} s")
        self._awaited.remove(said)

    def _start_metrics(self, settings: Settings, environment: dict[str, str]) -> str:
        """Start the metrics endpoint and return its URL. When the port has just been taken by another program, try another one."""
        port = self._port("metrics", "metrics")
        for tries_left in reversed(range(START_TRIES)):
            port = free_port(port, settings.web.host)
            url = f"http://{settings.web.host}:{port}/metrics"
            try:
                self._begin([self._metrics(url, environment)]).wait()
            except ProcessFailed:
                if tries_left == 0 or is_free(port, settings.web.host):
                    raise
            else:
                break
        return url

    def _port(self, service: str, group: Literal["web", "desk", "metrics"] | None = None) -> int:
        """Return the port of a service: the `port` of its group of settings if it was given, else its previous one."""
        self._ports = self._ports or Ports(self._home, say=self._say, warn=self._warn)
        if group is None:
            return self._ports.take(service)
        said: Web | DeskSite | Metrics = getattr(self._settings, group)
        host = self._settings.desk.host if group == "desk" else self._settings.web.host
        return self._ports.take(service, wish=said.port if "port" in said.model_fields_set else None, usual=said.port, host=host)

    def _with_addresses(self) -> Settings:
        """Return the settings with the URLs of the Dagster UI and, when our own sandbox is needed, of the sandbox."""
        found: dict[str, dict[str, object]] = {
            "paths": {"home": self._home},
            "web": {"url": f"http://{self._settings.web.host}:{self._port('webserver', 'web')}"},
            "desk": {"port": self._port(DESK, "desk")},
        }
        if Endpoints(self._settings, self._with_tokens, self._named).sandbox_needed and self._settings.sandbox.url is None:
            found["sandbox"] = {"url": f"http://127.0.0.1:{self._port('sandbox')}"}
        return self._settings.changed(found)

    def _channels(self) -> Collection[Channel]:
        """Return the channels in channels.yaml. The database is not available yet."""
        content = channels_text(self._settings)
        return [] if content is None else channels_file.parse(content, name=str(self._settings.channels_path)).values()

    def _with_tokens(self) -> set[str]:
        """Return the platforms with an account that has its own token."""
        return {str(platform) for channel in self._channels() for platform in channel.tokens}

    def _named(self) -> set[str]:
        """Return the platforms that a channel has an account on, and the gateways that publish for them."""
        return named_by(self._channels())

    def _embedded(self) -> EmbeddedServers | None:
        """Return the embedded servers; None when there are URLs for both."""
        if self._settings.database.url is not None and self._settings.redis.url is not None:
            return None
        return EmbeddedServers(self._home, notify=self._warn)

    def _with_servers(self, settings: Settings, embedded: EmbeddedServers | None) -> Settings:
        """Start the embedded servers, if any, and return the settings with their URLs."""
        if embedded is None:
            return settings
        began, names = time.monotonic(), "PostgreSQL and Valkey"
        self._awaited.add([names])
        urls = self._exit.enter_context(embedded)
        self._ready(names, time.monotonic() - began, ())
        found: dict[str, dict[str, str]] = {}
        if settings.redis.url is None:
            found["redis"] = {"url": urls.redis_url}
        if settings.database.url is None:
            first_key(settings)
            found["database"] = {"url": urls.database_url, "dagster_url": urls.dagster_database_url}
        return settings.changed(found)

    def _plain_environment(self) -> dict[str, str]:
        """Return the base environment of our processes, with the data directory. Nothing is imported from the working directory."""
        kept = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
        return {**kept, "PHANTOMS_HOME": str(self._home), "PYTHONUNBUFFERED": "1", "PYTHONSAFEPATH": "1"}

    def _environment(self, settings: Settings) -> dict[str, str]:
        ours = {
            "PHANTOMS_DATABASE_URL": settings.database.url.get_secret_value() if settings.database.url else "",
            "PHANTOMS_DAGSTER_DATABASE_URL": settings.dagster_url() or "",
            "PHANTOMS_REDIS_URL": settings.redis.url.get_secret_value() if settings.redis.url else "",
            "PHANTOMS_SANDBOX": settings.sandbox.mode,
            "PHANTOMS_SANDBOX_URL": settings.sandbox.url or "",
            "PHANTOMS_WEB_URL": settings.web.url or "",
            "PHANTOMS_DESK_URL": desk_url(settings),
        }
        dagster = {"DAGSTER_HOME": str(prepare(self._home, settings)), "DAGSTER_EVENT_BATCH_SIZE": "500"}
        return {**self._plain_environment(), **ours, **dagster}

    def _sandbox(self, settings: Settings, environment: dict[str, str]) -> ProcessSpec:
        assert settings.sandbox.url is not None
        url = settings.sandbox.url
        program = (sys.executable, "-m", "phantoms_dagster.cli.main", "sandbox", "--port", str(urlsplit(url).port))
        command = (
            *program,
            "--seed",
            str(self._seed),
            "--state",
            str(self._home / "sandbox"),
            "--films",
            str(settings.media_path),
        )
        return self._spec("sandbox", command, environment, lambda: _answers(f"{url}/_sandbox/health"))

    def _metrics(self, url: str, environment: dict[str, str]) -> ProcessSpec:
        command = (sys.executable, "-m", "phantoms_dagster.cli.main", "metrics", "--port", str(urlsplit(url).port))
        return self._spec("metrics", command, environment, lambda: _answers(url))

    def _desk(self, settings: Settings, environment: dict[str, str]) -> ProcessSpec:
        command = (sys.executable, "-m", "phantoms_dagster.cli.main", "desk", "--port", str(settings.desk.port))
        lean = {"MALLOC_ARENA_MAX": "1", **environment}
        return self._spec(DESK, command, lean, lambda: _answers(f"{local_desk_url(settings)}health"))

    def _dagster(self, settings: Settings, environment: dict[str, str]) -> list[ProcessSpec]:
        assert settings.web.url is not None
        web = urlsplit(settings.web.url)
        code_port = free_port(0)
        workspace = Path(environment["DAGSTER_HOME"]) / "workspace.yaml"
        workspace.write_text(
            f"load_from:\n  - grpc_server: {{host: 127.0.0.1, port: {code_port}, location_name: phantoms}}\n", encoding="utf-8"
        )
        python = (sys.executable, "-m")
        code = (
            *python,
            "dagster",
            "api",
            "grpc",
            "-m",
            self._module,
            "-h",
            "127.0.0.1",
            "-p",
            str(code_port),
            "--location-name",
            "phantoms",
            "--empty-working-directory",
        )
        # glibc gives each allocating thread its own arena. These processes have twenty threads and one lock, so one arena will do.
        lean = {"MALLOC_ARENA_MAX": "1", **environment}
        pages = ("-h", web.hostname or "", "-p", str(web.port), "-w", str(workspace), "--log-level", "warning")
        return [
            self._workers(settings, environment),
            self._desk(settings, environment),
            self._spec(CODE_SERVER, code, lean, lambda: _listens(code_port)),
            self._spec(DAEMON, (*python, "phantoms_dagster.execution.daemon", "-w", str(workspace)), lean, None),
            self._spec(
                "webserver",
                (*python, "phantoms_dagster.execution.webserver", *pages),
                lean,
                lambda: _answers(f"{settings.web.url}/server_info"),
            ),
        ]

    def _workers(self, settings: Settings, environment: dict[str, str]) -> ProcessSpec:
        """Return the workers' process. It is ready when every queue has a worker, or after WORKERS_SECONDS."""
        look = (sys.executable, "-m", "phantoms_dagster.execution.listening", "--seconds", str(WORKERS_SECONDS))
        started: list[Task] = []

        def listen() -> bool:
            if not started:
                started.append(self._exit.enter_context(Task(self._spec("listening", look, environment, None))))
            return started[0].over()

        command = (sys.executable, "-m", "phantoms_dagster.execution.worker", "--module", self._module)
        return self._spec("workers", command, environment, listen, grace_seconds=settings.workers.grace_seconds + GRACE_SECONDS)

    def _spec(
        self,
        name: str,
        command: tuple[str, ...],
        environment: dict[str, str],
        ready: Callable[[], bool] | None,
        *,
        grace_seconds: float = GRACE_SECONDS,
    ) -> ProcessSpec:
        """Return the specification of a process. The preloaded parent forks it, if there is one."""
        parent = self._preloaded
        return ProcessSpec(
            name=name,
            title=TITLES.get(name, ""),
            argv=command,
            env=environment,
            when=parent.ready if parent else None,
            launch=parent.fork if parent else None,
            ready=ready,
            ready_timeout=READY_SECONDS,
            grace_seconds=grace_seconds,
        )

    def _announce(self, environment: dict[str, str]) -> None:
        """Write the file by which other commands find this stack. It holds passwords, so it is private and deleted on exit."""
        names = [n for n in environment if n.startswith("PHANTOMS_") and n.endswith(("_URL", "_SANDBOX", "_CLIENT_ID"))]
        path = self._home / RUNNING_FILE
        self._exit.callback(path.unlink, missing_ok=True)
        write_private(path, "".join(f"{name}={_quoted(environment[name])}\n" for name in names if environment[name]))


def _quoted(value: str) -> str:
    """Quote a URL for a dotenv file. It cannot contain a literal `${`, so that becomes `%24{`."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'").replace("${", "%24{")
    return f"'{escaped}'"


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _answers(url: str) -> bool:
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=2)
    try:
        connection.request("GET", place.path or "/")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def demo_seed() -> int:
    """Return a random seed for a sandbox."""
    return secrets.randbelow(1_000_000)
