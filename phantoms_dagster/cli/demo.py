"""`phantoms demo`: the whole stack in a fresh directory, a few briefs, a demo reviewer, and the proof at the end."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from phantoms_dagster.cli.console import FAILED, err, out, plain_errors
from phantoms_dagster.cli.graphql import launch_job
from phantoms_dagster.cli.stack import Running, Stack
from phantoms_dagster.domain.errors import PhantomsError
from phantoms_dagster.domain.models import Brief, MediaFile
from phantoms_dagster.domain.stages import STAGES
from phantoms_dagster.embedded.supervisor import interrupt_on_signals
from phantoms_dagster.production.intake import read
from phantoms_dagster.settings import Settings
from phantoms_dagster.store.catalogue import StageRow
from phantoms_dagster.wiring import Workshop
from phantoms_dagster.wiring.media import Shelf

POLL_SECONDS = 0.5
STUCK_SECONDS = 600.0
ENDED = ("done", "failed", "rejected", "discarded")
REVIEWER = "demo reviewer"


class DemoFailed(PhantomsError):
    """The demo did not do what it should."""


@dataclass(frozen=True)
class Outcome:
    """What the demo made. `problems` is empty when the sandbox's ledger holds exactly one post a video and platform."""

    videos: list[dict[str, Any]]
    totals: dict[str, Any]
    problems: list[str]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel="Run")(demo)


def demo(
    videos: Annotated[int, typer.Option(min=1, max=500, help="How many videos to make")] = 3,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object on standard output and nothing else there")
    ] = False,
    keep: Annotated[Path | None, typer.Option(help="Directory to work in, which is kept; default: a temporary one")] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Stay up at the end, until Ctrl-C, to look around in the Dagster UI")
    ] = False,
) -> None:
    """Make real videos from bundled briefs and post them to the sandbox, on embedded servers: no keys, nothing to install.

    Exits with 0 only when the sandbox's own ledger holds exactly one post for every video and platform.
    """
    with plain_errors(), interrupt_on_signals():
        started = time.monotonic()
        home = (keep or Path(tempfile.mkdtemp(prefix="phantoms-demo-"))).absolute()
        for name in [n for n in os.environ if n.startswith("PHANTOMS_") and n.endswith(("_API_KEY", "_TOKEN", "_URL"))]:
            del os.environ[name]  # the demo never touches real accounts, nor somebody's running servers
        settings = Settings(home=home, sandbox="on", web_port=0, channels=None, inbox=None, media=None)
        briefs = _briefs(videos, Workshop(settings))
        with Stack(settings, say=_say, warn=_warn) as running:
            _say(f"Dagster UI: {running.web_url}")
            outcome = _play(running, briefs)
            seconds = round(time.monotonic() - started, 1)
            if as_json:
                report = {**outcome.__dict__, "seconds": seconds, "home": str(home), "ok": not outcome.problems}
                json.dump(report, sys.stdout, default=str, ensure_ascii=False)
                sys.stdout.write("\n")
                sys.stdout.flush()
            else:
                _print(outcome, seconds)
            if wait:
                _say(f"look around: {running.web_url} (Ctrl-C stops everything)")
                with suppress(KeyboardInterrupt):
                    threading.Event().wait()
            _say("stopping")
        if not as_json:
            out.print(f"The files stay in {home / 'media'}; remove them with: rm -r {home}", style="dim", soft_wrap=True)
        if outcome.problems:
            raise typer.Exit(FAILED)


def _say(line: str) -> None:
    err.print(f"[dim]{escape(line)}[/]", soft_wrap=True)


def _warn(line: str) -> None:
    err.print(f"[yellow]{escape(line)}[/]", soft_wrap=True)


