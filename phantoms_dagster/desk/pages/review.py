"""The review: a queue sorted by publication time and priority, a screen per video, and the answers approve, reject and hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from urllib.parse import quote, urlencode

from fastapi import FastAPI
from markupsafe import Markup
from starlette.responses import Response

from phantoms_dagster.desk.access import Role
from phantoms_dagster.desk.pages.comparing import compared
from phantoms_dagster.desk.pages.media import address
from phantoms_dagster.desk.render import age, clock, page, redirect_to, render_macro
from phantoms_dagster.desk.visits import CurrentVisit, Form, Visit, field, visible_text
from phantoms_dagster.domain.errors import InvalidInput, NotFound
from phantoms_dagster.domain.models import MediaFile, Platform, PostWords, Sentence
from phantoms_dagster.domain.wording import notes
from phantoms_dagster.production.stages.post import next_opening
from phantoms_dagster.store.accounts import Accounts
from phantoms_dagster.store.decisions import Review
from phantoms_dagster.store.pending import ANSWERS, Answer, Pending
from phantoms_dagster.store.review.queue import ReviewCard, Screen
from phantoms_dagster.store.two_reviewers import WantsAnother, rule

REASONS = ("Wrong fact", "Off brand", "Voice is wrong", "Picture is wrong", "Text is cut off", "Boring hook", "Too long")
# The queue next to the video lists at most this many. Its heading has the total.
CARDS = 100
# A rejection's position in the video must be below this; anything else is ignored.
LONGEST_SECONDS = 86_400
_SAID: Mapping[str, str] = {"approve": "Approved", "reject": "Rejected", "hold": "On hold"}


def register(app: FastAPI) -> None:
    """Add the routes."""
    app.get("/review", include_in_schema=False)(queue)
    app.get("/review/{key}", include_in_schema=False)(video)
    app.post("/review/{key}/decide", include_in_schema=False)(decide)
    app.post("/review/{key}/release", include_in_schema=False)(release)
    app.post("/decisions/{number}/undo", include_in_schema=False)(undo)


@dataclass(frozen=True)
class QueueRow:
    """A row of the queue: the card, the path of its screen, and the URL of its picture."""

    card: ReviewCard
    path: str
    picture: str | None
    current: bool

    @property
    def shown(self) -> Markup:
        """The markup of the row. It is cached until the text for its time changes."""
        return _written(self, age(self.card.publish_at))


@dataclass(frozen=True)
class ScriptLine:
    """A sentence of the script. `heading` is the on-screen text that starts here; `number` is its scene, 0 for the hook."""

    sentence: Sentence
    number: int
    heading: str | None


@dataclass(frozen=True)
class Target:
    """A platform of the video: the texts of its post, the account, and the publication time. `seen` is the URL once posted.

    `owner`: the name that people see at the platform, where it is known and differs from ours.
    `takes_slot`: once it is approved, its post takes the next free slot.
    """

    platform: Platform
    words: PostWords | None
    notes: Sequence[str]
    account: str
    owner: str
    goes_out: datetime | None
    takes_slot: bool
    state: str
    seen: str | None


@dataclass(frozen=True)
class Filters:
    """The filters of the queue. They are part of every URL, so a shared link shows the same queue."""

    channel: str = ""
    held: bool = False
    platform: str = ""

    def path(self, key: str | None = None) -> str:
        """Return the path of the queue, or of one video in it."""
        given = {"channel": self.channel, "held": "1" if self.held else "", "platform": self.platform}
        kept = urlencode({name: value for name, value in given.items() if value})
        return f"/review{'/' + quote(key, safe='') if key else ''}{'?' + kept if kept else ''}"


def queue(visit: CurrentVisit, channel: str = "", held: str = "", platform: str = "") -> Response:
    """Show the first video of the queue, or that it is empty."""
    filters = Filters(channel, held == "1", platform)
    cards = visit.desk.queue.cards(channel=channel, held=filters.held, limit=CARDS)
    if cards:
        return _shown(visit, filters, cards, cards[0].key)
    counts = visit.desk.queue.counts()
    return page(visit, "review_empty.html", filters=filters, counts=counts, waiting=sum(c.waiting for c in counts))


def video(visit: CurrentVisit, key: str, channel: str = "", held: str = "", platform: str = "") -> Response:
    """Show a video, in the queue or not. With `against` in the query, compare it with that earlier revision."""
    filters = Filters(channel, held == "1", platform)
    if against := visit.request.query_params.get("against", ""):
        screen = visit.desk.queue.screen(key)
        if screen is None:
            raise NotFound(f"There is no video {key}.")
        return compared(visit, screen, int(against) if against.isdecimal() and len(against) < 9 else 0, filters.path(key))
    return _shown(visit, filters, visit.desk.queue.cards(channel=channel, held=filters.held, limit=CARDS), key)


def decide(visit: CurrentVisit, key: str, form: Form) -> Response:
    """Take a decision, which can be undone for a while, and show the next video."""
    answer = field(form, "answer")
    if answer not in ANSWERS:
        raise InvalidInput("the answer is approve, reject or hold")
    filters = Filters(field(form, "channel"), field(form, "held") == "1", field(form, "platform"))
    following = _after(visit, filters, key)
    only = _chosen(form) if answer == "approve" else ()
    note = _note(visible_text(form, "note"), field(form, "at"), field(form, "scene"))
    made = visit.desk.pending.submit(
        key, _answer(answer), visit.actor, content_sha256=field(form, "content", most=64), note=note, only=only
    )
    return redirect_to(visit, filters.path(following), _told(made), "good" if made.state == "committed" else "info")


def undo(visit: CurrentVisit, number: int) -> Response:
    """Undo a decision and show its video again."""
    undone = visit.desk.pending.undo(number, visit.actor, others=visit.role >= Role.OPERATOR)
    return redirect_to(visit, Filters().path(undone.key), "Undone. The video waits for a decision again.", "info")


def release(visit: CurrentVisit, key: str) -> Response:
    """Release a video from hold."""
    visit.desk.decisions.release(key, reviewer=visit.name, via=visit.via, address=visit.address)
    return redirect_to(visit, Filters().path(key), "Released from hold. The video waits for a decision again.", "info")


def _shown(visit: Visit, filters: Filters, cards: Sequence[ReviewCard], key: str) -> Response:
    desk = visit.desk
    screen = desk.queue.screen(key)
    if screen is None:
        raise NotFound(f"There is no video {key}.")
    review = desk.decisions.review(key)
    keys = [card.key for card in cards]
    place = keys.index(key) if key in keys else None
    scheduled = desk.calendar.one(key) if screen.channel.slots else None
    booked = {one.platform: one.booked_at for one in scheduled.outings if not one.waits} if scheduled else {}
    targets = _targets(screen, review, booked, Accounts(desk.reading).owners(screen.channel.accounts))
    wanted = next((t.platform for t in targets if t.platform == filters.platform), targets[0].platform if targets else None)
    return page(
        visit,
        "review.html",
        screen=screen,
        review=review,
        filters=filters,
        rows=[_row(desk_row, filters, visit, key) for desk_row in cards],
        counts=desk.queue.counts(),
        place=place,
        previous=filters.path(keys[place - 1]) if place else None,
        following=filters.path(keys[place + 1]) if place is not None and place + 1 < len(keys) else None,
        video_url=_address(visit, screen.master.video if screen.master else None),
        poster=_address(visit, screen.master.thumbnail if screen.master else None),
        lines=_lines(screen),
        targets=targets,
        platform=wanted,
        reasons=REASONS,
        undo_seconds=desk.settings.desk.undo_seconds,
        open_for_decision=_is_open(screen),
        earlier=_earlier(visit, screen),
        refusal=_refusal(visit, screen, review),
        can_edit=can_edit(screen) and visit.may("reviewer"),
    )


def _refusal(visit: Visit, screen: Screen, review: Review | None) -> str:
    """Return why the channel's rules do not let this visitor approve the video; empty when they do."""
    if review is None or not visit.may("reviewer"):
        return ""
    wanted = rule(screen.key, screen.channel, screen.added_by, review.first, visit.actor)
    return str(wanted) if isinstance(wanted, WantsAnother) else ""


