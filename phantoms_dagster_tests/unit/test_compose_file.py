"""docker-compose.yml: everything that it names exists, it has no secrets, and no service has more than it needs.

Each rule is a function that answers with the problems it finds, and is tried on a copy that breaks it. That the commands of
the file really work together is shown in `integration/test_compose_services.py`.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster
import pytest
from dagster._cli import create_dagster_cli
from dagster._daemon.cli import create_dagster_daemon_cli
from dagster_webserver.cli import dagster_webserver
from pydantic import ValidationError

from phantoms_dagster.execution import health
from phantoms_dagster.settings import Settings, grouped
from phantoms_dagster.settings.leaves import leaves
from phantoms_dagster_tests.compose_file import ROOT, Compose, Service, client, compose, text
from phantoms_dagster_tests.program import whole_program

UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600}
# What services of other people are given.
THEIR_VARIABLES = {"POSTGRES_USER", "POSTGRES_DB", "POSTGRES_PASSWORD_FILE", "PHANTOMS_SITE", "PHANTOMS_DESK_SITE"}
# No settings of ours: `desk/serve.py` reads it, as uvicorn does.
PROXIES = "FORWARDED_ALLOW_IPS"
WORKSPACES = {"/data/dagster/workspace.yaml": str(ROOT / "workspace.yaml")}

Rule = Callable[[Compose], list[str]]


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in os.environ if n.startswith(("PHANTOMS_", "DAGSTER_"))]:
        monkeypatch.delenv(name)


# ------------------------------------------------------------------ the rules


def variables_are_known(file: Compose) -> list[str]:
    """Every variable is one of our settings, the file of one, or one that Dagster reads; its value is one that we take."""
    known = {leaf.variable for leaf in leaves(Settings).values()}
    files = {leaf.file_variable for leaf in leaves(Settings).values() if leaf.file_variable}
    found = []
    for service in file.services.values():
        for name in service.environment:
            ours = service.ours and (
                name in known | files | {PROXIES} or (name.startswith("DAGSTER_") and name in _read_by_dagster())
            )
            if not ours and (service.ours or name not in THEIR_VARIABLES):
                found.append(f"{service.name}: nobody reads {name}")
        if service.ours:
            found += [f"{service.name}: {problem}" for problem in _refused(service.environment)]
    return found


def _read_by_dagster(cache: set[str] = set()) -> set[str]:  # noqa: B006 - read once
    if not cache:
        for path in Path(str(dagster.__file__)).parent.rglob("*.py"):
            cache.update(re.findall(r"[\"'](DAGSTER_[A-Z_]+)[\"']", path.read_text(encoding="utf-8")))
    return cache


def _refused(environment: dict[str, str]) -> list[str]:
    known = leaves(Settings)
    variables = {leaf.path: leaf.variable for leaf in known.values()}
    values = {n.removeprefix("PHANTOMS_").lower(): v for n, v in environment.items() if n.startswith("PHANTOMS_")}
    try:
        Settings(**grouped({name: value for name, value in values.items() if name in known}))
    except ValidationError as error:
        return [f"{variables[tuple(map(str, e['loc']))]}: {e['msg']}" for e in error.errors()]
    return []


def no_secret_stands_in_it(file: Compose) -> list[str]:
    """Secrets come by file; URLs have no password; no command line has one."""
    found = []
    for service in file.services.values():
        for name, value in service.environment.items():
            if re.search(r"PASSWORD|SECRET|TOKEN|KEY|ALERT_URLS", name) and not name.endswith("_FILE"):
                found.append(f"{service.name}: {name} is a secret and is in the file")
            if name.endswith("_FILE") and not value.startswith("/run/secrets/"):
                found.append(f"{service.name}: {name} names no secret")
            if re.search(r"://[^/@]*:[^/@]*@", value):
                found.append(f"{service.name}: {name} has a password in its URL")
        for word in [*service.command, *(service.health or ())]:
            if re.search(r"://[^/@]*:[^/@]*@|pass(word)?[= ](?!\"?\$\(cat /run/secrets/)", word):
                found.append(f"{service.name}: a password on its command line")
    return found


def secrets_are_declared_given_and_used(file: Compose) -> list[str]:
    """What a service is given is declared and comes from a file; what it reads under /run/secrets it is given; all are used."""
    declared: dict[str, Any] = dict(file.spec.get("secrets", {}))
    configs = {name: (ROOT / entry["file"]).read_text(encoding="utf-8") for name, entry in file.spec.get("configs", {}).items()}
    found = [f"secret {name} has no file" for name, entry in declared.items() if set(entry) != {"file"}]
    used: set[str] = set()
    for service in file.services.values():
        words = [*service.environment.values(), *service.command, *(service.health or ())]
        words += [configs[entry["source"]] for entry in service.spec.get("configs", ())]
        read = {name for word in words for name in re.findall(r"/run/secrets/(\w+)", word)}
        used |= read
        found += [f"{service.name}: secret {name} is not declared" for name in set(service.secrets) - set(declared)]
        found += [f"{service.name}: reads secret {name} and is not given it" for name in read - set(service.secrets)]
        found += [f"{service.name}: is given secret {name} and does not read it" for name in set(service.secrets) - read]
    return found + [f"secret {name} is used by nobody" for name in set(declared) - used]


def nothing_has_more_than_it_needs(file: Compose) -> list[str]:
    """A read-only root, no capabilities, bounded resources and logs; only the proxy can be reached from outside."""
    found = []
    for service in file.services.values():
        spec = service.spec
        limits = spec.get("deploy", {}).get("resources", {}).get("limits", {})
        wanted = {
            "read_only": spec.get("read_only") is True,
            "cap_drop": spec.get("cap_drop") == ["ALL"],
            "cap_add": spec.get("cap_add", []) == (["NET_BIND_SERVICE"] if service.name == "proxy" else []),
            "security_opt": spec.get("security_opt") == ["no-new-privileges:true"],
            "privileged": not spec.get("privileged") and not {"pid", "ipc", "network_mode", "devices"} & set(spec),
            "user": service.ours or "user" in spec or service.name == "proxy",
            "limits": set(limits) == {"cpus", "memory", "pids"},
            "logging": {"max-size", "max-file"} <= set(spec.get("logging", {}).get("options", {})),
            "ports": "ports" not in spec or service.name == "proxy",
            "networks": bool(spec.get("networks")) and set(spec["networks"]) <= set(file.spec["networks"]),
            "stores": "outer" not in spec["networks"] or service.name not in ("postgres", "valkey"),
        }
        found += [f"{service.name}: {name}" for name, well in wanted.items() if not well]
    return found + ([] if file.spec["networks"]["inner"].get("internal") else ["the inner network has a way out"])


def everything_is_watched_and_started_in_order(file: Compose) -> list[str]:
    """Who stays has a health check and is started again; who is waited for can be waited for so."""
    found = []
    services = file.services
    for service in services.values():
        stays = service.spec.get("restart") == "unless-stopped"
        if not stays and service.name != "init":
            found.append(f"{service.name}: is not started again")
        if stays and service.health is None:
            found.append(f"{service.name}: has no health check")
        for name, entry in service.spec.get("depends_on", {}).items():
            condition = entry["condition"]
            if name not in services:
                found.append(f"{service.name}: waits for {name}, which is not there")
            elif condition == "service_healthy" and services[name].health is None:
                found.append(f"{service.name}: waits for the health of {name}, which has no check")
            elif condition == "service_completed_successfully" and services[name].spec.get("restart") != "no":
                found.append(f"{service.name}: waits for the end of {name}, which is started again")
        if service.ours and service.name != "init" and "init" not in _before(services, service.name):
            found.append(f"{service.name}: starts before init has ended")
    return found


def _before(services: dict[str, Service], name: str) -> set[str]:
    waited = set(services[name].spec.get("depends_on", {})) & set(services)
    return waited.union(*(_before(services, other) for other in waited)) if waited else set()


def volumes_are_declared_and_used(file: Compose) -> list[str]:
    """Every volume is named, declared and used; ours is where the image expects it."""
    found = []
    used: set[str] = set()
    for service in file.services.values():
        for volume in service.spec.get("volumes", ()):
            name, _, place = str(volume).partition(":")
            used.add(name)
            if name not in file.spec["volumes"]:
                found.append(f"{service.name}: volume {name} is not declared")
            if service.ours and place != "/data":
                found.append(f"{service.name}: our data are in /data, not {place}")
        if service.ours and not service.spec.get("volumes"):
            found.append(f"{service.name}: has no volume")
    return found + [f"volume {name} is used by nobody" for name in set(file.spec["volumes"]) - used]


def runs_have_time_and_events_go_in_batches(file: Compose) -> list[str]:
    """A stopped worker hands its runs back before it is killed. Every process that writes events batches them."""
    found = [
        f"{service.name}: DAGSTER_EVENT_BATCH_SIZE is not set"
        for service in file.ours
        if not service.environment.get("DAGSTER_EVENT_BATCH_SIZE", "").isdigit()
    ]
    for service in file.ours:
        grace = float(
            service.environment.get("PHANTOMS_WORKER_GRACE_SECONDS", leaves(Settings)["worker_grace_seconds"].field.default)
        )
        if "worker" in service.command and _seconds(service.spec["stop_grace_period"]) <= grace:
            found.append(f"{service.name}: it is killed before its runs are handed back")
    return found


def _seconds(length: str) -> float:
    return sum(float(count) * UNIT_SECONDS[unit] for count, unit in re.findall(r"(\d+)([smh])", length))


def commands_exist_and_take_their_arguments(file: Compose) -> list[str]:
    """Each command of ours, and each health check, is a program of the image that takes exactly these arguments."""
    found = []
    for service in file.ours:
        for command in (service.command, service.health):
            # The program wants to see the file; that `init` writes this one is tested below.
            if command is not None and (problem := refusal([WORKSPACES.get(word, word) for word in command])):
                found.append(f"{service.name}: {problem}")
    return found


def refusal(command: list[str]) -> str:
    """Why the command would not start; empty when it would. It is parsed by the program's own parser, and not run."""
    programs = {script.name for script in importlib.metadata.entry_points(group="console_scripts")}
    match command:
        case ["phantoms", *arguments]:
            return _parsed(whole_program(), arguments)
        case ["dagster", *arguments]:
            return _parsed(create_dagster_cli(), arguments)
        case ["dagster-webserver", *arguments] if "dagster-webserver" in programs:
            return _parsed(dagster_webserver, arguments)
        case ["python", "-m", "phantoms_dagster.execution.daemon", *arguments]:
            return _parsed(create_dagster_daemon_cli(), ["run", *arguments])
        case ["python", "-m", "phantoms_dagster.execution.health", *arguments]:
            try:
                health.parser().parse_args(arguments)
            except SystemExit:
                return f"{' '.join(command)} is refused"
            return ""
        case _:
            return f"{' '.join(command)}: no such program"


