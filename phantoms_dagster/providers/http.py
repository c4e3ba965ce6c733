"""HTTP helpers that all adapters share: requests whose failures are domain errors, redacted evidence, files as request bodies.

Each adapter has its own table of what a status or code means. Breakers, pools and time-outs are in the transport of the client that
an adapter receives.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, BinaryIO

import httpx

from phantoms_dagster.domain.errors import Evidence, Permanent, Transient, Unknown
from phantoms_dagster.domain.retry_after import retry_after as seconds_after
from phantoms_dagster.domain.values import JsonObject
from phantoms_dagster.providers.redaction import redact

BODY_LIMIT = 2_000
SHORTEST_CREDENTIAL = 8  # a shorter one is a word, which may be anywhere
READ_BYTES = 1 << 20
KEPT_HEADERS = ("content-type", "retry-after", "x-request-id", "x-ratelimit-reset", "range", "content-range", "date")
# The request was not sent, or nothing was there to receive it. Any request may be sent again after these.
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)
_NEVER_CONNECTED = {"ClientConnectorError", "ConnectionTimeoutError"}


def evidence(response: httpx.Response) -> Evidence:
    """The provider's answer, shortened and redacted. The body must have been read."""
    return Evidence(
        status=response.status_code,
        headers={k: redact(v) for k, v in response.headers.items() if k.lower() in KEPT_HEADERS},
        body=quoted(response.text[: 2 * BODY_LIMIT], response)[:BODY_LIMIT],
        request=redact(f"{response.request.method} {response.request.url}"),
    )


def quoted(text: str, response: httpx.Response) -> str:
    """Words of an answer, redacted. A provider may quote the key of the request, which has no form by which it could be found."""
    headers = response.request.headers
    given = (headers.get("authorization", "").partition(" ")[2], headers.get("x-api-key", ""))
    for credential in given:
        if len(credential) >= SHORTEST_CREDENTIAL:
            text = text.replace(credential, "***")
    return redact(text)


def retry_after(response: httpx.Response) -> float | None:
    """The Retry-After header in seconds from now, from either of its forms; None when absent or unreadable."""
    return seconds_after(response.headers)


async def send(
    client: httpx.AsyncClient,
    method: str,
    url: str,
    *,
    provider: str,
    commits: bool = False,
    before: Callable[[], Awaitable[None]] | None = None,
    **request: Any,
) -> httpx.Response:
    """Send one request and read its answer to the end. Statuses are not judged here. `request`: as for `httpx.AsyncClient.request`.

    `commits` marks the one request of a protocol that makes something public or billable. If its answer is lost, this raises
    `Unknown`; for any other request `Transient`. A request that was never sent raises `Transient` either way.
    `before` is awaited right before the request is sent, after it was admitted to its pools. Awaited earlier, a process that dies
    while waiting would leave calls in doubt that were never made. An exception from it stops the request.
    """
    if before is not None and getattr(client, "awaits_before", False):
        given = request.get("extensions", {})
        request["extensions"] = {**given, "phantoms": {**given.get("phantoms", {}), "before": before}}
    elif before is not None:
        await before()
    try:
        return await client.request(method, url, **request)
    except httpx.HTTPError as error:
        if never_sent(error):
            found = Evidence(request=redact(f"{method} {url}"), extra={"error": describe(error)})
            message = f"{provider} cannot be reached: {unreachable(error)}"
            raise Transient(message, provider=provider, code=type(error).__name__, evidence=found) from error
        said = evidence_of(error, request=f"{method} {url}")
        message = f"{provider} gave no {'answer' if said.status is None else 'usable answer'}: {describe(error)}"
        kind = Unknown if commits else Transient
        raise kind(message, provider=provider, code=type(error).__name__, evidence=said) from error


def evidence_of(error: BaseException, *, request: str = "") -> Evidence:
    """Evidence from an answer that was not read to its end. The transport keeps the beginning of one that was too large."""
    status, beginning = getattr(error, "status", None), getattr(error, "beginning", "")
    return Evidence(status=status, body=redact(str(beginning)[:BODY_LIMIT]), request=redact(request))


def never_sent(error: BaseException) -> bool:
    """Whether the request certainly did not reach the provider.

    The httpx-aiohttp transport, which tests use, reports every broken connection as ConnectTimeout, even when the server hung up
    after accepting the request. Only the cause distinguishes them; it is compared by name to avoid importing aiohttp here.
    """
    if isinstance(error, httpx.ConnectTimeout) and type(error.__cause__).__module__.startswith("aiohttp"):
        return any(kind.__name__ in _NEVER_CONNECTED for kind in type(error.__cause__).__mro__)
    return isinstance(error, _NEVER_SENT)


def json_object(response: httpx.Response, *, provider: str, commits: bool = False) -> JsonObject:
    """The body as a JSON object. Raises Transient for anything else, or Unknown with `commits`."""
    try:
        body = response.json()
    except ValueError:
        body = None
    if isinstance(body, dict):
        return body
    kind = Unknown if commits else Transient
    raise kind(f"{provider} did not answer with a JSON object", provider=provider, code="malformed", evidence=evidence(response))


