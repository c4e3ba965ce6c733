"""`phantoms approve`, `reject`, `hold` and `unhold`: review decisions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.markup import escape

from phantoms_dagster.cli.completion import complete_video
from phantoms_dagster.cli.console import BAD_INPUT, current, err, out, plain_errors, print_json, report, say
from phantoms_dagster.cli.times import soon
from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.left_out import left_out
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.production.stages.post import next_opening
from phantoms_dagster.store.decisions import Decided, Decisions
from phantoms_dagster.store.outlook import Outlook
from phantoms_dagster.wiring import Services
from phantoms_dagster.wiring.this_user import this_user

MOST_AT_ONCE = 100_000
# Videos per transaction. It locks their rows until it commits.
PAGE = 500
SHORTEST_HASH = 8

Videos = Annotated[list[str] | None, typer.Argument(help="Keys of videos, or enough of each", autocompletion=complete_video)]
Everything = Annotated[bool, typer.Option("--all", help="Every video that waits for review")]
Reviewer = Annotated[str | None, typer.Option(help="Name of the reviewer; default: the user of this machine")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(rich_help_panel="Review")(approve)
    app.command(rich_help_panel="Review")(reject)
    app.command(rich_help_panel="Review")(hold)
    app.command(rich_help_panel="Review")(unhold)


def approve(
    videos: Videos = None,
    everything: Everything = False,
    note: Annotated[str, typer.Option(help="Kept with the decision")] = "",
    reviewer: Reviewer = None,
    content: Annotated[
        str | None, typer.Option(metavar="HASH", help="Hash of the version that you saw in `phantoms show`; for one video")
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(metavar="PLATFORMS", help="Only for these, such as youtube,tiktok; removes the others from the brief"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Approve videos. Exactly this video and these words are posted, even if something changes later.

    A video is refused when the words of its posts have changed since it was rendered. Look at it again and give its --content.
    """
    _decide(videos, everything=everything, note=note, reviewer=reviewer, approved=True, content=content, only=only, as_json=as_json)


def reject(
    videos: Videos = None,
    everything: Everything = False,
    note: Annotated[str, typer.Option(help="Why; kept with the decision")] = "",
    reviewer: Reviewer = None,
    as_json: AsJson = False,
) -> None:
    """Reject videos, so they are not posted. You can make them again and decide again, or still approve them."""
    _decide(videos, everything=everything, note=note, reviewer=reviewer, approved=False, as_json=as_json)


def _decide(
    videos: list[str] | None,
    *,
    everything: bool,
    note: str,
    reviewer: str | None,
    approved: bool,
    as_json: bool,
    content: str | None = None,
    only: str | None = None,
) -> None:
    with plain_errors():
        if content is not None and (len(videos or []) != 1 or len(content) < SHORTEST_HASH):
            raise InvalidInput(f"--content is for one video and needs at least {SHORTEST_HASH} characters; see `phantoms show`")
        if bool(videos) == everything:
            raise InvalidInput("give either videos or --all; `phantoms status` lists what waits for review")
        platforms = _platforms(only)
        services = Services(current())
        try:
            services.pending_decisions().commit_due()
            decisions, catalogue = services.decisions(), services.catalogue()
            services.take_channels()
            # Look up all names first, so that a mistyped one does not leave half of the decisions made.
            keys = decisions.undecided(limit=MOST_AT_ONCE) if everything else [catalogue.find(video) for video in videos or []]
            contents = {keys[0]: content} if content else {}
            found: list[Decided | InvalidInput] = []
            for page in _pages(list(dict.fromkeys(keys))):
                found += decisions.decide_all(
                    page,
                    approved=approved,
                    reviewer=reviewer or this_user(),
                    note=note,
                    via="cli",
                    contents=contents,
                    only=platforms,
                    # `--reviewer` is only a label. The two-person rule counts the user who runs the command.
                    person=this_user(),
                )
                new = [one.key for one in found[-len(page) :] if isinstance(one, Decided) and one.new] if approved else []
                found[-len(page) :] = _warned(found[-len(page) :], left_out(catalogue.outputs(new)))
                if not as_json:
                    _tell(found[-len(page) :], "approved" if approved else "rejected")
            # One refused decision does not prevent the others.
            problems = [str(one) for one in found if isinstance(one, InvalidInput)]
            decided = [one for one in found if isinstance(one, Decided)]
            fresh = [one.key for one in decided if one.new and not one.first]
            times = _times(services, fresh) if approved else {}
        finally:
            services.close()
        if as_json:
            rows = [{**asdict(one), "goes_out": times.get(one.key)} for one in decided]
            print_json({"decided": rows, "refused": problems})
        elif not keys:
            out.print("nothing is waiting for review; `phantoms status` shows what is in progress")
        else:
            _tell_next(fresh, times, approved=approved)
        if problems:
            raise typer.Exit(BAD_INPUT)


def hold(
    videos: Annotated[list[str], typer.Argument(help="Keys of videos, or enough of each", autocompletion=complete_video)],
    note: Annotated[str, typer.Option(help="Why; kept with the hold")] = "",
    reviewer: Reviewer = None,
    as_json: AsJson = False,
) -> None:
    """Put videos on hold. They leave the review queue, and nobody can decide on them until you release them."""
    who = reviewer or this_user()
    _each(
        videos,
        lambda decisions, key: decisions.hold(key, reviewer=who, note=note, via="cli"),
        "on hold:",
        "phantoms unhold {key}    # release it",
        as_json=as_json,
    )


