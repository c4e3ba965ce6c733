"""`phantoms calendar`: what goes out when, which slots are free or were missed, and moving and cancelling posts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import datetime
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import typer

from phantoms_dagster.cli.completion import complete_video
from phantoms_dagster.cli.console import out, plain, print_json, print_result, report, say, whole_number
from phantoms_dagster.cli.guest_links import desk_address
from phantoms_dagster.cli.opened import opened_services
from phantoms_dagster.cli.people import actor
from phantoms_dagster.cli.times import local
from phantoms_dagster.domain.counting import counted
from phantoms_dagster.domain.errors import InvalidInput, NotFound
from phantoms_dagster.domain.local_times import read_local
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.store.booked_posts import CalendarLine, CalendarList, MissedSlot
from phantoms_dagster.store.booking_changes import Changed, When
from phantoms_dagster.wiring import Services

_STYLES = {
    "free": "dim",
    "late": "red",
    "failed": "red",
    "missed": "red",
    "repeat": "yellow",
    "cancelled": "dim",
    "drafted": "yellow",
    "posted": "green",
    "removed": "dim",
}
# What a person can do about a post in that state. `now` works in every channel, also in one without slots.
_ANSWERS = {
    "missed": ("to post what was missed", "phantoms calendar move {key} now"),
    "repeat": ("to allow a repetition", "phantoms calendar override {key}"),
    "cancelled": ("to put back what was taken out", "phantoms calendar move {key} now"),
}
_HIDDEN = ("video_id", "sequence", "changed_at")

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object")]
Video = Annotated[str, typer.Argument(help="Key of the video, or enough of it", autocompletion=complete_video)]
OnPlatforms = Annotated[
    list[str] | None, typer.Option("--platform", help="Only its post on this platform; may be given several times")
]
Reason = Annotated[str, typer.Option(help="Why; kept with the booking and in the audit log")]


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(
        help="Show when posts go out and which slots are free or were missed; move posts and cancel them.\n\n"
        "Posts can be moved and cancelled until their commit point, from which they may be out."
    )
    group.callback(invoke_without_command=True)(calendar)
    group.command("move")(move)
    group.command("cancel")(cancel)
    group.command("override")(override)
    feeds = typer.Typer(help="Make addresses at which calendar programs read the calendar, list them, and revoke them.")
    feeds.command("add")(add_feed)
    feeds.command("list")(show_feeds)
    feeds.command("revoke")(revoke_feed)
    group.add_typer(feeds, name="feed", no_args_is_help=True)
    app.add_typer(group, name="calendar", rich_help_panel="Review")


def calendar(
    context: typer.Context,
    days: Annotated[int, typer.Option(min=1, max=366, help="How many days to show")] = 7,
    channel: Annotated[str, typer.Option(help="Only this channel")] = "",
    free: Annotated[bool, typer.Option("--free", help="Also list the free slots")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the calendar, unless a command follows."""
    if context.invoked_subcommand is not None:
        return
    with opened_services() as services:
        services.take_channels()
        if channel and channel not in services.channels():
            raise NotFound(f"there is no channel {channel!r}; the channels are {', '.join(services.channels())}")
        found = services.booked_posts().coming(days=days, channel=channel)
        if as_json:
            print_json(_as_json(found))
        else:
            _print(found, days, with_free=free)


def move(
    video: Video,
    when: Annotated[
        str,
        typer.Argument(
            metavar="WHEN",
            help="`next` for the next free slot after its present one, `now`, or a time such as 2026-12-24T18:00, which is in the "
            "channel's time zone unless it has one of its own",
        ),
    ],
    platform: OnPlatforms = None,
    as_json: AsJson = False,
) -> None:
    """Move the posts of a video, or put missed and cancelled ones back. A post that is past its commit point stays."""
    with opened_services() as services:
        key = services.catalogue().find(video)
        services.take_channels()
        wanted = _when(services, key, when)
        changed = services.booking_changes().move(key, wanted, actor(), platforms=_platforms(platform))
        odd = _odd(services, key, wanted, [one.platform for one in changed.booked]) if isinstance(wanted, datetime) else []
        _tell(changed, odd, as_json=as_json)


def cancel(video: Video, platform: OnPlatforms = None, reason: Reason = "", as_json: AsJson = False) -> None:
    """Take the posts of a video out of the calendar until you move them. Their slots are free again."""
    with opened_services() as services:
        key = services.catalogue().find(video)
        changed = services.booking_changes().cancel(key, actor(), platforms=_platforms(platform), reason=reason)
        _tell(changed, [], as_json=as_json)


def override(video: Video, platform: OnPlatforms = None, reason: Reason = "", as_json: AsJson = False) -> None:
    """Allow posts that wait because they repeat an earlier post of their account."""
    with opened_services() as services:
        key = services.catalogue().find(video)
        changed = services.booking_changes().override(key, actor(), platforms=_platforms(platform), reason=reason)
        _tell(changed, [], as_json=as_json)


def add_feed(
    channel: Annotated[str, typer.Option(help="Only the posts of this channel; default: all channels")] = "",
    as_json: AsJson = False,
) -> None:
    """Make an address for calendar programs and print it. It cannot be shown again: only its hash is stored."""
    with opened_services() as services:
        services.take_channels()
        feed, secret = services.calendar_feeds().add(channel, actor())
        address = f"{desk_address(services.settings)}calendar/{secret}.ics"
        if as_json:
            print_json({**asdict(feed), "url": address})
            return
        out.print(address, soft_wrap=True, markup=False, highlight=False)
        say("  anyone who has it can read the calendar while the desk runs; to revoke it:", style="dim")
        out.print(f"  phantoms calendar feed revoke {feed.id}", style="dim", soft_wrap=True)


