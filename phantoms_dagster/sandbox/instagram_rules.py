"""The Graph API's manners in the Instagram stand-in: its error shape, tokens, parameters, and what it refuses in a container.

Handlers belong in `instagram`; a refusal that needs the state of an account stands there too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from aiohttp import web

from phantoms_dagster.sandbox.core import account_behind

Params = Mapping[str, str]
MAX_CAPTION, MAX_HASHTAGS, MAX_MENTIONS = 2_200, 30, 20
BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


class GraphError(Exception):
    """An answer of the Graph API that is an error."""

    def __init__(self, status: int, code: int, message: str, subcode: int | None = None, *, transient: bool = False) -> None:
        super().__init__(message)
        self.status = status
        error: dict[str, Any] = {"message": message, "type": "OAuthException", "code": code, "is_transient": transient}
        if subcode is not None:
            error |= {"error_subcode": subcode, "error_user_title": message, "error_user_msg": message}
        self.body = {"error": {**error, "fbtrace_id": "ASandbox"}}


def gone(node: str) -> GraphError:
    """The answer for an object that is not there, or not for this token."""
    text = f"Unsupported request. Object with ID '{node}' does not exist, cannot be loaded due to missing permissions"
    return GraphError(400, 100, text, 33)


def account_of(request: web.Request, params: Params) -> str:
    """The account of the token. Raises GraphError 190."""
    header = request.headers.get("Authorization", "")
    scheme, _, token = header.partition(" ")
    if scheme not in ("Bearer", "OAuth"):
        token = params.get("access_token", "")
    if not token:
        raise GraphError(401, 190, "An access token is required to request this resource.")
    account = account_behind(token)
    if account is None:
        raise GraphError(401, 190, "Invalid OAuth access token - Cannot parse access token", 463)
    return account


async def params_of(request: web.Request) -> dict[str, str]:
    """The parameters, wherever they stand: in the query or in the form, which wins."""
    form = await request.post() if request.method == "POST" else {}
    return {**request.query, **{k: v for k, v in form.items() if isinstance(v, str)}}


def boolean(params: Params, name: str, default: bool) -> bool:
    """A boolean parameter. Raises GraphError when it is something else."""
    given = params.get(name)
    if given is None:
        return default
    if given.lower() not in BOOLEANS:
        raise GraphError(400, 100, f"(#100) Param {name} must be a boolean")
    return BOOLEANS[given.lower()]


def moment(text: str) -> float:
    """A Unix time or an ISO date as seconds since the epoch."""
    try:
        return float(text) if re.fullmatch(r"\d+", text) else datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise GraphError(400, 100, "(#100) Invalid datetime given for parameter") from None


def check_container(params: Params) -> None:
    """Refuse what `POST /{ig-user-id}/media` refuses."""
    caption = params.get("caption", "")
    if params.get("media_type") != "REELS":
        raise GraphError(400, 100, "Only REELS are supported for video; media_type is unknown or missing", 2_207_023)
    if len(caption) > MAX_CAPTION:
        raise GraphError(400, 36_004, f"The caption was too long: the maximum is {MAX_CAPTION} characters", 2_207_010)
    if len(re.findall(r"#\w+", caption)) > MAX_HASHTAGS:
        raise GraphError(400, 100, f"Cannot use more than {MAX_HASHTAGS} hashtags", 2_207_028)
    if len(re.findall(r"@\w+", caption)) > MAX_MENTIONS:
        raise GraphError(400, 100, f"Cannot use more than {MAX_MENTIONS} mentions", 2_207_040)
    if not params.get("thumb_offset", "0").isdecimal():
        raise GraphError(400, 1, "The thumbnail offset must be greater than or equal to 0", 2_207_057)
    if params.get("upload_type", "resumable") != "resumable":
        raise GraphError(400, 100, "(#100) Param upload_type must be one of {RESUMABLE}")
    if "upload_type" not in params:
        if "video_url" not in params:
            raise GraphError(400, 100, "(#100) The parameter video_url is required.")
        raise GraphError(400, 9004, "The media could not be fetched from this URI", 2_207_052)


def picked(fields: str | None, everything: Mapping[str, Any]) -> dict[str, Any]:
    """Only the asked fields, and always the id. Raises GraphError for a field that does not exist."""
    names = [name for name in (fields or "id").split(",") if name]
    for name in names:
        if name not in everything:
            raise GraphError(400, 100, f"(#100) Tried accessing nonexisting field ({name})")
    return {name: everything[name] for name in dict.fromkeys([*names, "id"])}
