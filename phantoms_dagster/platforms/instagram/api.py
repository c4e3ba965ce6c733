"""The Graph API, for posting and for metrics: requests on behalf of an account, and the table of its errors.

Source: Instagram Platform error codes, June 2026, Graph API v26.0.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

import httpx

from phantoms_dagster.domain.errors import Barred, Disconnected, Permanent, ProviderError, Rejected, Throttled, Transient, Unknown
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import AccountIdentity, Tokens
from phantoms_dagster.domain.values import JsonObject
from phantoms_dagster.platforms.authorised import authorised
from phantoms_dagster.providers import http
from phantoms_dagster.providers.redaction import redact

PROVIDER = "instagram"
INSTAGRAM_LOGIN_HOST = "graph.instagram.com"

# (code, error_subcode) -> the domain error. A row with None applies to all subcodes without their own row.
ERRORS: Mapping[tuple[int, int | None], type[ProviderError]] = MappingProxyType(
    {
        (-2, 2_207_003): Transient,  # download too slow
        (-2, 2_207_020): Transient,  # media expired
        (-1, 2_207_001): Transient,  # server error
        (-1, 2_207_032): Transient,  # create failed
        (-1, 2_207_053): Transient,  # unknown upload error
        (1, 2_207_057): Permanent,  # thumb_offset out of range
        (4, 2_207_051): Rejected,  # classified as spam
        (9, 2_207_042): Throttled,  # daily limit
        (24, 2_207_006): Transient,  # container not found
        (24, 2_207_008): Transient,  # container not there yet, or expired
        (25, 2_207_050): Barred,  # account restricted
        (100, None): Permanent,  # bad parameters: 2207023, 2207028, 2207035-37, 2207040
        (352, 2_207_026): Permanent,  # video format
        (9004, 2_207_052): Permanent,  # URL cannot be fetched
        (9007, 2_207_027): Transient,  # not ready
        (36_000, 2_207_004): Permanent,  # image size
        (36_001, 2_207_005): Permanent,  # image format
        (36_003, 2_207_009): Permanent,  # ratio
        (36_004, 2_207_010): Permanent,  # caption too long
        (190, None): Disconnected,  # token dead
        (102, None): Disconnected,  # session dead, as some tokens are refused
        (10, None): Barred,  # permission
        **{(code, None): Barred for code in range(200, 300)},  # permission
        **{(code, None): Throttled for code in (4, 17, 32, 613, 80_002, 80_004)},
        (1, None): Transient,
        (2, None): Transient,
    }
)
# Codes with subcodes that mean the object does not exist, or not for this token.
GONE = frozenset({"24/2207006", "24/2207008", "100/33"})
FETCH_FAILED = "9004/2207052"
NOT_READY = "9007/2207027"
TOKEN_DEAD = (190, 102)
THROTTLE_SECONDS = 60.0
DAILY_LIMIT = "9/2207042"
# The window of a day slides, so posts become free one by one, and Instagram does not say when.
DAILY_LIMIT_SECONDS = 3_600.0
# "Wait a few minutes", which comes with several codes.
SLOW_DOWN = 1_390_008
_HINTS = {
    **dict.fromkeys(TOKEN_DEAD, "reconnect the account"),
    10: "give the permission again",
    **dict.fromkeys(range(200, 300), "give the permission again"),
}


def error_class(code: int, subcode: int | None, *, is_transient: bool = False) -> type[ProviderError] | None:
    """The error in the table, else Transient if the API marks it as transient, else None."""
    if subcode == SLOW_DOWN:
        return Throttled
    return ERRORS.get((code, subcode)) or ERRORS.get((code, None)) or (Transient if is_transient else None)


def subcode_class(subcode: int) -> type[ProviderError] | None:
    """The error for a subcode without a code, as in the status text of a container; None if it is unknown."""
    return next((kind for (_, known), kind in ERRORS.items() if known == subcode), None)


def judge(response: httpx.Response, account: str, *, commits: bool = False) -> ProviderError:
    """The domain error for an unsuccessful answer.

    With `commits`, only an explicit refusal counts as a refusal. Everything else is Unknown.
    """
    envelope = http.lenient_json(response).get("error")
    if not isinstance(envelope, dict) or "code" not in envelope:
        return _judge_status(response, commits=commits)
    code, subcode = _number(envelope.get("code")) or 0, _number(envelope.get("error_subcode"))
    kind = error_class(code, subcode, is_transient=bool(envelope.get("is_transient")))
    if response.status_code == 429 and kind in (None, Transient):
        kind = Throttled
    name = f"{code}" if subcode is None else f"{code}/{subcode}"
    hint = _HINTS.get(code)
    message = redact(f"Instagram, account {account}: {envelope.get('message', 'no message')} ({name}){'; ' + hint if hint else ''}")
    said: dict[str, Any] = {"provider": PROVIDER, "code": name, "evidence": http.evidence(response)}
    if kind is None and response.status_code < 500 and not commits:
        return Permanent(message, **said)
    if commits and (kind in (None, Transient) or name in GONE) and name != NOT_READY:
        return Unknown(message, **said, retry_after=http.retry_after(response))
    if kind is Throttled:
        otherwise = DAILY_LIMIT_SECONDS if name == DAILY_LIMIT else THROTTLE_SECONDS
        return Throttled(message, **said, retry_after=_throttled_for(response, otherwise))
    if kind is None or kind is Transient:
        return Transient(message, **said, retry_after=http.retry_after(response))
    return kind(message, **said)


def token_refused(response: httpx.Response) -> bool:
    """Whether the answer says that the token is not accepted, whatever its status."""
    envelope = http.lenient_json(response).get("error")
    return isinstance(envelope, dict) and envelope.get("code") in TOKEN_DEAD


def _judge_status(response: httpx.Response, *, commits: bool) -> ProviderError:
    said: dict[str, Any] = {"provider": PROVIDER, "code": str(response.status_code), "evidence": http.evidence(response)}
    if response.status_code == 429:
        return Throttled("Instagram answered 429", **said, retry_after=_throttled_for(response))
    if response.status_code >= 500:
        return http.server_error(response, provider=PROVIDER, commits=commits)
    if commits:
        return Unknown(f"Instagram answered {response.status_code} without an error object", **said)
    if http.is_foreign(response):
        return http.foreign(response, provider=PROVIDER)
    return http.unexpected(response, provider=PROVIDER)


def _number(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _throttled_for(response: httpx.Response, otherwise: float = THROTTLE_SECONDS) -> float:
    """Seconds to wait: Retry-After, else the longest wait in the business use case header (in minutes), else `otherwise`."""
    named = http.retry_after(response)
    if named is not None:
        return named
    try:
        usage = json.loads(response.headers.get("x-business-use-case-usage", "{}"))
        minutes = [float(row["estimated_time_to_regain_access"]) for rows in usage.values() for row in rows]
    except (ValueError, TypeError, KeyError, AttributeError):
        return otherwise
    return max([60 * m for m in minutes if m > 0], default=otherwise)


def upload_error(response: httpx.Response, account: str) -> ProviderError | None:
    """The error in an answer of the upload host, whose errors have their own format; None when it accepted the bytes."""
    body = http.lenient_json(response)
    if response.is_success and body.get("success") is True:
        return None
    info = body.get("debug_info")
    if isinstance(info, dict):
        kind = Transient if info.get("retriable") else Permanent
        message = redact(f"Instagram, account {account}: the upload failed: {info.get('type')}: {info.get('message')}")
        return kind(message, provider=PROVIDER, code=str(info.get("type")), evidence=http.evidence(response))
    if response.is_success:
        message = "Instagram did not confirm the upload"
        return Transient(message, provider=PROVIDER, code="malformed", evidence=http.evidence(response))
    return judge(response, account)


AppSecret = Callable[[], str | None]


def no_secret() -> None:
    """No app secret: calls carry no proof."""


class Graph:
    """Requests to one version of the Graph API on behalf of an account.

    `app_secret` is called for each request. If it returns a secret, the request carries `appsecret_proof`, so that a stolen token
    is useless to others. Instagram Login's host does not know that parameter.
    """

    def __init__(
        self, *, client: httpx.AsyncClient, base_url: str, version: str, tokens: Tokens, app_secret: AppSecret = no_secret
    ) -> None:
        self._client = client
        self._base = f"{base_url.rstrip('/')}/{version}"
        self._tokens = tokens
        self.instagram_login = httpx.URL(base_url).host == INSTAGRAM_LOGIN_HOST
        self._app_secret = no_secret if self.instagram_login else app_secret
        self._users: dict[tuple[str, str], AccountIdentity] = {}

    async def get(self, account: str, path: str, **params: str) -> JsonObject:
        """A read. `path` comes from `path(...)`."""
        return http.json_object(await self._call("GET", account, path, params=params), provider=PROVIDER)

    async def post(
        self,
        account: str,
        path: str,
        form: Mapping[str, str],
        *,
        commits: bool = False,
        before: Callable[[], Awaitable[None]] | None = None,
    ) -> tuple[JsonObject, datetime | None]:
        """A write. Returns its answer and the answer's time on the platform's clock. `commits`: a lost answer is Unknown.

        `before`: see `http.send`.
        """
        response = await self._call("POST", account, path, commits=commits, before=before, data=form)
        return http.json_object(response, provider=PROVIDER, commits=commits), http.answered_at(response)

    async def token(self, account: str) -> str:
        """The account's token."""
        return await self._tokens.token(Platform("instagram"), account)

    async def renewed(self, account: str, refused: str) -> bool:
        """Whether there is another token than the refused one now."""
        return await self._tokens.renewed(Platform("instagram"), account, refused) is not None

    async def user(self, account: str) -> str:
        """The numeric id of the account's Instagram user, for paths. Raises Permanent when the token has none."""
        return (await self.identity(account)).subject

    async def identity(self, account: str, *, fresh: bool = False) -> AccountIdentity:
        """The owner of the account's token. Asks the platform once per token, and again if the answer must be `fresh`.

        Our own name of the account is never sent.
        """
        known = (account, await self.token(account))
        if fresh or known not in self._users:
            self._users[known] = await find_user(self, account)
        return self._users[known]

    async def _call(self, method: str, account: str, path: str, *, commits: bool = False, **request: Any) -> httpx.Response:
        url, place = f"{self._base}/{path}", "params" if method == "GET" else "data"

        async def sent(token: str) -> httpx.Response:
            given = request
            if (app_secret := self._app_secret()) is not None:
                given = {**request, place: {**request.get(place, {}), "appsecret_proof": appsecret_proof(app_secret, token)}}
            headers = http.bearer(token)
            return await http.send(self._client, method, url, provider=PROVIDER, commits=commits, headers=headers, **given)

        response = await authorised(self._tokens, Platform("instagram"), account, sent, token_refused)
        if response.is_success:
            return response
        raise judge(response, account, commits=commits)


