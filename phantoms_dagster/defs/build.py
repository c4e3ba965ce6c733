"""Assembles the definitions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

from phantoms_dagster.defs.alerts import alert_sensor, daily_summary_job, make_daily_summary_schedule
from phantoms_dagster.defs.assets.performance import (
    hook_performance,
    platform_performance,
    post_metrics,
    thinning_job,
    thinning_schedule,
    video_performance,
)
from phantoms_dagster.defs.assets.stages import stage_assets
from phantoms_dagster.defs.attention import attention_sensor
from phantoms_dagster.defs.checks import ChecksLeftResource, dead_letters_sensor
from phantoms_dagster.defs.jobs import analytics_job, chain_jobs, stage_jobs
from phantoms_dagster.defs.late_ids import late_ids_job, late_ids_sensor
from phantoms_dagster.defs.post_extras import post_extras_job, post_extras_sensor
from phantoms_dagster.defs.preflight import preflight_job, preflight_sensor
from phantoms_dagster.defs.resources import ServicesResource
from phantoms_dagster.defs.retirement import make_retirement_schedule, retirement_job, revival_sensor
from phantoms_dagster.defs.schedules import analytics_schedule
from phantoms_dagster.defs.sensors import advance_sensor, intake_sensor, release_sensor
from phantoms_dagster.defs.settled import settled_sensor
from phantoms_dagster.wiring.alerts import local_zone


def build_definitions(*, resource_overrides: Mapping[str, Any] | None = None) -> dg.Definitions:
    """Everything that Dagster shows and runs. `resource_overrides` replaces resources, for tests."""
    # Without `configure_at_launch` Dagster would make the services of a run twice: for its steps, and for `checks_left` alone.
    resources: dict[str, Any] = {"services": ServicesResource.configure_at_launch(), **(resource_overrides or {})}
    return dg.Definitions(
        assets=[
            *stage_assets,
            post_metrics,
            video_performance,
            platform_performance,
            hook_performance,
        ],
        jobs=[
            *stage_jobs.values(),
            *chain_jobs.values(),
            analytics_job,
            daily_summary_job,
            retirement_job,
            late_ids_job,
            post_extras_job,
            preflight_job,
            thinning_job,
        ],
        schedules=[
            analytics_schedule,
            thinning_schedule,
            make_daily_summary_schedule(local_zone()),
            make_retirement_schedule(local_zone()),
        ],
        sensors=[
            intake_sensor,
            advance_sensor,
            release_sensor,
            alert_sensor,
            dead_letters_sensor,
            settled_sensor,
            revival_sensor,
            late_ids_sensor,
            post_extras_sensor,
            preflight_sensor,
            attention_sensor,
        ],
        resources={"checks_left": ChecksLeftResource(services=resources["services"]), **resources},
        # One process a run: a process for each step would cost seven CPU-seconds each for imports alone.
        executor=dg.in_process_executor,
    )
