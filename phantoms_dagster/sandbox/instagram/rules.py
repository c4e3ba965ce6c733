"""The Graph API's conventions in the Instagram stand-in: errors, tokens, parameters, and the checks of a container's parameters.

`routes` has the handlers, and the refusals that depend on an account's state.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from aiohttp import web

from phantoms_dagster.sandbox.tokens import Token

Params = Mapping[str, str]
MAX_CAPTION, MAX_HASHTAGS, MAX_MENTIONS = 2_200, 30, 20
MAX_COLLABORATORS = 3
GRADUATIONS = ("MANUAL", "SS_PERFORMANCE")
BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


class GraphError(Exception):
    """An error answer of the Graph API."""

    def __init__(
        self,
        status: int,
        code: int,
        message: str,
        subcode: int | None = None,
        *,
        transient: bool = False,
        kind: str = "OAuthException",
    ) -> None:
        super().__init__(message)
        self.status = status
        error: dict[str, Any] = {"message": message, "type": kind, "code": code, "is_transient": transient}
        if subcode is not None:
            error |= {"error_subcode": subcode, "error_user_title": message, "error_user_msg": message}
        self.body = {"error": {**error, "fbtrace_id": "ASandbox"}}


def gone(node: str) -> GraphError:
    """The error for an object that does not exist, or not for this token."""
    text = f"Unsupported request. Object with ID '{node}' does not exist, cannot be loaded due to missing permissions"
    return GraphError(400, 100, text, 33)


def unknown_name(name: str) -> GraphError:
    """The error for a node that is addressed by a name instead of its id."""
    return GraphError(404, 803, f"(#803) Some of the aliases you requested do not exist: {name}")


def text_of(request: web.Request, params: Params) -> str:
    """The access token from a request's header, else from its parameters. Raises GraphError 190 when there is none."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme not in ("Bearer", "OAuth"):
        token = params.get("access_token", "")
    if not token:
        raise GraphError(401, 190, "An access token is required to request this resource.")
    return token


def living(token: Token | None) -> Token:
    """Return the token if the platform accepts it. Raises GraphError 190 with the subcode for the reason."""
    if token is None:
        raise GraphError(401, 190, "Invalid OAuth access token - Cannot parse access token")
    if token.revoked:
        raise GraphError(401, 190, "Error validating access token: The user has not authorized the application.", 458)
    if token.expired:
        raise GraphError(401, 190, "Error validating access token: Session has expired.", 463)
    return token


def check_proof(params: Params, token: str, secret: str, *, required: bool) -> None:
    """Refuse a wrong `appsecret_proof`, and a missing one when the app requires it."""
    proof = params.get("appsecret_proof")
    if proof is None and required:
        raise GraphError(400, 100, "API calls from the server require an appsecret_proof argument", kind="GraphMethodException")
    if proof is not None and proof != hmac.new(secret.encode(), token.encode(), hashlib.sha256).hexdigest():
        raise GraphError(400, 100, "Invalid appsecret_proof provided in the API argument", kind="GraphMethodException")


async def params_of(request: web.Request) -> dict[str, str]:
    """The parameters from the query and the form. The form takes precedence."""
    form = await request.post() if request.method == "POST" else {}
    return {**request.query, **{k: v for k, v in form.items() if isinstance(v, str)}}


def boolean(params: Params, name: str, default: bool) -> bool:
    """A boolean parameter. Raises GraphError for any other value."""
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
    """Check the parameters of `POST /{ig-user-id}/media`. Raises GraphError."""
    caption = params.get("caption", "")
    if params.get("media_type") != "REELS":
        raise GraphError(400, 100, "Only REELS are supported for video; media_type is unknown or missing", 2_207_023)
    if len(caption) > MAX_CAPTION:
        raise GraphError(400, 36_004, f"The caption was too long: the maximum is {MAX_CAPTION} characters", 2_207_010)
    if len(re.findall(r"#\w+", caption)) > MAX_HASHTAGS:
        raise GraphError(400, 100, f"Cannot use more than {MAX_HASHTAGS} hashtags", 2_207_028)
    if len(re.findall(r"@\w+", caption)) > MAX_MENTIONS:
        raise GraphError(400, 100, f"Cannot use more than {MAX_MENTIONS} mentions", 2_207_040)
    _check_trial(params)
    if len(invited := listed(params.get("collaborators", ""))) > MAX_COLLABORATORS:
        raise GraphError(400, 100, f"(#100) Param collaborators must have at most {MAX_COLLABORATORS} usernames")
    if any(not re.fullmatch(r"[\w.]{1,30}", name) for name in invited):
        raise GraphError(400, 100, "(#100) Param collaborators must be an array of usernames")
    if "cover_url" in params and not re.match(r"https?://[!-~]+$", params["cover_url"]):
        raise GraphError(400, 100, "(#100) Param cover_url must be a valid URI")
    if not params.get("thumb_offset", "0").isdecimal():
        raise GraphError(400, 1, "The thumbnail offset must be greater than or equal to 0", 2_207_057)
    if params.get("upload_type", "resumable") != "resumable":
        raise GraphError(400, 100, "(#100) Param upload_type must be one of {RESUMABLE}")
    if "upload_type" not in params:
        if "video_url" not in params:
            raise GraphError(400, 100, "(#100) The parameter video_url is required.")
        if not re.match(r"https?://(127\.0\.0\.1|localhost|\[::1\])[:/]", params["video_url"]):
            raise GraphError(400, 9004, "The media could not be fetched from this URI", 2_207_052)


def _check_trial(params: Params) -> None:
    """Refuse a trial that does not say how it ends, or that has collaborators."""
    if "trial_params" not in params:
        return
    try:
        trial = json.loads(params["trial_params"])
    except ValueError:
        trial = None
    if not isinstance(trial, dict) or set(trial) != {"graduation_strategy"} or trial["graduation_strategy"] not in GRADUATIONS:
        raise GraphError(400, 100, f"(#100) trial_params must have a graduation_strategy of {', '.join(GRADUATIONS)}")
    if listed(params.get("collaborators", "")):
        raise GraphError(400, 100, "(#100) A trial reel cannot have collaborators (trial_params)")


def listed(text: str) -> list[str]:
    """A list parameter: names separated by commas, or a JSON array, as Meta's own client sends it."""
    if not text.lstrip().startswith("["):
        return [name.strip() for name in text.split(",") if name.strip()]
    try:
        names = json.loads(text)
    except ValueError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise GraphError(400, 100, "(#100) Param must be an array of strings")
    return names


_FIELD = re.compile(r"\s*(\w+)\s*(?:\{([^{}]*)\})?\s*(?:,|$)")


def picked(fields: str | None, everything: Mapping[str, Any], *, node: str = "ShadowIGMedia") -> dict[str, Any]:
    """The requested fields (`a,b{c,d}` or a JSON array) and the id. Raises GraphError for a field that does not exist."""
    text = ",".join(listed(fields)) if fields and fields.lstrip().startswith("[") else fields or "id"
    found: dict[str, Any] = {}
    at = 0
    while at < len(text):
        field = _FIELD.match(text, at)
        if field is None:
            raise GraphError(400, 2500, f'Syntax error "Expected end of string." at character {at}: {text}')
        name, inner = field.groups()
        if name not in everything:
            raise GraphError(400, 100, f"(#100) Tried accessing nonexisting field ({name}) on node type ({node})")
        value = everything[name]
        found[name] = picked(inner, value, node=name) if isinstance(value, Mapping) and "id" in value else value
        at = field.end()
    return {**found, "id": everything["id"]}
