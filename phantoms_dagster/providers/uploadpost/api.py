"""Upload-Post's API: its reads, its errors, and what the status of a request says. `publisher` sends the posts.

Source: docs.upload-post.com (upload, status, history, media, analytics, error codes, rate limits), read in November 2026. What it
leaves open is read so that a post is never sent twice: an unknown state is no failure, and a request failed only if the platform's
own result says so.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import Literal

import httpx

from phantoms_dagster.domain.errors import Barred, Disconnected, Evidence, Permanent, ProviderError, Rejected, Throttled, Transient
from phantoms_dagster.domain.values import JsonObject, JsonValue
from phantoms_dagster.providers.http import (
    evidence,
    foreign,
    is_foreign,
    json_object,
    lenient_json,
    objects,
    quoted,
    retry_after,
    send,
    server_error,
    unexpected,
)
from phantoms_dagster.providers.redaction import redact
from phantoms_dagster.providers.tools import ServiceTools

PROVIDER = "uploadpost"
_A_TIME = 1_000_000_000  # as seconds since 1970 this is in 2001, and as a wait it is 31 years
DAY_SECONDS, HOUR_SECONDS = 86_400.0, 3_600.0
HISTORY_LIMIT, HISTORY_PAGES = 100, 5
MEDIA_LIMIT, MEDIA_PAGES = 20, 100  # TikTok's longest page; two thousand posts
PENDING = frozenset({"pending", "queued", "processing", "in_progress"})


@dataclass(frozen=True)
class _Row:
    """The meaning of an error code. `wait`: seconds to wait."""

    kind: type[Permanent | Rejected | Throttled | Transient]
    advice: str
    wait: float | None = None


_RECONNECT = _Row(Disconnected, "connect the account again at Upload-Post")
_PERSON = _Row(Barred, "the account needs its owner: open the platform's app")
# Codes of a platform's result. Others may follow, so an unknown one needs a person.
ERRORS: Mapping[str, _Row] = MappingProxyType(
    {
        "account_reauth_required": _RECONNECT,
        "account_permission_denied": _RECONNECT,
        "account_blocked": _PERSON,
        "account_checkpoint_required": _PERSON,
        "account_pending_deletion": _PERSON,
        "account_restricted": _PERSON,
        "platform_not_supported": _Row(Permanent, "Upload-Post does not post there"),
        # The cap of Upload-Post's own app, which all of its users share.
        "reached_active_user_cap": _Row(Throttled, "Upload-Post's app has reached its limit of users for today", 4 * HOUR_SECONDS),
    }
)
ErrorOf = Callable[[str, str], ProviderError | None]


def error_of(code: str, said: str, of_platform: ErrorOf) -> ProviderError:
    """The error for a platform's result. `of_platform`: the platform's own table, for codes that are not Upload-Post's."""
    row = ERRORS.get(code)
    if row is None:
        message = f"Upload-Post could not publish it ({code or 'no code'}{': ' + redact(said) if said else ''})"
        return of_platform(code, said) or Rejected(message, provider=PROVIDER, code=code or "failed")
    return _error(row, code, redact(said), None)


def _error(row: _Row, code: str, said: str, proof: Evidence | None) -> ProviderError:
    message = f"Upload-Post: {row.advice} ({code}{': ' + said if said else ''})"
    if issubclass(row.kind, Transient):
        return row.kind(message, provider=PROVIDER, code=code, retry_after=row.wait, evidence=proof)
    return row.kind(message, provider=PROVIDER, code=code, evidence=proof)


def refusal_of(response: httpx.Response) -> ProviderError:
    """The error for an answer with a status of 4xx: the request was not accepted. An unknown error code counts as its status."""
    told = lenient_json(response)
    said = quoted(str(told.get("message") or told.get("error") or ""), response)[:300]
    proof, detail = evidence(response), f": {said}" if said else ""
    code = str(told.get("error_code") or "")
    if (row := ERRORS.get(code)) is not None:
        return _error(row, code, said, proof)
    match response.status_code:
        case 401 | 403:
            message = f"Upload-Post does not accept the key{detail}: check PHANTOMS_UPLOADPOST_API_KEY"
            return Disconnected(message, provider=PROVIDER, code="key_refused", evidence=proof)
        case 404:
            message = f"Upload-Post has no such profile{detail}: create it there under the name of the account in channels.yaml"
            return Disconnected(message, provider=PROVIDER, code="no_profile", evidence=proof)
        case 429:
            wait = _wait(response)
            message = f"Upload-Post takes no more posts of this account or plan for now{detail}"
            return Throttled(
                message, provider=PROVIDER, code="429", evidence=proof, retry_after=HOUR_SECONDS if wait is None else wait
            )
    return unexpected(response, provider="Upload-Post", message=said)


