"""Every private name of Dagster that Phantoms uses. No other module imports private names. A test checks each one.

Dagster may rename a private name in any release, so each use is a *fast path*. A table says what the path needs, what it saves, and
which public names do the same more slowly. `usable` decides between the two, for each path and process.
`PHANTOMS_DAGSTER_FAST_PATHS` sets the rule: `auto` warns once and falls back when a name is missing or has changed, `on` refuses to
start in that case, and `off` always falls back.

A few classes have no public address although plugins need them: a run launcher must derive from `RunLauncher`. Their fallback finds
the same class through a public object.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from phantoms_dagster import settings
from phantoms_dagster.domain.errors import PhantomsError

if TYPE_CHECKING:
    from dagster._cli.api import _execute_run_command_body, _resume_run_command_body
    from dagster._core.events import (
        AssetObservationData,
        DagsterEventBatchMetadata,
        StepMaterializationData,
        generate_event_batch_id,
    )
    from dagster._core.execution.backfill import BULK_ACTION_TERMINAL_STATUSES, BulkActionsFilter, BulkActionStatus
    from dagster._core.instance.ref import InstanceRef
    from dagster._core.instance.utils import RUNLESS_JOB_NAME, RUNLESS_RUN_ID
    from dagster._core.launcher.base import CheckRunHealthResult, LaunchRunContext, ResumeRunContext, RunLauncher, WorkerStatus
    from dagster._core.run_coordinator.base import SubmitRunContext
    from dagster._core.run_coordinator.queued_run_coordinator import QueuedRunCoordinator
    from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
    from dagster._core.storage.base_storage import DagsterStorage
    from dagster._core.storage.compute_log_manager import CapturedLogContext
    from dagster._core.storage.dagster_run import IN_PROGRESS_RUN_STATUSES
    from dagster._core.storage.event_log.schema import (
        AssetCheckExecutionsTable,
        AssetKeyTable,
        SqlEventLogStorageMetadata,
        SqlEventLogStorageTable,
    )
    from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
    from dagster._core.storage.runs.sql_run_storage import SqlRunStorage
    from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
    from dagster._daemon import asset_daemon, controller, sensor
    from dagster._daemon.daemon import DaemonIterator, IntervalDaemon, MonitoringDaemon, SpanMarker
    from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon
    from dagster._daemon.utils import DaemonErrorCapture
    from dagster._grpc import server_watcher
    from dagster._serdes import ConfigurableClass, ConfigurableClassData
    from dagster._utils.error import SerializableErrorInfo  # type: ignore[attr-defined]
    from dagster._utils.interrupts import capture_interrupts

READ_AT = "1.13.27"  # the version of Dagster whose code was read for every entry below
VARIABLE = "PHANTOMS_DAGSTER_FAST_PATHS"

_log = logging.getLogger(__name__)


class ChangedDagster(PhantomsError):
    """The installed Dagster lacks something that a fast path needs, and fast paths must be on."""


@dataclass(frozen=True)
class FastPath:
    """A use of private names. A need is `module:name`, `module:Class.attribute` or `module:function(argument,...)`."""

    name: str
    needs: tuple[str, ...]
    saves: str
    instead: str


PATHS: Mapping[str, FastPath] = {
    path.name: path
    for path in (
        FastPath(
            "parts",
            (
                "dagster._core.launcher.base:RunLauncher",
                "dagster._core.launcher.base:CheckRunHealthResult",
                "dagster._core.launcher.base:LaunchRunContext",
                "dagster._core.launcher.base:ResumeRunContext",
                "dagster._core.launcher.base:WorkerStatus",
                "dagster._serdes:ConfigurableClass",
                "dagster._serdes:ConfigurableClassData",
                "dagster._core.storage.base_storage:DagsterStorage",
                "dagster._core.storage.local_compute_log_manager:LocalComputeLogManager",
                "dagster._core.storage.compute_log_manager:CapturedLogContext",
                "dagster._core.storage.sqlite_storage:DagsterSqliteStorage",
                "dagster._core.instance.ref:InstanceRef.from_dir",
            ),
            "1.8 of 7.1 CPU-seconds of the start of each process that opens an instance (busy machine)",
            "the same classes, found through an instance in a temporary folder",
        ),
        FastPath(
            "storage",
            (
                "dagster._core.storage.event_log.schema:AssetCheckExecutionsTable",
                "dagster._core.storage.event_log.schema:AssetKeyTable",
                "dagster._core.storage.event_log.schema:SqlEventLogStorageMetadata",
                "dagster._core.storage.event_log.schema:SqlEventLogStorageTable",
                "dagster._core.storage.asset_check_execution_record:AssetCheckExecutionRecordStatus",
                "dagster_postgres:PostgresEventLogStorage._connect(self)",
                "dagster_postgres:PostgresEventLogStorage._event_to_row(self,event)",
                "dagster_postgres:PostgresEventLogStorage._has_asset_key_col_on_connection(self,conn,column_name)",
                "dagster_postgres:PostgresEventLogStorage._store_asset_event(self,conn,event,event_id)",
                "dagster_postgres:PostgresEventLogStorage._store_asset_event_tags(self,conn,events,event_ids)",
                "dagster_postgres:PostgresScheduleStorage._has_instigators_table(self,conn)",
                "dagster_postgres.utils:create_pg_engine",
            ),
            "74 of 78 seconds of a run over 200 partitions of four assets, with batches of events",
            "`dagster_postgres.DagsterPostgresStorage`: a connection for each operation",
        ),
        FastPath(
            "events",
            (
                "dagster._core.events:AssetObservationData",
                "dagster._core.events:StepMaterializationData",
                "dagster._core.events:DagsterEventBatchMetadata(id,is_end)",
                "dagster._core.events:generate_event_batch_id()",
                "dagster._core.instance.utils:RUNLESS_JOB_NAME",
                "dagster._core.instance.utils:RUNLESS_RUN_ID",
                "dagster:AssetExecutionContext.get_step_execution_context(self)",
            ),
            "3.7 of 4 CPU-ms for each partition",
            "`context.log_event` and `report_runless_asset_event`, one by one",
        ),
        FastPath(
            "backfills",
            (
                "dagster._core.execution.backfill:BULK_ACTION_TERMINAL_STATUSES",
                "dagster._core.execution.backfill:BulkActionsFilter",
                "dagster._core.execution.backfill:BulkActionStatus",
            ),
            "reading all backfills since the installation, every night",
            "`DagsterInstance.get_backfills` without a filter",
        ),
        FastPath(
            "runs",
            (
                "dagster._cli.api:_execute_run_command_body(run_id,instance,write_stream_fn,set_exit_code_on_failure)",
                "dagster._cli.api:_resume_run_command_body(run_id,instance,write_stream_fn,set_exit_code_on_failure)",
                "dagster._utils.interrupts:capture_interrupts()",
            ),
            "opening the instance a second time in each run",
            "`dagster api execute_run`, the command that containers of Dagster's own launchers run, in the same process",
        ),
        FastPath(
            "daemon",
            (
                "dagster._daemon.sensor:is_under_min_interval(state,remote_sensor,minimum_allowed_min_interval)",
                "dagster._daemon.sensor:execute_sensor_iteration",
                "dagster._daemon.sensor:get_elapsed(state)",
                "dagster._daemon.sensor:MIN_INTERVAL_LOOP_TIME",
                "dagster._daemon.controller:QueuedRunCoordinatorDaemon",
                "dagster._daemon.controller:MonitoringDaemon",
                "dagster._daemon.controller:RELOAD_WORKSPACE_INTERVAL",
                "dagster._daemon.controller:DEFAULT_WORKSPACE_FRESHNESS_TOLERANCE",
                "dagster._daemon.asset_daemon:MIN_INTERVAL_LOOP_SECONDS",
                "dagster._daemon.utils:DaemonErrorCapture.process_exception(exc_info,logger,log_message)",
                "dagster._daemon.utils:DaemonErrorCapture.default_process_exception(exc_info,logger,log_message)",
                "dagster._daemon.daemon:DaemonIterator",
                "dagster._daemon.daemon:SpanMarker.START_SPAN",
                "dagster._daemon.daemon:IntervalDaemon.core_loop(self,workspace_process_context,shutdown_event)",
                "dagster._daemon.daemon:MonitoringDaemon.run_iteration(self,workspace_process_context)",
                "dagster._daemon.run_coordinator.queued_run_coordinator_daemon:QueuedRunCoordinatorDaemon.core_loop"
                "(self,workspace_process_context,shutdown_event)",
                "dagster._core.run_coordinator.base:SubmitRunContext",
                "dagster._core.run_coordinator.queued_run_coordinator:QueuedRunCoordinator.submit_run(self,context)",
                "dagster._core.storage.dagster_run:IN_PROGRESS_RUN_STATUSES",
                "dagster._core.storage.runs.sql_run_storage:SqlRunStorage.connect(self)",
                "dagster._grpc.server_watcher:WATCH_INTERVAL",
                "dagster._utils.error:SerializableErrorInfo",
            ),
            "up to five seconds for each stage of a video",
            "an unchanged `dagster-daemon run`: sensors every five seconds, the queue once a second",
        ),
        FastPath(
            "webserver",
            ("dagster._grpc.server_watcher:WATCH_INTERVAL",),
            "four of five connections to the code server, all day",
            "an unchanged `dagster-webserver`, which asks the code server once a second",
        ),
    )
}

# Modules that runs and the processes of a stack import while they work. Their parent imports them once, before it forks. It skips
# a missing one. These are not fast paths, because nothing else depends on them.
IMPORTED_BY_RUNS = (
    "dagster._cli.api",
    "dagster._core.execution.plan.active",
    "dagster._core.executor.in_process",
    "dagster._core.instance.factory",
    "dagster._core.storage.root",
    "dagster._core.storage.sqlite_storage",
    "dagster._core.system_config.composite_descent",
    "dagster._core.utility_ops",
    "dagster._core.workspace.autodiscovery",
    "dagster._utils.temp_file",
    "dagster._utils.test.definitions",
)
IMPORTED_BY_SERVICES = (
    "dagster._cli",
    "dagster._cli.api",
    "dagster._daemon.cli",
    "dagster._daemon.controller",
    "dagster._daemon.sensor",
    "dagster._grpc.client",
    "dagster._grpc.server",
)

__all__ = [
    "BULK_ACTION_TERMINAL_STATUSES",
    "IN_PROGRESS_RUN_STATUSES",
    "RUNLESS_JOB_NAME",
    "RUNLESS_RUN_ID",
    "AssetCheckExecutionRecordStatus",
    "AssetCheckExecutionsTable",
    "AssetKeyTable",
    "AssetObservationData",
    "BulkActionStatus",
    "BulkActionsFilter",
    "CapturedLogContext",
    "CheckRunHealthResult",
    "ConfigurableClass",
    "ConfigurableClassData",
    "DaemonErrorCapture",
    "DaemonIterator",
    "DagsterEventBatchMetadata",
    "DagsterSqliteStorage",
    "DagsterStorage",
    "InstanceRef",
    "IntervalDaemon",
    "LaunchRunContext",
    "LocalComputeLogManager",
    "MonitoringDaemon",
    "QueuedRunCoordinator",
    "QueuedRunCoordinatorDaemon",
    "ResumeRunContext",
    "RunLauncher",
    "SerializableErrorInfo",
    "SpanMarker",
    "SqlEventLogStorageMetadata",
    "SqlEventLogStorageTable",
    "SqlRunStorage",
    "StepMaterializationData",
    "SubmitRunContext",
    "WorkerStatus",
    "_execute_run_command_body",
    "_resume_run_command_body",
    "asset_daemon",
    "capture_interrupts",
    "controller",
    "generate_event_batch_id",
    "sensor",
    "server_watcher",
]

# --- which way


def usable(path: str) -> bool:
    """Whether to use a fast path instead of its fallback. Raises ChangedDagster if it is required but does not work."""
    mode = settings.load().dagster.fast_paths
    if mode == "off":
        return False
    problem = problem_of(path)
    if problem and mode == "on":
        raise ChangedDagster(problem)
    if problem:
        _warn(problem)
    return not problem


def check() -> None:
    """Check all fast paths at the start of a process. Warns or raises ChangedDagster like `usable`."""
    for path in PATHS:
        usable(path)


@cache
def problem_of(path: str) -> str:
    """Return what the installed Dagster lacks for a fast path, and what to do about it. Empty if it lacks nothing."""
    reasons = [reason for need in PATHS[path].needs if (reason := _lacks(need))]
    if not reasons:
        return ""
    return (
        f"Dagster {dg.__version__} is installed, and the fast path {path!r} was written for {READ_AT}: {'; '.join(reasons)}. "
        f"Without it Phantoms uses {PATHS[path].instead}, which is slower. Install dagster=={READ_AT} to get the speed back, "
        f"or set {VARIABLE}=off to silence this warning."
    )


@cache
def _warn(problem: str) -> None:
    _log.warning("%s", problem)


def _lacks(need: str) -> str:
    where, _, arguments = need.partition("(")
    try:
        found = _take(where)
    except (ImportError, AttributeError) as error:
        return f"{where.replace(':', '.')} is missing ({type(error).__name__})"
    if arguments:
        wanted, has = arguments.rstrip(")"), ",".join(inspect.signature(found).parameters)
        if wanted != has:
            return f"{where.replace(':', '.')} takes ({has}) instead of ({wanted})"
    return ""


def _take(where: str) -> Any:
    """Return the object at `module:name` or `module:Class.attribute`. Raises ImportError or AttributeError."""
    module, _, names = where.partition(":")
    found: Any = importlib.import_module(module)
    for name in filter(None, names.split(".")):
        found = getattr(found, name)
    return found


# --- names


def _places() -> dict[str, str]:
    """Return where each private name is defined: `module:name`."""
    found: dict[str, str] = {}
    for path in PATHS.values():
        for need in path.needs:
            module, _, names = need.partition("(")[0].partition(":")
            if module.startswith("dagster._"):
                found.setdefault(names.split(".")[0], f"{module}:{names.split('.')[0]}")
    return found | _MODULES


# Modules in which we change constants.
_MODULES = {
    "asset_daemon": "dagster._daemon.asset_daemon",
    "controller": "dagster._daemon.controller",
    "sensor": "dagster._daemon.sensor",
    "server_watcher": "dagster._grpc.server_watcher",
}


def __getattr__(name: str) -> Any:
    """Import a private name on first use. Classes without a public address are found through public objects if they have moved."""
    place = _places().get(name)
    if place is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    road = _ROADS.get(name)
    try:
        # Read the variable directly: a wrong setting must not prevent the import of a class.
        roundabout = road is not None and os.environ.get(VARIABLE, "").lower() == "off"
        found = road() if road is not None and roundabout else _take(place)
    except (ImportError, AttributeError) as error:
        if road is None:
            raise AttributeError(f"Dagster {dg.__version__} has no {place.replace(':', '.')}: ask `usable` first") from error
        found = road()
    globals()[name] = found
    return found


def _ancestor(of: type, name: str) -> type:
    for each in of.__mro__:
        if each.__name__ == name:
            return each
    raise ChangedDagster(
        f"Dagster {dg.__version__} has no class {name}, from which Phantoms derives its own: install dagster=={READ_AT}"
    )


def _beside(name: str, neighbour: str) -> Any:
    """Return another name from the module of the class `neighbour`."""
    return getattr(sys.modules[__getattr__(neighbour).__module__], name)


@cache
def _local_parts() -> tuple[type, type]:
    """Return the classes of storage and compute log manager that an instance in a folder uses."""
    with tempfile.TemporaryDirectory() as folder, dg.DagsterInstance.local_temp(folder) as instance:
        storage = instance.get_ref().storage
        try:
            return type(storage), type(instance.compute_log_manager)
        finally:
            for part in () if storage is None else (storage.event_log_storage, storage.run_storage, storage.schedule_storage):
                part.dispose()


def _postgres() -> type:
    from dagster_postgres import PostgresRunStorage  # noqa: PLC0415 - slow, and used only here

    return PostgresRunStorage


def _reference() -> type:
    with tempfile.TemporaryDirectory() as folder, dg.DagsterInstance.local_temp(folder) as instance:
        return type(instance.get_ref())


_ROADS: Mapping[str, Callable[[], Any]] = {
    "RunLauncher": lambda: _ancestor(type(dg.DagsterInstance.ephemeral().run_launcher), "RunLauncher"),
    "CheckRunHealthResult": lambda: _beside("CheckRunHealthResult", "RunLauncher"),
    "LaunchRunContext": lambda: _beside("LaunchRunContext", "RunLauncher"),
    "ResumeRunContext": lambda: _beside("ResumeRunContext", "RunLauncher"),
    "WorkerStatus": lambda: _beside("WorkerStatus", "RunLauncher"),
    "ConfigurableClass": lambda: _ancestor(_postgres(), "ConfigurableClass"),
    "ConfigurableClassData": lambda: _beside("ConfigurableClassData", "ConfigurableClass"),
    "DagsterStorage": lambda: _ancestor(_local_parts()[0], "DagsterStorage"),
    "DagsterSqliteStorage": lambda: _local_parts()[0],
    "LocalComputeLogManager": lambda: _local_parts()[1],
    "CapturedLogContext": lambda: _beside("CapturedLogContext", "LocalComputeLogManager"),
    "InstanceRef": _reference,
}

# --- what the fallbacks do


def program(name: str) -> Callable[..., Any]:
    """Return the function behind one of Dagster's commands, such as `dagster-daemon`."""
    [found] = entry_points(group="console_scripts", name=name)
    loaded: Callable[..., Any] = found.load()
    return loaded


