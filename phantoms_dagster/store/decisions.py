"""Records reviewers' decisions. A decision is bound to the hash of exactly what the reviewer looked at."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from sqlalchemy import Connection, Engine, RowMapping, text

from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.models import Channel, Platform, PostWords, RenderedVideoOutput, Script, ScriptOutput, content_hash
from phantoms_dagster.domain.wording import DEFAULT_PRIVACY, changes, post_words
from phantoms_dagster.store import holds
from phantoms_dagster.store.audit import Actor, AuditEntry
from phantoms_dagster.store.audit import note as note_deeds
from phantoms_dagster.store.bookings import Limits, book_approved, give_back
from phantoms_dagster.store.decision_rows import FIRSTS, LOOK, UNDECIDED, locked
from phantoms_dagster.store.engine import reading
from phantoms_dagster.store.holds import HeldVideo
from phantoms_dagster.store.judgement import (
    OPEN,
    Decided,
    DecidedFirst,
    Judgement,
    Review,
    already_decided,
    answer,
    judged,
    not_wanted,
)
from phantoms_dagster.store.near_duplicates import hold_repetitions, repetition_warnings
from phantoms_dagster.store.planning import notify
from phantoms_dagster.store.repeated_captions import REPEATS, PlannedCaption, repeated_captions
from phantoms_dagster.store.stored import WORDS, UnreadableRow, channel_of, output_of
from phantoms_dagster.store.two_reviewers import FirstApproval, WantsAnother, first_of, forget, keep, rule

__all__ = ["Decided", "DecidedFirst", "Decisions", "HeldVideo", "Review"]

_RECORD = text(
    """
    INSERT INTO phantoms.approvals (video_id, approved, reviewer, note, content_sha256, words, via, decided_at, first_reviewer)
    SELECT d.id, :approved, :reviewer, :note, d.content, CAST(d.words AS jsonb), :via, clock_timestamp(), d.first
    FROM unnest(CAST(:ids AS bigint[]), CAST(:contents AS text[]), CAST(:words AS text[]), CAST(:firsts AS text[]))
        AS d(id, content, words, first)
    """
)

# A stage that waited for a person becomes due, and a rejected one may be decided again. A runner that works on it read the table
# before this decision and would defer the stage until the next one, so it loses its claim.
_DUE = text(
    """
    UPDATE phantoms.stages
    SET state = CASE state WHEN 'rejected' THEN 'ready' WHEN 'running' THEN 'deferred' ELSE state END,
        generation = generation + CASE state WHEN 'running' THEN 1 ELSE 0 END, lease_owner = NULL, lease_until = NULL,
        retry_at = clock_timestamp(), ready_at = LEAST(ready_at, clock_timestamp()), updated_at = clock_timestamp()
    WHERE video_id = ANY(:ids) AND stage = 'approval' AND state IN ('ready', 'deferred', 'rejected', 'running')
    """
)

# The audit log's name for an approval that waits for a second one.
FIRST_OF_TWO = "approve as first of two"


class Decisions:
    """Reviewers' decisions. `privacy`: from the settings, by platform.

    `limits`: how many posts a platform takes per day, for the slots of approved videos. `sandboxed`: whether a platform's posts go
    to the sandbox.
    """

    def __init__(
        self,
        engine: Engine,
        privacy: Mapping[Platform, str] = DEFAULT_PRIVACY,
        *,
        limits: Callable[[], Limits] = dict,
        sandboxed: Callable[[Platform], bool] = lambda _: False,
    ) -> None:
        self._engine = engine
        self._limits = limits
        self._sandboxed = sandboxed
        self._privacy = privacy

    def undecided(self, *, limit: int = 1000) -> list[str]:
        """The keys of videos that are ready for review, the most urgent first."""
        with reading(self._engine).connect() as connection:
            return list(connection.execute(UNDECIDED, {"limit": limit}).scalars())

    def first_approvals(self, keys: Sequence[str]) -> dict[str, str]:
        """Those of these videos that one person approved and a second must approve, with the first person's name."""
        with reading(self._engine).connect() as connection:
            return {row.key: row.reviewer for row in connection.execute(FIRSTS, {"keys": list(keys)})}

    def review(self, key: str) -> Review | None:
        """What a decision would be about now; None when there is nothing to review yet. Raises UnreadableRow."""
        with reading(self._engine).connect() as connection:
            row = connection.execute(LOOK, {"keys": [key]}).mappings().first()
            if row is None or row["script"] is None or row["rendered"] is None:
                return None
            review = self._review(row)
            return replace(review, warnings=tuple(self._warnings(connection, {key: row}, {key: review}).values()))

    def review_in(self, connection: Connection, key: str) -> Review | None:
        """`review` in the caller's transaction, with the approval locked and without warnings. Raises UnreadableRow."""
        row = locked(connection, [key]).first()
        return None if row is None or row["script"] is None or row["rendered"] is None else self._review(row)

    def words(self, script: Script, channel: Channel, platforms: Sequence[Platform]) -> tuple[PostWords, ...]:
        """The words of the posts for that script, with the privacy from the settings."""
        return post_words(script, channel, platforms, self._privacy)

    def decide(
        self,
        key: str,
        *,
        approved: bool,
        reviewer: str,
        note: str = "",
        via: str,
        content_sha256: str | None = None,
        only: Sequence[Platform] = (),
        person: str | None = None,
    ) -> Decided:
        """Record a decision on the video's current content. `via`: cli, desk, guest, api, dagster, demo. `person`: see `Actor`.

        `content_sha256`: the hash of what the reviewer looked at, or its beginning. Without it, the content from the time of the
        render. `only`: approve only for these platforms; the others are removed from the brief.
        Raises InvalidInput when there is nothing to review yet, when the video is already approved, or when its content is not what
        the reviewer looked at.
        """
        contents = {key: content_sha256} if content_sha256 else {}
        [decided] = self.decide_all(
            [key], approved=approved, reviewer=reviewer, note=note, via=via, contents=contents, only=only, person=person
        )
        if isinstance(decided, InvalidInput):
            raise decided
        return decided

    def decide_all(
        self,
        keys: Sequence[str],
        *,
        approved: bool,
        reviewer: str,
        note: str = "",
        via: str,
        contents: Mapping[str, str] = MappingProxyType({}),
        only: Sequence[Platform] = (),
        person: str | None = None,
    ) -> list[Decided | InvalidInput]:
        """`decide` for many videos in one transaction. Returns the result for each of `keys`, which must be unique.

        Videos decided together become ready together. One by one, the first ones would start in runs of their own.
        `contents`: the hashes of what the reviewer looked at, by key.
        """
        with self._engine.begin() as connection:
            actor = Actor(reviewer, via, counts_as=person)
            return self.decide_in(connection, keys, actor, approved=approved, note=note, contents=contents, only=only)

    def decide_in(
        self,
        connection: Connection,
        keys: Sequence[str],
        actor: Actor,
        *,
        approved: bool,
        note: str = "",
        contents: Mapping[str, str] = MappingProxyType({}),
        only: Sequence[Platform] = (),
    ) -> list[Decided | InvalidInput]:
        """`decide_all` in the caller's transaction."""
        judgement = self._judge(connection, keys, actor, approved=approved, contents=contents, only=only)
        found = list(judgement.found)
        for place, key in enumerate(keys):
            if only and isinstance(one := found[place], Decided) and one.new:
                found[place] = _narrowed(connection, one, only, judgement.rows[key], actor)
        rows, reviews = judgement.rows, judgement.reviews
        firsts = [one.key for one in found if isinstance(one, Decided) and one.first]
        new = [one.key for one in found if isinstance(one, Decided) and one.new and not one.first]
        if firsts:
            contents_of = [reviews[key].content for key in firsts]
            keep(connection, [rows[key]["id"] for key in firsts], contents_of, actor, note)
            deeds = [_deed(FIRST_OF_TWO, actor, rows[key], reviews[key], {"note": note}) for key in firsts]
            note_deeds(connection, deeds)
        if new:
            ids = [rows[key]["id"] for key in new]
            values = {"approved": approved, "reviewer": actor.name, "note": note, "via": actor.via, "ids": ids}
            words = [WORDS.dump_json(reviews[key].words).decode() for key in new]
            seconded = [before.reviewer if (before := judgement.firsts.get(key)) is not None else None for key in new]
            written = {"contents": [reviews[key].content for key in new], "words": words, "firsts": seconded}
            connection.execute(_RECORD, {**values, **written})
            forget(connection, ids)
            connection.execute(_DUE, {"ids": ids})
            word = "approve" if approved else "reject"
            deeds = [
                _deed(word, actor, rows[key], reviews[key], {"note": note, "first": one})
                for key, one in zip(new, seconded, strict=True)
            ]
            note_deeds(connection, deeds)
            connection.execute(text(notify("'approval'")))
        if new and not approved:
            give_back(connection, [rows[key]["id"] for key in new])
        if approved and (timed := [rows[key]["id"] for key in new if rows[key]["channel"].get("slots")]):
            slots = book_approved(connection, timed, self._limits())
            found = [
                replace(one, booked=tuple(slot for slot in slots if slot.key == one.key)) if isinstance(one, Decided) else one
                for one in found
            ]
        # Afterwards: two that are approved together are each other's repetition.
        if approved and new:
            said = {
                key: (warning,) for key, warning in self._warnings(connection, rows, {key: reviews[key] for key in new}).items()
            }
            compared = [rows[key]["id"] for key in new if (rows[key]["channel"].get("repeats") or {}).get("days")]
            held = hold_repetitions(connection, compared, self._sandboxed) if compared else ()
            for key, told in repetition_warnings(held).items():
                said[key] = (*said.get(key, ()), *told)
            return [replace(one, warnings=said[one.key]) if isinstance(one, Decided) and one.key in said else one for one in found]
        return found

    def check(
        self,
        connection: Connection,
        key: str,
        actor: Actor,
        *,
        approved: bool,
        content_sha256: str | None,
        only: Sequence[Platform] = (),
    ) -> Decided:
        """What a decision would come to, without recording it; the video stays locked until the transaction ends.

        Raises InvalidInput as `decide` does, and DecidedFirst also when somebody decided and nothing was done about it yet.
        """
        contents = {} if content_sha256 is None else {key: content_sha256}
        judgement = self._judge(connection, [key], actor, approved=approved, contents=contents, only=only)
        [one] = judgement.found
        if isinstance(one, InvalidInput):
            raise one
        row = judgement.rows[key]
        if not one.new:
            raise DecidedFirst(f"{key} is approved already")
        if row["decided"] is not None:
            raise DecidedFirst(f"{row['decided']['reviewer']} was first: {answer(row['decided']['approved'])} {key}")
        return one

    def may_be_decided(self, connection: Connection, key: str, actor: Actor, *, content_sha256: str | None) -> str:
        """The hash of what `actor` could approve now, for somebody whom they ask to. The video stays locked.

        `content_sha256`: what was looked at, or its beginning; None: what was shown when the video was rendered.
        Raises InvalidInput as `check` does.
        """
        self.check(connection, key, actor, approved=True, content_sha256=content_sha256)
        review = self.review_in(connection, key)
        assert review is not None
        return review.content

    def open_contents(self, keys: Sequence[str]) -> dict[str, str]:
        """Return the hash of what a decision would be about, by key. Videos on which nobody can decide now are left out.

        Locks nothing.
        """
        if not keys:
            return {}
        with reading(self._engine).connect() as connection:
            rows = connection.execute(LOOK, {"keys": list(keys)}).mappings()
            found = {row["key"]: row for row in rows if row["state"] in OPEN and row["decided"] is None}
            found = {key: row for key, row in found.items() if already_decided(key, row) is None}
            reviews, _ = self._reviews(found)
        return {key: review.content for key, review in reviews.items()}

    def hold(self, key: str, *, reviewer: str, note: str = "", via: str) -> None:
        """Put a video on hold: it leaves the queue, and nobody can decide on it, until it is taken back. Raises InvalidInput."""
        with self._engine.begin() as connection:
            self.hold_in(connection, key, Actor(reviewer, via), note=note)

    def hold_in(self, connection: Connection, key: str, actor: Actor, *, note: str = "") -> None:
        """`hold` in the caller's transaction."""
        holds.put(connection, self.check_hold(connection, key), actor, note)

    def check_hold(self, connection: Connection, key: str) -> RowMapping:
        """The row of a video that can be put on hold, locked. Raises InvalidInput."""
        row = locked(connection, [key]).one_or_none()
        if row is None:
            raise InvalidInput(f"no video {key!r}; `phantoms status` lists them")
        if row["state"] == "done":
            raise DecidedFirst(f"{key} is approved already: there is nothing left to hold; see `phantoms show {key}`")
        if row["state"] == "discarded":
            raise InvalidInput(f"{key} was given up: there is nothing to hold; bring it back with `phantoms retry {key}`")
        if (first := already_decided(key, row)) is not None:
            raise first
        return row

    def release(self, key: str, *, reviewer: str, via: str, address: str = "") -> None:
        """Take a video back from hold: it waits for a decision again. Raises InvalidInput when it is not on hold."""
        with self._engine.begin() as connection:
            holds.release(connection, key, Actor(reviewer, via, address))

    def held(self, *, limit: int = 1000) -> list[HeldVideo]:
        """The videos on hold, the longest first."""
        with reading(self._engine).connect() as connection:
            return holds.held(connection, limit)

    def _judge(
        self,
        connection: Connection,
        keys: Sequence[str],
        actor: Actor,
        *,
        approved: bool,
        contents: Mapping[str, str],
        only: Sequence[Platform],
    ) -> Judgement:
        """What a decision on each of these would come to. Their approvals stay locked until the transaction ends."""
        rows = {row["key"]: row for row in locked(connection, keys)}
        reviews, unreadable = self._reviews(rows)
        found: list[Decided | InvalidInput] = []
        firsts: dict[str, FirstApproval | None] = {}
        for key in keys:
            row, review = rows.get(key), reviews.get(key)
            narrow = review
            if only and row is not None and review is not None:
                narrow = self._review({**row, "platforms": [name for name in row["platforms"] if name in only]})
            problem = unreadable.get(key) or not_wanted(key, row, only)
            looked_at = contents.get(key)
            one = problem or judged(key, row, review, narrow, approved=approved, looked_at=looked_at)
            if isinstance(one, Decided) and one.approved and one.new and row is not None and review is not None:
                firsts[key] = review.first
                wanted = rule(key, channel_of(key, row["channel"]), row["added_by"], review.first, actor)
                one = wanted if isinstance(wanted, WantsAnother) else replace(one, first=wanted)
            found.append(one)
            if narrow is not None:
                reviews[key] = narrow
        return Judgement(rows, reviews, found, firsts)

    def _warnings(self, connection: Connection, rows: Mapping[str, RowMapping], reviews: Mapping[str, Review]) -> Mapping[str, str]:
        """A warning for each of these videos that repeats a caption of its account, by key."""
        accounts = {key: rows[key]["channel"].get("accounts", {}).get(str(REPEATS)) for key in reviews}
        planned = [
            PlannedCaption(key, accounts[key], post.caption)
            for key, review in reviews.items()
            for post in review.words
            if post.platform is REPEATS and accounts[key]
        ]
        return repeated_captions(connection, planned, sandbox=self._sandboxed(REPEATS))

    def _reviews(self, rows: Mapping[str, RowMapping]) -> tuple[dict[str, Review], dict[str, UnreadableRow]]:
        """What there is to decide on, and what cannot be read, both by key."""
        reviews: dict[str, Review] = {}
        unreadable: dict[str, UnreadableRow] = {}
        for key, row in rows.items():
            if row["script"] and row["rendered"]:
                try:
                    reviews[key] = self._review(row)
                except UnreadableRow as error:
                    unreadable[key] = error
        return reviews, unreadable

    def _review(self, row: RowMapping | Mapping[str, Any]) -> Review:
        made, rendered = (output_of(row["key"], *one) for one in (("script", row["script"]), ("rendered_video", row["rendered"])))
        assert isinstance(made, ScriptOutput)
        assert isinstance(rendered, RenderedVideoOutput)
        script = made.script
        platforms = [Platform(name) for name in row["platforms"]]
        words = post_words(script, channel_of(row["key"], row["channel"]), platforms, self._privacy)
        changed = changes(rendered.words, words) if rendered.words else ""
        content = content_hash(script, rendered.video, words)
        return Review(words, content, changed, first=first_of(row, content))


