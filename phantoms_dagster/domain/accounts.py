"""Accounts and their tokens, and the checks on `channels.yaml` that keep a post from going out on the wrong account.

`wiring.tokens` reads tokens. A platform says who owns one (`ports.IdentityReader`).
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.grants import STORED
from phantoms_dagster.domain.models import Channel, Platform

LONGEST_SUBJECT = 26  # YouTube's have 24 characters, TikTok's 36
ACTIVE = "active"
DISCONNECTED = "disconnected"
MISMATCH = "mismatch"
BARRED = "barred"


@dataclass(frozen=True)
class Account:
    """A stored account. `subject` and `label`: the owner of its token, as the platform reported it (see `ports.AccountIdentity`).

    `state`: active, disconnected, mismatch or barred. `reason`: why it waits. `since`: when that began. `token_sha256`: the hash of
    the token that was last checked. `token_source`: where its token is read from (`env:NAME`, `file:/path`, or `stored` when a
    person connected the account); None: the platform's own variable.

    For stored tokens: `scopes` that were granted, `connected_at`, `ends_at` (when the connection ends unless it is renewed; None:
    not known), and `dead`: the platform has ended it.

    `gateway`: the gateway that this is about. Its owner there is a profile of the gateway, and its token is the gateway's key.
    Empty: this is about the platform itself.
    """

    platform: Platform
    name: str
    token_source: str | None = None
    subject: str | None = None
    label: str | None = None
    token_sha256: str | None = None
    state: str = ACTIVE
    reason: str | None = None
    since: datetime | None = None
    scopes: tuple[str, ...] = ()
    connected_at: datetime | None = None
    ends_at: datetime | None = None
    dead: bool = False
    gateway: str = ""

    @property
    def key(self) -> str:
        """`platform:name`, as commands take it."""
        return f"{self.platform}:{self.name}"

    @property
    def bare(self) -> bool:
        """Whether nothing is known about it but its name."""
        return self.state == ACTIVE and self.subject is None and self.token_source is None and self.connected_at is None


@dataclass(frozen=True)
class Standing:
    """What an account's state means for a person. `state`: one of the constants below. `command`: what helps."""

    state: str
    why: str = ""
    command: str = ""


CONNECTED = "connected"
EXPIRING = "expiring"
NEEDS_PERSON = "needs a person"
BLOCKED = "blocked"
NOT_CONNECTED = "not connected"
STANDINGS = (CONNECTED, EXPIRING, NEEDS_PERSON, BLOCKED, NOT_CONNECTED)
# A connection that ends within this time is reported. Renewals come earlier, so they have failed, or the platform allows none.
EXPIRING_WITHIN = timedelta(days=7)


def connect_command(platform: Platform, name: str) -> str:
    """The command that connects the account."""
    return f"phantoms accounts connect {platform} --name {name}"


def short_subject(subject: str) -> str:
    """The owner's id for a line of text, which a long one would fill. `phantoms accounts --json` has all of it."""
    return subject if len(subject) <= LONGEST_SUBJECT else f"{subject[:8]}…"


def as_used(accounts: Iterable[Account], gateways: Mapping[tuple[Platform, str], str]) -> list[Account]:
    """The accounts to show a person: as their gateways know them, and as their platforms do where there is anything to say.

    `gateways`: the gateways that publish for accounts.
    """
    known = list(accounts)
    shown = {(a.platform, a.name, a.gateway): a for a in known if not a.bare or (a.platform, a.name) not in gateways}
    for a in known:
        gateway = gateways.get((a.platform, a.name), "")
        shown.setdefault((a.platform, a.name, gateway), Account(a.platform, a.name, gateway=gateway))
    left = [a for a in shown.values() if not (a.bare and a.gateway and (a.platform, a.name) not in gateways)]
    return sorted(left, key=lambda a: (a.platform, a.name, a.gateway))


def standing(account: Account, now: datetime, *, has_token: bool = True) -> Standing:
    """The account's standing at that time. `has_token`: whether there is any token for it."""
    own = account.platform.spec.oauth and not account.gateway
    connect = connect_command(account.platform, account.name) if own else ""
    key = f"{account.platform}:{account.name}"
    if account.state == BARRED:
        return Standing(BLOCKED, account.reason or "", f"phantoms accounts check {key}")
    if account.state != ACTIVE:
        # The stored tokens may be fine: the app's secret was replaced, for example. Then connecting again does not help.
        alive = account.state == DISCONNECTED and account.token_source == STORED and not account.dead
        check = f"phantoms accounts check {key}"
        return Standing(NEEDS_PERSON, account.reason or account.state, check if alive else connect or check)
    if account.connected_at is not None and account.token_source is None:
        return Standing(NOT_CONNECTED, "a person disconnected it", connect)
    if not has_token:
        why = "it has no token" if connect else f"it has no token: set PHANTOMS_{account.platform.upper()}_TOKEN"
        return Standing(NOT_CONNECTED, why, connect)
    # Stored tokens are kept, but not used, while channels.yaml names another place.
    used = account.token_source == STORED
    if used and account.ends_at is not None and account.ends_at - now < EXPIRING_WITHIN:
        return Standing(EXPIRING, f"the connection ends on {account.ends_at:%Y-%m-%d %H:%M} UTC", connect)
    return Standing(CONNECTED)


def fingerprint(token: str) -> str:
    """A hash that identifies a token without revealing it."""
    return hashlib.sha256(token.encode()).hexdigest()[:32]


def token_sources(channels: Iterable[Channel]) -> dict[tuple[Platform, str], str | None]:
    """The token source of every account. Raises InvalidInput when two channels disagree, or when two accounts share a token."""
    found: dict[tuple[Platform, str], str | None] = {}
    owners: dict[tuple[Platform, str], str] = {}
    for channel in channels:
        for platform, account in channel.accounts.items():
            source = channel.tokens.get(platform)
            if found.setdefault((platform, account), source) != source:
                message = f"{platform.title} account {account} has two tokens in channels.yaml: name the same one in every channel"
                raise InvalidInput(message)
            if source is not None and owners.setdefault((platform, source), account) != account:
                message = (
                    f"{platform.title} accounts {owners[platform, source]} and {account} name the same token: give each its own"
                )
                raise InvalidInput(message)
    return found


def check_tokens(accounts: Mapping[tuple[Platform, str], str | None], variables: Collection[Platform]) -> None:
    """Check that each account has its own token, or is the only one that can use the platform's variable. Raises InvalidInput.

    `variables`: the platforms whose `PHANTOMS_<PLATFORM>_TOKEN` is set.
    """
    plain: defaultdict[Platform, list[str]] = defaultdict(list)
    named: set[Platform] = set()
    for (platform, account), source in accounts.items():
        if source is None:
            plain[platform].append(account)
        else:
            named.add(platform)
    for platform, names in plain.items():
        variable = f"PHANTOMS_{platform.upper()}_TOKEN"
        form = f"write `{platform}: {{account: {names[0]}, token: env:NAME}}` (or token: file:/path) in channels.yaml"
        if platform in variables and len(names) > 1:
            message = f"{variable} is the token of one account, and there are {len(names)} ({', '.join(sorted(names))})"
            raise InvalidInput(f"{message}: give each a token of its own, {form}")
        if platform in named and platform not in variables:
            message = f"{platform.title} account {names[0]} has no token while another one has: {form}, or set {variable}"
            raise InvalidInput(message)
