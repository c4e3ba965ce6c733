"""The YouTube Data API v3, for posting and metrics: requests on behalf of an account, the table of errors, the upload session.

`publisher` decides the order of requests and the waits.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any, Literal, TypeAlias
from zoneinfo import ZoneInfo

import httpx

from phantoms_dagster.domain.errors import Barred, Disconnected, Permanent, ProviderError, Throttled, Transient, Unknown
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import Clock, Tokens
from phantoms_dagster.domain.values import JsonObject
from phantoms_dagster.platforms.authorised import authorised
from phantoms_dagster.providers.http import (
    answered_at,
    bearer,
    evidence,
    foreign,
    is_foreign,
    json_object,
    retry_after,
    same_service,
    send,
    server_error,
    unexpected,
)
from phantoms_dagster.providers.redaction import redact

PROVIDER = "youtube"
MAX_IDS = 50  # per videos.list, and items per page
PACIFIC = ZoneInfo("America/Los_Angeles")  # where the quota day begins
RESET_LATE, RESET_RETRY_SECONDS = timedelta(minutes=30), 300.0

# --- errors ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RefusalMeaning:
    """The meaning of a refusal. `wait`: as the answer says, until the quota day ends (00:00 Pacific), or a day."""

    error: type[Permanent] | type[Throttled]
    advice: str
    wait: Literal["answer", "midnight", "day"] = "answer"


_INPUT = RefusalMeaning(Permanent, "correct the post's words or settings and replay it")
_RECONNECT = RefusalMeaning(Disconnected, "reconnect the account: its access token is no longer accepted")
_QUOTA = RefusalMeaning(Throttled, "the project's daily quota is used up until midnight in California", "midnight")
_PACE = RefusalMeaning(Throttled, "too many requests")
_FORBIDDEN = RefusalMeaning(
    Permanent, "the account may not do this: check its permissions and the granted scopes, then reconnect it"
)
_SCOPES = RefusalMeaning(
    Barred, "the account has not granted what this needs: connect it again with all scopes of docs/accounts.md"
)
_ACCOUNT = RefusalMeaning(Barred, "the account is suspended, closed or not eligible for this: a person must check it on YouTube")

# By status and reason (a glob). The first matching row counts. `providers.http.server_error` handles 5xx answers.
ERRORS: Mapping[tuple[int, str], RefusalMeaning] = MappingProxyType(
    {
        (400, "invalidTitle"): _INPUT,
        (400, "invalidDescription"): _INPUT,
        (400, "invalidTags"): _INPUT,
        (400, "invalidCategoryId"): _INPUT,
        (400, "invalidPublishAt"): _INPUT,
        (400, "invalidVideoMetadata"): _INPUT,
        (400, "invalidFilename"): _INPUT,
        (400, "invalidRecordingDetails"): _INPUT,
        (400, "defaultLanguageNotSet"): _INPUT,
        (400, "mediaBodyRequired"): _INPUT,
        (400, "uploadLimitExceeded"): RefusalMeaning(Throttled, "the channel may upload no more for about a day", "day"),
        (401, "youtubeSignupRequired"): RefusalMeaning(Disconnected, "create a YouTube channel for the account, then reconnect it"),
        (401, "*"): _RECONNECT,  # authError, expired, required, authorizationRequired
        (403, "quotaExceeded"): _QUOTA,
        (403, "dailyLimitExceeded"): _QUOTA,
        (403, "rateLimitExceeded"): _PACE,
        (403, "userRateLimitExceeded"): _PACE,
        (403, "forbidden"): _FORBIDDEN,
        (403, "insufficientPermissions"): _SCOPES,
        (403, "forbiddenPrivacySetting"): _FORBIDDEN,
        (403, "forbiddenLicenseSetting"): _FORBIDDEN,
        (403, "authenticatedUser*"): _ACCOUNT,
        (403, "accessNotConfigured"): RefusalMeaning(  # developers.google.com/youtube/v3/docs/core_errors
            Barred, "enable this API in the app's project, in the Google Cloud console, and wait a few minutes"
        ),
        (404, "videoNotFound"): RefusalMeaning(Permanent, "the video no longer exists on YouTube: a person must check"),
        (404, "playlistNotFound"): RefusalMeaning(Permanent, "the channel has no uploads yet"),
        (429, "*"): _PACE,  # rateLimitExceeded, userRateLimitExceeded, uploadRateLimitExceeded
    }
)


def refusal(response: httpx.Response, now: datetime) -> ProviderError:
    """The error for a 4xx answer, by the table above."""
    reason, said = _reason(response)
    verdicts = (v for (status, glob), v in ERRORS.items() if status == response.status_code and fnmatchcase(reason, glob))
    verdict = next(verdicts, None)
    if verdict is None:
        return unexpected(response, provider=PROVIDER, message=said or reason)
    code = reason or str(response.status_code)
    message = f"YouTube refused ({code}): {said.rstrip('.') + '; ' if said else ''}{verdict.advice}"
    if issubclass(verdict.error, Permanent):
        return verdict.error(message, provider=PROVIDER, code=code, evidence=evidence(response))
    # The day is YouTube's. With a clock of ours that is ahead, a wait could begin before midnight and last a day too long.
    quota = seconds_to_quota(answered_at(response) or now)
    waits = {"answer": retry_after(response), "midnight": quota, "day": 86_400.0}
    return Throttled(message, provider=PROVIDER, code=code, evidence=evidence(response), retry_after=waits[verdict.wait])


def accepted(response: httpx.Response, now: datetime, *, commits: bool = False) -> JsonObject:
    """The JSON of a 2xx answer. Raises the domain error for any other answer."""
    if response.status_code >= 500:
        raise server_error(response, provider=PROVIDER, commits=commits)
    if response.status_code >= 300:
        raise foreign(response, provider=PROVIDER) if is_foreign(response) and not commits else refusal(response, now)
    return json_object(response, provider=PROVIDER, commits=commits)


def seconds_to_quota(now: datetime) -> float:
    """Seconds until a used-up quota is tried again: until the next 00:00 in California, at most 25 hours.

    Just after midnight, the quota may still be the last day's, because it is not documented how exactly it is reset.
    """
    midnight, tomorrow = (_midnight((now.astimezone(PACIFIC) + timedelta(days=days)).date()) for days in (0, 1))
    return RESET_RETRY_SECONDS if now - midnight < RESET_LATE else (tomorrow - now).total_seconds()


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=PACIFIC)


def _token_refused(response: httpx.Response) -> bool:
    return response.status_code == 401 and _reason(response)[0] != "youtubeSignupRequired"


def _reason(response: httpx.Response) -> tuple[str, str]:
    try:
        error = response.json()["error"]
        causes = error.get("errors") or [{}]
        return str(causes[0].get("reason", "")), redact(str(error.get("message", "")))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return "", ""


# --- requests -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class YouTubeCalls:
    """Requests on behalf of accounts."""

    client: httpx.AsyncClient
    base_url: str
    tokens: Tokens
    clock: Clock

    def url(self, path: str) -> str:
        """A URL on the API's host."""
        return f"{self.base_url.rstrip('/')}/{path}"

    def owns(self, url: str) -> bool:
        """Whether an upload session's URL is on the API's own hosts. The token must not be sent elsewhere."""
        return same_service(url, self.base_url, ".googleapis.com")

    async def get(self, account: str, resource: str, *, pool: str | None = None, **query: str) -> JsonObject:
        """A read of `videos`, `channels` or `playlistItems`. Raises the errors in the table, and Transient.

        `pool`: a pool other than the path's, for a read that must leave units for publishing.
        """
        # The pool and the breaker for metrics, so that trouble with them does not stop publishing.
        scope = None if pool is None else {"phantoms": {"pool": pool, "integration": "youtube_metrics"}}
        response = await self.send(account, "GET", self.url(f"youtube/v3/{resource}"), params=query, extensions=scope)
        return accepted(response, self.clock.now())

    async def send(
        self,
        account: str,
        method: str,
        url: str,
        *,
        commits: bool = False,
        headers: Mapping[str, str] | None = None,
        **request: Any,
    ) -> httpx.Response:
        """Send one request with the account's token, without judging its status. See `providers.http.send`."""

        async def sent(token: str) -> httpx.Response:
            merged = {**bearer(token), **(headers or {})}
            return await send(self.client, method, url, provider=PROVIDER, commits=commits, headers=merged, **request)

        # The token is read for each request, because an upload may outlive it.
        repeatable = isinstance(request.get("content", b""), bytes)
        return await authorised(self.tokens, Platform("youtube"), account, sent, _token_refused, repeatable=repeatable)


