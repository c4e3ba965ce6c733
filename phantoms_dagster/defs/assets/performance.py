"""`post_metrics`, the performance tables made of them, and the nightly thinning of what was read."""

import asyncio
import io
from collections.abc import Mapping, Sequence

import dagster as dg
import pandas as pd

from phantoms_dagster.defs.away import fails_plainly_while_the_store_is_away
from phantoms_dagster.defs.interrupt import run_interruptible
from phantoms_dagster.defs.metadata import image
from phantoms_dagster.defs.tags import STAGE
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.readback import Reading
from phantoms_dagster.production import performance
from phantoms_dagster.wiring import Workshop

GROUP = "analytics"
OWNERS = ["team:content"]
SHOWN_ROWS = 50
READ_CHECK = "every_account_is_read"


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"postgres", "python"},
    pool="analytics",
    deps=[dg.AssetKey([str(platform), "post"]) for platform in Platform],
    check_specs=[
        dg.AssetCheckSpec(
            READ_CHECK, asset="post_metrics", description="Every account that had posts to be read could be read this time."
        )
    ],
    description="Views, likes, comments, shares and watch time of the posts that are due, read back from their platforms: hourly in"
    " a post's first day, then ever more rarely.",
)
@fails_plainly_while_the_store_is_away
def post_metrics(context: dg.AssetExecutionContext, workshop: dg.ResourceParam[Workshop]) -> dg.MaterializeResult:
    """Read results back. What can be read is kept; an account that cannot be read fails the check, and no other account."""
    results = workshop.results()
    may_be = workshop.settings.sandbox != "off"
    sandboxed = [str(platform) for platform in Platform if may_be and workshop.endpoints.sandboxed(str(platform))]
    posts, unsupported = results.due(sandboxed=sandboxed), results.unsupported()

    async def keep(readings: Sequence[Reading]) -> None:
        await asyncio.to_thread(results.record, readings)

    async def work() -> performance.ReadBack:
        return await performance.read_back(posts, (await workshop.pipeline()).readers, keep, unsupported)

    read = run_interruptible(work(), workshop.loop)
    results.record_accounts(read.accounts, unsupported)
    for account in read.accounts:
        for remote_id, why in account.failed.items():
            context.log.warning("%s: post %s could not be read: %s", account.name, remote_id, why)
    for name, why in {**read.problems, **read.waits}.items():
        context.log.warning("%s: %s", name, why)
    counts = {name: sum(getattr(a, name) for a in read.accounts) for name in ("asked", "read", "views", "gone")}
    failed = sum(len(a.failed) for a in read.accounts)
    told = {name: dg.MetadataValue.md(_list(of)) for name, of in (("unread", read.problems), ("wait", read.waits)) if of}
    return dg.MaterializeResult(
        metadata={
            "due": counts["asked"],
            "posts": counts["read"],
            "missing": counts["gone"],
            "failed": failed,
            "views": counts["views"],
            **told,
        },
        check_results=[
            dg.AssetCheckResult(
                passed=not read.problems,
                check_name=READ_CHECK,
                severity=dg.AssetCheckSeverity.WARN,
                metadata={"accounts": len(read.accounts), **told},
            )
        ],
    )


def _list(reasons: Mapping[str, str]) -> str:
    return "\n".join(f"- `{name}`: {why}" for name, why in reasons.items())


def _cell(value: object) -> int | float | str:
    """A value as a table's cell: records of a table must all have the same fields, so nothing is an empty text."""
    if isinstance(value, float):
        return round(value, 4)
    return value if isinstance(value, int | str) else "" if value is None else str(value)


def _table(frame: pd.DataFrame, rows: int) -> dict[str, dg.MetadataValue[object]]:
    shown = frame.drop(columns="computed_at", errors="ignore")
    records = [
        dg.TableRecord({str(k): _cell(v) for k, v in row.items()})
        for row in shown.astype(object).where(shown.notna(), None).to_dict("records")
    ]
    return {"rows": dg.MetadataValue.int(rows), "table": dg.MetadataValue.table(records)} if records else {}


def _plot(frame: pd.DataFrame, label: str, title: str) -> dict[str, dg.MetadataValue[object]]:
    if frame.empty:
        return {}
    from matplotlib.figure import Figure  # noqa: PLC0415  slow to import, and only these assets draw

    top = frame.sort_values("views").tail(12)
    figure = Figure(figsize=(8, 0.45 * len(top) + 1.2), layout="constrained")
    axes = figure.subplots()
    names = [name if len(name) <= 44 else name[:43] + "\u2026" for name in top[label].astype(str)]
    bars = axes.barh(range(len(top)), top["views"], color="#4f46e5")
    axes.set_yticks(range(len(top)), names)
    axes.bar_label(bars, fmt="{:,.0f}", padding=3)
    axes.set_title(title)
    axes.set_xlabel("views")
    axes.margins(x=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=90)
    return {"plot": image(out.getvalue(), "png", title)}


def _renewed(workshop: Workshop, name: str, label: str, title: str) -> dg.MaterializeResult[None]:
    tables = workshop.performance()
    rows = tables.renew(name)
    frame = tables.table(name, most=SHOWN_ROWS)
    return dg.MaterializeResult(metadata={**_table(frame, rows), **_plot(frame, label, title)})


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"postgres"},
    deps=[post_metrics],
    description="One row a video: its totals over all platforms, engagement and cost.",
)
@fails_plainly_while_the_store_is_away
def video_performance(workshop: dg.ResourceParam[Workshop]) -> dg.MaterializeResult[None]:
    """Renew the table of that name."""
    return _renewed(workshop, "video_performance", "title", "Views by video")


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"postgres"},
    deps=[post_metrics],
    description="One row for each day, platform and channel.",
)
@fails_plainly_while_the_store_is_away
def platform_performance(workshop: dg.ResourceParam[Workshop]) -> dg.MaterializeResult[None]:
    """Renew the table of that name."""
    return _renewed(workshop, "platform_performance", "platform", "Views by platform and day")


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"postgres"},
    deps=[post_metrics],
    description="One row for each opening line: which hooks work.",
)
@fails_plainly_while_the_store_is_away
def hook_performance(workshop: dg.ResourceParam[Workshop]) -> dg.MaterializeResult[None]:
    """Renew the table of that name."""
    return _renewed(workshop, "hook_performance", "hook", "Views by hook")


@dg.op(description="Deletes snapshots that are no news any more: all stay for two days, then one an hour, a day, a week.")
def thin_snapshots(context: dg.OpExecutionContext, workshop: dg.ResourceParam[Workshop]) -> None:
    """As in `store.results`."""
    deleted = workshop.results().thin()
    context.add_output_metadata({"deleted": deleted})
    context.log.info("%d snapshots deleted", deleted)


@dg.job(tags={STAGE: "thinning"}, description="Thins the snapshots of metrics by their age.")
def thinning_job() -> None:
    """One op."""
    thin_snapshots()


thinning_schedule = dg.ScheduleDefinition(
    name="thinning_schedule",
    job=thinning_job,
    cron_schedule="41 4 * * *",  # away from the reading at seven minutes past
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Thins the snapshots of metrics each night.",
)
