"""`post_metrics`, the performance tables made from them, and the nightly thinning of metric snapshots."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg
from sqlalchemy import Table

from phantoms_dagster.defs.away import fails_plainly_while_the_store_is_away
from phantoms_dagster.defs.interrupt import run_interruptible
from phantoms_dagster.defs.plots import bars, lines
from phantoms_dagster.defs.tags import STAGE
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.readback import PostReading
from phantoms_dagster.production import performance, post_changes
from phantoms_dagster.store import schema
from phantoms_dagster.store.post_changes import PostChanges
from phantoms_dagster.wiring import Services

if TYPE_CHECKING:  # slow to import; only runs of these assets need it
    import pandas as pd

    from phantoms_dagster.store.performance.tables import PerformanceTables, Renewed

    Materialized = dg.MaterializeResult[None]
else:
    Materialized = dg.MaterializeResult  # Dagster evaluates annotations, and does not accept its own class with a type parameter

GROUP = "analytics"
OWNERS = ["team:content"]
SHOWN_ROWS = 50
READ_CHECK = "every_account_is_read"
SUM_CHECK = "every_post_is_counted_once"
# They are renewed each hour.
FRESH = dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=6), warn_window=timedelta(hours=2))


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"postgres", "python"},
    pool="analytics",
    # The table says which posts are due. A dependency on partitions would show this asset as out of date after each new post.
    # The lineage is the same without it.
    deps=[
        dg.AssetDep(dg.AssetKey(f"{platform}_post"), partition_mapping=dg.SpecificPartitionsPartitionMapping([]))
        for platform in Platform
    ],
    freshness_policy=FRESH,
    check_specs=[
        dg.AssetCheckSpec(
            READ_CHECK, asset="post_metrics", description="Every account that had posts to be read could be read this time."
        )
    ],
    description="Views, likes, comments, shares and watch time of the posts that are due, read back from their platforms: hourly in"
    " a post's first day, then ever more rarely.",
)
@fails_plainly_while_the_store_is_away
def post_metrics(context: dg.AssetExecutionContext, services: dg.ResourceParam[Services]) -> Materialized:
    """Read the results of posts. An account that cannot be read fails the check, but the results of other accounts are saved."""
    results = services.results()
    may_be = services.settings.sandbox.mode != "off"
    endpoints = services.endpoints
    sandboxed = [str(platform) for platform in Platform if may_be and endpoints.sandboxed(str(platform))]
    gateways = [str(p) for p in Platform if may_be and p.spec.gateway is not None and endpoints.sandboxed(p.spec.gateway)]
    posts, unsupported = results.due(sandboxed=sandboxed, gateways=gateways), results.unsupported()

    recorded, readings = PostChanges(services.engine), list[PostReading]()

    async def keep(page: Sequence[PostReading]) -> None:
        await asyncio.to_thread(results.record, page)
        readings.extend(page)

    async def work() -> tuple[performance.ReadbackResult, post_changes.ChangeRound, Mapping[str, str]]:
        pipeline = await services.pipeline()
        known = await asyncio.to_thread(recorded.latest, [post.post_id for post in posts])
        read, noticed = performance.ReadbackResult(()), post_changes.ChangeRound()
        for by_gateway in (False, True):
            reads, some = pipeline.reads_of(by_gateway=by_gateway), [post for post in posts if post.by_gateway is by_gateway]
            read = read.joined(await performance.read_back(some, reads.metrics, keep, unsupported))
            noticed.add(await post_changes.notice_changes(some, readings, known, reads.posts, reads.identities))
        # Here, because this runs every hour: an account without posts would lose its connection if nothing renewed it.
        return read, noticed, await pipeline.refresher.renew_idle()

    read, noticed, not_renewed = run_interruptible(work(), services.loop)
    for name, why in not_renewed.items():
        context.log.warning("%s: its token was not renewed: %s", name, why)
    results.record_accounts(read.accounts, unsupported)
    for post, change in ((one.post, one.change) for one in noticed.changes):
        if recorded.record(post.post_id, change):
            context.log.warning("%s on %s is %s: %s", post.video_key, post.platform, change.state, change.evidence)
    for name, why in noticed.problems.items():
        context.log.warning("%s: what happened to its posts cannot be read: %s", name, why)
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
            "changed": len(noticed.changes),
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
    """Return a value as a table's cell. All records of a table must have the same fields, so None becomes an empty text."""
    if isinstance(value, float):
        return round(value, 4)
    return value if isinstance(value, int | str) else "" if value is None else str(value)


