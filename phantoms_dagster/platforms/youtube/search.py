"""Searches a channel's uploads for the video of an upload session that YouTube no longer knows."""

from __future__ import annotations

from datetime import datetime

from phantoms_dagster.domain.errors import Permanent, ProviderError
from phantoms_dagster.domain.ports import PublishJob
from phantoms_dagster.domain.values import JsonObject
from phantoms_dagster.platforms.youtube.api import MAX_IDS, PROVIDER, YouTubeCalls, moment, part, text
from phantoms_dagster.platforms.youtube.words import file_name, fit_title, is_file_name
from phantoms_dagster.providers.http import objects

MAX_PAGES = 10


async def find_upload(calls: YouTubeCalls, job: PublishJob, since: datetime) -> tuple[str | None, bool]:
    """The id of our video among the uploads since then, or None, and whether one of them may still turn out to be ours.

    Raises Permanent when the account has no channel.
    """
    ids = await _uploads_since(calls, job.account, since)
    undecided = False
    for i in range(0, len(ids), MAX_IDS):
        listing = await calls.get(job.account, "videos", part="snippet,status,fileDetails", id=",".join(ids[i : i + MAX_IDS]))
        for video in objects(listing, "items"):
            ours = is_ours(video, job)
            if ours:
                return text(video, "id"), False
            undecided = undecided or ours is None
    return None, undecided


async def _uploads_since(calls: YouTubeCalls, account: str, since: datetime) -> list[str]:
    channels = objects(await calls.get(account, "channels", part="contentDetails", mine="true"), "items")
    if not channels:
        raise Permanent("the account has no YouTube channel", provider=PROVIDER, code="youtubeSignupRequired")
    playlist = text(part(part(channels[0], "contentDetails"), "relatedPlaylists"), "uploads") or ""
    ids: list[str] = []
    page: str | None = None
    for _ in range(MAX_PAGES):
        query = {"part": "snippet,contentDetails", "playlistId": playlist, "maxResults": str(MAX_IDS)}
        try:
            listing = await calls.get(account, "playlistItems", **query, **({"pageToken": page} if page else {}))
        except ProviderError as error:
            if error.code == "playlistNotFound":  # the answer for a channel without uploads
                return ids
            raise
        items = objects(listing, "items")
        fresh = [i for i in items if moment(part(i, "snippet"), "publishedAt", since) >= since]
        ids += [v for i in fresh if (v := text(part(i, "contentDetails"), "videoId"))]
        page = text(listing, "nextPageToken")
        if page is None or len(fresh) < len(items):
            break
    return ids


def is_ours(video: JsonObject, job: PublishJob) -> bool | None:
    """Whether an uploaded video belongs to this job. None: YouTube does not report its file yet.

    It is not documented that YouTube takes the file name from the Slug header. If the name is not one of ours, title and size
    decide.
    """
    details = part(video, "fileDetails")
    name, size = text(details, "fileName"), text(details, "fileSize")
    if name == file_name(job):
        return True
    title = text(part(video, "snippet"), "title") or ""
    if is_file_name(name or "") or title.strip() != fit_title(job.title):
        return False
    return None if size is None else size == str(job.size)