def _earlier(visit: Visit, screen: Screen) -> int | None:
    """Return the newest revision before the current one whose video and texts were kept; None without one."""
    revision = screen.revisions.get("rendered_video", 1)
    found = visit.desk.earlier.of(screen.key, before=revision, limit=1) if revision > 1 and screen.master else []
    return found[0].revision if found else None


def can_edit(screen: Screen) -> bool:
    """Whether the page offers editing: there is a video, and at least one platform is not posted yet. Saving checks again."""
    out = [screen.states.get(f"{platform}/post") == "done" for platform in screen.brief.platforms]
    made = screen.master is not None and screen.script is not None
    return made and not all(out) and not screen.pending and screen.approval != "discarded"


def _is_open(screen: Screen) -> bool:
    return (
        screen.master is not None
        and screen.approval in ("ready", "deferred", "rejected")
        and not screen.held
        and not screen.pending
    )


@lru_cache(maxsize=1_024)
def _written(row: QueueRow, when: str) -> Markup:
    return render_macro("_queue.html", "line", row, when)


def _row(card: ReviewCard, filters: Filters, visit: Visit, current: str) -> QueueRow:
    return QueueRow(card, filters.path(card.key), _address(visit, card.thumbnail), card.key == current)


def _address(visit: Visit, file: MediaFile | None) -> str | None:
    return address(visit.desk, file) if file is not None else None


