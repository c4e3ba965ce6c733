"""The YouTube Data API v3 as posting and metrics both use it: requests in an account's name, and what each answer means.

What the API's errors mean stands in `ERRORS`, here alone. Here also: the upload session as it is kept in a journal, and what its
URI answers. In which order requests are sent, waits and the journal belong in `youtube`; a post's words in `youtube_words`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any, Literal, TypeAlias
from zoneinfo import ZoneInfo

import httpx

from phantoms_dagster.domain.errors import Barred, Disconnected, Permanent, ProviderError, Throttled, Transient, Unknown
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import Clock, Tokens
from phantoms_dagster.domain.values import JsonObject
from phantoms_dagster.providers.http import (
    bearer,
    evidence,
    json_object,
    retry_after,
    same_service,
    send,
    server_error,
    unexpected,
)
from phantoms_dagster.providers.redaction import redact

PROVIDER = "youtube"
MAX_IDS = 50  # of one videos.list, and items of one page
PACIFIC = ZoneInfo("America/Los_Angeles")  # where the quota day begins

# --- errors ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RefusalMeaning:
    """What a refusal means. `wait`: as the answer says, until the quota day ends (00:00 Pacific), or a day."""

    error: type[Permanent] | type[Throttled]
    advice: str
    wait: Literal["answer", "midnight", "day"] = "answer"


_INPUT = RefusalMeaning(Permanent, "correct the post's words or settings and replay it")
_RECONNECT = RefusalMeaning(Disconnected, "reconnect the account: its access token is no longer accepted")
_QUOTA = RefusalMeaning(Throttled, "the project's daily quota is used up until midnight in California", "midnight")
_PACE = RefusalMeaning(Throttled, "requests come too fast")
_FORBIDDEN = RefusalMeaning(
    Permanent, "the account may not do this: check its permissions and the granted scopes, then reconnect it"
)
_SCOPES = RefusalMeaning(
    Barred, "the account has not granted what this needs: connect it again with all scopes of docs/accounts.md"
)
_ACCOUNT = RefusalMeaning(Barred, "the account is suspended, closed or not fit for this: a person must look at it on YouTube")

# Status and reason, as globs; the first row that fits counts. 5xx answers are judged by `providers.http.server_error`.
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
        (404, "videoNotFound"): RefusalMeaning(Permanent, "the video is gone from YouTube: a person must look"),
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
    message = f"YouTube refused ({code}): {said + '; ' if said else ''}{verdict.advice}"
    if issubclass(verdict.error, Permanent):
        return verdict.error(message, provider=PROVIDER, code=code, evidence=evidence(response))
    waits = {"answer": retry_after(response), "midnight": seconds_to_midnight(now), "day": 86_400.0}
    return Throttled(message, provider=PROVIDER, code=code, evidence=evidence(response), retry_after=waits[verdict.wait])


def accepted(response: httpx.Response, now: datetime, *, commits: bool = False) -> JsonObject:
    """The JSON of a 2xx answer; any other answer is raised as its domain error."""
    if response.status_code >= 500:
        raise server_error(response, provider=PROVIDER, commits=commits)
    if response.status_code >= 300:
        raise refusal(response, now)
    return json_object(response, provider=PROVIDER, commits=commits)


def seconds_to_midnight(now: datetime) -> float:
    """Until the quota is fresh: the next 00:00 in California, which is 23 to 25 hours away at most."""
    tomorrow = (now.astimezone(PACIFIC) + timedelta(days=1)).date()
    return (datetime(tomorrow.year, tomorrow.month, tomorrow.day, tzinfo=PACIFIC) - now).total_seconds()


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
    """Requests in the name of an account."""

    client: httpx.AsyncClient
    base_url: str
    tokens: Tokens
    clock: Clock

    def url(self, path: str) -> str:
        """An address at the API's host."""
        return f"{self.base_url.rstrip('/')}/{path}"

    def owns(self, url: str) -> bool:
        """Whether an upload session is at this very service: the token goes nowhere else."""
        return same_service(url, self.base_url, ".googleapis.com")

    async def get(self, account: str, resource: str, *, pool: str | None = None, **query: str) -> JsonObject:
        """A read of `videos`, `channels` or `playlistItems`. Raises what the table says, and Transient.

        `pool`: another than that of the path, for a read that must leave publishing its units.
        """
        # Pool and breaker of reading results: its troubles are not publishing's.
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
        """One request with the account's token; its status is not judged. See `providers.http.send`."""
        # Asked for each request: an upload may outlive a token.
        token = await self.tokens.token(Platform("youtube"), account)
        merged = {**bearer(token), **(headers or {})}
        return await send(self.client, method, url, provider=PROVIDER, commits=commits, headers=merged, **request)


# --- the upload session ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class UploadSession:
    """An upload session as the journal keeps it. The URI is as good as a password.

    `last_byte_sent`: the request with the last byte may have left, so the video may exist. `lost_at`: when YouTube first said
    that it does not know the session.
    """

    uri: str
    opened_at: datetime
    last_byte_sent: bool = False
    lost_at: datetime | None = None

    def handle(self) -> JsonObject:
        """As JSON."""
        lost = None if self.lost_at is None else self.lost_at.isoformat()
        return {
            "session": self.uri,
            "opened_at": self.opened_at.isoformat(),
            "last_byte_sent": self.last_byte_sent,
            "lost_at": lost,
        }

    @classmethod
    def of(cls, handle: JsonObject) -> UploadSession | None:
        """From JSON; None when there is no session."""
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
    """The session lives and holds this many bytes."""

    count: int


@dataclass(frozen=True)
class Finished:
    """The session ended with this video."""

    video_id: str


@dataclass(frozen=True)
class Gone:
    """YouTube does not know the session (any more)."""


@dataclass(frozen=True)
class SessionRefused:
    """The session's answer is an error. `over`: the session takes no more bytes."""

    error: ProviderError
    over: bool


SessionAnswer: TypeAlias = BytesKept | Finished | Gone | SessionRefused


def session_answer(response: httpx.Response, now: datetime, *, commits: bool) -> SessionAnswer:
    """What a session URI answered. Raises Transient, or Unknown when the request `commits`, for 5xx and unreadable answers."""
    status = response.status_code
    if status == 308:
        kept = re.fullmatch(r"bytes=0-(\d+)", response.headers.get("range", ""))
        return BytesKept(int(kept.group(1)) + 1 if kept else 0)
    if status in (404, 410):
        return Gone()
    if 400 <= status < 500:
        error = refusal(response, now)
        # A bad token or too quick a pace says nothing of the session; any other refusal ends it.
        pace = isinstance(error, Throttled) and error.code not in ("quotaExceeded", "dailyLimitExceeded", "uploadLimitExceeded")
        return SessionRefused(error, over=not (pace or status == 401))
    video_id = text(accepted(response, now, commits=commits), "id")
    if video_id is None:
        kind = Unknown if commits else Transient
        raise kind("YouTube named no video", provider=PROVIDER, code="malformed", evidence=evidence(response))
    return Finished(video_id)


# --- reading JSON ---------------------------------------------------------------------------------------------------


def part(value: JsonObject, name: str) -> JsonObject:
    """The object of that name; an empty one when there is none."""
    found = value.get(name)
    return found if isinstance(found, dict) else {}


def text(value: JsonObject, name: str) -> str | None:
    """The text of that name, unless it is empty or none."""
    found = value.get(name)
    return found if isinstance(found, str) and found else None


def moment(value: JsonObject, name: str, default: datetime) -> datetime:
    """The time of that name."""
    found = text(value, name)
    return default if found is None else datetime.fromisoformat(found)