def _briefs(count: int, workshop: Workshop) -> list[Brief]:
    """The bundled briefs, over and over when more are wanted: then each repetition says so in its title."""
    content = files("phantoms_dagster.cli").joinpath("demo_briefs.yaml").read_bytes()
    batch = read("demo_briefs.yaml", content, workshop.channels())
    if batch.refused:
        raise DemoFailed(f"the bundled briefs cannot be used: {batch.refused[0]}")
    bundled = [row.brief for row in batch.accepted]
    wanted = []
    for number in range(count):
        brief, part = bundled[number % len(bundled)], number // len(bundled) + 1
        wanted.append(brief if part == 1 else brief.model_copy(update={"title": f"{brief.title}, part {part}"}))
    return wanted


def _play(running: Running, briefs: list[Brief]) -> Outcome:
    workshop = Workshop(running.settings)
    try:
        # Real platforms allow about a hundred posts a day and account; a demo may want more.
        _tell_sandbox(
            running,
            "config",
            {"youtube.inserts_per_day": 10_000, "youtube.units_per_day": 1_000_000, "instagram.quota_total": 10_000},
        )
        before = set(_posted(running))  # a directory that was kept has posts of earlier demos
        keys = [added.key for added in workshop.catalogue().add(briefs, source="demo")]
        _say(f"{len(keys)} briefs added; each goes through {len(STAGES)} stages by itself")
        _watch(workshop, keys)
        _say("letting two days pass in the sandbox, then reading results back")
        _tell_sandbox(running, "advance", {"seconds": 2 * 86_400})
        launch_job(running.web_url, "analytics_job", timeout=STUCK_SECONDS)
        return _outcome(running, workshop, keys, before)
    finally:
        workshop.close()


def _tell_sandbox(running: Running, what: str, values: dict[str, Any]) -> None:
    httpx.post(f"{running.sandbox_url}/_sandbox/{what}", json=values, timeout=30, trust_env=False).raise_for_status()


def _watch(workshop: Workshop, keys: list[str]) -> None:
    """Show each stage's progress until every video has ended; review what is ready. Raises DemoFailed when nothing moves."""
    catalogue, decisions = workshop.catalogue(), workshop.decisions()
    with _bars(len(keys)) as bars:
        seen: Counter[tuple[str, str]] = Counter()
        moved = time.monotonic()
        while True:
            rows = catalogue.videos(keys=keys)
            if all(_rendered(row.states) for row in rows):  # people review in one sitting, too
                decisions.decide_all(decisions.undecided(), approved=True, reviewer=REVIEWER, via="demo")
            counts = Counter((stage, state) for row in rows for stage, state in row.states.items())
            if counts != seen:
                seen, moved = counts, time.monotonic()
                for stage, (progress, bar) in bars.items():
                    failed = sum(counts[stage, state] for state in ("failed", "rejected"))
                    progress.update(bar, completed=counts[stage, "done"], note=f"[red]{failed} failed" if failed else "")
            if all(_over(row.states) for row in rows):
                return
            if time.monotonic() - moved > STUCK_SECONDS:
                raise DemoFailed(f"nothing has moved for {STUCK_SECONDS:.0f} s; the logs are in {workshop.settings.home / 'logs'}")
            time.sleep(POLL_SECONDS)


def _rendered(states: dict[str, str]) -> bool:
    """Whether there is something to review, or never will be."""
    made = [states[name] for name in ("script", "voiceover", "rendered_video")]
    return made[-1] == "done" or any(state in ENDED[1:] for state in made)


def _over(states: dict[str, str]) -> bool:
    """Whether nothing more will happen: each stage has ended, or waits for one that ended badly."""
    return not any(state in ("ready", "running", "deferred") for state in states.values())