def _lines(screen: Screen) -> list[ScriptLine]:
    """Return the sentences of the voiceover with their times; an empty list before there is one."""
    if screen.voiceover is None:
        return []
    scenes = screen.script.script.scenes if screen.script else ()
    found: list[ScriptLine] = []
    last: int | None = None
    for sentence in screen.voiceover.sentences:
        heading = None
        if sentence.scene != last:
            heading = "Hook" if sentence.scene < 0 else _on_screen(scenes, sentence.scene)
        found.append(ScriptLine(sentence, sentence.scene + 1, heading))
        last = sentence.scene
    return found


def _on_screen(scenes: Sequence[object], number: int) -> str:
    """Return the headline of a scene, or `Scene N` when it has none."""
    headline = str(getattr(scenes[number], "on_screen_text", "")) if number < len(scenes) else ""
    return headline or f"Scene {number + 1}"


def _targets(
    screen: Screen, review: Review | None, booked: Mapping[Platform, datetime | None], owners: Mapping[Platform, str]
) -> list[Target]:
    now = datetime.now(UTC)

    def opens(platform: Platform) -> datetime:
        return next_opening(screen.channel, max(now, booked.get(platform) or screen.brief.publish_at or now))

    words = {post.platform: post for post in review.words} if review else {}
    return [
        Target(
            platform=platform,
            words=words.get(platform),
            notes=_notes(screen, platform, words),
            account=(account := screen.channel.accounts.get(platform, "no account")),
            owner=owner if (owner := owners.get(platform, "")).lstrip("@").casefold() != account.casefold() else "",
            goes_out=at if (at := opens(platform)) > now else None,
            takes_slot=booked.get(platform) is None and screen.brief.publish_at is None and screen.channel.has_slots(platform),
            state=screen.states.get(f"{platform}/post", "blocked"),
            seen=screen.posts.get(str(platform)),
        )
        for platform in screen.brief.platforms
    ]


def _notes(screen: Screen, platform: Platform, words: Mapping[Platform, PostWords]) -> list[str]:
    if platform not in words:
        return []
    out = ["Already posted. Later edits do not change the post."] if screen.states.get(f"{platform}/post") == "done" else []
    return [*out, *notes(words[platform])]


def _after(visit: Visit, filters: Filters, key: str) -> str | None:
    """Return the key of the video after this one in the queue; None means the start of the queue."""
    keys = [card.key for card in visit.desk.queue.cards(channel=filters.channel, held=filters.held, limit=CARDS)]
    if key not in keys:
        return None
    rest = keys[keys.index(key) + 1 :]
    return rest[0] if rest else None


def _answer(given: str) -> Answer:
    return next(answer for answer in ANSWERS if answer == given)


def _chosen(form: Form) -> tuple[Platform, ...]:
    """Return the ticked platforms. An empty tuple means all. Raises InvalidInput when none is ticked."""
    if field(form, "choose") != "1":
        return ()
    chosen = tuple(platform for platform in Platform if str(platform) in form.getlist("only"))
    if not chosen:
        raise InvalidInput("Tick at least one platform, or reject the video.")
    return chosen


def _note(reason: str, at: str, scene: str) -> str:
    """Prefix the reason with the position in the video at which it was written."""
    try:
        second = float(at) if at else 0.0
    except ValueError:
        second = 0.0
    if not 0 < second < LONGEST_SECONDS or not reason:
        return reason
    numbered = scene.isascii() and scene.isdecimal() and len(scene) < 5 and int(scene) > 0
    where = f", scene {int(scene)}" if numbered else ", hook" if scene == "0" else ""
    return f"at {clock(second)}{where}: {reason}"


def _told(made: Pending) -> str:
    if made.state == "refused":
        return f"This was not done: {made.outcome}"
    only = f" for {', '.join(Platform(name).title for name in made.platforms)} only" if made.platforms else ""
    return f"{_SAID[made.answer]}{only}: {made.title}" if made.state == "committed" else ""
