"""Accounts and their tokens: what `channels.yaml` must say so that no post can go out in the wrong place.

Where a token is read belongs in `wiring.tokens`; whose it is, a platform says (`ports.IdentityReader`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.models import Channel, Platform

ACTIVE = "active"
DISCONNECTED = "disconnected"
MISMATCH = "mismatch"
BARRED = "barred"


@dataclass(frozen=True)
class Account:
    """An account as it is kept. `subject` and `label`: whose its token was, as the platform said (see `ports.Identity`).

    `state`: active, disconnected, mismatch or barred; `reason` says why it waits, `since` from when on. `token_sha256`: the
    token that this was last said of. `place`: where its token is (`env:NAME`, `file:/path`); None: the platform's one variable.
    """

    platform: Platform
    name: str
    place: str | None = None
    subject: str | None = None
    label: str | None = None
    token_sha256: str | None = None
    state: str = ACTIVE
    reason: str | None = None
    since: datetime | None = None


def places(channels: Iterable[Channel]) -> dict[tuple[Platform, str], str | None]:
    """Every account and where its token is. Raises InvalidInput when two channels disagree, or two accounts share a token."""
    found: dict[tuple[Platform, str], str | None] = {}
    owners: dict[tuple[Platform, str], str] = {}
    for channel in channels:
        for platform, account in channel.accounts.items():
            place = channel.tokens.get(platform)
            if found.setdefault((platform, account), place) != place:
                message = f"{platform.title} account {account} has two tokens in channels.yaml: name the same one in every channel"
                raise InvalidInput(message)
            if place is not None and owners.setdefault((platform, place), account) != account:
                message = (
                    f"{platform.title} accounts {owners[platform, place]} and {account} name the same token: give each its own"
                )
                raise InvalidInput(message)
    return found


def check_tokens(accounts: Mapping[tuple[Platform, str], str | None], variables: Collection[Platform]) -> None:
    """Raises InvalidInput when an account has no token of its own and the platform's one variable cannot be meant.

    `variables`: the platforms whose `PHANTOMS_<PLATFORM>_TOKEN` is set.
    """
    plain: defaultdict[Platform, list[str]] = defaultdict(list)
    named: set[Platform] = set()
    for (platform, account), place in accounts.items():
        if place is None:
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
