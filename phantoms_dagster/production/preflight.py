"""Checks upcoming posts and their accounts, and says what would make a post fail before its time has come.

Everything here only reads. Each post is checked once when it is due within 24 hours and once within the last hour. What is wrong or
could not be checked is checked again until the post is out. An account is checked once a round, however many of its posts are due.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Protocol

from phantoms_dagster.domain.accounts import connect_command
from phantoms_dagster.domain.errors import (
    Disconnected,
    NotYet,
    PhantomsError,
    ProviderError,
    StoreAway,
    Throttled,
    Transient,
    Unknown,
)
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import IdentityReader, MediaStore, PreflightReader, Publisher
from phantoms_dagster.domain.preflight import ASKED, PreflightCheck, Upcoming, Verdict, of_progress, phase_to_check, worst
from phantoms_dagster.production.stages.post import ADDRESS_LASTS, publish_job
from phantoms_dagster.registry.channel_keys import GATEWAY

# A platform that asks us to wait for longer than this has used up a quota. A shorter wait says nothing about the post.
QUOTA_SECONDS = 3600.0


class PermissionReader(Protocol):
    """Reads which needed permissions a token lacks (`platforms.scopes.Grants`)."""

    async def missing(self, account: str) -> Sequence[Any] | None:
        """The missing permissions, with `name` and `purpose`; None if the platform does not report them."""
        ...


class Gateway(Publisher, IdentityReader, Protocol):
    """Publishes posts through a gateway, and reads who owns an account there."""


@dataclass(frozen=True)
class PreflightTools:
    """What the checks read with. `quota`: checks of our own daily limits, by platform. `calls_of`: counts calls for an account.

    `gateways`: what publishes the posts that go through a gateway, and reads the owners of their accounts.
    """

    identities: Mapping[Platform, IdentityReader]
    permissions: Mapping[Platform, PermissionReader]
    readers: Mapping[Platform, PreflightReader]
    publishers: Mapping[Platform, Publisher]
    media: MediaStore
    calls_of: Callable[[str], AbstractContextManager[None]]
    quota: Mapping[Platform, PreflightCheck] = field(default_factory=dict)
    gateways: Mapping[Platform, Gateway] = field(default_factory=dict)


class PreflightStore(Protocol):
    """The tables of upcoming posts and of their checks."""

    def upcoming(self, now: datetime, key: str | None = None) -> Sequence[Upcoming]:
        """The posts that are due within 24 hours; with `key`, the posts of that video that are not out, whenever they are due."""
        ...

    def save_account(self, platform: Platform, account: str, checks: Sequence[PreflightCheck]) -> None:
        """Replace the account's checks."""
        ...

    def save_post(self, post: Upcoming, phase: str, checks: Sequence[PreflightCheck], verdict: Verdict) -> None:
        """Replace the post's checks of that phase. `verdict`: the worst of them and of the account's."""
        ...


@dataclass
class PreflightRound:
    """What one round checked, and what it found wrong: by `platform:account` and by `key on platform`."""

    accounts: dict[str, list[PreflightCheck]] = field(default_factory=dict)
    posts: dict[str, list[PreflightCheck]] = field(default_factory=dict)

    @property
    def wrong(self) -> int:
        """How many accounts and posts would fail."""
        return sum(worst(checks) == "wrong" for checks in (*self.accounts.values(), *self.posts.values()))


async def preflight_round(store: PreflightStore, tools: PreflightTools, now: datetime, *, key: str | None = None) -> PreflightRound:
    """Check the posts that must be checked now. With `key`, check that video's posts, whenever they are due."""
    due: defaultdict[tuple[Platform, str | None, str], list[tuple[Upcoming, str]]] = defaultdict(list)
    for post in store.upcoming(now, key):
        phase = phase_to_check(post, now) if key is None else ASKED
        if phase is not None:
            due[post.platform, post.account, post.route].append((post, phase))
    done = PreflightRound()
    for (platform, account, route), posts in due.items():
        checks: list[PreflightCheck] = []
        if account is not None:
            checks = await check_account(tools, platform, account, route)
            store.save_account(platform, account, checks)
            done.accounts[f"{platform}:{account}"] = checks
        for post, phase in posts:
            of_post = await check_post(tools, post, phase)
            store.save_post(post, phase, of_post, worst([*checks, *of_post]))
            done.posts[f"{post.key} on {platform.title}"] = of_post
    return done