def command(name: str, arguments: Iterable[str]) -> None:
    """Run one of Dagster's commands in this process until it ends. Raises SystemExit if it failed."""
    before = sys.argv
    sys.argv = [name, *arguments]
    try:
        program(name)()
    except SystemExit as stop:
        if stop.code not in (None, 0):
            raise
    finally:
        sys.argv = before


def run_arguments(run: dg.DagsterRun, how: str) -> str:
    """Return the argument for `dagster api execute_run` or `resume_run`, in the format that Dagster keeps for older containers."""
    kind = {"execute": "ExecuteRunArgs", "resume": "ResumeRunArgs"}[how]
    origin = dg.serialize_value(run.job_code_origin)
    return f'{{"__class__": "{kind}", "instance_ref": null, "pipeline_origin": {origin}, "pipeline_run_id": "{run.run_id}"}}'


def preload(names: Iterable[str]) -> None:
    """Import these modules, without those that do not exist."""
    for name in names:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if not (error.name or "").startswith("dagster"):
                raise
            _log.debug("%s does not exist, so it is not imported early", name)


def instance_ref(folder: str | Path) -> InstanceRef:
    """Return what another process needs to open the instance that is configured in that folder's dagster.yaml."""
    if usable("parts"):
        return _take("dagster._core.instance.ref:InstanceRef").from_dir(str(folder))  # type: ignore[no-any-return]
    with dg.DagsterInstance.from_config(str(folder)) as instance:
        return instance.get_ref()
