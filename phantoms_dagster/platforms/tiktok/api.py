"""TikTok's API: the calls that carry a token, the table of errors, a post's status, and the list of videos.

No call here publishes anything. `publisher` uploads, and `chunks` decides what follows from an answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

import httpx

from phantoms_dagster.domain.errors import Barred, Disconnected, Permanent, ProviderError, Rejected, Throttled, Transient
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import Tokens
from phantoms_dagster.domain.values import JsonObject
from phantoms_dagster.platforms.authorised import authorised
from phantoms_dagster.providers.http import (
    bearer,
    evidence,
    foreign,
    is_foreign,
    json_object,
    lenient_json,
    objects,
    retry_after,
    send,
    server_error,
    unexpected,
)
from phantoms_dagster.providers.redaction import redact

PROVIDER = "tiktok"
STATUS_PATH = "/v2/post/publish/status/fetch/"
LIST_PATH = "/v2/video/list/"
MAX_IDS = 20  # per query and per page of the list
LIST_PAGES = 50
FULL_DESCRIPTION = 140  # the list cuts descriptions at 150 characters; a shorter one must equal the whole caption
DAY_SECONDS = 86_400.0
FEW_HOURS_SECONDS = 4 * 3_600.0
MINUTE_SECONDS = 60.0

# --- errors ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ErrorRow:
    """The meaning of an error code. `wait`: seconds to wait if the answer does not say."""

    kind: type[Permanent | Rejected | Throttled | Transient]
    advice: str
    wait: float | None = None


_RECONNECT = ErrorRow(Disconnected, "reconnect the TikTok account")
_FIX_MEDIA = ErrorRow(Permanent, "the file does not fit TikTok's limits")
_NEXT_DAY = ErrorRow(Throttled, "the account's posts for today are used up", DAY_SECONDS)
_SCOPES = ErrorRow(Barred, "connect the TikTok account again with all scopes of docs/accounts.md")
NO_SCOPE = ("scope_not_authorized", "scope_permission_missed")
_BANNED = ErrorRow(Barred, "TikTok does not let this account post")
_SPAM = ErrorRow(Rejected, "TikTok classified the post as spam")
_RESTART = ErrorRow(Transient, "the upload must start again")

# Codes of the error envelope, fail_reasons of status/fetch and, as `upload <status>`, answers to a chunk.
ERRORS: Mapping[str, ErrorRow] = MappingProxyType(
    {
        "invalid_param": ErrorRow(Permanent, "TikTok does not accept the request"),
        "invalid_params": ErrorRow(Permanent, "TikTok does not accept the request"),
        "app_version_check_failed": ErrorRow(Permanent, "the TikTok app of the creator is too old"),
        "invalid_publish_id": ErrorRow(Permanent, "TikTok does not know this publish_id"),
        "token_not_authorized_for_specified_publish_id": ErrorRow(Permanent, "another TikTok account started the upload"),
        "publish_not_cancellable": ErrorRow(Permanent, "too late to cancel"),
        "access_token_invalid": _RECONNECT,
        "scope_not_authorized": _SCOPES,
        "scope_permission_missed": _SCOPES,
        "spam_risk_too_many_posts": _NEXT_DAY,
        # A finished draft makes room at once, others after a day. So ask a few times a day.
        "spam_risk_too_many_pending_share": ErrorRow(
            Throttled, "five drafts wait in the creator's inbox: finish some in the TikTok app", FEW_HOURS_SECONDS
        ),
        "spam_risk_user_banned_from_posting": _BANNED,
        # It counts users, not posts, in a sliding day. So it passes without a person, and other accounts may still post.
        "reached_active_user_cap": ErrorRow(Throttled, "the app has reached its limit of users for today", FEW_HOURS_SECONDS),
        "unaudited_client_can_only_post_to_private_accounts": ErrorRow(
            Rejected,
            "until TikTok has audited the app, it may only post SELF_ONLY, to private accounts, for five users a day; "
            "`tiktok: {route: inbox}` or `{route: gateway}` in channels.yaml need no audit",
        ),
        "url_ownership_unverified": ErrorRow(Permanent, "the domain of the video's URL is not verified"),
        "privacy_level_option_mismatch": ErrorRow(Rejected, "the creator does not offer this privacy level"),
        "rate_limit_exceeded": ErrorRow(Throttled, "too many calls in a minute", MINUTE_SECONDS),
        "internal_error": ErrorRow(Transient, "TikTok has an internal error"),
        # fail_reason
        "file_format_check_failed": _FIX_MEDIA,
        "duration_check_failed": _FIX_MEDIA,
        "frame_rate_check_failed": _FIX_MEDIA,
        "picture_size_check_failed": _FIX_MEDIA,
        "internal": ErrorRow(Transient, "TikTok failed to process the video"),
        "video_pull_failed": ErrorRow(Transient, "TikTok could not fetch the video"),
        "photo_pull_failed": ErrorRow(Transient, "TikTok could not fetch the photo"),
        "publish_cancelled": ErrorRow(Rejected, "the post was cancelled"),
        "auth_removed": _RECONNECT,
        "spam_risk_text": _SPAM,
        "spam_risk": _SPAM,
        # answers to a chunk
        "upload 400": ErrorRow(Permanent, "TikTok does not accept the chunk"),
        "upload 403": _RESTART,
        "upload 404": _RESTART,
        "upload 416": ErrorRow(Transient, "TikTok has a different number of bytes than expected"),
    }
)
# The code for a status if the answer has none.
_STATUS_CODES = MappingProxyType({401: "access_token_invalid", 429: "rate_limit_exceeded"})


def error_for(code: str, said: str = "", response: httpx.Response | None = None) -> ProviderError | None:
    """The domain error for a code; None if the table does not have it."""
    row = ERRORS.get(code)
    if row is None:
        return None
    message = f"TikTok: {row.advice} ({code}{': ' + redact(said) if said else ''})"
    proof = evidence(response) if response is not None else None
    if issubclass(row.kind, Transient):
        wish = retry_after(response) if response is not None else None
        return row.kind(message, provider=PROVIDER, code=code, evidence=proof, retry_after=row.wait if wish is None else wish)
    return row.kind(message, provider=PROVIDER, code=code, evidence=proof)


@dataclass(frozen=True)
class TikTokCalls:
    """Calls with an account's token, for posting and metrics."""

    client: httpx.AsyncClient
    base_url: str
    tokens: Tokens

    async def get(self, account: str, path: str, params: Mapping[str, str]) -> JsonObject:
        """A read. Returns the envelope's `data`."""
        return await self._call("GET", account, path, params=params)

    async def post(
        self,
        account: str,
        path: str,
        body: JsonObject | None = None,
        *,
        params: Mapping[str, str] | None = None,
        before: Callable[[], Awaitable[None]] | None = None,
    ) -> JsonObject:
        """A call that publishes nothing. Returns the envelope's `data`. Success is a status below 400 with error.code "ok".

        `before`: see `http.send`.
        """
        return await self._call("POST", account, path, body=body, params=params, before=before)

    async def _call(
        self,
        method: str,
        account: str,
        path: str,
        *,
        params: Mapping[str, str] | None,
        body: JsonObject | None = None,
        before: Callable[[], Awaitable[None]] | None = None,
    ) -> JsonObject:
        url = self.base_url.rstrip("/") + path

        async def sent(token: str) -> httpx.Response:
            headers = {**bearer(token), "Content-Type": "application/json; charset=UTF-8"}
            return await send(self.client, method, url, provider=PROVIDER, before=before, headers=headers, json=body, params=params)

        response = await authorised(self.tokens, Platform("tiktok"), account, sent, _token_refused)
        envelope = json_object(response, provider=PROVIDER) if response.status_code < 400 else lenient_json(response)
        error, data = envelope.get("error"), envelope.get("data")
        code, said = (str(error.get("code", "")), str(error.get("message", ""))) if isinstance(error, dict) else ("", "")
        if response.status_code < 400 and code == "ok":
            return data if isinstance(data, dict) else {}
        known = error_for(code or _STATUS_CODES.get(response.status_code, ""), said, response)
        if known is not None:
            raise known
        if response.status_code >= 500:
            raise server_error(response, provider=PROVIDER)
        fallback = error_for(_STATUS_CODES.get(response.status_code, ""), said, response)
        if fallback is None and is_foreign(response):
            raise foreign(response, provider=PROVIDER)
        raise fallback or unexpected(response, provider=PROVIDER, message=f"{code} {said}".strip())