async def check_account(tools: PreflightTools, platform: Platform, account: str, route: str = "") -> list[PreflightCheck]:
    """Token, permissions, our daily quota, and what the platform itself can say about the account.

    `route`: the one of the account's posts. A gateway is asked in place of the platform, which has given us no token.
    """
    with tools.calls_of(account):
        found = await _token(tools.gateways if route == GATEWAY else tools.identities, platform, account)
        if worst(found) == "ok" and route != GATEWAY:
            found += await _asked("permissions", platform, account, lambda: _permissions(tools, platform, account))
            if platform in tools.readers:
                found += await _asked("account", platform, account, lambda: tools.readers[platform].checks(account, None))
    if platform in tools.quota:
        found.append(tools.quota[platform])
    return found


async def check_post(tools: PreflightTools, post: Upcoming, phase: str | None) -> list[PreflightCheck]:
    """Whether the video will be ready, and whether the platform's rules take its file and its words."""
    found = [of_progress(post, phase)]
    if post.account is None:
        fix = "add one to channels.yaml"
        return [*found, PreflightCheck("account", "wrong", f"its channel has no {post.platform.title} account", fix)]
    variant, words = post.variant, post.words
    if variant is None or words is None:
        return found
    with tools.calls_of(post.account):
        try:
            video = variant.video
            file = await tools.media.local(video)
            job = publish_job(variant, words, file, key=post.key, account=post.account, marker=f"{post.key}-{post.platform}")
            job = replace(job, route=post.route, address=lambda: tools.media.public_url(video, ADDRESS_LASTS))
            publishers = tools.gateways if post.route == GATEWAY else tools.publishers
            async with publishers[post.platform].verbs(job) as verbs:
                verbs.check()
        except PhantomsError as error:
            return [*found, _failed("file and words", error, post.platform, post.account)]
        found.append(PreflightCheck("file and words", "ok", f"within the rules of {post.platform.title}"))
        if post.platform in tools.readers and post.route != GATEWAY:
            reader = tools.readers[post.platform]
            found += await _asked("account", post.platform, post.account, lambda: reader.checks(str(post.account), job))
    return found


async def _token(owners: Mapping[Platform, IdentityReader], platform: Platform, account: str) -> list[PreflightCheck]:
    if platform not in owners:
        return []

    async def look() -> list[PreflightCheck]:
        owner = await owners[platform].read(account)
        return [PreflightCheck("token", "ok", f"the account of {owner.label} ({owner.subject})")]

    return await _asked("token", platform, account, look)


async def _permissions(tools: PreflightTools, platform: Platform, account: str) -> list[PreflightCheck]:
    if platform not in tools.permissions:
        return []
    missing = await tools.permissions[platform].missing(account)
    if missing is None:
        return [PreflightCheck("permissions", "note", f"{platform.title} does not report them")]
    if missing:
        lacks = ", ".join(f"{scope.name} ({scope.purpose})" for scope in missing)
        return [PreflightCheck("permissions", "wrong", f"these are missing: {lacks}", _renew(platform, account))]
    return [PreflightCheck("permissions", "ok", "all are granted")]


async def _asked(name: str, platform: Platform, account: str, ask: Callable[[], Any]) -> list[PreflightCheck]:
    try:
        return list(await ask())
    except (PhantomsError, TimeoutError) as error:
        return [_failed(name, error, platform, account)]


def _failed(name: str, error: Exception, platform: Platform, account: str) -> PreflightCheck:
    """The check for an error. Only an answer of the platform counts as wrong; no answer says nothing about the post."""
    said = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, Throttled) and (error.retry_after or 0) >= QUOTA_SECONDS:
        return PreflightCheck("quota", "wrong", said, "move the post, or post less on this account")
    if isinstance(error, Transient | Unknown | NotYet | StoreAway | TimeoutError):
        return PreflightCheck(name, "unchecked", f"could not be checked: {said}", "it is checked again by itself")
    if isinstance(error, Disconnected):
        return PreflightCheck(name, "wrong", said, _renew(platform, account))
    if isinstance(error, ProviderError):
        return PreflightCheck(
            name,
            "wrong",
            said,
            "do what the message says; if the words or the file must change, edit the video and approve it again",
        )
    return PreflightCheck(name, "wrong", said, "phantoms doctor")


def _renew(platform: Platform, account: str) -> str:
    if platform.spec.oauth:
        return f"{connect_command(platform, account)}, and leave all permissions ticked"
    return f"phantoms accounts check {platform}:{account}"
