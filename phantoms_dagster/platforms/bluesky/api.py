"""Calls to an account's own server (XRPC): sessions, errors, and tokens for the video service.

A session is created with the account's handle and its app password. Its access token is valid for two hours and is renewed when the
server no longer accepts it. All posts of one process share a session, because a server allows only 300 log-ins a day.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from phantoms_dagster.domain.errors import Barred, Disconnected, Permanent, ProviderError, Throttled, Transient, Unknown
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import Clock, Tokens
from phantoms_dagster.domain.values import JsonObject
from phantoms_dagster.providers import http

PROVIDER = "bluesky"
PLATFORM = Platform("bluesky")
SERVICE_AUTH_SECONDS = 1_500  # a server gives half an hour at most
# Names of errors in answers.
# The access token has ended, or the server does not know it any more: a server that was moved or restored has new keys.
ENDED = frozenset({"ExpiredToken", "InvalidToken"})
_NO_SESSION = frozenset({"AuthenticationRequired", "AuthMissing", "InvalidToken", "AuthFactorTokenRequired", "ExpiredToken"})
_BARRED = frozenset({"AccountTakedown", "AccountDeactivated", "AccountSuspended", "RepoTakendown", "RepoDeactivated"})
RECORD_GONE = "RecordNotFound"
_BLOB_GONE = ("BlobNotFound", "Could not find blob")

Before = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class AccountSession:
    """A session: its owner, its tokens, and the DID of the account's server. `made_of`: the hash of the app password."""

    did: str
    handle: str
    access: str
    refresh: str
    server: str
    made_of: str


class Calls:
    """Calls on behalf of accounts."""

    def __init__(self, *, client: httpx.AsyncClient, base_url: str, tokens: Tokens, clock: Clock) -> None:
        self.client = client
        self.clock = clock
        self._base = base_url.rstrip("/")
        self._tokens = tokens
        self._sessions: dict[str, AccountSession] = {}
        self._ahead = 0.0  # how many seconds the account's server is ahead of our clock
        self._one_at_a_time: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def session(self, account: str, *, instead_of: AccountSession | None = None) -> AccountSession:
        """The account's session. `instead_of`: the session whose access token has ended. Raises Disconnected."""
        async with self._one_at_a_time[account]:
            password = await self._tokens.token(PLATFORM, account)
            made_of = hashlib.sha256(password.encode()).hexdigest()
            known = self._sessions.get(account)
            if known is not None and known.made_of == made_of and known is not instead_of:
                return known
            answer = await self._renewed(known) if known is not None and known.made_of == made_of else None
            if answer is None:
                body = {"identifier": account.removeprefix("@"), "password": password}
                answer = _judged(await self._send("POST", "com.atproto.server.createSession", json=body), account)
            session = self._sessions[account] = _session(answer, made_of, account, self._base)
            return session

    async def _renewed(self, old: AccountSession) -> JsonObject | None:
        """The server's answer to the refresh token; None when it no longer accepts the token."""
        response = await self._send("POST", "com.atproto.server.refreshSession", headers=http.bearer(old.refresh))
        return http.json_object(response, provider=PROVIDER) if response.is_success else None

    async def get(self, account: str, name: str, **params: Any) -> JsonObject:
        """A query of the account's server."""
        return await self._call("GET", account, name, params=params)

    async def post(self, account: str, name: str, body: JsonObject, *, before: Before | None = None) -> JsonObject:
        """A procedure that may make something public. Raises Unknown when its answer is lost."""
        return await self._call("POST", account, name, json=body, commits=True, before=before)

    async def _call(self, method: str, account: str, name: str, *, commits: bool = False, **request: Any) -> JsonObject:
        session = await self.session(account)
        response = await self._send(method, name, commits=commits, headers=http.bearer(session.access), **request)
        if error_name(response) in ENDED:  # refused explicitly, so nothing was done
            session = await self.session(account, instead_of=session)
            response = await self._send(method, name, commits=commits, headers=http.bearer(session.access), **request)
        return _judged(response, account, commits=commits)

    async def _send(self, method: str, name: str, **request: Any) -> httpx.Response:
        response = await http.send(self.client, method, f"{self._base}/xrpc/{name}", provider=PROVIDER, **request)
        if (answered_at := http.answered_at(response)) is not None:
            self._ahead = (answered_at - self.clock.now()).total_seconds()
        return response

    async def service_token(self, account: str, *, audience: str, method: str) -> str:
        """A token that permits the account one method of another service. It ends by the server's clock, whatever ours says."""
        await self.session(account)
        until = int(self.clock.now().timestamp() + self._ahead) + SERVICE_AUTH_SECONDS
        try:
            answer = await self.get(account, "com.atproto.server.getServiceAuth", aud=audience, lxm=method, exp=until)
        except Permanent as error:
            if error.code != "BadExpiration":
                raise
            # A clock was set since the last answer. The time of this one corrects the difference.
            raise Transient(str(error), provider=PROVIDER, code=error.code, evidence=error.evidence) from error
        token = answer.get("token")
        if not isinstance(token, str) or not token:
            raise Transient("Bluesky gave no token for its video service", provider=PROVIDER, code="malformed")
        return token