# --- the upload session ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class UploadSession:
    """An upload session in the journal. Its URI is a secret.

    `last_byte_sent`: the last byte may have been sent, so the video may exist. `lost_at`: when YouTube first said that it does not
    know the session.
    """

    uri: str
    opened_at: datetime
    last_byte_sent: bool = False
    lost_at: datetime | None = None

    def handle(self) -> JsonObject:
        """The session as JSON, for the journal."""
        lost = None if self.lost_at is None else self.lost_at.isoformat()
        return {
            "session": self.uri,
            "opened_at": self.opened_at.isoformat(),
            "last_byte_sent": self.last_byte_sent,
            "lost_at": lost,
        }

    @classmethod
    def of(cls, handle: JsonObject) -> UploadSession | None:
        """The session from the journal's JSON; None if it has no session."""
        if "session" not in handle:
            return None
        lost = handle.get("lost_at")
        return cls(
            uri=str(handle["session"]),
            opened_at=datetime.fromisoformat(str(handle["opened_at"])),
            last_byte_sent=bool(handle.get("last_byte_sent")),
            lost_at=None if lost is None else datetime.fromisoformat(str(lost)),
        )


@dataclass(frozen=True)
class BytesKept:
    """The session is open and has this many bytes."""

    count: int


@dataclass(frozen=True)
class Finished:
    """The session is complete and created this video."""

    video_id: str


