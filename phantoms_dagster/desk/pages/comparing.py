"""What an earlier revision of a video looked like: its texts word by word against those of now, and both films side by side."""

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
from phantoms_dagster.domain.script_edits import places
from phantoms_dagster.domain.word_diff import Piece, word_diff
from phantoms_dagster.store.earlier import Earlier
from phantoms_dagster.store.review.queue import Screen


@dataclass(frozen=True)
class ChangedText:
    """A text that is not as it was. `place`: such as `scene 2`."""

    place: str
    pieces: Sequence[Piece]


@dataclass(frozen=True)
class Twin:
    """A film of one of the two revisions. `leads`: the longer one, which the playhead follows."""

    revision: int
    film: str
    poster: str
    seconds: float
    leads: bool


def compared(visit: Visit, screen: Screen, against: int, back: str) -> Response:
    """The page of two revisions. Raises NotFound when there is no such earlier one."""
    revision = screen.revisions.get("rendered_video", 1)
    earlier = visit.desk.earlier.of(screen.key, before=revision)
    old = next((one for one in earlier if one.revision == against), None)
    if old is None or screen.script is None:
        raise NotFound(f"There is no earlier revision {against} of {screen.key} to compare with.")
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
        same_film=screen.film is not None and screen.film.video == old.film.video,
        back=back,
    )


def _changed(old: Script, new: Script, language: str) -> list[ChangedText]:
    """The texts that differ, in reading order. A scene that only one of them has is all gone or all new."""
    before, after = dict(places(old)), dict(places(new))
    both = dict.fromkeys(chain(after, before))
    return [
        ChangedText(place, word_diff(before.get(place, ""), after.get(place, ""), language))
        for place in both
        if before.get(place, "") != after.get(place, "")
    ]


def _twins(visit: Visit, screen: Screen, old: Earlier) -> list[Twin]:
    """Both films, the earlier one first; none when one of them is not there, or both are the same."""
    now = screen.film
    if now is None or now.video == old.film.video or not all(_is_there(visit, film) for film in (old.film, now)):
        return []
    numbers = (old.revision, screen.revisions.get("rendered_video", 1))
    leads = old.film.probe.seconds >= now.probe.seconds
    return [
        Twin(
            revision=number,
            film=address(visit.desk, film.video),
            poster=address(visit.desk, film.thumbnail),
            seconds=film.probe.seconds,
            leads=first,
        )
        for number, film, first in zip(numbers, (old.film, now), (leads, not leads), strict=True)
    ]


def _is_there(visit: Visit, film: RenderedVideoOutput) -> bool:
    try:
        visit.desk.services.media_files.local(film.video)
    except (PhantomsError, OSError):  # cleaned up, or its store is away: the texts are worth a look without it
        return False
    return True
