"""`phantoms posts`: the ledger of posts, decisions about posts that are unknown or handed over, and deleting posts."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.table import Table

from phantoms_dagster.cli.completion import complete_video
from phantoms_dagster.cli.console import out, plain, print_json, print_result, say
from phantoms_dagster.cli.dead_letters import moment
from phantoms_dagster.cli.opened import opened_services
from phantoms_dagster.cli.times import exact, local
from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.post_changes import STATES_AFTER
from phantoms_dagster.domain.reconciliation import post_reference
from phantoms_dagster.domain.stages import PostState
from phantoms_dagster.store.audit import Actor
from phantoms_dagster.store.posts import LedgerPost, PostDetail, Posts
from phantoms_dagster.wiring.this_user import this_user

GROUP_EXAMPLES = (
    "phantoms posts list --state unknown",
    "phantoms posts list --state handed_over",
    "phantoms posts show octopuses tiktok",
    "phantoms posts settle octopuses tiktok --there https://www.tiktok.com/@you/video/7300000000000000000",
    "phantoms posts settle octopuses tiktok --not-there",
    "phantoms posts takedown octopuses youtube",
)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object")]
Video = Annotated[str, typer.Argument(help="Key of the video, or enough of it", autocompletion=complete_video)]
OnPlatform = Annotated[str, typer.Argument(metavar="PLATFORM", help="Platform of the post, such as youtube")]
By = Annotated[str | None, typer.Option("--by", help="Your name for the audit log; default: the user of this machine")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask")]


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(help="List and show posts, settle unknown ones and drafts, and delete posts at their platforms.")
    group.command("list")(show_list)
    group.command("show")(show)
    group.command("settle")(settle)
    group.command("takedown")(takedown)
    epilog = "\n\n".join(["Examples:", *(f"[bold]{example}[/]" for example in GROUP_EXAMPLES)])
    app.add_typer(group, name="posts", rich_help_panel="Review", no_args_is_help=True, epilog=epilog)


def show_list(
    platform: Annotated[str | None, typer.Option(help="Only posts on this platform")] = None,
    account: Annotated[str | None, typer.Option(help="Only posts of this account, as channels.yaml names it")] = None,
    state: Annotated[
        str | None, typer.Option(help="Only posts in this state, such as unknown, confirmed, gone or taken_down")
    ] = None,
    since: Annotated[str | None, typer.Option(help="Only posts published or changed since then, such as 7d or 2026-11-01")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many to show, newest first")] = 50,
    as_json: AsJson = False,
) -> None:
    """List the posts of the ledger, newest first: video, platform, account, state and URL."""
    with opened_services() as services:
        found = Posts(services.engine).page(
            platform=None if platform is None else _platform(platform),
            account=account,
            state=None if state is None else _state(state),
            since=None if since is None else moment(since, now=datetime.now(UTC)),
            limit=limit,
        )
        if as_json:
            print_json({"posts": [asdict(post) for post in found]})
            return
        if not found:
            say("no posts match; `phantoms status` shows what is under way")
            return
        rows = Table(box=None, header_style="bold", padding=(0, 2, 0, 0), pad_edge=False)
        for title in ("video", "account", "state", "published", "where"):
            rows.add_column(title, overflow="fold")
        for post in found:
            where = f"{post.platform}:{post.account}"
            rows.add_row(
                plain(post.key), plain(where), _said(post), local(post.published_at), plain(post.url or post.remote_id or "")
            )
        out.print(rows)


def show(video: Video, platform: OnPlatform, as_json: AsJson = False) -> None:
    """Show one post: its state, account, URL and hashes, what was tried with which answers, and what happens next."""
    with opened_services() as services:
        key = services.catalogue().find(video)
        detail = Posts(services.engine).show(key, _platform(platform))
        if as_json:
            values = asdict(detail)
            print_json({**values.pop("post"), **values})
            return
        _print(detail)


def settle(
    video: Video,
    platform: OnPlatform,
    there: Annotated[str | None, typer.Option("--there", metavar="URL", help="The post is there: its URL or id")] = None,
    not_there: Annotated[
        bool, typer.Option("--not-there", help="It is not there: publish it again. A draft: it will not be posted")
    ] = False,
    unread: Annotated[
        bool,
        typer.Option("--unread", help="With --there: you have seen the post, although the platform does not show it to Phantoms"),
    ] = False,
    reason: Annotated[str, typer.Option(help="With --not-there: how you know, for the ledger")] = "",
    yes: Yes = False,
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Decide about a post whose outcome is unknown, when no read has settled it, or say how a draft ended.

    Look at the account in the platform's app first. If the post is there, give its URL: it is read, and must be public, on the
    right account and from the right time. If it is not there, it is published again; but a draft that its creator has is given up.
    All of this is in the audit log.
    """
    with opened_services() as services:
        if (there is None) is not not_there:
            raise InvalidInput("say either --there URL or --not-there")
        if unread and not_there:
            raise InvalidInput("--unread goes with --there")
        if as_json and not yes:
            raise InvalidInput("--json cannot ask for confirmation: add --yes")
        from phantoms_dagster.wiring.posts import PostDecisions  # noqa: PLC0415 - it imports every provider

        key, on = services.catalogue().find(video), _platform(platform)
        actor, decisions = Actor(by or this_user(), "cli"), PostDecisions(services)
        detail = Posts(services.engine).show(key, on)
        draft = detail.post.state is PostState.HANDED_OVER
        if there is not None:
            post_reference(on, there, sandbox=detail.post.sandbox)  # before anybody is asked
        if not yes:
            _print(detail)
            question = "The creator has it as a draft." if draft else "The post may be public."
            no = "Save that it will not be posted?" if draft else "Publish it again?"
            if not typer.confirm(f"{question} {no if there is None else f'Save that it is {there}?'}"):
                out.print("nothing was changed")
                return
        if there is None and draft:
            decisions.will_not_be_posted(key, on, actor, reason=reason)
            done = {"key": key, "platform": str(on), "state": "failed"}
            line = f"the draft of {key} will not be posted on {on.title}; `phantoms dead-letters replay` can send it again"
        elif there is None:
            decisions.is_not_there(key, on, actor, reason=reason)
            done = {"key": key, "platform": str(on), "state": "intent"}
            line = f"{key} will be published on {on.title} again"
        else:
            seen = decisions.is_there(key, on, there, actor, unread=unread)
            done = {"key": key, "platform": str(on), "state": "published", **asdict(seen)}
            line = f"{key} is published on {on.title}: {seen.url or seen.remote_id} ({seen.evidence})"
        if as_json:
            print_json(done)
            return
        say(plain(line))