def _token_refused(response: httpx.Response) -> bool:
    error = lenient_json(response).get("error")
    code = error.get("code") if isinstance(error, dict) else None
    return code == "access_token_invalid" or (response.status_code == 401 and not code)


# --- the status of a post --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PublishStatus:
    """An answer of status/fetch. `uploaded`: the bytes that TikTok has; None if it does not say."""

    status: str
    uploaded: int | None = None
    post_id: str | None = None
    fail_reason: str = ""


async def read_status(calls: TikTokCalls, account: str, publish_id: str) -> PublishStatus | None:
    """The status of a post; None when TikTok does not know the publish_id."""
    try:
        data = await calls.post(account, STATUS_PATH, {"publish_id": publish_id})
    except Permanent as error:
        if error.code == "invalid_publish_id":
            return None
        raise
    uploaded, ids = data.get("uploaded_bytes"), data.get("publicaly_available_post_id")
    return PublishStatus(
        status=str(data.get("status")),
        uploaded=uploaded if isinstance(uploaded, int) else None,
        post_id=str(ids[0]) if isinstance(ids, list) and ids else None,
        fail_reason=str(data.get("fail_reason") or ""),
    )


# --- the account's videos --------------------------------------------------------------------------------------------


async def listed_since(calls: TikTokCalls, account: str, since: datetime) -> list[JsonObject]:
    """The account's public videos since about that time, newest first, for `same_video`."""
    videos: list[JsonObject] = []
    body: JsonObject = {"max_count": MAX_IDS}
    for _ in range(LIST_PAGES):
        data = await calls.post(account, LIST_PATH, body, params={"fields": "id,create_time,title,video_description,duration"})
        page, cursor = objects(data, "videos"), data.get("cursor")
        videos += page
        if not page or not data.get("has_more") or not isinstance(cursor, int) or cursor < since.timestamp() * 1_000:
            break
        body = {"max_count": MAX_IDS, "cursor": cursor}
    return videos


def same_video(video: JsonObject, caption: str, seconds: float, since: datetime) -> bool:
    """Whether a listed video matches a post: created since then, with its caption (which the list may cut) and its length."""
    created, duration = video.get("create_time"), video.get("duration")
    if not isinstance(created, int) or created < since.timestamp():
        return False
    if isinstance(duration, int | float) and duration and abs(duration - seconds) > 1.5:
        return False
    told = " ".join(str(video.get("video_description") or video.get("title") or "").split())
    whole = " ".join(caption.split())
    return told == whole or (len(told) >= FULL_DESCRIPTION and whole.startswith(told))
