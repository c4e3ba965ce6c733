"""Renders at Shotstack: uploads the voiceover through Ingest, sends the Edit to `POST /render`, and downloads the finished file.

`POST /render` is the one paid request. It is sent once; if its answer is lost the outcome is `Unknown`. All requests before it
may be repeated. `api` has the requests, `edit` builds the Edit.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from decimal import Decimal
from pathlib import Path

import httpx

from phantoms_dagster.domain.errors import NotYet, Permanent, Transient, Unknown
from phantoms_dagster.domain.paid_job import AboutToBill, JobStatus, NotBilled
from phantoms_dagster.domain.ports import Clock, RenderJob
from phantoms_dagster.domain.publication import Found, RemoteId, Undecided
from phantoms_dagster.providers.http import evidence, json_object
from phantoms_dagster.providers.shotstack.api import POLL_AGAIN_SECONDS, PROVIDER, ShotstackApi, failure, member
from phantoms_dagster.providers.shotstack.edit import ATTEMPT_FIELD, build_edit

NO_RENDER = "00000000-0000-0000-0000-000000000000"
_RENDER_ID = re.compile(r"[\w-]{1,100}", re.ASCII)


class ShotstackRenderer:
    """Renders masters at Shotstack.

    `base_url` is the host (`https://api.shotstack.io`), `stage` is `v1` (paid) or `stage` (watermarked trial, with its own key).
    `api_key` is called for each request, so a renewed key is used at once. `usd_per_minute` is the price of a rendered minute;
    parts of a minute are billed in proportion. `callback` gives the address for Shotstack's events about an order, by our id of it;
    `named` the renders that such events named. `submit` waits up to `ingest_max_wait` seconds for an uploaded voiceover to become
    usable.
    """

    provider = PROVIDER
    at_once = False

    def __init__(
        self,
        *,
        client: httpx.AsyncClient,
        base_url: str,
        api_key: Callable[[], str],
        stage: str,
        clock: Clock,
        sandbox: bool = False,
        usd_per_minute: float = 0.4,
        ingest_max_wait: float = 60.0,
        callback: Callable[[str], str | None] = lambda _: None,
        named: Callable[[str], Awaitable[Sequence[str]]] | None = None,
    ) -> None:
        self._callback = callback
        self._named = named
        self.sandbox = sandbox
        self._usd_per_minute = Decimal(str(usd_per_minute))
        self._api = ShotstackApi(
            client=client, base_url=base_url, api_key=api_key, stage=stage, clock=clock, ingest_max_wait=ingest_max_wait
        )

    def __repr__(self) -> str:
        return f"ShotstackRenderer({self._api.edit!r})"

    async def submit(self, job: RenderJob, about_to_bill: AboutToBill) -> RemoteId | NotBilled:
        """Upload the voiceover and order the render. An exception from `about_to_bill` stops the paid request.

        Raises Unknown when the answer to the paid request was lost: the render may be running, and no request can tell.
        """
        edit = build_edit(job, await self._api.upload(job.audio))
        if (callback := self._callback(job.attempt_id)) is not None:
            edit["callback"] = callback
        try:
            response = await self._api.post_render(edit, about_to_bill)
        except Transient as error:
            return NotBilled(f"the order never reached Shotstack: {error}", error=error)
        if not response.is_success:
            refusal = failure(response, commits=True)
            if isinstance(refusal, Unknown):
                raise refusal
            return NotBilled(f"Shotstack refused the order: {refusal}", error=refusal)
        render_id = member(json_object(response, provider=PROVIDER, commits=True), "response", "id")
        if not isinstance(render_id, str) or not render_id:
            message = "Shotstack accepted the render but returned no id"
            raise Unknown(message, provider=PROVIDER, code="no_id", evidence=evidence(response))
        return RemoteId(render_id)

    def price(self, seconds: float) -> Decimal:
        """The price in US dollars of a video of that length, by the price per minute in the settings."""
        return Decimal(str(seconds)) / 60 * self._usd_per_minute

    async def status(self, render_id: str) -> JobStatus:
        """The status of a render. States that Shotstack may add later count as `rendering`."""
        answer = await self._api.render(render_id)
        response = answer.get("response")
        if not isinstance(response, dict) or not isinstance(response.get("status"), str):
            raise Transient("Shotstack's answer has no status", provider=PROVIDER, code="malformed")
        if response["status"] == "failed":
            return JobStatus("failed", error=str(response.get("error") or "Shotstack gave no reason"))
        if response["status"] != "done":
            return JobStatus("rendering")
        url, seconds = response.get("url"), response.get("duration")
        cost = self.price(seconds) if isinstance(seconds, int | float) else None
        return JobStatus("done", progress=1.0, url=url if isinstance(url, str) and url else None, cost=cost)

    async def check_key(self) -> None:
        """Check the key by reading a render that cannot exist: a 404 means that the key is valid for this stage. Costs nothing.

        Raises ProviderError for any other answer.
        """
        try:
            await self.status(NO_RENDER)
        except Permanent as error:
            if error.code != "404":
                raise

    async def find(self, attempt_id: str) -> Found | Undecided:
        """Found when a callback named a render, and that render's Edit has our id of the order. Else Undecided.

        Shotstack cannot list renders or search them. But each Edit has our id in the merge field `PHANTOMS_ATTEMPT_ID`, which
        proves to which order a render belongs once its id is known.
        """
        for render_id in await self._named(attempt_id) if self._named is not None else ():
            if _RENDER_ID.fullmatch(render_id) and await self._belongs(render_id, attempt_id):
                return Found(RemoteId(render_id))
        return Undecided()

    async def _belongs(self, render_id: str, attempt_id: str) -> bool:
        try:
            answer = await self._api.render(render_id, data=True)
        except Permanent as error:
            if error.code == "404":
                return False
            raise
        fields = member(answer, "response", "data", "merge")
        marker = {"find": ATTEMPT_FIELD, "replace": attempt_id}
        return isinstance(fields, list) and marker in fields

    async def fetch(self, render_id: str, destination: Path, *, url: str | None = None) -> None:
        """Download the finished file to `destination`, completely or not at all.

        `url` is the one from the last status; None reads the status first. A render's URL is valid for a day. After that, this
        reads the status for a new URL and then tries the hosted copy. Raises NotYet while the render is still running, Permanent
        when it failed or its file is gone.
        """
        if url is not None and await self._api.download(url, destination):
            return
        tried = {url}
        for _ in range(2):
            status = await self.status(render_id)
            if status.state == "failed":
                raise Permanent(f"Shotstack could not render {render_id}: {status.error}", provider=PROVIDER, code="failed")
            if status.state != "done":
                raise NotYet(f"render {render_id} is not done", retry_after=POLL_AGAIN_SECONDS)
            if status.url is None or status.url in tried:
                break
            tried.add(status.url)
            if await self._api.download(status.url, destination):
                return
        hosted = await self._api.hosted_url(render_id)
        if hosted is None or not await self._api.download(hosted, destination):
            raise Permanent(f"the file of render {render_id} is no longer kept by Shotstack", provider=PROVIDER, code="gone")
