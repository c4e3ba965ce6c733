"""The API's limits for a reel, the fields with which its container is created, and the search for it in the account's media."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Collection, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any

from phantoms_dagster.domain.errors import Permanent
from phantoms_dagster.domain.hashtags import in_text, mentions
from phantoms_dagster.domain.ports import PublishJob
from phantoms_dagster.domain.values import JsonObject
from phantoms_dagster.platforms.instagram.api import PROVIDER, Graph, moment, path
from phantoms_dagster.platforms.instagram.choices import InstagramTerms, Trial
from phantoms_dagster.providers import http

MAX_BYTES = 300 * 1024 * 1024
MIN_SECONDS, MAX_SECONDS = 3.0, 900.0
# The API refuses more than this. `domain.wording` composes captions with less: Instagram counts only five hashtags.
MAX_CAPTION, MAX_HASHTAGS, MAX_MENTIONS = 2_200, 30, 20
# With more, posts have lost their whole caption. What Instagram does now is not documented.
COUNTED_HASHTAGS = 5
PAGE, PAGES = 50, 20
# How a trial reel comes to be shared with followers, in the API's words.
GRADUATIONS: Mapping[Trial, str] = MappingProxyType({"manual": "MANUAL", "performance": "SS_PERFORMANCE"})


def check(job: PublishJob) -> None:
    """Raise Permanent for a post that Instagram would refuse, before anything is sent."""
    wrong = None
    if len(job.caption) > MAX_CAPTION:
        wrong = f"the caption has {len(job.caption)} characters, at most {MAX_CAPTION} are allowed"
    elif len(in_text(job.caption)) > MAX_HASHTAGS or len(mentions(job.caption)) > MAX_MENTIONS:
        wrong = f"the caption has more than {MAX_HASHTAGS} hashtags or {MAX_MENTIONS} mentions"
    elif job.size > MAX_BYTES:
        wrong = f"the file has {job.size} bytes, at most {MAX_BYTES} are allowed"
    elif not MIN_SECONDS <= job.probe.seconds <= MAX_SECONDS:
        wrong = f"the video lasts {job.probe.seconds:g} s, {MIN_SECONDS:g} to {MAX_SECONDS:g} s are allowed"
    elif (at := terms_of(job).cover_seconds) is not None and at > job.probe.seconds:
        wrong = f"the cover is the frame at {at:g} s, but the video lasts {job.probe.seconds:g} s: change instagram.cover_seconds"
    elif not job.file.is_file() or job.file.stat().st_size != job.size:
        wrong = f"the file {job.file.name} does not exist or does not have {job.size} bytes"
    if wrong:
        raise Permanent(f"Instagram: {wrong}", provider=PROVIDER, code="invalid")


def terms_of(job: PublishJob) -> InstagramTerms:
    """How the reel is posted."""
    return job.terms if isinstance(job.terms, InstagramTerms) else InstagramTerms()


def container_fields(job: PublishJob) -> dict[str, str]:
    """The form fields that create the job's container, without those that say where the bytes come from.

    That the reel is made by AI is always said. A trial reel is never in the feed, so it does not say anything about it.
    """
    terms = terms_of(job)
    made = {"media_type": "REELS", "caption": job.caption, "is_ai_generated": "true"}
    if terms.trial is None:
        made["share_to_feed"] = "true" if terms.share_to_feed else "false"
    else:
        made["trial_params"] = json.dumps({"graduation_strategy": GRADUATIONS[terms.trial]})
    if terms.collaborators:
        made["collaborators"] = json.dumps(list(terms.collaborators))
    if terms.cover_url is not None:
        made["cover_url"] = terms.cover_url
    if terms.cover_seconds is not None:
        made["thumb_offset"] = str(round(terms.cover_seconds * 1_000))
    return made


async def reels_with_caption(graph: Graph, account: str, caption: str, since: datetime, *, is_there: bool = False) -> list[str]:
    """The ids of the account's reels with that caption, published since then.

    `is_there`: the reel is known to be published. Then a reel without any caption counts, too, if this caption has so many hashtags
    that Instagram may have dropped it.
    """
    wanted = {normalised(caption)}
    if is_there and len(in_text(caption)) > COUNTED_HASHTAGS:
        wanted.add("")
    matches: list[str] = []
    cursor: dict[str, str] = {}
    place = path(await graph.user(account), "media")
    for _ in range(PAGES):
        answer = await graph.get(
            account,
            place,
            fields="id,caption,timestamp,media_product_type",
            since=str(int(since.timestamp())),
            limit=str(PAGE),
            **cursor,
        )
        page = http.objects(answer, "data")
        matches += [str(m["id"]) for m in page if _is_post(m, wanted, since)]
        paging: Any = answer.get("paging")
        after = paging.get("cursors", {}).get("after") if isinstance(paging, dict) and "next" in paging else None
        if not page or after is None:
            break
        cursor = {"after": after}
    return matches


def normalised(caption: str) -> str:
    """A caption in a form for comparison: NFC, single spaces, and without '@', which Instagram may strip."""
    return " ".join(unicodedata.normalize("NFC", caption).replace("@", "").split())


def _is_post(media: JsonObject, wanted: Collection[str], since: datetime) -> bool:
    if not isinstance(media.get("id"), str):
        return False
    at = moment(media.get("timestamp"))
    return (
        media.get("media_product_type") == "REELS"
        and at is not None
        and at >= since
        and normalised(str(media.get("caption") or "")) in wanted
    )
