"""What a post on YouTube says of itself: title, description, status and file name, as the API takes them. All pure.

Sending them belongs in `youtube`; knowing a video again by its file name in `youtube_search`.
"""

from __future__ import annotations

from phantoms_dagster.domain.phrases import shortened
from phantoms_dagster.domain.ports import PublishJob
from phantoms_dagster.domain.values import JsonObject

MAX_TITLE_CHARACTERS = 100
MAX_DESCRIPTION_BYTES = 5_000


def fit_title(text: str) -> str:
    """The title as YouTube takes it: one line of at most 100 characters, angle brackets as their single-quote twins.

    Titles are within the limit since they were written; one that is not ends at a whole phrase or word.
    """
    line = " ".join(_without_brackets(text).split())
    return shortened(line, MAX_TITLE_CHARACTERS, "")


def fit_description(text: str) -> str:
    """The description as YouTube takes it: at most 5,000 bytes of UTF-8, cut at a sentence or a word, no angle brackets."""
    return shortened(_without_brackets(text).strip(), MAX_DESCRIPTION_BYTES, "", size=lambda part: len(part.encode()))


def _without_brackets(text: str) -> str:
    return text.replace("<", "\u2039").replace(">", "\u203a")


def status_part(job: PublishJob, privacy: str) -> JsonObject:
    """The whole status of the video: an update deletes what it leaves out, and a missing privacy means public."""
    return {
        "privacyStatus": privacy,
        "selfDeclaredMadeForKids": job.made_for_kids,
        "containsSyntheticMedia": True,
        "license": "youtube",
        "embeddable": True,
        "publicStatsViewable": True,
    }


def file_name(job: PublishJob) -> str:
    """Goes up as the Slug header and comes back as fileDetails.fileName, which only the owner can read."""
    return f"{job.marker}.mp4"