def _table(frame: "pd.DataFrame", rows: int) -> dict[str, int | dg.TableMetadataValue]:
    shown = frame.drop(columns="computed_at", errors="ignore")
    records = [
        dg.TableRecord({str(k): _cell(v) for k, v in row.items()})
        for row in shown.astype(object).where(shown.notna(), None).to_dict("records")
    ]
    return {"dagster/row_count": rows, **({"table": dg.MetadataValue.table(records)} if records else {})}


PLOTTED_DAYS = 30
Plot = Callable[["PerformanceTables", "pd.DataFrame"], dict[str, Any]]
_TYPES = {"BIGINT": "integer", "INTEGER": "integer", "TEXT": "text", "DATE": "date", "DOUBLE": "number", "NUMERIC": "number"}


def _schema(table: Table) -> dg.TableSchema:
    """Return the columns, with PostgreSQL's types."""
    key = list(table.primary_key.columns.keys())
    columns = [
        dg.TableColumn(
            column.name,
            _TYPES.get(str(column.type).split("(")[0].split(" ")[0], "timestamp"),
            constraints=dg.TableColumnConstraints(nullable=bool(column.nullable), unique=[column.name] == key),
        )
        for column in table.columns
    ]
    return dg.TableSchema(columns)


TableAsset = Callable[[Callable[..., Materialized]], dg.AssetsDefinition]


def _table_asset(name: str, description: str) -> TableAsset:
    """Define the asset of one table."""
    table = schema.metadata.tables[f"{schema.SCHEMA}.{name}"]
    return dg.asset(
        name=name,
        group_name=GROUP,
        owners=OWNERS,
        kinds={"postgres", "table"},
        deps=[post_metrics],
        description=description,
        metadata={"dagster/table_name": f"{table.schema}.{table.name}", "dagster/column_schema": _schema(table)},
        freshness_policy=FRESH,
        check_specs=[
            dg.AssetCheckSpec(SUM_CHECK, asset=name, description="The table has every post that was read, and each of them once.")
        ],
    )


def _renewed(services: Services, name: str, plot: Plot) -> Materialized:
    tables = services.performance()
    made = tables.renew(name)
    frame = tables.table(name, most=SHOWN_ROWS)
    return dg.MaterializeResult(metadata={**_table(frame, made.rows), **plot(tables, frame)}, check_results=[_counted(made)])


def _counted(made: "Renewed") -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=made.adds_up,
        check_name=SUM_CHECK,
        metadata={"posts": made.posts, "posts_read": made.posts_read, "views": made.views, "views_read": made.views_read},
    )


@_table_asset("video_performance", "One row a video: its totals over all platforms, engagement and cost.")
@fails_plainly_while_the_store_is_away
def video_performance(services: dg.ResourceParam[Services]) -> Materialized:
    """Renew the table of that name."""
    return _renewed(services, "video_performance", lambda _, frame: bars(frame, "title", "Most viewed videos"))


@_table_asset("platform_performance", "One row for each day of publishing, platform and channel.")
@fails_plainly_while_the_store_is_away
def platform_performance(services: dg.ResourceParam[Services]) -> Materialized:
    """Renew the table of that name. Its plot shows the views by the day on which they came, not by the day of the post."""
    title = f"New views a day, by platform (last {PLOTTED_DAYS} days, UTC)"
    return _renewed(services, "platform_performance", lambda tables, _: lines(tables.new_views(days=PLOTTED_DAYS), title))


@_table_asset("hook_performance", "One row for each opening line: which hooks work.")
@fails_plainly_while_the_store_is_away
def hook_performance(services: dg.ResourceParam[Services]) -> Materialized:
    """Renew the table of that name."""
    return _renewed(services, "hook_performance", lambda _, frame: bars(frame, "hook", "Best hooks"))


@dg.op(description="Deletes snapshots that are no news any more: all stay for two days, then one an hour, a day, a week.")
@fails_plainly_while_the_store_is_away
def thin_snapshots(context: dg.OpExecutionContext, services: dg.ResourceParam[Services]) -> None:
    """See `store.results.readings`."""
    deleted = services.results().thin()
    context.add_output_metadata({"deleted": deleted})
    context.log.info("%d snapshots deleted", deleted)


@dg.job(tags={STAGE: "thinning"}, description="Thins the snapshots of metrics by their age.")
def thinning_job() -> None:
    """One op."""
    thin_snapshots()


thinning_schedule = dg.ScheduleDefinition(
    name="thinning_schedule",
    job=thinning_job,
    cron_schedule="41 4 * * *",  # not at the same time as the readback, at seven minutes past
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Thins the snapshots of metrics each night.",
)
