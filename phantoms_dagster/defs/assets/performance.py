"""`post_metrics` and the performance tables made of them."""

import io
from datetime import UTC, datetime

import dagster as dg
import pandas as pd

from phantoms_dagster.defs.away import fails_plainly_while_the_store_is_away
from phantoms_dagster.defs.interrupt import run_interruptible
from phantoms_dagster.defs.metadata import image
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.production import performance
from phantoms_dagster.wiring import Workshop

GROUP = "analytics"
OWNERS = ["team:content"]
SHOWN_ROWS = 50


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"postgres", "python"},
    pool="analytics",
    deps=[dg.AssetKey([str(platform), "post"]) for platform in Platform],
    description="Views, likes, comments, shares and watch time of every post, read back from its platform; one snapshot an hour.",
)
@fails_plainly_while_the_store_is_away
def post_metrics(context: dg.AssetExecutionContext, workshop: dg.ResourceParam[Workshop]) -> dg.MaterializeResult[None]:
    """Read results back. An account that cannot be read fails the step after the others' results are stored."""
    results = workshop.results()
    posts = results.published()

    async def work() -> performance.ReadBack:
        return await performance.read_back(posts, (await workshop.pipeline()).readers)

    read = run_interruptible(work(), workshop.loop)
    results.add_snapshots(read.snapshots)
    for post in read.missing:
        context.log.warning("%s: %s does not know post %s any more", post.video_key, post.platform, post.remote_id)
    if read.failures:
        reasons = "\n".join(f"{account}: {reason}" for account, reason in read.failures.items())
        raise dg.Failure(f"{len(read.snapshots)} posts read; some accounts could not be\n{reasons}", allow_retries=False)
    views = sum(m.views or 0 for _, m in read.snapshots)
    return dg.MaterializeResult(metadata={"posts": len(read.snapshots), "missing": len(read.missing), "views": views})


def _cell(value: object) -> int | float | str:
    """A value as a table's cell: records of a table must all have the same fields, so nothing is an empty text."""
    if isinstance(value, float):
        return round(value, 4)
    return value if isinstance(value, int | str) else "" if value is None else str(value)


def _table(frame: pd.DataFrame) -> dict[str, dg.MetadataValue[object]]:
    shown = frame.head(SHOWN_ROWS).drop(columns="computed_at", errors="ignore")
    records = [
        dg.TableRecord({str(k): _cell(v) for k, v in row.items()})
        for row in shown.astype(object).where(shown.notna(), None).to_dict("records")
    ]
    return {"rows": dg.MetadataValue.int(len(frame)), "table": dg.MetadataValue.table(records)} if records else {}


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


def _made(workshop: Workshop, name: str, frame: pd.DataFrame, label: str, title: str) -> dg.MaterializeResult[None]:
    workshop.results().replace(name, frame)
    return dg.MaterializeResult(metadata={**_table(frame), **_plot(frame, label, title)})


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"postgres", "pandas"},
    deps=[post_metrics],
    description="One row a video: its totals over all platforms, engagement and cost.",
)
@fails_plainly_while_the_store_is_away
def video_performance(workshop: dg.ResourceParam[Workshop]) -> dg.MaterializeResult[None]:
    """Replace the table of that name."""
    frame = performance.video_performance(workshop.results().snapshots(), datetime.now(UTC))
    return _made(workshop, "video_performance", frame, "title", "Views by video")


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"postgres", "pandas"},
    deps=[post_metrics],
    description="One row for each day, platform and channel.",
)
@fails_plainly_while_the_store_is_away
def platform_performance(workshop: dg.ResourceParam[Workshop]) -> dg.MaterializeResult[None]:
    """Replace the table of that name."""
    frame = performance.platform_performance(workshop.results().snapshots(), datetime.now(UTC))
    return _made(workshop, "platform_performance", frame, "platform", "Views by platform and day")


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"postgres", "pandas"},
    deps=[post_metrics],
    description="One row for each opening line: which hooks work.",
)
@fails_plainly_while_the_store_is_away
def hook_performance(workshop: dg.ResourceParam[Workshop]) -> dg.MaterializeResult[None]:
    """Replace the table of that name."""
    frame = performance.hook_performance(workshop.results().snapshots(), datetime.now(UTC))
    return _made(workshop, "hook_performance", frame, "hook", "Views by hook")