def lenient_json(response: httpx.Response) -> JsonObject:
    """The body of an error as a JSON object. Empty for any other body, such as a proxy's error page."""
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def is_foreign(response: httpx.Response) -> bool:
    """Whether a redirect or a refusal is not the API's own, because it has no JSON object.

    A wrong base URL gives a 404, and a file that is too large a 413. Another try would not change these.
    """
    if response.status_code in (404, 413):
        return False
    try:
        return not isinstance(response.json(), dict)
    except ValueError:
        return True


def foreign(response: httpx.Response, *, provider: str) -> Transient:
    """The error for an answer that is not the API's own: a redirect, or a page where the API sends JSON."""
    message = f"{provider} answered {response.status_code}, and not with JSON: a proxy or a login page may be in the way"
    return Transient(message, provider=provider, code="malformed", evidence=evidence(response))


def objects(value: JsonObject, name: str) -> list[JsonObject]:
    """The objects in the list `value[name]`. Empty when there is no such list."""
    items = value.get(name)
    return [i for i in items if isinstance(i, dict)] if isinstance(items, list) else []


@asynccontextmanager
async def file_body(path: Path, start: int, end: int) -> AsyncIterator[bytes | AsyncIterator[bytes]]:
    """The bytes of a file from `start` to `end` (exclusive) as request content. Beyond 1 MB they are read while they are sent.

    Raises OSError before anything is sent if the file cannot be read. If the file is too short the body ends early, and the
    transport reports it.
    """
    file, first = await asyncio.to_thread(_opened, path, start, end)
    with file:
        yield first if len(first) == end - start else _blocks(file, first, start, end)


def _opened(path: Path, start: int, end: int) -> tuple[BinaryIO, bytes]:
    """The open file and its first block, in one call for a thread: such a call costs more than reading a small file."""
    file = path.open("rb")
    try:
        file.seek(start)
        return file, file.read(min(READ_BYTES, end - start))
    except BaseException:
        file.close()
        raise


async def _blocks(file: BinaryIO, block: bytes, start: int, end: int) -> AsyncIterator[bytes]:
    while block:
        yield block
        start += len(block)
        block = await asyncio.to_thread(file.read, min(READ_BYTES, end - start)) if start < end else b""


def server_error(response: httpx.Response, *, provider: str, commits: bool = False) -> Transient | Unknown:
    """The error for a 5xx answer: Transient, or Unknown with `commits`."""
    kind = Unknown if commits else Transient
    return kind(
        f"{provider} answered {response.status_code}",
        provider=provider,
        code=str(response.status_code),
        evidence=evidence(response),
        retry_after=retry_after(response),
    )


def unexpected(response: httpx.Response, *, provider: str, message: str = "") -> Permanent:
    """The error for an answer that is in no table: Permanent, so that it is not retried blindly."""
    return Permanent(
        f"{provider} answered {response.status_code}{': ' + quoted(message, response) if message else ''}",
        provider=provider,
        code=str(response.status_code),
        evidence=evidence(response),
    )


def describe(error: BaseException) -> str:
    """An exception as one redacted line."""
    return redact(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)


def unreachable(error: BaseException) -> str:
    """Why there was no usable answer, in terms that help to repair the network."""
    chain = list(_causes(error))
    names = " ".join(type(cause).__name__ for cause in chain)
    if getattr(error, "code", None) == "malformed":
        return "the answer does not come from its API: a proxy or a login page may be in the way"
    if any(isinstance(cause, socket.gaierror) for cause in chain) or "DNS" in names:
        return "its host name cannot be resolved (DNS)"
    if any(isinstance(cause, ssl.SSLError) for cause in chain) or "SSL" in names or "Certificate" in names:
        return f"TLS failed: {_last_words(chain)}"
    numbers = {cause.errno for cause in chain if isinstance(cause, OSError)}
    if errno.ECONNREFUSED in numbers:
        return "the connection was refused"
    if any(isinstance(cause, TimeoutError | httpx.TimeoutException) for cause in chain) and "Connector" not in names:
        return "no answer in time"
    return _last_words(chain)


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _last_words(chain: list[BaseException]) -> str:
    return describe(chain[-1])[:200]


def same_service(url: str, base_url: str, domain: str = "") -> bool:
    """Whether a URL from an answer or from our tables is on the integration's own host. Other hosts must not receive our token.

    `domain`, such as `.googleapis.com`: all hosts below it count as one service if the integration's own host is below it.
    """
    try:
        there, home = httpx.URL(url), httpx.URL(base_url)
    except httpx.InvalidURL:
        return False
    if (there.scheme, there.host, there.port) == (home.scheme, home.host, home.port):
        return True
    return bool(domain) and there.scheme == "https" and there.host.endswith(domain) and home.host.endswith(domain)


def answered_at(response: httpx.Response) -> datetime | None:
    """The answer's time on the other side's clock; None when it does not say."""
    try:
        found = parsedate_to_datetime(response.headers.get("date", ""))
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def bearer(token: str) -> Mapping[str, str]:
    """The Authorization header."""
    return {"Authorization": f"Bearer {token}"}