def _wait(response: httpx.Response) -> float | None:
    """The seconds until a limit allows another call; None: it does not say.

    The unit of X-RateLimit-Reset is not documented. A large number is a time, a small one is in seconds.
    """
    given = response.headers.get("X-RateLimit-Reset", "")
    if (wait := retry_after(response)) is not None or not (given.isascii() and given.isdigit() and len(given) <= 12):
        return wait
    if int(given) < _A_TIME:
        return float(given)
    try:
        now = parsedate_to_datetime(response.headers.get("Date", "")).timestamp()
    except ValueError:
        return None
    return min(max(int(given) - now, 1.0), DAY_SECONDS)


@dataclass(frozen=True)
class RequestStatus:
    """What became of a request on one platform. `failed` is proven by the platform's own result; `unclear` is not.

    `inbox`: the platform took it as a draft for the creator. `retryable`: it failed for a reason that may pass. Only `failed` has a
    `code`. `warnings`: what the platform ignored.
    """

    state: Literal["pending", "published", "inbox", "failed", "retryable", "unclear"]
    said: str
    id: str = ""
    url: str = ""
    code: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class SeenPost:
    """A post as a read shows it. Empty texts: it does not say."""

    id: str
    url: str
    caption: str = ""
    at: datetime | None = None


class UploadPostApi:
    """The reads."""

    def __init__(self, service: ServiceTools) -> None:
        self._service = service
        self.base_url = service.base_url.rstrip("/")

    def headers(self) -> dict[str, str]:
        """The key of this moment."""
        return {"Authorization": f"Apikey {self._service.key()}"}

    async def check_key(self) -> None:
        """A read that costs nothing. Raises ProviderError when the key is not accepted."""
        await self._get("/uploadposts/history", {"page": "1", "limit": "10"})

    async def settings(self, platform: str, profile: str) -> JsonObject:
        """What the account may choose on the platform. Raises ProviderError, Disconnected without such a profile."""
        return await self._get(f"/uploadposts/{platform}/settings", {"profile": profile})

    async def status(self, request_id: str, platform: str) -> RequestStatus | None:
        """What became of a request; None when Upload-Post does not know it."""
        response = await self._ask("/uploadposts/status", {"request_id": request_id})
        if response.status_code == 404:
            if lenient_json(response).get("status") == "not_found":
                return None
            raise Transient("Upload-Post answered 404 and no status", provider=PROVIDER, code="404", evidence=evidence(response))
        return _status(self._object(response), platform)

    async def in_history(self, request_id: str, platform: str) -> SeenPost | None:
        """What the history says about a successful request on one platform; None without an entry that names the post.

        The history is read in pages, newest first, in case the server does not filter it by the request.
        """
        for page in range(1, HISTORY_PAGES + 1):
            params = {"page": str(page), "limit": str(HISTORY_LIMIT), "request_id": request_id}
            entries = objects(await self._get("/uploadposts/history", params), "history")
            for entry in entries:
                if (entry.get("request_id"), entry.get("platform")) == (request_id, platform) and entry.get("success") is True:
                    seen = _post(entry)
                    return seen if seen.id or seen.url else None
            if len(entries) < HISTORY_LIMIT:
                return None
        return None

    async def posts(self, platform: str, profile: str) -> AsyncIterator[Sequence[SeenPost]]:
        """The account's posts as the platform lists them, newest first, page by page. Raises Transient for a list without end."""
        params, seen = {"platform": platform, "user": profile, "limit": str(MEDIA_LIMIT)}, set[str]()
        while True:
            body = await self._get("/uploadposts/media", params)
            yield [_post(entry) for entry in objects(body, "media")]
            cursor = _text(body, "next_cursor", "cursor")
            if not cursor:
                return
            if cursor in seen or len(seen) == MEDIA_PAGES:
                raise Transient("Upload-Post lists posts without an end", provider=PROVIDER, code="endless_list")
            seen.add(cursor)
            params = {**params, "cursor": cursor}

    async def analytics(self, platform: str, profile: str, remote_id: str) -> JsonObject | None:
        """The platform's live numbers of a post. `remote_id`: the platform's id, or the id of our request. None: no such post.

        One of 100 calls within five minutes.
        """
        path, params = "/uploadposts/post-analytics", {"platform": platform}
        if is_request_id(remote_id):
            path = f"{path}/{remote_id}"
        else:
            params |= {"platform_post_id": remote_id, "user": profile}
        response = await self._ask(path, params)
        if response.status_code == 404:
            return None
        platforms = self._object(response).get("platforms")
        found = platforms.get(platform) if isinstance(platforms, dict) else None
        if not isinstance(found, dict):
            raise Transient("Upload-Post answered without this platform's numbers", provider=PROVIDER, code="no_numbers")
        return found

    async def _get(self, path: str, params: Mapping[str, str]) -> JsonObject:
        return self._object(await self._ask(path, params))

    async def _ask(self, path: str, params: Mapping[str, str]) -> httpx.Response:
        response = await send(
            self._service.client, "GET", self.base_url + path, provider=PROVIDER, params=dict(params), headers=self.headers()
        )
        if response.status_code >= 500:
            raise server_error(response, provider=PROVIDER)
        return response

    def _object(self, response: httpx.Response) -> JsonObject:
        if response.status_code >= 300 and is_foreign(response):
            raise foreign(response, provider=PROVIDER)
        if response.status_code >= 400:
            raise refusal_of(response)
        return json_object(response, provider=PROVIDER)


