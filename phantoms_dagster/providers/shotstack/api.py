"""Shotstack's HTTP API: its addresses, its table of errors, the upload of the voiceover and the download of the video."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx

from phantoms_dagster.domain.errors import Permanent, ProviderError, Throttled, Transient
from phantoms_dagster.domain.paid_job import AboutToBill
from phantoms_dagster.domain.ports import Clock
from phantoms_dagster.domain.values import JsonObject
from phantoms_dagster.providers.http import (
    describe,
    evidence,
    file_body,
    json_object,
    lenient_json,
    objects,
    quoted,
    retry_after,
    send,
    server_error,
    unexpected,
)

PROVIDER = "shotstack"
CHUNK = 1 << 18
WINDOW_SECONDS = 60.0  # the window of the rate limit: how long to wait if the answer does not say
MAX_POLL_SECONDS = 2.0
POLL_AGAIN_SECONDS = 5.0

# What a status means for any request. 5xx is not listed: it is Unknown after `POST /render` and Transient after a read.
ERRORS: Mapping[int, type[ProviderError]] = MappingProxyType(
    {400: Permanent, 401: Permanent, 403: Permanent, 404: Permanent, 429: Throttled}
)
_BUY = "the account has no credits left: buy credits at https://dashboard.shotstack.io, then replay"
_KEY = "check the API key and that it belongs to this stage (v1 and stage have different keys)"
# A minute of video at the service's highest bit rate has about 200 MB. The video is written to a file as it arrives.
MOST_VIDEO_BYTES = 2 << 30
_GONE = (403, 404, 410)  # object storage's answers for an expired file


class ShotstackApi:
    """Requests to Shotstack's Edit, Ingest and Serve APIs. The arguments are those of `ShotstackRenderer`."""

    def __init__(
        self,
        *,
        client: httpx.AsyncClient,
        base_url: str,
        api_key: Callable[[], str],
        stage: str,
        clock: Clock,
        ingest_max_wait: float,
    ) -> None:
        self._client = client
        self._api_key = api_key
        self._clock = clock
        self._ingest_max_wait = ingest_max_wait
        base = base_url.rstrip("/")
        self.edit, self._ingest, self._serve = (f"{base}/{api}/{stage}" for api in ("edit", "ingest", "serve"))

    async def post_render(self, edit: JsonObject, before: AboutToBill) -> httpx.Response:
        """Send the one paid request. Raises Transient when it certainly was not sent, Unknown when its answer is lost."""
        url = f"{self.edit}/render"
        return await send(
            self._client, "POST", url, provider=PROVIDER, commits=True, before=before, headers=self._headers, json=edit
        )

    async def render(self, render_id: str, *, data: bool = False) -> JsonObject:
        """Edit's answer about a render. `data`: with the Edit itself."""
        return await self._read(f"{self.edit}/render/{render_id}?data={'true' if data else 'false'}")

    # --- upload of the voiceover

    async def upload(self, audio: Path) -> str:
        """Upload a file through Ingest and wait until it is usable. Returns its URL for the Edit."""
        response = await send(self._client, "POST", f"{self._ingest}/upload", provider=PROVIDER, headers=self._headers)
        if not response.is_success:
            raise failure(response)
        answer = json_object(response, provider=PROVIDER)
        source_id, url = member(answer, "data", "id"), member(answer, "data", "attributes", "url")
        if not isinstance(source_id, str) or not isinstance(url, str):
            raise Transient("Shotstack gave no upload address", provider=PROVIDER, code="malformed", evidence=evidence(response))
        await self._put(url, audio)
        return await self._wait_until_ready(source_id)

    async def _put(self, url: str, audio: Path) -> None:
        """Send the bytes to object storage. The signed URL grants access, so the API key is not sent there."""
        size = audio.stat().st_size
        headers = {
            "Content-Length": str(size),  # object storage refuses chunked bodies
            "Content-Type": "",  # signed as empty; HTTP clients would fill it in otherwise
        }
        async with file_body(audio, 0, size) as content:
            response = await send(self._client, "PUT", url, provider=PROVIDER, headers=headers, content=content)
        if response.is_success:
            return
        if response.status_code == 403:  # expired or damaged: the next attempt asks for a new one
            message = "Shotstack's upload address was refused"
            raise Transient(message, provider=PROVIDER, code="upload_refused", evidence=evidence(response))
        raise failure(response)

    async def _wait_until_ready(self, source_id: str) -> str:
        """Poll an uploaded source until it is usable. Returns its URL."""
        waited, pause = 0.0, 0.1
        while True:
            attributes = member(await self._source(source_id), "data", "attributes")
            status = member(attributes, "status")
            if status == "ready" and isinstance(address := member(attributes, "source"), str):
                return address
            if status == "failed":
                said = member(attributes, "error") or "no reason given"
                raise Permanent(f"Shotstack could not read the voiceover: {said}", provider=PROVIDER, code="source_failed")
            if waited >= self._ingest_max_wait:
                message = f"the voiceover is still {status or 'missing'} at Shotstack after {waited:.0f} s"
                raise Transient(message, provider=PROVIDER, code="source_not_ready", retry_after=POLL_AGAIN_SECONDS)
            await self._clock.sleep(pause)
            waited, pause = waited + pause, min(pause * 2, MAX_POLL_SECONDS)

    async def _source(self, source_id: str) -> JsonObject:
        """Ingest's answer about a source; empty when it does not know the source yet."""
        try:
            return await self._read(f"{self._ingest}/sources/{source_id}")
        except Permanent as error:
            if error.code == "404":  # the documentation does not promise that a source can be read right away
                return {}
            raise

    # --- download of the video

    async def hosted_url(self, render_id: str) -> str | None:
        """The URL of the copy that Shotstack hosts; None when there is none."""
        try:
            answer = await self._read(f"{self._serve}/assets/render/{render_id}")
        except Permanent as error:
            if error.code == "404":
                return None
            raise
        for asset in objects(answer, "data"):
            url, name = member(asset, "attributes", "url"), member(asset, "attributes", "filename")
            if member(asset, "attributes", "status") == "ready" and isinstance(url, str) and str(name).endswith(".mp4"):
                return url
        return None

    async def download(self, url: str, destination: Path) -> bool:
        """Download to a temporary file, then rename it to `destination`. False when the file no longer exists at Shotstack."""
        part = destination.with_name(f".{destination.name}.{uuid.uuid4().hex}.part")
        try:
            limits = {"phantoms": {"most_bytes": MOST_VIDEO_BYTES}}
            async with self._client.stream("GET", url, headers={"Accept-Encoding": "identity"}, extensions=limits) as response:
                if response.status_code in _GONE:
                    return False
                if not response.is_success:
                    await response.aread()
                    raise failure(response)
                written = await _save(response, part)
                expected = response.headers.get("content-length")
            if written == 0 or (expected is not None and written != int(expected)):
                message = f"Shotstack's file broke off after {written} of {expected or 'unknown'} bytes"
                raise Transient(message, provider=PROVIDER, code="incomplete")
            part.replace(destination)
            return True
        except httpx.HTTPError as error:
            message = f"the download from Shotstack broke off: {describe(error)}"
            raise Transient(message, provider=PROVIDER, code=type(error).__name__) from error
        finally:
            part.unlink(missing_ok=True)

    # --- shared

    @property
    def _headers(self) -> dict[str, str]:
        return {"x-api-key": self._api_key(), "Accept": "application/json"}

    async def _read(self, url: str) -> JsonObject:
        response = await send(self._client, "GET", url, provider=PROVIDER, headers=self._headers)
        if not response.is_success:
            raise failure(response)
        return json_object(response, provider=PROVIDER)


