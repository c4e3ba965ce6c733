"""A post's title, description, status and file name in the form that the API accepts. All functions are pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from phantoms_dagster.domain.phrases import shortened
from phantoms_dagster.domain.ports import PublishJob
from phantoms_dagster.domain.values import JsonObject
from phantoms_dagster.platforms.youtube.choices import YouTubeTerms

MAX_TITLE_CHARACTERS = 100
MAX_DESCRIPTION_BYTES = 5_000


def fit_title(text: str) -> str:
    """The title as YouTube accepts it: one line of at most 100 characters, with single guillemets instead of angle brackets.

    New titles are within the limit already. An older, longer one is cut at a phrase or word.
    """
    line = " ".join(_without_brackets(text).split())
    return shortened(line, MAX_TITLE_CHARACTERS, "")


def fit_description(text: str) -> str:
    """The description as YouTube accepts it: at most 5,000 bytes of UTF-8, cut at a sentence or word, without angle brackets."""
    return shortened(_without_brackets(text).strip(), MAX_DESCRIPTION_BYTES, "", size=lambda part: len(part.encode()))


def _without_brackets(text: str) -> str:
    return text.replace("<", "\u2039").replace(">", "\u203a")


def status_part(job: PublishJob, privacy: str, publish_at: datetime | None = None) -> JsonObject:
    """The complete status of the video. An update deletes omitted fields, and an omitted privacy means public.

    `publish_at`: when YouTube makes it public. It must be private until then.
    """
    scheduled: JsonObject = {} if publish_at is None else {"publishAt": publish_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}
    return {
        **scheduled,
        "privacyStatus": privacy,
        "selfDeclaredMadeForKids": job.made_for_kids,
        "containsSyntheticMedia": True,
        "license": "youtube",
        "embeddable": True,
        "publicStatsViewable": True,
    }


def notifies(job: PublishJob) -> str:
    """Whether YouTube tells subscribers about the video, as a query parameter. Only the insert takes it, no update."""
    terms = job.terms if isinstance(job.terms, YouTubeTerms) else YouTubeTerms()
    return "true" if terms.notify_subscribers else "false"


def is_file_name(name: str) -> bool:
    """Whether a file name has the form of those that `file_name` makes."""
    return re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+\.mp4", name) is not None


def file_name(job: PublishJob) -> str:
    """The file name, sent as the Slug header. YouTube returns it as fileDetails.fileName, which only the owner can read."""
    return f"{job.marker}.mp4"
