"""Everything that `phantoms up` runs: servers, migrations, sandbox, code server, daemon, web server. Started in order, stopped
in reverse, found by other commands through a file in the data directory.
"""

from __future__ import annotations

import os
import secrets
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import httpx

from phantoms_dagster.cli.preparation import make_ready
from phantoms_dagster.embedded.processes import ProcessSpec
from phantoms_dagster.embedded.servers import START_TRIES, EmbeddedServers, free_port, is_free
from phantoms_dagster.embedded.supervisor import ProcessFailed, Supervisor
from phantoms_dagster.embedded.valkey import write_private
from phantoms_dagster.execution.home import prepare
from phantoms_dagster.settings import RUNNING_FILE, Settings
from phantoms_dagster.wiring import Workshop
from phantoms_dagster.wiring.models import model_warning

READY_SECONDS = 180.0
GRACE_SECONDS = 15.0
MODULE = "phantoms_dagster.definitions"


@dataclass(frozen=True)
class Running:
    """Where the parts of a running stack are. `sandboxed` names the integrations that the sandbox answers for."""

    home: Path
    web_url: str
    sandbox_url: str | None
    sandboxed: tuple[str, ...]
    settings: Settings
    metrics_url: str


class Stack:
    """The stack of one data directory. Use it as a context manager: what was started is stopped.

    `module` has the definitions; another one than ours lets a benchmark stand in for the slow parts.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        say: Callable[[str], None],
        warn: Callable[[str], None],
        sandbox_seed: int = 1,
        module: str = MODULE,
    ) -> None:
        self._home = settings.home.expanduser().absolute()
        self._settings = settings
        self._say = say
        self._warn = warn
        self._seed = sandbox_seed
        self._module = module
        self._exit = ExitStack()
        self._supervisors: list[Supervisor] = []

    def __enter__(self) -> Running:
        """Start everything. Raises PhantomsError with the next step; then nothing is left running."""
        with ExitStack() as starting:
            starting.callback(self._exit.close)
            running = self._start()
            starting.pop_all()
            return running

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop everything, in reverse order."""
        self._exit.close()

    def pids(self) -> dict[str, int]:
        """The processes, by name."""
        return {name: pid for supervisor in self._supervisors for name, pid in supervisor.pids.items()}

    def _start(self) -> Running:
        self._home.mkdir(parents=True, exist_ok=True)
        settings = self._with_servers()
        (self._home / RUNNING_FILE).unlink(missing_ok=True)  # a killed stack leaves one that points nowhere
        environment = self._environment(settings)
        workshop = Workshop(settings)
        make_ready(workshop, environment, say=self._say)
        if (problem := model_warning(settings)) is not None:
            self._warn(problem)
        needed = tuple(workshop.endpoints.sandbox_needed)
        ours = needed and self._settings.sandbox_url is None
        specs = [*([self._sandbox(settings, environment)] if ours else []), *self._dagster(settings, environment)]
        self._say("starting " + ", ".join([*(spec.name for spec in specs), "metrics"]))
        self._supervise(specs)
        metrics_url = self._start_metrics(settings, environment)
        self._announce(environment)
        assert settings.web_url is not None
        return Running(self._home, settings.web_url, settings.sandbox_url if needed else None, needed, settings, metrics_url)

    def _supervise(self, specs: list[ProcessSpec]) -> None:
        """Start these, until we stop. Raises ProcessFailed; then none of them runs."""
        supervisor = Supervisor(specs, logs=self._home / "logs", notify=self._warn)
        self._exit.callback(supervisor.stop)
        supervisor.start()
        self._supervisors.append(supervisor)

    def _start_metrics(self, settings: Settings, environment: dict[str, str]) -> str:
        """Start the endpoint; its URL. Another port is tried when somebody took the one that was free a moment ago."""
        port = settings.metrics_port
        for tries_left in reversed(range(START_TRIES)):
            port = free_port(port, settings.web_host)
            url = f"http://{settings.web_host}:{port}/metrics"
            try:
                self._supervise([self._metrics(url, environment)])
            except ProcessFailed:
                if tries_left == 0 or is_free(port, settings.web_host):
                    raise
            else:
                break
        return url

    def _with_servers(self) -> Settings:
        """The settings with every URL in place."""
        found: dict[str, str] = {}
        if self._settings.database_url is None or self._settings.redis_url is None:
            self._say("servers: starting the embedded PostgreSQL and Valkey")
            urls = self._exit.enter_context(EmbeddedServers(self._home, notify=self._warn))
            found = {"redis_url": urls.redis_url}
            if self._settings.database_url is None:
                found |= {"database_url": urls.database_url, "dagster_database_url": urls.dagster_database_url}
            if self._settings.redis_url is not None:
                del found["redis_url"]
        if Workshop(self._settings).endpoints.sandbox_needed and self._settings.sandbox_url is None:
            found["sandbox_url"] = f"http://127.0.0.1:{free_port(0)}"
        found["web_url"] = f"http://{self._settings.web_host}:{free_port(self._settings.web_port, self._settings.web_host)}"
        return Settings(**{**self._settings.model_dump(), "home": self._home, **found})

    def _environment(self, settings: Settings) -> dict[str, str]:
        ours = {
            "PHANTOMS_HOME": str(self._home),
            "PHANTOMS_DATABASE_URL": settings.database_url.get_secret_value() if settings.database_url else "",
            "PHANTOMS_DAGSTER_DATABASE_URL": settings.dagster_url() or "",
            "PHANTOMS_REDIS_URL": settings.redis_url.get_secret_value() if settings.redis_url else "",
            "PHANTOMS_SANDBOX": settings.sandbox,
            "PHANTOMS_SANDBOX_URL": settings.sandbox_url or "",
            "PHANTOMS_WEB_URL": settings.web_url or "",
        }
        dagster = {"DAGSTER_HOME": str(prepare(self._home, settings)), "DAGSTER_EVENT_BATCH_SIZE": "500"}
        return {**os.environ, **ours, **dagster, "PYTHONUNBUFFERED": "1"}

    def _sandbox(self, settings: Settings, environment: dict[str, str]) -> ProcessSpec:
        assert settings.sandbox_url is not None
        url = httpx.URL(settings.sandbox_url)
        command = (sys.executable, "-m", "phantoms_dagster.cli.main", "sandbox", "--port", str(url.port), "--seed", str(self._seed))
        return self._spec("sandbox", command, environment, lambda: _answers(f"{url}/_sandbox/health"))

    def _metrics(self, url: str, environment: dict[str, str]) -> ProcessSpec:
        command = (sys.executable, "-m", "phantoms_dagster.cli.main", "metrics", "--port", str(httpx.URL(url).port))
        return self._spec("metrics", command, environment, lambda: _answers(url))

    def _dagster(self, settings: Settings, environment: dict[str, str]) -> list[ProcessSpec]:
        assert settings.web_url is not None
        web = httpx.URL(settings.web_url)
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
        )
        pages = ("-h", web.host, "-p", str(web.port), "-w", str(workspace), "--log-level", "warning")
        return [
            self._workers(settings, environment),
            self._spec("code-server", code, environment, lambda: _listens(code_port)),
            self._spec("daemon", (*python, "phantoms_dagster.execution.daemon", "-w", str(workspace)), environment, None),
            self._spec("webserver", (*python, "dagster_webserver", *pages), environment, lambda: _answers(f"{web}/server_info")),
        ]

    def _workers(self, settings: Settings, environment: dict[str, str]) -> ProcessSpec:
        return ProcessSpec(
            name="workers",
            argv=(sys.executable, "-m", "phantoms_dagster.execution.worker", "--module", self._module),
            env=environment,
            grace_seconds=settings.worker_grace_seconds + GRACE_SECONDS,
        )

    def _spec(
        self, name: str, command: tuple[str, ...], environment: dict[str, str], ready: Callable[[], bool] | None
    ) -> ProcessSpec:
        return ProcessSpec(
            name=name, argv=command, env=environment, ready=ready, ready_timeout=READY_SECONDS, grace_seconds=GRACE_SECONDS
        )

    def _announce(self, environment: dict[str, str]) -> None:
        """Let other commands find this stack. The file holds passwords, so it is ours alone, and goes when we go."""
        names = [n for n in environment if n.startswith("PHANTOMS_") and n.endswith(("_URL", "_SANDBOX"))]
        path = self._home / RUNNING_FILE
        self._exit.callback(path.unlink, missing_ok=True)
        write_private(path, "".join(f"{name}={_quoted(environment[name])}\n" for name in names if environment[name]))


def _quoted(value: str) -> str:
    """A URL as a dotenv file takes it. Such a file has no way to write a literal `${`, so a URL's is written as `%24{`."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'").replace("${", "%24{")
    return f"'{escaped}'"


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def demo_seed() -> int:
    """A seed for a sandbox whose numbers should differ from run to run."""
    return secrets.randbelow(1_000_000)