def show_feeds(as_json: AsJson = False) -> None:
    """List the feeds, newest first. Their addresses are never shown again."""
    with opened_services() as services:
        found = services.calendar_feeds().all()
        if as_json:
            print_json({"feeds": [asdict(feed) for feed in found]})
            return
        if not found:
            say("no calendar feeds; `phantoms calendar feed add` makes one")
        for feed in found:
            state = f"revoked by {feed.revoked_by}, {local(feed.revoked_at)}" if feed.revoked_at else "open"
            about = f"{feed.channel or 'all channels'}, made by {feed.made_by}, {local(feed.made_at)}: {state}"
            out.print(f"[bold]{feed.id}[/]  {plain(about)}", soft_wrap=True)


def revoke_feed(
    number: Annotated[
        int, typer.Argument(parser=whole_number, metavar="ID", help="The feed's id, as `phantoms calendar feed list` shows it")
    ],
    as_json: AsJson = False,
) -> None:
    """Revoke a feed, so that its address no longer works."""
    with opened_services() as services:
        feed = services.calendar_feeds().revoke(number, actor())
        print_result(asdict(feed), f"revoked calendar feed {feed.id}", as_json=as_json)


def _when(services: Services, key: str, written: str) -> When:
    """Read the time that a person gave. Raises InvalidInput."""
    if written.casefold() == "next":
        return "next"
    if written.casefold() == "now":
        return "now"
    try:
        moment = datetime.fromisoformat(written)
    except ValueError:
        moment = None
    if moment is not None and moment.tzinfo is not None:
        return moment
    zone = services.calendar().channels()[services.catalogue().channel_name(key)].timezone
    try:
        return read_local(written, zone)
    except InvalidInput as error:
        raise InvalidInput(f"{error}, or `next` or `now`") from error


def _odd(services: Services, key: str, at: datetime, platforms: Sequence[Platform]) -> list[str]:
    """The warnings that the calendar of the desk shows about this time."""
    from phantoms_dagster.wiring.schedule_warnings import schedule_warnings  # noqa: PLC0415 - it imports the client of Redis

    plan = services.calendar()
    video = plan.one(key)
    assert video is not None
    moved = replace(video, outings=tuple(one for one in video.outings if one.platform in platforms))
    return schedule_warnings(plan, services.settings, moved, plan.channels()[video.channel], at)


def _platforms(given: Sequence[str] | None) -> tuple[Platform, ...]:
    strange = [name for name in given or () if name not in tuple(Platform)]
    if strange:
        raise InvalidInput(f"{strange[0]!r} is not a platform; the platforms are {', '.join(Platform)}")
    return tuple(dict.fromkeys(Platform(name) for name in given or ()))


def _tell(changed: Changed, odd: Sequence[str], *, as_json: bool) -> None:
    if as_json:
        booked = [{"platform": one.platform, "at": one.at, "state": one.state, "note": one.note} for one in changed.booked]
        print_json({"key": changed.key, "booked": booked, "refused": list(changed.refused), "warnings": list(odd)})
        return
    out.print(f"[bold]{changed.key}[/]", soft_wrap=True)
    for one in changed.booked:
        say(f"  {plain(one.said)}")
    for problem in changed.refused:
        report(problem)
    for warning in odd:
        say(f"  {plain(warning)}", style="yellow")


def _print(found: CalendarList, days: int, *, with_free: bool) -> None:
    if not found.lines:
        say(f"nothing is booked for the next {days} days, and no channel has slots; docs/calendar.md says how to give it some")
    free = [line for line in found.lines if line.state == "free"]
    shown = [line for line in found.lines if with_free or line.state != "free"]
    places = [f"{line.platform}:{line.account}" for line in shown]
    widths = [max(map(len, column), default=0) for column in (map(_local, shown), (line.channel for line in shown), places)]
    for line, place in zip(shown, places, strict=True):
        head = "  ".join(value.ljust(width) for value, width in zip((_local(line), line.channel, place), widths, strict=True))
        style = _STYLES.get(line.state, "")
        out.print(f"{plain(head)}  {f'[{style}]{line.state}[/]' if style else line.state}", soft_wrap=True)
        # A line of its own, so that the key is whole in a narrow terminal.
        if line.key:
            out.print(f"  {plain(line.key)}", soft_wrap=True)
        if line.why:
            say(f"    [dim]{plain(line.why)}[/]")
    if free and not with_free:
        first = free[0]
        say(
            f"{counted(len(free), 'slot is', 'slots are')} free, the first on {_local(first)} ({first.channel}, "
            f"{first.platform.title}); list them: `phantoms calendar --free`",
            style="dim",
        )
    for state, (purpose, command) in _ANSWERS.items():
        if key := next((line.key for line in found.lines if line.state == state), None):
            say(f"{purpose}, for example:", style="dim")
            out.print(f"  {command.format(key=key)}", style="dim", soft_wrap=True)
    for missed in found.missed:
        say(f"[red]missed[/] {plain(_missed(missed))}")


def _local(line: CalendarLine) -> str:
    there = line.at.astimezone(ZoneInfo(line.timezone))
    return f"{there:%a} {there:%Y-%m-%d %H:%M %Z}"


def _missed(missed: MissedSlot) -> str:
    return f"{missed.at:%Y-%m-%d %H:%M} UTC, {missed.key} on {missed.platform.title}: {missed.why}; {missed.then}"


def _as_json(found: CalendarList) -> dict[str, Any]:
    lines = [{name: value for name, value in asdict(line).items() if name not in _HIDDEN} for line in found.lines]
    return {"now": found.now, "lines": lines, "missed": [asdict(missed) for missed in found.missed]}
