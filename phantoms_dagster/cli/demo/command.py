"""`phantoms demo`: the whole stack in a fresh directory, a few briefs, a demo reviewer, and a proof at the end.

`screen` draws the screen, `outage` runs the outage of `--faults`, `end` collects the proof, and `report` prints it.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.live import Live
from rich.markup import escape

from phantoms_dagster.cli.console import FAILED, err, out, plain_errors, print_json, say
from phantoms_dagster.cli.demo.end import DemoOutcome, dead_letters, end_of_demo, posted
from phantoms_dagster.cli.demo.outage import BREAKER_SETTINGS, SETTINGS_IN_WORDS, DemoOutage, OutageReport, breaker_changes
from phantoms_dagster.cli.demo.report import print_report
from phantoms_dagster.cli.demo.reviewer import DemoReviewer
from phantoms_dagster.cli.demo.screen import DemoView, VideoLane, drawn
from phantoms_dagster.cli.entry import INTERRUPTED
from phantoms_dagster.cli.graphql import launch_job
from phantoms_dagster.cli.stack import Running, Stack
from phantoms_dagster.cli.up import starting
from phantoms_dagster.domain.counting import counted
from phantoms_dagster.domain.errors import PhantomsError
from phantoms_dagster.domain.models import Brief, Platform
from phantoms_dagster.domain.stages import stages_for
from phantoms_dagster.embedded.supervisor import interrupt_on_signals
from phantoms_dagster.production.intake import read
from phantoms_dagster.settings import Settings
from phantoms_dagster.store.outlook import Outlook
from phantoms_dagster.wiring import Services

POLL_SECONDS = 0.5
STUCK_SECONDS = 600.0
ATTEMPTS = 60  # how many of the newest attempts to read; the screen shows some of them
REVIEWER = "demo reviewer"
FOLDER = "videos"


class DemoFailed(PhantomsError):
    """The demo did not do what it should."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel="Run")(demo)


def demo(
    videos: Annotated[int, typer.Option(min=1, max=500, help="How many videos to make")] = 3,
    faults: Annotated[
        bool,
        typer.Option("--faults", help="Take the render API down for twenty seconds in mid-run and prove that nothing is lost"),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else on standard output")] = False,
    keep: Annotated[Path | None, typer.Option(help="Work in this directory and keep it; default: a temporary one")] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Keep running at the end, until Ctrl-C, to explore the desk and the Dagster UI")
    ] = False,
    review: Annotated[
        bool, typer.Option("--review", help="Decide on each video yourself, at the desk or with `phantoms approve`; the demo waits")
    ] = False,
) -> None:
    """Make real videos from bundled briefs and post them to the sandbox. Needs no keys and no installation.

    A terminal shows the progress of each video. No browser opens. At the end
    you get the best frame of each video as a file, a proof from the sandbox's
    ledger, the costs, and what to try next.

    With --faults the render API goes down in mid-run: its breaker opens, the
    videos wait, a probe finds that the API is back, and they continue.

    With --review you are the reviewer: the demo shows you where to decide,
    and waits for you.

    Exits with 0 only when the ledger has exactly one post for every video and
    platform, and one paid render for every video. With --faults the breaker
    must also have opened and closed, without any dead letter. With --review
    only the videos that you approved count.
    """
    with plain_errors(), interrupt_on_signals():
        home = (keep or Path(tempfile.mkdtemp(prefix="phantoms-demo-"))).expanduser().absolute()
        try:
            ended = _demo(home, videos, faults=faults, as_json=as_json, wait=wait, review=review)
        except KeyboardInterrupt:
            err.print(f"[yellow]Stopped early. Nothing is still running. {escape(_where_files(home))}[/]", soft_wrap=True)
            raise typer.Exit(INTERRUPTED) from None
        if not as_json:
            out.print(_where_files(home), style="dim", soft_wrap=True, markup=False)
        if ended.problems:
            raise typer.Exit(FAILED)


