"""The owners of a token in the Instagram stand-in: the person, the Page and the Instagram account, each with a numeric id.

The setting `instagram.login` chooses the kind of login (default `facebook`):

- `facebook` (graph.facebook.com): `/me` is the person; `/me/accounts` lists the Page with its `instagram_business_account`.
- `instagram` (graph.instagram.com): `/me` is the Instagram account itself, `user_id` its id, `username` its name.

An account whose name is a number has that number as its id. Any other account's id is made from the hash of its name.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from phantoms_dagster.sandbox.instagram.rules import GraphError, picked
from phantoms_dagster.sandbox.tokens import Token

IG_USER, PERSON, PAGE = "17841", "10220", "61550"  # prefixes of the ids of each kind
APP_ID = "1234567890123456"
APP_SECRET = "sandbox-app-secret"  # noqa: S105 - the sandbox's own, for `appsecret_proof` and `debug_token`
FACEBOOK_SCOPES = (
    "instagram_basic",
    "instagram_content_publish",
    "instagram_manage_insights",
    "pages_read_engagement",
    "pages_show_list",
)
INSTAGRAM_SCOPES = ("instagram_business_basic", "instagram_business_content_publish", "instagram_business_manage_insights")
PERMISSIONS = {"basic": 0, "publish": 1, "insights": 2}  # indexes in both lists of scopes
FOLLOWERS = 1_000
TRIAL_FOLLOWERS = 1_000  # gateways say so; Instagram's pages no longer do
DATA_ACCESS_SECONDS = 90 * 86_400


def ig_user_id(account: str) -> str:
    """The Instagram user id of an account: 17 digits."""
    return _id(IG_USER, account)


def _id(kind: str, account: str) -> str:
    if re.fullmatch(r"\d{5,20}", account) and kind == IG_USER:
        return account
    return f"{kind}{int(hashlib.sha256(f'{kind}{account}'.encode()).hexdigest(), 16) % 10**12:012d}"


def scopes_of(login: str) -> tuple[str, ...]:
    """All scopes of that kind of login."""
    return INSTAGRAM_SCOPES if login == "instagram" else FACEBOOK_SCOPES


def me(token: Token, login: str, fields: str | None) -> dict[str, Any]:
    """`GET /me`."""
    if login == "instagram":
        account = _ig_facts(token.account)
        known = {**account, "user_id": account["id"], "id": _id(PERSON, token.account), "account_type": "BUSINESS"}
        return picked(fields or "id", known, node="IGUser")
    name = token.account.replace("_", " ").title()
    return picked(fields or "id,name", {"id": _id(PERSON, token.account), "name": name}, node="User")


def pages(token: Token, fields: str | None) -> dict[str, Any]:
    """`GET /me/accounts`: the one Page of this person."""
    page = page_facts(token)
    asked = fields or "access_token,category,name,id,tasks"
    return {"data": [picked(asked, page, node="Page")], "paging": {"cursors": {"before": page["id"], "after": page["id"]}}}


def permissions(token: Token, login: str) -> dict[str, Any]:
    """`GET /me/permissions`: for each requested permission, whether the person granted or declined it."""
    asked = [*scopes_of(login), *sorted(token.scopes.difference(scopes_of(login)))]
    return {"data": [{"permission": name, "status": "granted" if name in token.scopes else "declined"} for name in asked]}


def page_facts(token: Token) -> dict[str, Any]:
    """The Page that the Instagram account is linked to."""
    return {
        "id": _id(PAGE, token.account),
        "name": token.account.replace("_", " ").title(),
        "category": "Media",
        "access_token": token.text,
        "tasks": ["ANALYZE", "ADVERTISE", "MODERATE", "CREATE_CONTENT", "MANAGE"],
        "instagram_business_account": _ig_facts(token.account),
    }


def node_facts(token: Token, number: str, *, followers: int = FOLLOWERS) -> tuple[str, Mapping[str, Any]] | None:
    """The kind and the fields of a node that this token may read, other than media and containers."""
    if number == ig_user_id(token.account):
        return "IGUser", {**_ig_facts(token.account), "followers_count": followers}
    if number == _id(PAGE, token.account):
        return "Page", page_facts(token)
    if number == _id(PERSON, token.account):
        return "User", {"id": number, "name": token.account.replace("_", " ").title()}
    return None


def _ig_facts(account: str) -> dict[str, Any]:
    return {
        "id": ig_user_id(account),
        "username": account,
        "name": account.replace("_", " ").title(),
        "followers_count": FOLLOWERS,
        "follows_count": 10,
        "media_count": 0,
    }


def debug(token: Token | None, login: str) -> dict[str, Any]:
    """`GET /debug_token`: the facts about the inspected token."""
    if token is None:
        error = {"code": 190, "message": "Invalid OAuth access token - Cannot parse access token"}
        return {"data": {"error": error, "is_valid": False, "scopes": []}}
    data: dict[str, Any] = {
        "app_id": APP_ID,
        "type": "USER",
        "application": "Phantoms sandbox",
        # A token without an end is that of a system user, whose access to data has none either.
        "data_access_expires_at": 0 if token.expires_at is None else int(token.issued_at) + DATA_ACCESS_SECONDS,
        "expires_at": 0 if token.expires_at is None else int(token.expires_at),
        "issued_at": int(token.issued_at),
        "is_valid": token.alive,
        "scopes": sorted(token.scopes),
        "user_id": _id(PERSON, token.account),
    }
    if login == "facebook":
        account = [ig_user_id(token.account)]
        granted = sorted(s for s in token.scopes if s.startswith("instagram_"))
        data["granular_scopes"] = [{"scope": s, "target_ids": account} for s in granted]
    if not token.alive:
        said = "Session has expired" if token.expired else "The user has not authorized the application"
        data["error"] = {"code": 190, "message": f"Error validating access token: {said}", "subcode": 463 if token.expired else 458}
    return {"data": data}


def check_scope(token: Token, login: str, permission: str) -> None:
    """Refuse a call whose token lacks a permission: `basic`, `publish`, `insights`, or a scope by its full name."""
    scope = scopes_of(login)[PERMISSIONS[permission]] if permission in PERMISSIONS else permission
    if scope not in token.scopes:
        raise GraphError(403, 10, "(#10) Application does not have permission for this action")
