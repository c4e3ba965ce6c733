"""A post as a record: its text with facets for hashtags and links, its video, and its key. All functions are pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime

import regex

from phantoms_dagster.domain.hashtags import HASHTAG
from phantoms_dagster.domain.phrases import shortened
from phantoms_dagster.domain.ports import PublishJob
from phantoms_dagster.domain.values import JsonObject, JsonValue
from phantoms_dagster.platforms.bluesky.rules import MAX_GRAPHEMES, size

COLLECTION = "app.bsky.feed.post"
MAX_TAG_GRAPHEMES = 64
_DIGITS = "234567abcdefghijklmnopqrstuvwxyz"
_LINK = regex.compile(r"https?://[^\s<>\"']+[^\s<>\"'.,;:!?)\]]")


def key_of(marker: str, at: datetime) -> str:
    """The record's key: a TID, made of the microseconds since the epoch and ten bits, here from the hash of the post's marker."""
    clock = int.from_bytes(hashlib.sha256(marker.encode()).digest()[:2], "big") & 0x3FF
    number = (int(at.timestamp() * 1_000_000) << 10) | clock
    return "".join(_DIGITS[(number >> shift) & 31] for shift in range(60, -5, -5))


def record_of(job: PublishJob, blob: JsonObject, created_at: str) -> JsonObject:
    """The record to create."""
    text = shortened(job.caption.strip(), MAX_GRAPHEMES, "", size=size)
    embed: JsonObject = {
        "$type": "app.bsky.embed.video",
        "video": blob,
        "alt": job.title,
        "aspectRatio": {"width": job.probe.width, "height": job.probe.height},
    }
    return {"$type": COLLECTION, "text": text, "createdAt": created_at, "facets": list[JsonValue](facets(text)), "embed": embed}


def facets(text: str) -> Iterator[JsonObject]:
    """The facets for the hashtags and links in a text. Positions are in bytes of UTF-8."""
    for found in HASHTAG.finditer(text):
        tag = found["word"]
        if size(tag) <= MAX_TAG_GRAPHEMES:
            yield _facet(text, found.start(), found.end(), {"$type": "app.bsky.richtext.facet#tag", "tag": tag})
    for found in _LINK.finditer(text):
        yield _facet(text, found.start(), found.end(), {"$type": "app.bsky.richtext.facet#link", "uri": found[0]})


def _facet(text: str, start: int, end: int, feature: JsonObject) -> JsonObject:
    place: JsonObject = {"byteStart": len(text[:start].encode()), "byteEnd": len(text[:end].encode())}
    return {"index": place, "features": [feature]}


def record_time(at: datetime) -> str:
    """A time in the format of records: UTC with milliseconds."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