@dataclass(frozen=True)
class Gone:
    """YouTube does not know the session, or no longer."""


@dataclass(frozen=True)
class SessionRefused:
    """The session answered with an error. `over`: it accepts no more bytes."""

    error: ProviderError
    over: bool


SessionAnswer: TypeAlias = BytesKept | Finished | Gone | SessionRefused


def session_answer(response: httpx.Response, now: datetime, *, commits: bool) -> SessionAnswer:
    """Parse a session's answer. Raises Transient, or Unknown with `commits`, for 5xx and unreadable answers."""
    status = response.status_code
    if status == 308:
        kept = re.fullmatch(r"bytes=0-(\d+)", response.headers.get("range", ""))
        return BytesKept(int(kept.group(1)) + 1 if kept else 0)
    if status in (404, 410):
        return Gone()
    if 400 <= status < 500:
        error = refusal(response, now)
        # A bad token or a rate limit says nothing about the session. Any other refusal ends it.
        pace = isinstance(error, Throttled) and error.code not in ("quotaExceeded", "dailyLimitExceeded", "uploadLimitExceeded")
        return SessionRefused(error, over=not (pace or status == 401))
    video_id = text(accepted(response, now, commits=commits), "id")
    if video_id is None:
        kind = Unknown if commits else Transient
        raise kind("YouTube returned no video id", provider=PROVIDER, code="malformed", evidence=evidence(response))
    return Finished(video_id)


# --- reading JSON ---------------------------------------------------------------------------------------------------


def part(value: JsonObject, name: str) -> JsonObject:
    """The object `value[name]`; empty when there is none."""
    found = value.get(name)
    return found if isinstance(found, dict) else {}


def text(value: JsonObject, name: str) -> str | None:
    """The text `value[name]`; None when it is empty or missing."""
    found = value.get(name)
    return found if isinstance(found, str) and found else None


def moment(value: JsonObject, name: str, default: datetime) -> datetime:
    """The time `value[name]`; `default` when there is none."""
    found = text(value, name)
    return default if found is None else datetime.fromisoformat(found)