def appsecret_proof(app_secret: str, token: str) -> str:
    """The proof that a call comes from the app itself: the token's HMAC by the app's secret."""
    return hmac.new(app_secret.encode(), token.encode(), hashlib.sha256).hexdigest()


async def find_user(graph: Graph, account: str) -> AccountIdentity:
    """The Instagram user behind the account's token, with either kind of login.

    With Facebook Login the token belongs to a person, whose Pages have the Instagram accounts, or to a Page. With Instagram Login
    it belongs to the Instagram account. Raises Permanent when there is no user, or several of which none has the account's name.
    """
    nested = "instagram_business_account{id,username}"
    found = await _listed(graph, account, path("me", "accounts"), fields=f"name,{nested}")
    for fields in () if found else ("user_id,username", nested):
        found += await _listed(graph, account, path("me"), fields=fields)
    users = {user.subject: user for user in found}
    named = [user for user in users.values() if account.lstrip("@").lower() in (user.subject, user.label.lower())]
    if len(named) == 1 or len(users) == 1:
        return named[0] if named else next(iter(users.values()))
    if users:
        names = ", ".join(sorted(user.label for user in users.values()))
        message = f"the token of Instagram account {account} has access to several accounts ({names}): name one in channels.yaml"
        raise Permanent(message, provider=PROVIDER, code="several_accounts")
    message = (
        f"the token of Instagram account {account} has access to no professional Instagram account: connect one to its Page, "
        "and grant pages_show_list and instagram_basic (or instagram_business_basic)"
    )
    raise Permanent(message, provider=PROVIDER, code="no_account")


async def _listed(graph: Graph, account: str, place: str, *, fields: str) -> list[AccountIdentity]:
    """The Instagram users in the answer. Empty when the API does not support the request for this kind of token."""
    try:
        answer = await graph.get(account, place, fields=fields)
    except Permanent as error:
        # A missing or wrong appsecret_proof has code 100 too, but says nothing about the account.
        unknown = error.code is not None and error.code.split("/")[0] in ("100", "10", "200", "2500", "803")
        if unknown and "appsecret_proof" not in str(error):
            return []
        raise
    rows = [answer, *http.objects(answer, "data")]
    users = [user for row in rows if isinstance(user := row.get("instagram_business_account"), dict)]
    found = [AccountIdentity(str(user["id"]), str(user.get("username") or user["id"])) for user in users if "id" in user]
    if isinstance(answer.get("user_id"), str | int):
        found.append(AccountIdentity(str(answer["user_id"]), str(answer.get("username") or answer["user_id"])))
    return found


def path(*parts: str) -> str:
    """A path of the Graph API, with its parts escaped."""
    return "/".join(quote(part, safe="") for part in parts)


def moment(text: object) -> datetime | None:
    """Parse a timestamp of the API; None when it is invalid."""
    try:
        return datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