def _status(body: JsonObject, platform: str) -> RequestStatus:
    whole = str(body.get("status") or "")
    result = _result(body.get("results"), platform)
    if result is None:
        # Without a result of the platform nothing is proven: a request also counts as failed after an hour without activity.
        state: Literal["pending", "unclear"] = "pending" if whole in PENDING else "unclear"
        return RequestStatus(state, f"the request is {whole or 'in no state'}")
    own = str(result.get("status") or ("" if result.get("success") is None else "completed" if result["success"] else "failed"))
    found, url = _text(result, "platform_post_id", "publish_id"), _url(result)
    said = _text(result, "error_message", "error", "message")
    if own in PENDING:
        return RequestStatus("pending", f"the post is {own}")
    if own == "retryable":
        return RequestStatus("retryable", said)
    if own == "completed" and result.get("success") is not False:
        state_now: Literal["inbox", "published"] = "inbox" if result.get("fallback_to_inbox") is True and not url else "published"
        return RequestStatus(state_now, said, found, url, warnings=_warnings(result))
    if own == "failed" or result.get("success") is False:
        return RequestStatus("failed", said, code=_text(result, "error_code"))
    return RequestStatus("unclear", f"the post is {own or 'in no state'}")


def _result(results: JsonValue, platform: str) -> JsonObject | None:
    """The result of one platform, from a list or from an object by platform: the documentation shows both."""
    if isinstance(results, dict):
        one = results.get(platform)
        return one if isinstance(one, dict) else None
    for one in results if isinstance(results, list) else []:
        if isinstance(one, dict) and one.get("platform") == platform:
            return one
    return None


def is_request_id(text: str) -> bool:
    """Whether it is the id of a request, and no id of a platform."""
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def _post(entry: JsonObject) -> SeenPost:
    """An entry of the history, or of the list of media."""
    stamp = _text(entry, "timestamp", "upload_timestamp")
    try:
        at = datetime.fromisoformat(stamp)
    except ValueError:
        at = None
    aware = at if at is None or at.tzinfo is not None else at.replace(tzinfo=UTC)
    return SeenPost(_text(entry, "id", "platform_post_id"), _url(entry), _text(entry, "caption", "post_title"), aware)


def _url(result: JsonObject) -> str:
    """The post's address, which people open. Empty for anything else."""
    url = _text(result, "url", "post_url", "permalink")
    return url if url.startswith(("https://", "http://")) else ""


def _warnings(result: JsonObject) -> tuple[str, ...]:
    """What the platform ignored. The form of an entry is not documented."""
    given = result.get("warnings")
    found = given if isinstance(given, list) else [given] if given else []
    return tuple(redact(one if isinstance(one, str) else json.dumps(one))[:300] for one in found[:20])


def _text(result: JsonObject, *names: str) -> str:
    """The first of these fields that says something."""
    for name in names:
        value = result.get(name)
        if isinstance(value, str | int) and not isinstance(value, bool) and str(value):
            return str(value)
    return ""