def _parsed(command: Any, arguments: list[str]) -> str:
    """Parse as click does: groups first, then the command's own options, without calling anything."""
    words = list(arguments)
    name = ""
    try:
        while hasattr(command, "commands"):
            context = command.make_context(name, words[:1] or ["--none"], resilient_parsing=not words)
            name = words.pop(0)
            command = command.get_command(context, name)
            if command is None:
                return f"there is no command {name}"
        command.make_context(name, words)
    except Exception as error:  # noqa: BLE001 - click's, typer's own copy of click's, or a module that cannot be imported
        return f"{name} {' '.join(words)}: {getattr(error, 'message', error)}"
    return ""


RULES: tuple[Rule, ...] = (
    variables_are_known,
    no_secret_stands_in_it,
    secrets_are_declared_given_and_used,
    nothing_has_more_than_it_needs,
    everything_is_watched_and_started_in_order,
    volumes_are_declared_and_used,
    runs_have_time_and_events_go_in_batches,
    commands_exist_and_take_their_arguments,
)


# ------------------------------------------------------------------ that they hold, and that each can be broken


@pytest.mark.parametrize("variables", [{}, {"WORKERS": "4", "PHANTOMS_SITE": "phantoms.example.org"}], ids=["defaults", "set"])
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_it_holds(rule: Rule, variables: dict[str, str]) -> None:
    assert rule(compose(**variables)) == []


