"""Retirement: the nightly job, its schedule, and the sensor that takes back who has work again.

Thin shells: who is retired and in which order belongs in `production.retirement`, whose files go in `production.cleaning`.
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

AT = "17 4 * * *"  # when nobody posts, and at no hour that a change of the clocks leaves out
SECONDS = 120
SHOWN_KEYS = 50


@dg.op(description="Marks videos that ended long ago and deletes their partitions, none with a run in flight.")
@fails_plainly_while_the_store_is_away
def retire_finished_videos(context: dg.OpExecutionContext, services: dg.ResourceParam[Services]) -> None:
    """A bounded number; the rest is for the next night."""
    days = services.settings.retire_days
    before = services.clock.now() - timedelta(days=days) if days else None
    night = retirement.retire(Retirement(services.engine), VideoPartitions(context.instance), before=before)
    if night.overtaken:
        context.log.warning(
            "a run was launched while these were retired and will fail; `phantoms unretire` them and launch it again: %s",
            _some(night.overtaken),
        )
    if night.unclear:
        context.log.warning("nobody can tell what %s work on: nothing is retired until they end", ", ".join(sorted(night.unclear)))
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


@dg.op(description="Deletes the files of retired videos that PHANTOMS_MEDIA_KEEP does not keep.")
@fails_plainly_while_the_store_is_away
def clean_media(context: dg.OpExecutionContext, services: dg.ResourceParam[Services]) -> None:
    """Never a file that a video which is not retired needs, too."""
    settings = services.settings
    if settings.media_keep == "all":
        context.add_output_metadata({"keep": "all"})
        return
    before = services.clock.now() - timedelta(days=settings.media_keep_days)

    async def work() -> cleaning.Cleaned:
        # In an empty mount point every file is gone already: that must not be noted as cleaned.
        await asyncio.to_thread(media_disk(settings).identify, known=files_were_stored(services.engine))
        async with guarded_media(settings, services.clock) as media:
            return await cleaning.clean(RetiredFiles(services.engine), media, settings.media_keep, before=before)

    try:
        night = run_interruptible(work(), services.loop)
    except PhantomsError as error:
        raise dg.Failure(f"the media store does not delete files: {error}") from error
    context.add_output_metadata(
        {
            "keep": settings.media_keep,
            "goes": ", ".join(cleaning.stages_that_go(settings.media_keep)),
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


@dg.job(tags={STAGE: "retirement"}, description="Retires videos that ended long ago and cleans up the files of retired ones.")
def retirement_job() -> None:
    """Two ops that do not wait for each other: without the media store, videos are retired all the same."""
    retire_finished_videos()
    clean_media()


def make_retirement_schedule(zone: str) -> dg.ScheduleDefinition:
    """The schedule, at night in `zone`."""

    @dg.schedule(
        name="retirement_schedule",
        job=retirement_job,
        cron_schedule=AT,
        execution_timezone=zone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Retires finished videos each night.",
    )
    def retirement_schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        """One run a night, whatever the settings say: there may be videos that a person has retired."""
        at = context.scheduled_execution_time or datetime.now(ZoneInfo(zone))
        return dg.RunRequest(run_key=at.astimezone(ZoneInfo(zone)).date().isoformat())

    return retirement_schedule


@dg.sensor(
    minimum_interval_seconds=SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Takes back retired videos that have work again: approved after all, or replayed after they were discarded.",
)
@skips_while_the_store_is_away
def revival_sensor(services: dg.ResourceParam[Services]) -> dg.SkipReason:
    """One query when there are none. The intake adds their partitions."""
    keys = Retirement(services.engine).take_back_alive()
    return dg.SkipReason(f"taken back: {_some(keys)}" if keys else "no retired video has work")


def _some(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - SHOWN_KEYS} more" if len(keys) > SHOWN_KEYS else ""
    return ", ".join(keys[:SHOWN_KEYS]) + more