def _narrowed(
    connection: Connection, one: Decided, only: Sequence[Platform], row: RowMapping, actor: Actor
) -> Decided | InvalidInput:
    """Take the platforms that were not approved out of the brief. What goes wrong concerns this video alone."""
    if set(only) >= set(row["platforms"]):
        return one
    from phantoms_dagster.domain.brief_changes import BriefChanges  # noqa: PLC0415 - few decisions change a brief
    from phantoms_dagster.store.brief_edits import edit_in  # noqa: PLC0415

    kept = tuple(platform for platform in Platform if platform in only)
    try:
        with connection.begin_nested():
            edit_in(connection, one.key, BriefChanges(platforms=kept), by=actor.name)
    except InvalidInput as error:
        return error
    return one


def _deed(action: str, actor: Actor, row: RowMapping, review: Review, said: Mapping[str, str | None]) -> AuditEntry:
    """What the log says of a decision. `said`: its note, and who was first of two, where there are such."""
    after: dict[str, Any] = {"content": review.content, **{name: value for name, value in said.items() if value}}
    if action != "reject":
        after["platforms"] = [str(post.platform) for post in review.words]
    before = {"state": row["state"], "platforms": list(row["platforms"])}
    return AuditEntry(actor, action, row["key"], before=before, after=after)