def takedown(
    video: Video,
    platform: OnPlatform,
    done: Annotated[
        bool, typer.Option("--done", help="You have deleted the post at the platform yourself: check and record it")
    ] = False,
    yes: Yes = False,
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Delete a published post at its platform, and record that.

    The video and its numbers stay here, and it is never posted there again. TikTok and Instagram let no program delete posts:
    delete it in the app, then run the command with --done. Running it twice is harmless.
    """
    with opened_services() as services:
        if as_json and not yes:
            raise InvalidInput("--json cannot ask for confirmation: add --yes")
        from phantoms_dagster.wiring.posts import Takedowns  # noqa: PLC0415 - it imports every provider

        takedowns = Takedowns(services)
        post = takedowns.find(services.catalogue().find(video), _platform(platform))
        fields = {
            "key": post.key,
            "platform": str(post.platform),
            "remote_id": post.remote_id,
            "url": post.url,
            "state": "taken_down",
        }
        if post.after == "taken_down":
            who = f" by {post.after_by}" if post.after_by else ""
            line = f"{post.key} was taken down from {post.platform.title} before, at {local(post.after_at)}{who}"
            print_result({**fields, "evidence": post.after_evidence}, line, as_json=as_json)
            return
        if not yes and not done and takedowns.removable(post.platform):
            _print(Posts(services.engine).show(post.key, post.platform))
            if not typer.confirm(f"Delete this post on {post.platform.title} for good?"):
                out.print("nothing was changed")
                return
        evidence = takedowns.take_down(post, Actor(by or this_user(), "cli"), by_hand=done)
        line = f"{post.key} is no longer on {post.platform.title} ({evidence})"
        print_result({**fields, "evidence": evidence}, line, as_json=as_json)


def _print(detail: PostDetail) -> None:
    post = detail.post
    out.print(f"[bold]{plain(post.key)}[/]  {plain(f'{post.platform}:{post.account}')}", soft_wrap=True)
    facts = {
        "state": _said(post),
        "route": post.route,
        "url": post.url,
        "id": post.remote_id,
        "first sent": post.attempted_at and exact(post.attempted_at),
        "published": post.published_at and exact(post.published_at),
        "proof": detail.proof and f"{detail.proof} ({local(detail.proved_at)})",
        "video": detail.video_sha256,
        "caption": detail.caption_sha256,
        "marker": detail.marker,
        "warnings": "; ".join(detail.warnings),
        "since then": post.after and _since(post),
    }
    for name, value in facts.items():
        if value:
            out.print(f"  {name:<11} {plain(str(value))}", soft_wrap=True)
    for name, extra in detail.extras.items():
        why = f": {extra.detail}" if extra.detail else ""
        again = f", tried again at {exact(extra.due_at)}" if extra.state == "waiting" and extra.due_at else ""
        out.print(f"  {name:<11} {plain(f'{extra.state}{why}{again}')}", soft_wrap=True)
    if detail.tries:
        out.print("  tried")
    for one in detail.tries:
        out.print(f"    {exact(one.at)}  {plain(one.answer or one.outcome)}", soft_wrap=True)
    if post.state is PostState.UNKNOWN:
        _print_what_next(detail)
    if post.state is PostState.HANDED_OVER:
        _print_draft(detail)


def _print_what_next(detail: PostDetail) -> None:
    post = detail.post
    if detail.next_read is not None:
        say(f"  It may be public. It is read again at {exact(detail.next_read)}. Or look at the account yourself, and then:")
    else:
        reason = f" ({plain(detail.reason)})" if detail.reason else ""
        say(f"  It may be public, and its stage is {detail.stage_state}{reason}. Look at the account yourself, and then:")
    out.print(f"    phantoms posts settle {plain(post.key)} {post.platform} --there URL", style="dim", soft_wrap=True)
    out.print(f"    phantoms posts settle {plain(post.key)} {post.platform} --not-there", style="dim", soft_wrap=True)


def _print_draft(detail: PostDetail) -> None:
    post = detail.post
    since = f" since {exact(detail.handed_over_at)}" if detail.handed_over_at else ""
    app = f"the {post.platform.title} app"
    say(f"  It waits for the creator{since}. Tap the notification in the inbox of {app}, paste the caption, choose who may see it,")
    say("  and switch on the AI label by hand. The caption:")
    out.print(plain(detail.caption or ""), soft_wrap=True, highlight=False)
    if detail.next_read is not None:
        say(f"  {post.platform.title} is asked at {exact(detail.next_read)} how it ended. Or say so yourself:")
    settle_it = f"    phantoms posts settle {plain(post.key)} {post.platform}"
    out.print(f"{settle_it} --there URL", style="dim", soft_wrap=True)
    out.print(f"{settle_it} --not-there", style="dim", soft_wrap=True)


def _since(post: LedgerPost) -> str:
    who = f" by {post.after_by}" if post.after_by else ""
    return f"{post.after} at {local(post.after_at)}{who}: {post.after_evidence}"


def _said(post: LedgerPost) -> str:
    now = "waiting for the creator" if post.state is PostState.HANDED_OVER else post.now
    return ", ".join(part for part in (now, post.set_apart, "sandbox" if post.sandbox else None) if part)


def _platform(given: str) -> Platform:
    if given not in Platform:
        raise InvalidInput(f"unknown platform {given!r}; the platforms are {', '.join(Platform)}")
    return Platform(given)


def _state(given: str) -> str:
    states = (*PostState, *STATES_AFTER[1:])
    if given not in states:
        raise InvalidInput(f"unknown state {given!r}; the states are {', '.join(states)}")
    return given
