"""Retirement: the nightly job, its schedule, and the sensor that brings back videos that have work again.

`production.retirement` decides which videos retire, and in what order; `production.cleaning` decides which files are deleted.
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import dagster as dg

from phantoms_dagster.defs.away import fails_plainly_while_the_store_is_away, skips_while_the_store_is_away
from phantoms_dagster.defs.in_flight import VideoPartitions
from phantoms_dagster.defs.interrupt import run_interruptible
from phantoms_dagster.defs.tags import STAGE
from phantoms_dagster.domain.errors import PhantomsError
from phantoms_dagster.production import cleaning, retirement
from phantoms_dagster.store.cleaning import RetiredFiles
from phantoms_dagster.store.kept_files import files_were_stored
from phantoms_dagster.store.retirement import Retirement
from phantoms_dagster.wiring import Services
from phantoms_dagster.wiring.media_gate import media_disk
from phantoms_dagster.wiring.object_store_guard import guarded_media

AT = "17 4 * * *"  # a quiet hour that no clock change skips
SECONDS = 120
SHOWN_KEYS = 50


@dg.op(description="Retires videos that finished long ago and deletes their partitions, except while a run works on them.")
@fails_plainly_while_the_store_is_away
def retire_finished_videos(context: dg.OpExecutionContext, services: dg.ResourceParam[Services]) -> None:
    """Retire at most MOST_A_NIGHT videos. The rest follow on the next night."""
    days = services.settings.retirement.days
    before = services.clock.now() - timedelta(days=days) if days else None
    night = retirement.retire(Retirement(services.engine), VideoPartitions(context.instance), before=before)
    if night.overtaken:
        context.log.warning(
            "a run was launched while these videos retired, so it will fail; `phantoms unretire` them and launch it again: %s",
            _some(night.overtaken),
        )
    if night.unclear:
        context.log.warning("nothing retires until %s end: it is unknown what they work on", ", ".join(sorted(night.unclear)))
    context.add_output_metadata(
        {
            "retired": len(night.retired),
            "with_a_run_in_flight": len(night.held),
            "taken_back": len(night.taken_back),
            "most_a_night": retirement.MOST_A_NIGHT,
            "more_tomorrow": night.more,
            "ended_before": before.isoformat(timespec="seconds") if before else "never: PHANTOMS_RETIRE_DAYS is 0",
            "videos": _some(night.retired) or "none",
            **({"videos_with_a_run": _some(night.held)} if night.held else {}),
        }
    )
    context.log.info("%d videos retired, %d have a run in flight", len(night.retired), len(night.held))


@dg.op(description="Deletes files of retired videos, except those that PHANTOMS_MEDIA_KEEP keeps.")
@fails_plainly_while_the_store_is_away
def clean_media(context: dg.OpExecutionContext, services: dg.ResourceParam[Services]) -> None:
    """Delete the files. A file that an active video also needs is never deleted."""
    settings = services.settings
    if settings.retirement.keep == "all":
        context.add_output_metadata({"keep": "all"})
        return
    before = services.clock.now() - timedelta(days=settings.retirement.keep_days)

    async def work() -> cleaning.CleaningReport:
        # In an empty mount point every file seems to be gone. That must not be recorded as cleaned.
        await asyncio.to_thread(media_disk(settings).identify, known=files_were_stored(services.engine))
        async with guarded_media(settings, services.clock) as media:
            return await cleaning.clean(RetiredFiles(services.engine), media, settings.retirement.keep, before=before)

    try:
        night = run_interruptible(work(), services.loop)
    except PhantomsError as error:
        raise dg.Failure(f"the media store could not delete files: {error}") from error
    context.add_output_metadata(
        {
            "keep": settings.retirement.keep,
            "goes": ", ".join(cleaning.stages_that_go(settings.retirement.keep)),
            "retired_before": before.isoformat(timespec="seconds"),
            "videos": night.videos,
            "files": night.files,
            "megabytes": round(night.size / 1e6, 3),
            "bytes": night.size,
            "still_needed": night.kept,
            "most_videos_a_night": cleaning.MOST_A_NIGHT,
            "more_tomorrow": night.more,
        }
    )
    context.log.info("%d files deleted, %.1f MB; %d are still needed", night.files, night.size / 1e6, night.kept)


@dg.job(tags={STAGE: "retirement"}, description="Retires videos that finished long ago and deletes files of retired ones.")
def retirement_job() -> None:
    """Run two independent ops, so that videos retire even while the media store is down."""
    retire_finished_videos()
    clean_media()


def make_retirement_schedule(zone: str) -> dg.ScheduleDefinition:
    """Return the schedule, which runs at night in `zone`."""

    @dg.schedule(
        name="retirement_schedule",
        job=retirement_job,
        cron_schedule=AT,
        execution_timezone=zone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Retires finished videos each night.",
    )
    def retirement_schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        """Request one run per night, whatever the settings: a person may have retired videos with the command."""
        at = context.scheduled_execution_time or datetime.now(ZoneInfo(zone))
        return dg.RunRequest(run_key=at.astimezone(ZoneInfo(zone)).date().isoformat())

    return retirement_schedule


@dg.sensor(
    minimum_interval_seconds=SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Brings back retired videos that have work again: approved after all, or replayed after a discard.",
)
@skips_while_the_store_is_away
def revival_sensor(services: dg.ResourceParam[Services]) -> dg.SkipReason:
    """Bring back retired videos that have work. Costs one query when there are none. `intake_sensor` adds their partitions."""
    keys = Retirement(services.engine).take_back_alive()
    return dg.SkipReason(f"brought back: {_some(keys)}" if keys else "no retired video has work")


def _some(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - SHOWN_KEYS} more" if len(keys) > SHOWN_KEYS else ""
    return ", ".join(keys[:SHOWN_KEYS]) + more