def _demo(home: Path, videos: int, *, faults: bool, as_json: bool, wait: bool, review: bool) -> DemoOutcome:
    started = time.monotonic()
    _forget_environment(faults=faults)
    settings = Settings(
        paths={"home": home, "channels": None, "inbox": None}, sandbox={"mode": "on"}, web={"port": 0}, media={"folder": None}
    )
    briefs = _briefs(videos, Services(settings))
    with ExitStack() as until_the_end:
        with starting() as waiting:
            running = until_the_end.enter_context(Stack(settings, say=_say, warn=_warn, waiting=waiting))
        _say_addresses(running)
        ended, outage = _play(running, briefs, started, faults=faults, review=review)
        seconds = round(time.monotonic() - started, 1)
        if as_json:
            shown = {**asdict(ended), "outage": outage.as_json() if outage else None}
            print_json({**shown, "seconds": seconds, "home": str(home), "ok": not ended.problems})
        else:
            print_report(ended, seconds, outage, running, wait=wait, review=review)
        if wait:
            _say_addresses(running)
            _say("it keeps running; Ctrl-C stops everything")
            with suppress(KeyboardInterrupt):
                threading.Event().wait()
        _say("stopping")
    return ended


def _addresses(running: Running) -> list[tuple[str, str]]:
    """Return the names and URLs of the pages, the one for daily work first. The demo does not open them."""
    return [("Desk", running.desk_url), ("Dagster UI", running.web_url)]


def _say_addresses(running: Running) -> None:
    for name, url in _addresses(running):
        _say(f"{name}: {url}")


def _where_files(home: Path) -> str:
    return f"The files are in {home}; delete them with: rm -r {home}"


def _forget_environment(*, faults: bool) -> None:
    """Remove keys, tokens and URLs from the environment, so that the demo never touches real accounts or running servers."""
    for name in [n for n in os.environ if n.startswith("PHANTOMS_") and n.endswith(("_API_KEY", "_TOKEN", "_URL"))]:
        del os.environ[name]
    if faults:  # the processes of the stack read these, too
        os.environ.update(BREAKER_SETTINGS)
        os.environ["PHANTOMS_RENDERER"] = "auto"


def _say(line: str) -> None:
    say(f"[dim]{escape(line)}[/]", to=err)


def _warn(line: str) -> None:
    say(f"[yellow]{escape(line)}[/]", to=err)


def _briefs(count: int, services: Services) -> list[Brief]:
    """Return the bundled briefs. When more are wanted they repeat, with a part number in the title."""
    content = files("phantoms_dagster.cli.demo").joinpath("briefs.yaml").read_bytes()
    batch = read("demo_briefs.yaml", content, services.channels())
    if batch.refused:
        raise DemoFailed(f"the bundled briefs cannot be used: {batch.refused[0]}")
    bundled = [row.brief for row in batch.accepted]
    wanted = []
    for number in range(count):
        brief, part = bundled[number % len(bundled)], number // len(bundled) + 1
        wanted.append(brief if part == 1 else brief.model_copy(update={"title": f"{brief.title}, part {part}"}))
    return wanted


def _play(
    running: Running, briefs: list[Brief], started: float, *, faults: bool, review: bool
) -> tuple[DemoOutcome, OutageReport | None]:
    services = Services(running.settings)
    sandbox_url = running.sandbox_url
    assert sandbox_url is not None
    try:
        # Real platforms allow about a hundred posts per day and account; a demo may need more.
        _tell_sandbox(
            sandbox_url,
            "config",
            {f"{platform}.{name}": most for platform in Platform for name, most in platform.spec.roomy.items()},
        )
        before = set(posted(sandbox_url))  # a kept directory has posts of earlier demos
        keys = [added.key for added in services.catalogue().add(briefs, source="demo")]
        each = len(stages_for(Platform.usual()))
        _say(f"{counted(len(keys), 'brief')} added; each goes through {each} stages automatically")
        outage = DemoOutage(sandbox_url, lambda: breaker_changes(running.settings)) if faults else None
        if outage is not None:
            say(f"the render API will be down for twenty seconds; its breaker {SETTINGS_IN_WORDS}", style="dim", to=err)
        person = DemoReviewer(running.desk_url, running.home) if review else None
        _Watch(services, sandbox_url, keys, outage, started, person).until_the_end()
        _say("advancing the sandbox's clock by two days, then reading the results")
        _tell_sandbox(sandbox_url, "advance", {"seconds": 2 * 86_400})
        launch_job(running.web_url, "analytics_job", timeout=STUCK_SECONDS)
        ended = end_of_demo(sandbox_url, services, keys, before, running.home / FOLDER, by_hand=review)
        if outage is None:
            return ended, None
        outage.report.dead_letters = dead_letters(services, keys)
        ended.problems.extend(outage.report.problems)
        return ended, outage.report
    finally:
        services.close()