@contextmanager
def _bars(videos: int) -> Iterator[dict[str, tuple[Progress, Any]]]:
    columns = (
        TextColumn("{task.description:<18}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=err, transient=False, disable=not err.is_terminal) as progress:
        yield {name: (progress, progress.add_task(name, total=videos, note="")) for name in STAGES}


def _posted(running: Running) -> Counter[tuple[str, str]]:
    """How often each post, by platform and id, is in the sandbox's ledger."""
    assert running.sandbox_url is not None
    ledger = httpx.get(f"{running.sandbox_url}/_sandbox/ledger", params={"kind": "post"}, timeout=30, trust_env=False).json()
    return Counter((entry["platform"], str(entry["remote_id"])) for entry in ledger["entries"])


def _outcome(running: Running, workshop: Workshop, keys: list[str], before: set[tuple[str, str]]) -> Outcome:
    posted = _posted(running)
    videos, problems, expected = [], [], 0
    for key in keys:
        stages = workshop.catalogue().stages(key)
        shown = _video(key, stages, workshop.shelf)
        videos.append(shown)
        problems += [f"{key}: {n} is {s.state}: {s.reason or ''}" for n, s in stages.items() if s.state != "done"]
        for post in shown["posts"]:
            expected += 1
            before.discard((post["platform"], post["remote_id"]))
            times = posted[post["platform"], post["remote_id"]]
            if times != 1:
                problems.append(f"{key}: the sandbox counts {times} posts on {post['platform']}")
    ledger_posts = sum(times for post, times in posted.items() if post not in before)
    if ledger_posts != expected:
        problems.append(f"the sandbox counts {ledger_posts} posts where {expected} are known")
    performance = workshop.performance().table("video_performance")
    if len(performance) != len([v for v in videos if v["posts"]]):
        problems.append(f"video_performance has {len(performance)} rows for {len(videos)} videos")
    totals = {
        "videos": len(videos),
        "posts": expected,
        "ledger_posts": ledger_posts,
        "views": int(performance["views"].sum()) if len(performance) else 0,
        "cost_usd": round(sum(v["cost_usd"] for v in videos), 4),
    }
    views = dict(zip(performance["video_key"], performance["views"], strict=True))
    return Outcome([{**v, "views": int(views.get(v["id"], 0))} for v in videos], totals, problems)


def _video(key: str, stages: dict[str, StageRow], shelf: Shelf) -> dict[str, Any]:
    outputs = {name: row.output for name, row in stages.items() if row.state == "done" and row.output}
    found: dict[str, Any] = {}
    posts = []
    for name, output in outputs.items():
        if "video" in output:
            found[name] = shelf.address(MediaFile(**output["video"]))
        if output["kind"] == "post":
            posts.append({k: output[k] for k in ("platform", "account", "remote_id", "url")})
    return {
        "id": key,
        "stages": {name: row.state for name, row in stages.items()},
        "files": found,
        "posts": sorted(posts, key=lambda post: str(post["platform"])),
        "probe": (outputs.get("rendered_video") or {}).get("probe"),
        "cost_usd": float(sum(row.cost for row in stages.values())),
    }


def _print(outcome: Outcome, seconds: float) -> None:
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0), pad_edge=False)
    for column in ("video", "length", "posts", "views", "USD"):
        table.add_column(column, no_wrap=True, justify="left" if column == "video" else "right")
    for video in outcome.videos:
        length = f"{video['probe']['seconds']:.1f} s" if video["probe"] else ""
        table.add_row(video["id"], length, str(len(video["posts"])), f"{video['views']:,}", f"{video['cost_usd']:.3f}")
    out.print(table)
    for video in outcome.videos:  # paths and links are for clicking and copying: never folded into a cell
        out.print(f"[bold]{video['id']}[/]")
        if file := video["files"].get("rendered_video"):
            out.print(f"  {file}", soft_wrap=True)
        for post in video["posts"]:
            out.print(f"  [link={post['url']}]{post['url']}[/link]", soft_wrap=True)
    totals = outcome.totals
    out.print(f"\n{totals['videos']} videos, {totals['posts']} posts, {totals['views']:,} views, {seconds:.0f} s")
    if outcome.problems:
        for problem in outcome.problems:
            err.print(f"[red]{escape(problem)}[/]", soft_wrap=True)
    else:
        out.print("[green]The sandbox's ledger holds exactly one post for every video and platform.[/]")
