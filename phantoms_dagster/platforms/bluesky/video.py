"""The video service: an account's upload limits, the upload, and the status of its processing.

Nothing here is public. A video that no record refers to is deleted after a while. Uploading the same bytes again gives the same
job.
"""

from __future__ import annotations

from dataclasses import dataclass

import httpx

from phantoms_dagster.domain.errors import Barred, Disconnected, ProviderError, Throttled, Transient
from phantoms_dagster.domain.ports import PublishJob
from phantoms_dagster.domain.values import JsonObject
from phantoms_dagster.platforms.bluesky.api import PROVIDER, AccountSession, Calls, error_of, web_did
from phantoms_dagster.providers import http

COMPLETED, FAILED = "JOB_STATE_COMPLETED", "JOB_STATE_FAILED"
ALREADY = 409
# Values of failureCode that say that the file itself is not accepted (lexicon app.bsky.video.defs#jobStatus).
BAD_FILE = frozenset({"validation_failure", "pds_upload_unsupported_blob_size"})
FULL_SECONDS = 3_600.0  # when to ask again for the limits, because the service does not say


@dataclass(frozen=True)
class Job:
    """The processing of a video. A record refers to the video by `blob`. `failure`: the code of a failed one."""

    id: str
    state: str
    blob: JsonObject | None
    error: str
    failure: str | None = None


class VideoService:
    """Calls to the video service on behalf of accounts."""

    def __init__(self, calls: Calls, video_url: str) -> None:
        self._calls = calls
        self._base = f"{video_url.rstrip('/')}/xrpc"
        self._name = web_did(video_url)

    async def check_room(self, account: str, size: int) -> None:
        """Raise Throttled if the account may not upload another video of that size today, Barred if it may not upload at all."""
        method = "app.bsky.video.getUploadLimits"
        token = await self._calls.service_token(account, audience=self._name, method=method)
        url = f"{self._base}/{method}"
        response = await http.send(self._calls.client, "GET", url, provider=PROVIDER, headers=http.bearer(token))
        if not response.is_success:
            raise _refusal(response, account)
        limits = http.json_object(response, provider=PROVIDER)
        videos, room = limits.get("remainingDailyVideos"), limits.get("remainingDailyBytes")
        said = str(limits.get("message") or limits.get("error") or "no reason given")
        if videos == 0 or (isinstance(room, int) and room < size):
            message = f"account {account} may not upload another video to Bluesky today: {said}"
            raise Throttled(message, provider=PROVIDER, code="upload_limit", retry_after=FULL_SECONDS)
        if limits.get("canUpload") is not True:
            message = f"account {account} may not upload videos to Bluesky: {said}"
            raise Barred(message, provider=PROVIDER, code="cannot_upload", evidence=http.evidence(response))

    async def upload(self, session: AccountSession, job: PublishJob) -> Job:
        """Upload the video. The same bytes again return the existing job."""
        token = await self._calls.service_token(job.account, audience=session.server, method="com.atproto.repo.uploadBlob")
        headers = {**http.bearer(token), "Content-Type": "video/mp4", "Content-Length": str(job.size)}
        async with http.file_body(job.file, 0, job.size) as content:
            response = await http.send(
                self._calls.client,
                "POST",
                f"{self._base}/app.bsky.video.uploadVideo",
                provider=PROVIDER,
                params={"did": session.did, "name": f"{job.sha256[:32]}.mp4"},
                headers=headers,
                content=content,
            )
        if not response.is_success and response.status_code != ALREADY:
            raise _refusal(response, job.account)
        return _job(http.json_object(response, provider=PROVIDER))

    async def look(self, job: str, account: str) -> Job | None:
        """The job; None when the service no longer knows it."""
        url = f"{self._base}/app.bsky.video.getJobStatus"
        response = await http.send(self._calls.client, "GET", url, provider=PROVIDER, params={"jobId": job})
        if response.status_code in (400, 404):
            return None
        if not response.is_success:
            raise error_of(response, account)
        return _job(http.json_object(response, provider=PROVIDER))


def _refusal(response: httpx.Response, account: str) -> ProviderError:
    """The error for a refused call. A refused service token says nothing about the app password, and the next call gets another."""
    error = error_of(response, account)
    if isinstance(error, Disconnected) and not isinstance(error, Barred):
        message = f"Bluesky's video service refused its token: {error}"
        return Transient(message, provider=PROVIDER, code="service_token", evidence=error.evidence)
    return error


def _job(answer: JsonObject) -> Job:
    """Parse a job. By the lexicon it is in `jobStatus`, but the service answers an upload with its bare fields."""
    inner = answer.get("jobStatus")
    job = inner if isinstance(inner, dict) else answer
    number, blob = job.get("jobId"), job.get("blob")
    if not isinstance(number, str) or not number:
        raise Transient("Bluesky accepted the video but returned no job", provider=PROVIDER, code="malformed")
    error, code = str(job.get("error") or job.get("message") or "no reason given"), job.get("failureCode")
    failure = code if isinstance(code, str) else None
    return Job(number, str(job.get("state") or ""), blob if isinstance(blob, dict) else None, error, failure)