def _tell_sandbox(sandbox_url: str, what: str, values: dict[str, Any]) -> None:
    httpx.post(f"{sandbox_url}/_sandbox/{what}", json=values, timeout=30, trust_env=False).raise_for_status()


class _Watch:
    """Shows the videos until all have ended, approves what is ready, and runs the outage.

    With a `person` it approves nothing. It tells them where to decide, and waits.
    """

    def __init__(
        self,
        services: Services,
        sandbox_url: str,
        keys: Sequence[str],
        outage: DemoOutage | None,
        started: float,
        person: DemoReviewer | None,
    ) -> None:
        self._person = person
        self._services = services
        self._renders = f"{sandbox_url}/_sandbox/renders"
        self._keys = list(keys)
        self._outage = outage
        self._started = started
        self._outlook = Outlook(services.engine)

    def until_the_end(self) -> None:
        """Run until all videos have ended. Raises DemoFailed when nothing changes for STUCK_SECONDS."""
        if not err.is_terminal:
            self._loop(lambda _: None, tell=_say)
            return
        with Live(console=err, transient=True, auto_refresh=False) as live:
            self._loop(lambda lanes: self._show(live, lanes), tell=lambda _: None)

    def _loop(self, show: Callable[[Sequence[VideoLane]], None], *, tell: Callable[[str], None]) -> None:
        catalogue, decisions = self._services.catalogue(), self._services.decisions()
        seen: list[VideoLane] = []
        moved = time.monotonic()
        while True:
            rows = {row.key: row for row in catalogue.videos(keys=self._keys)}
            rendering = self._under_way() if err.is_terminal or self._outage else {}
            lanes = [VideoLane(rows[key].title, rows[key].states, rendering.get(key)) for key in self._keys]
            if self._outage is not None:
                submitted = all(lane.rendered or lane.rendering is not None for lane in lanes)
                for line in self._outage.look(submitted=submitted, waiting=sum(not lane.rendered for lane in lanes)):
                    tell(line)
            if self._person is not None:
                waiting = sum(lane.waits_for_review for lane in lanes)
                for line in self._person.look(waiting):
                    tell(line)
                if waiting:  # waiting for a person does not count as stuck
                    moved = time.monotonic()
            elif all(lane.rendered for lane in lanes):  # review all videos at once, like a person would
                mine = [key for key in decisions.undecided() if key in rows]
                decisions.decide_all(mine, approved=True, reviewer=REVIEWER, via="demo")
            if lanes != seen:
                seen, moved = lanes, time.monotonic()
            show(lanes)
            if all(_over(lane.states) for lane in lanes):
                return
            if time.monotonic() - moved > STUCK_SECONDS:
                logs = self._services.settings.paths.home / "logs"
                raise DemoFailed(f"nothing has happened for {STUCK_SECONDS:.0f} s; the logs are in {logs}")
            time.sleep(POLL_SECONDS)

    def _under_way(self) -> dict[str, float]:
        """Return the progress (0 to 1) of each video that the sandbox is rendering, by video key."""
        answer = httpx.get(self._renders, timeout=30, trust_env=False).raise_for_status().json()
        return {render["video_key"]: float(render["progress"]) for render in answer["renders"]}

    def _show(self, live: Live, lanes: Sequence[VideoLane]) -> None:
        waiting = sum(not lane.rendered for lane in lanes)
        view = DemoView(
            at=datetime.now(UTC),
            seconds=time.monotonic() - self._started,
            lanes=lanes,
            latest=self._outlook.latest(most=ATTEMPTS),
            outage=(*(self._outage.sentences(waiting) if self._outage else ()), *(self._person.sentences if self._person else ())),
            down=self._outage is not None and self._outage.down,
        )
        live.update(drawn(view, width=err.width, height=err.height - 1), refresh=True)


def _over(states: Mapping[str, str]) -> bool:
    """Whether nothing more will happen: every stage has ended, or is blocked by one that failed."""
    return not any(state in ("ready", "running", "deferred") for state in states.values())