def _session(answer: JsonObject, made_of: str, account: str, base_url: str) -> AccountSession:
    texts = {name: answer.get(name) for name in ("did", "handle", "accessJwt", "refreshJwt")}
    missing = [name for name, value in texts.items() if not isinstance(value, str) or not value]
    if missing:
        raise Transient(f"Bluesky made a session without {missing[0]}", provider=PROVIDER, code="malformed")
    if answer.get("active") is False:
        message = f"Bluesky account {account} is not active ({answer.get('status') or 'no reason given'})"
        raise Barred(message, provider=PROVIDER, code="inactive")
    did, handle, access, refresh = map(str, texts.values())
    return AccountSession(did, handle, access, refresh, web_did(_server_of(answer) or base_url), made_of)


def _server_of(answer: JsonObject) -> str | None:
    """The address of the account's own server; None if the answer has none. The log-in host may be an entryway to many servers."""
    document = answer.get("didDoc")
    for service in http.objects(document, "service") if isinstance(document, dict) else []:
        if str(service.get("id")).endswith("#atproto_pds") and isinstance(service.get("serviceEndpoint"), str):
            return str(service["serviceEndpoint"])
    return None


def web_did(url: str) -> str:
    """The DID of the server at that address, which tokens name as their audience."""
    return f"did:web:{quote(urlsplit(url).netloc, safe='')}"


def error_name(response: httpx.Response) -> str | None:
    """The name of the error in an answer; None without one."""
    found = http.lenient_json(response).get("error") if not response.is_success else None
    return found if isinstance(found, str) else None


def blob_is_gone(error: ProviderError) -> bool:
    """Whether the record was refused because its video no longer exists."""
    return any(text in (error.code or "") or text in str(error) for text in _BLOB_GONE)


def _judged(response: httpx.Response, account: str, *, commits: bool = False) -> JsonObject:
    """The answer's JSON object. Raises the error for an unsuccessful answer."""
    if response.is_success:
        return http.json_object(response, provider=PROVIDER, commits=commits)
    raise error_of(response, account, commits=commits)


def error_of(response: httpx.Response, account: str, *, commits: bool = False) -> ProviderError:
    """The error for an answer other than 2xx."""
    status, name = response.status_code, error_name(response)
    said = str(http.lenient_json(response).get("message") or name or f"HTTP {status}")[:300]
    given: dict[str, Any] = {"provider": PROVIDER, "code": name or str(status), "evidence": http.evidence(response)}
    if status == 429 or name == "RateLimitExceeded":
        return Throttled(f"Bluesky: too many calls ({said})", retry_after=_reset(response), **given)
    if status >= 500:
        return http.server_error(response, provider=PROVIDER, commits=commits)
    if not commits and http.is_foreign(response):
        return http.foreign(response, provider=PROVIDER)
    if name in _BARRED:
        return Barred(f"Bluesky account {account} may not post: {said}", **given)
    if status == 401 or name in _NO_SESSION:
        hint = "; use an app password" if name == "AuthFactorTokenRequired" else ""
        return Disconnected(f"Bluesky does not accept the app password of account {account}: {said}{hint}", **given)
    if commits and name is None:  # every refusal of the server has a name, so this answer is damaged or another server's
        return Unknown(f"Bluesky answered {status} without saying why", **given)
    return Permanent(f"Bluesky refused: {said}", **given)


def _reset(response: httpx.Response) -> float | None:
    """Seconds until the rate limit ends, from Retry-After or `ratelimit-reset`; None without either."""
    wanted = http.retry_after(response)
    reset = response.headers.get("ratelimit-reset", "")
    if wanted is None and reset.isdigit():
        return max(1.0, float(reset) - time.time())
    return wanted
