"""The final report of `phantoms demo`: what was made, the proof, the costs, and what to try next."""

from __future__ import annotations

import shlex
from datetime import datetime
from typing import TYPE_CHECKING

from rich.table import Table

from phantoms_dagster.cli.console import err, out, plain, say
from phantoms_dagster.cli.demo.end import DemoOutcome
from phantoms_dagster.cli.demo.outage import OutageReport
from phantoms_dagster.cli.times import exact
from phantoms_dagster.domain.counting import counted

if TYPE_CHECKING:
    from phantoms_dagster.cli.stack import Running

KINDS = {"post": "posts", "render": "paid renders"}
HOW_BEST = "The best frame of each video is its sharpest key frame with a headline:"


def print_report(
    outcome: DemoOutcome, seconds: float, outage: OutageReport | None, where: Running, *, wait: bool, review: bool
) -> None:
    """Print the report. `wait`: the stack keeps running, so print its links. `review`: a person reviewed."""
    _videos(outcome)
    _pictures(outcome)
    if wait:
        for video in outcome.videos:
            for post in video["posts"]:
                out.print(f"  [link={post['url']}]{plain(post['url'])}[/link]", soft_wrap=True)
    if outage is not None:
        _outage(outage, outcome)
    _proof(outcome)
    _costs(outcome)
    totals = outcome.totals
    out.print(
        f"\n{counted(totals['videos'], 'video')}, {counted(totals['posts'], 'post')}, {totals['views']:,} views, {seconds:.0f} s"
    )
    if outcome.problems:
        for problem in outcome.problems:
            err.print(f"[red]{plain(problem)}[/]", soft_wrap=True)
    else:
        whose = "approved video" if review else "video"
        say(f"[green]The sandbox's ledger has exactly one post for every {whose} and platform.[/]")
    out.print("\n[bold]What to try next[/]")
    for sentence in next_steps(where.web_url, wait=wait, faults=outage is not None, review=review):
        say(sentence)
    # URLs and commands are never broken, so that they can be clicked and copied.
    if wait:
        say("Watch the videos at the desk, with their words and history:")
        for video in outcome.videos:
            out.print(f"  {plain(where.desk_url)}review/{plain(video['id'])}", soft_wrap=True)
    else:
        say(f"The desk was at {plain(where.desk_url)}. To start it again with these videos:")
        out.print(f"  PHANTOMS_HOME={plain(shlex.quote(str(where.home)))} phantoms up", soft_wrap=True)


def next_steps(web_url: str, *, wait: bool, faults: bool, review: bool = False) -> tuple[str, ...]:
    """Return suggestions of what to try next."""
    page = f"{web_url}/assets/rendered_video" if wait else "the asset rendered_video"
    return (
        'Run `phantoms up` and `phantoms add "A title"` for videos of your own.'
        if wait
        else "Run `phantoms demo --wait` to explore a stack that keeps running.",
        "Break any service yourself: `phantoms sandbox --help` tells you how."
        if faults
        else "Run `phantoms demo --faults` to see a service fail in mid-run without losing anything.",
        f"In Dagster's UI, open {page}: each partition shows its video, words and cost.",
        *(() if review else ("Run `phantoms demo --review` to review the videos yourself, at the desk.",)),
    )


def _videos(outcome: DemoOutcome) -> None:
    table = _table("video", "length", "posts", "views", "USD")
    for video in outcome.videos:
        length = f"{video['probe']['seconds']:.1f} s" if video["probe"] else ""
        table.add_row(plain(video["title"]), length, str(len(video["posts"])), f"{video['views']:,}", f"{video['cost_usd']:.3f}")
    out.print(table)


def _pictures(outcome: DemoOutcome) -> None:
    framed = [video for video in outcome.videos if video["frame"]]
    if not framed:
        return
    out.print()
    say(HOW_BEST)
    for video in framed:  # paths are never broken, so that they can be clicked and copied
        out.print(f"  {plain(video['frame']['path'])}", soft_wrap=True)
    say("The videos are next to them, as .mp4.", style="dim")


def _outage(outage: OutageReport, outcome: DemoOutcome) -> None:
    posts = outcome.proof["post"]
    rows = [
        ("the render API went down at", _at(outage.died_at)),
        ("its breaker opened at", _at(outage.opened_at)),
        ("videos that waited", str(outage.waited)),
        ("probes that failed", str(outage.probes_failed)),
        ("the render API was back at", _at(outage.lifted_at)),
        ("its breaker closed at", _at(outage.closed_at)),
        ("dead letters", str(outage.dead_letters)),
        ("posts, each exactly once", f"{posts.wanted - posts.lost - posts.doubled} of {posts.wanted}"),
    ]
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    for name, value in rows:
        table.add_row(name, value)
    out.print("\n[bold]The outage[/]")
    out.print(table)


def _proof(outcome: DemoOutcome) -> None:
    table = _table("in the sandbox's ledger", "expected", "found", "duplicates", "missing")
    for kind, proof in outcome.proof.items():
        numbers = (proof.wanted, proof.found, proof.doubled, proof.lost)
        table.add_row(KINDS[kind], *map(str, numbers), style=None if proof.holds else "red")
    out.print()
    out.print(table)


def _costs(outcome: DemoOutcome) -> None:
    table = _table("what it would have cost", "USD")
    for stage, usd in outcome.costs.items():
        table.add_row(stage, f"{usd:.3f}")
    table.add_row("total", f"{outcome.totals['cost_usd']:.3f}", style="bold")
    out.print()
    out.print(table)


def _table(first: str, *numbers: str) -> Table:
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(first, overflow="fold")
    for name in numbers:
        table.add_column(name, no_wrap=True, justify="right")
    return table


def _at(moment: datetime | None) -> str:
    return "never" if moment is None else exact(moment)