def failure(response: httpx.Response, *, commits: bool = False) -> ProviderError:
    """The error for an unsuccessful answer, by the table. `commits`: it answers the paid request."""
    status = response.status_code
    if status >= 500:
        return server_error(response, provider=PROVIDER, commits=commits)
    said = _said(response)
    kind = ERRORS.get(status)
    if kind is None:
        return unexpected(response, provider=PROVIDER, message=said)
    if status == 429:
        wait = retry_after(response)
        return Throttled(
            f"Shotstack's rate limit is used up: {said}",
            provider=PROVIDER,
            code="429",
            evidence=evidence(response),
            retry_after=WINDOW_SECONDS if wait is None else wait,
        )
    message = f"Shotstack answered {status}: {said}"
    if status in (401, 403):
        message += f"; {_BUY}" if "credit" in said.lower() else f"; {_KEY}" + (f", or {_BUY}" if status == 403 else "")
    return kind(message, provider=PROVIDER, code=str(status), evidence=evidence(response))


def _said(response: httpx.Response) -> str:
    """The reason in an error body of Edit (`response.error`), Ingest (`errors[].detail`) or the gateway (`message`)."""
    body = lenient_json(response)
    errors = member(body, "errors")
    first = errors[0] if isinstance(errors, list) and errors else None
    for reason in (member(body, "response", "error"), member(first, "detail"), member(body, "message")):
        if reason:
            return quoted(reason if isinstance(reason, str) else str(reason)[:500], response)
    return response.reason_phrase


def member(value: Any, *names: str) -> Any:
    """The value at that path of nested JSON objects; None when the path does not exist."""
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


async def _save(response: httpx.Response, path: Path) -> int:
    """Write a body to a file. Returns the number of bytes."""
    written = 0
    async for chunk in response.aiter_raw(CHUNK):
        await asyncio.to_thread(_append, path, chunk)
        written += len(chunk)
    return written


def _append(path: Path, chunk: bytes) -> None:
    """Append a chunk. Opening the file each time takes one call for a thread instead of two, and chunks are large."""
    with path.open("ab") as file:
        file.write(chunk)