BREAKS: list[tuple[Rule, str, str]] = [
    (variables_are_known, "PHANTOMS_RUNS_PER_STAGE:", "PHANTOMS_RUNS_PER_STAGES:"),
    (variables_are_known, "DAGSTER_HOME:", "DAGSTER_HOUSE:"),
    (variables_are_known, "PHANTOMS_ALERT_URLS_FILE", "PHANTOMS_OPENAI_MODEL_FILE"),
    (variables_are_known, "PHANTOMS_LOG_FORMAT: json", "PHANTOMS_LOG_FORMAT: xml"),
    (variables_are_known, "POSTGRES_DB:", "POSTGRES_DATABASE:"),
    (no_secret_stands_in_it, "PHANTOMS_OPENAI_API_KEY_FILE: /run/secrets/openai_api_key", "PHANTOMS_OPENAI_API_KEY: sk-1"),
    (no_secret_stands_in_it, "POSTGRES_PASSWORD_FILE: /run/secrets/postgres_password", "POSTGRES_PASSWORD: secret"),
    (no_secret_stands_in_it, "//phantoms@postgres", "//phantoms:secret@postgres"),
    (no_secret_stands_in_it, "/run/secrets/youtube_token", "ya29.a0"),
    (no_secret_stands_in_it, '"$$(cat /run/secrets/valkey_password)"\n        END', "secret\n        END"),
    (secrets_are_declared_given_and_used, '  logins: {file: "${SECRETS:-./secrets}/logins"}\n', ""),
    (secrets_are_declared_given_and_used, "    secrets: [logins]\n", ""),
    (secrets_are_declared_given_and_used, "alert_urls]", "alert_urls, openai_api_key]"),
    (secrets_are_declared_given_and_used, "      PHANTOMS_ALERT_URLS_FILE: /run/secrets/alert_urls\n", ""),
    (secrets_are_declared_given_and_used, '{file: "${SECRETS:-./secrets}/logins"}', "{environment: LOGINS}"),
    (nothing_has_more_than_it_needs, "read_only: true", "read_only: false"),
    (nothing_has_more_than_it_needs, "cap_drop: [ALL]", "cap_drop: []"),
    (nothing_has_more_than_it_needs, "cap_add: [NET_BIND_SERVICE]", "cap_add: [NET_ADMIN]"),
    (nothing_has_more_than_it_needs, "no-new-privileges:true", "no-new-privileges:false"),
    (nothing_has_more_than_it_needs, '    user: "999:999"\n', ""),
    (nothing_has_more_than_it_needs, ", pids: 64", ""),
    (nothing_has_more_than_it_needs, "  metrics:\n", '  metrics:\n    ports: ["9464:9464"]\n'),
    (nothing_has_more_than_it_needs, "inner: {internal: true}", "inner: {}"),
    (everything_is_watched_and_started_in_order, "  init: true\n  restart: unless-stopped\n", "  init: true\n"),
    (everything_is_watched_and_started_in_order, 'restart: "no"', "restart: always"),
    (everything_is_watched_and_started_in_order, "test: [CMD, pg_isready", "tests: [CMD, pg_isready"),
    (everything_is_watched_and_started_in_order, "webserver: {condition", "website: {condition"),
    (
        everything_is_watched_and_started_in_order,
        "      init: {condition: service_completed_successfully}\n",
        "      postgres: {condition: service_healthy}\n",
    ),
    (volumes_are_declared_and_used, "  data: {}\n", ""),
    (volumes_are_declared_and_used, '"data:/data"', '"data:/media"'),
    (volumes_are_declared_and_used, "  proxy: {}\n", "  proxy: {}\n  desk: {}\n"),
    (runs_have_time_and_events_go_in_batches, "stop_grace_period: 90s", "stop_grace_period: 60s"),
    (runs_have_time_and_events_go_in_batches, "  DAGSTER_EVENT_BATCH_SIZE:", "  DAGSTER_EVENT_BATCHES:"),
    (commands_exist_and_take_their_arguments, "[phantoms, worker]", "[phantoms, workers]"),
    (commands_exist_and_take_their_arguments, "[phantoms, worker]", "[phantoms, worker, --queue, script]"),
    (commands_exist_and_take_their_arguments, "--code-server,", "--code,"),
    (commands_exist_and_take_their_arguments, "--location-name", "--location"),
    (commands_exist_and_take_their_arguments, "grpc, -m", "rpc, -m"),
    (commands_exist_and_take_their_arguments, "--log-level, warning", "--log-level, quiet"),
    (commands_exist_and_take_their_arguments, "execution.daemon, -w", "execution.daemon, -x"),
    (commands_exist_and_take_their_arguments, "execution.daemon,", "execution.demon,"),
    (commands_exist_and_take_their_arguments, "health, page, 3000/server_info", "health, page"),
    (commands_exist_and_take_their_arguments, "health, worker]", "health, workers]"),
]