def unhold(
    videos: Annotated[list[str], typer.Argument(help="Keys of videos, or enough of each", autocompletion=complete_video)],
    reviewer: Reviewer = None,
    as_json: AsJson = False,
) -> None:
    """Release videos from hold. They wait for a decision again."""
    who = reviewer or this_user()
    next_step = "phantoms show {key}    # see it and decide"
    _each(videos, lambda decisions, key: decisions.release(key, reviewer=who, via="cli"), "released:", next_step, as_json=as_json)


def _each(videos: list[str], change: Callable[[Decisions, str], None], word: str, after: str, *, as_json: bool) -> None:
    """Change each of these videos. A refusal does not prevent the other changes. `after` is the next step to print."""
    with plain_errors():
        services = Services(current())
        changed: list[str] = []
        problems: list[str] = []
        try:
            services.pending_decisions().commit_due()
            for key in dict.fromkeys([services.catalogue().find(video) for video in videos]):
                try:
                    change(services.decisions(), key)
                except InvalidInput as error:
                    problems.append(str(error))
                    report(str(error))
                else:
                    changed.append(key)
                    if not as_json:
                        say(f"{word} {key}")
                        out.print(f"  {after.format(key=key)}", style="dim", soft_wrap=True)
        finally:
            services.close()
        if as_json:
            print_json({"changed": changed, "refused": problems})
        if problems:
            raise typer.Exit(BAD_INPUT)


def _platforms(only: str | None) -> tuple[Platform, ...]:
    """Parse a comma-separated list of platforms. Raises InvalidInput."""
    names = [name.strip().casefold() for name in (only or "").split(",") if name.strip()]
    strange = [name for name in names if name not in set(Platform)]
    if strange or (only is not None and not names):
        raise InvalidInput(f"--only takes platforms, such as youtube,tiktok; not {', '.join(strange) or 'an empty list'}")
    return tuple(dict.fromkeys(Platform(name) for name in names))


def _tell(found: Sequence[Decided | InvalidInput], word: str) -> None:
    for one in found:
        if isinstance(one, InvalidInput):
            report(str(one))
            continue
        if one.first:
            say(f"{word} {one.key}, as the first of two; it is posted when a second person approves it, too")
        else:
            say(f"{word} {one.key}" if one.new else f"{one.key} was already {word}")
        if one.booked:
            say(f"  {escape('; '.join(slot.said for slot in one.booked))}", style="dim")
        for warning in one.warnings:
            say(f"[yellow]warning: {one.key}: {escape(warning)}[/]", to=err)


def _warned(found: Sequence[Decided | InvalidInput], left: Mapping[str, Sequence[str]]) -> list[Decided | InvalidInput]:
    """Return the decisions with the warnings that `phantoms show` gives, because `--all` approves videos that nobody has opened."""
    return [replace(one, warnings=(*one.warnings, *left.get(one.key, ()))) if isinstance(one, Decided) else one for one in found]


def _times(services: Services, keys: Sequence[str]) -> dict[str, datetime]:
    """Return when these videos will be posted, by key: not before their own time, and in their channel's posting hours.

    Those whose posts all wait for a person are left out.
    """
    now = datetime.now(UTC)
    times = {}
    for page in _pages(keys):
        for release in Outlook(services.engine).releases(page):
            if not release.waits:
                times[release.key] = next_opening(release.channel, max(now, release.publish_at or now))
    return times


def _tell_next(keys: Sequence[str], times: Mapping[str, datetime], *, approved: bool) -> None:
    """Print what happens next, and when."""
    if not keys:
        return
    if not approved:
        which = "it" if len(keys) == 1 else "one, for example the first,"
        say(f"  nothing more happens automatically; make {which} again, or approve it after all:", style="dim")
        out.print(f"  phantoms retry {keys[0]} --from script\n  phantoms approve {keys[0]}", style="dim", soft_wrap=True)
        return
    if waiting := [key for key in keys if key not in times]:
        whose = "its posts wait" if len(waiting) == 1 else f"the posts of {len(waiting)} videos wait"
        say(f"  {whose} for your decision; `phantoms calendar` says why and what you can do", style="dim")
    if not times:
        return
    now = datetime.now(UTC)
    later = sorted(at for at in times.values() if at > now)
    at_once = len(times) - len(later)
    if len(times) == 1:
        [key] = times
        when = f"not before {soon(later[0])}" if later else "at once"
        say(f"  next: `phantoms up` posts it, {when}", style="dim")
        out.print(f"  follow it: phantoms show {key}", style="dim", soft_wrap=True)
        return
    parts = [f"{at_once} at once"] if at_once else []
    parts += [f"{len(later)} later, the first at {soon(later[0])}"] if later else []
    say(f"  next: `phantoms up` posts them, {', '.join(parts)}; follow them: `phantoms status`", style="dim")


def _pages(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    return (keys[n : n + PAGE] for n in range(0, len(keys), PAGE))
