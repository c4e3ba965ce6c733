"""Compares an earlier revision of a video with the current one: texts word by word, and both videos side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from starlette.responses import Response

from phantoms_dagster.desk.pages.media import address
from phantoms_dagster.desk.render import page
from phantoms_dagster.desk.visits import Visit
from phantoms_dagster.domain.errors import NotFound, PhantomsError
from phantoms_dagster.domain.models import RenderedVideoOutput, Script
from phantoms_dagster.domain.script_edits import named_texts
from phantoms_dagster.domain.word_diff import Piece, word_diff
from phantoms_dagster.store.earlier import Earlier
from phantoms_dagster.store.review.queue import Screen


@dataclass(frozen=True)
class ChangedText:
    """A text that differs between the revisions. `place` is its place, such as `scene 2`."""

    place: str
    pieces: Sequence[Piece]


@dataclass(frozen=True)
class Twin:
    """The video of one of the two revisions. `leads` marks the longer one, which drives the playhead."""

    revision: int
    video: str
    poster: str
    seconds: float
    leads: bool


def compared(visit: Visit, screen: Screen, against: int, back: str) -> Response:
    """Show two revisions. Raises NotFound when the earlier one does not exist."""
    revision = screen.revisions.get("rendered_video", 1)
    earlier = visit.desk.earlier.of(screen.key, before=revision)
    old = next((one for one in earlier if one.revision == against), None)
    if old is None or screen.script is None:
        raise NotFound(f"{screen.key} has no earlier revision {against} to compare with.")
    changed = _changed(old.script.script, screen.script.script, screen.channel.language)
    return page(
        visit,
        "compare.html",
        screen=screen,
        revision=revision,
        old=old,
        earlier=earlier,
        changed=changed,
        twins=_twins(visit, screen, old),
        same_video=screen.master is not None and screen.master.video == old.master.video,
        back=back,
    )


def _changed(old: Script, new: Script, language: str) -> list[ChangedText]:
    """Return the texts that differ, in reading order. A scene that only one revision has is entirely removed or added."""
    before, after = dict(named_texts(old)), dict(named_texts(new))
    both = dict.fromkeys(chain(after, before))
    return [
        ChangedText(place, word_diff(before.get(place, ""), after.get(place, ""), language))
        for place in both
        if before.get(place, "") != after.get(place, "")
    ]


def _twins(visit: Visit, screen: Screen, old: Earlier) -> list[Twin]:
    """Return both videos, the earlier one first; an empty list when one is missing or both are the same."""
    now = screen.master
    if now is None or now.video == old.master.video or not all(_is_there(visit, master) for master in (old.master, now)):
        return []
    numbers = (old.revision, screen.revisions.get("rendered_video", 1))
    leads = old.master.probe.seconds >= now.probe.seconds
    return [
        Twin(
            revision=number,
            video=address(visit.desk, master.video),
            poster=address(visit.desk, master.thumbnail),
            seconds=master.probe.seconds,
            leads=first,
        )
        for number, master, first in zip(numbers, (old.master, now), (leads, not leads), strict=True)
    ]


def _is_there(visit: Visit, master: RenderedVideoOutput) -> bool:
    try:
        visit.desk.services.media_files.local(master.video)
    except (PhantomsError, OSError):  # cleaned up, or its store is down: the page still shows the texts
        return False
    return True