@pytest.mark.parametrize(("rule", "before", "after"), BREAKS, ids=lambda value: getattr(value, "__name__", None))
def test_a_copy_that_breaks_it_is_noticed(rule: Rule, before: str, after: str) -> None:
    assert before in text()
    assert rule(compose(text().replace(before, after)))


def test_every_rule_is_tried_on_a_broken_copy() -> None:
    assert {rule for rule, _, _ in BREAKS} == set(RULES)


def test_the_number_of_workers_is_one_number() -> None:
    file = compose(WORKERS="7")
    init, worker = file.services["init"], file.services["worker"]
    assert worker.spec["deploy"]["replicas"] == "7"
    assert init.command[init.command.index("--machines") + 1] == "7"
    assert {s.environment["PHANTOMS_RUNS_PER_STAGE"] for s in file.ours} == {"7"}


def test_the_code_server_is_where_init_writes_it_to_be() -> None:
    services = compose().services
    init, server = services["init"].command, services["code-server"]
    assert init[init.index("--code-server") + 1] == f"{server.name}:{server.command[server.command.index('-p') + 1]}"
    for name in ("daemon", "webserver"):
        command = services[name].command
        assert command[command.index("-w") + 1] == f"{services[name].environment['DAGSTER_HOME']}/workspace.yaml"


def test_docker_compose_reads_it_as_we_do(tmp_path: Path) -> None:
    command = client()
    if command is None:
        pytest.skip("no docker compose here")
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "WORKERS": "3"}
    done = subprocess.run(
        [*command, "-f", str(ROOT / "docker-compose.yml"), "config", "--format", "json"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    theirs = json.loads(done.stdout)["services"]
    ours = compose(WORKERS="3").services
    assert set(theirs) == set(ours)
    for name, service in ours.items():
        assert [word.replace("$$", "$") for word in theirs[name]["command"] or []] == service.command
        assert theirs[name].get("environment", {}) == service.environment
        assert [entry["source"] for entry in theirs[name].get("secrets", ())] == service.secrets
        test = theirs[name].get("healthcheck", {}).get("test")
        assert bool(test) == bool(service.health)
