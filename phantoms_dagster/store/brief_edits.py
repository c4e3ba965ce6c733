"""Edits the briefs of existing videos. Published posts stay as they are."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Connection, Engine, RowMapping, text
from sqlalchemy.exc import IntegrityError

from phantoms_dagster.domain.brief_changes import BriefChanges, EditedBrief
from phantoms_dagster.domain.errors import InvalidInput, NotFound
from phantoms_dagster.domain.models import Brief, Platform
from phantoms_dagster.domain.problems import first_problem
from phantoms_dagster.domain.publication import UNDER_WAY
from phantoms_dagster.domain.stages import STAGES, StageState, downstream, stages_for
from phantoms_dagster.store.audit import Actor, AuditEntry, note
from phantoms_dagster.store.bookings import follow_brief, read_time_again
from phantoms_dagster.store.dead_letters.statements import NEW_REVISION
from phantoms_dagster.store.planning import NOTIFY
from phantoms_dagster.store.stage_store import VOID
from phantoms_dagster.store.transactions import persons_transaction
from phantoms_dagster.store.two_reviewers import forget

# Not FOR UPDATE: a row that refers to the video, such as a booking, would then wait for this edit while it holds the stages.
_VIDEO = text("SELECT id, brief, retired_at FROM phantoms.videos WHERE key = :key FOR NO KEY UPDATE")
# In the same order as claims lock them.
_STAGES = text("SELECT stage, state FROM phantoms.stages WHERE video_id = :id ORDER BY stage FOR UPDATE")
_POSTS = text("SELECT platform, state FROM phantoms.posts WHERE video_id = :id")
_WRITE = text(
    """
    UPDATE phantoms.videos SET title = :title, brief = CAST(:brief AS jsonb), platforms = :platforms, publish_at = :publish_at,
        priority = :priority, fingerprint = :fingerprint
    WHERE id = :id
    """
)
_SAME = text("SELECT key FROM phantoms.videos WHERE fingerprint = :fingerprint AND id <> :id")
_ADD_STAGES = text(
    """
    INSERT INTO phantoms.stages (video_id, stage, state)
    SELECT :id, g.stage, 'blocked' FROM unnest(CAST(:stages AS text[])) AS g(stage) ON CONFLICT DO NOTHING
    """
)
_DROP_STAGES = text("DELETE FROM phantoms.stages WHERE video_id = :id AND stage = ANY(:stages)")
_CLOSE_LETTERS = text(
    """
    UPDATE phantoms.dead_letters
    SET state = 'discarded', closed_at = clock_timestamp(), closed_by = :by,
        closed_reason = 'the platform was taken out of the brief'
    WHERE video_id = :id AND stage = ANY(:stages) AND state = 'open'
    """
)
_OUT = frozenset({"published", "confirmed"})


class BriefEdits:
    """Changes the briefs of stored videos."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def edit(
        self,
        key: str,
        changes: BriefChanges,
        *,
        by: str,
        offered: Callable[[str], Collection[Platform]] = lambda _: tuple(Platform),
        actor: Actor | None = None,
        check: Callable[[Brief], None] = lambda _: None,
    ) -> EditedBrief:
        """Change the brief of one video in one transaction. `offered` returns the platforms on which a channel has accounts.

        `actor`: the person in the audit log. `check` is called with the old brief, which is locked. If it raises, nothing changes.

        An added platform needs a new approval, because nobody has seen its words. Raises NotFound. Raises InvalidInput, with the
        next step, for an invalid value, for a brief that another video already has, and when a platform to remove has a post that
        is published or in progress.
        """

        def work(connection: Connection) -> EditedBrief:
            edited = edit_in(connection, key, changes, by=by, offered=offered)
            check(edited.before)
            differences = list(edited.differences)
            if actor is not None and differences:
                before, after = ({name: pair[n] for name, *pair in differences} for n in (0, 1))
                note(connection, [AuditEntry(actor, "edit brief", key, before=before, after=after)])
            return edited

        return persons_transaction(self._engine, work)


def edit_in(
    connection: Connection,
    key: str,
    changes: BriefChanges,
    *,
    by: str,
    offered: Callable[[str], Collection[Platform]] = lambda _: tuple(Platform),
) -> EditedBrief:
    """`BriefEdits.edit` in the caller's transaction."""
    video = connection.execute(_VIDEO, {"key": key}).mappings().one_or_none()
    if video is None:
        raise NotFound(f"no video {key!r}; `phantoms status` lists them")
    try:
        after = changes.applied_to_fields(video["brief"])
    except ValidationError as error:
        raise InvalidInput(first_problem(error)) from error
    before = _as_stored(video["brief"], after)
    if after == before:
        return EditedBrief(key, before, after)
    notes = _carry_out(connection, key, video, before, after, by=by, offered=offered(before.channel))
    connection.execute(text(NOTIFY))
    return EditedBrief(key, before, after, tuple(notes))


def _as_stored(fields: Mapping[str, Any], after: Brief) -> Brief:
    """The stored brief. If it is no longer valid, a brief with its raw fields, for comparison with the new one."""
    try:
        return Brief.model_validate(fields)
    except ValidationError:
        known = tuple(Platform(name) for name in fields.get("platforms") or () if name in set(Platform))
        raw = {name: fields.get(name) for name in ("title", "priority")}
        return Brief.model_construct(**{**dict(after), **raw, "platforms": known, "publish_at": None})


def _carry_out(
    connection: Connection, key: str, video: RowMapping, before: Brief, after: Brief, *, by: str, offered: Collection[Platform]
) -> list[str]:
    """Write the new brief and everything that follows from it. Returns notes for the person."""
    video_id = video["id"]
    states = {row.stage: StageState(row.state) for row in connection.execute(_STAGES, {"id": video_id})}
    posts = {row.platform: row.state for row in connection.execute(_POSTS, {"id": video_id})}
    added = [platform for platform in after.platforms if platform not in before.platforms]
    removed = [platform for platform in before.platforms if platform not in after.platforms]
    busy = [p for p in before.platforms if posts.get(p) in UNDER_WAY or states.get(f"{p}/post") is StageState.RUNNING]
    for platform in added:
        if platform not in offered:
            raise InvalidInput(f"channel {before.channel} has no account on {platform}; add one to channels.yaml")
    for platform in removed:
        if posts.get(platform) in _OUT or states.get(f"{platform}/post") is StageState.DONE:
            raise InvalidInput(f"{key} is already posted on {platform.title}, and that post stays")
    if (added or removed) and busy:
        raise InvalidInput(f"{key} is on its way to {busy[0].title} now; wait until `phantoms show {key}` says how it ended")
    _write(connection, video_id, after)
    # The first approval was for other platforms.
    forget(connection, [video_id] if added or removed else [])
    notes = []
    if removed:
        names = [stage.name for stage in STAGES.values() if stage.platform in removed]
        connection.execute(_DROP_STAGES, {"id": video_id, "stages": names})
        connection.execute(_CLOSE_LETTERS, {"id": video_id, "stages": names, "by": by})
    if added:
        names = [stage.name for stage in stages_for(tuple(added)) if stage.platform]
        connection.execute(_ADD_STAGES, {"id": video_id, "stages": names})
        if states["approval"] is StageState.DONE:
            _revoke_approval(connection, video_id)
            notes.append(f"nobody has approved the words for {_names(added)}: approve the video again")
        if video["retired_at"] is not None:
            notes.append(f"the video is retired; bring it back with `phantoms unretire {key}`")
    if after.publish_at != before.publish_at:
        read_time_again(connection, video_id, after.publish_at)
        follow_brief(connection, video_id, after.publish_at, after.platforms)
        posted = [p for p in after.platforms if posts.get(p) in _OUT or p in busy]
        if posted:
            notes.append(f"it is posted on {_names(posted)}, or on its way there, and those posts stay as they are")
    if after.title != before.title and states["script"] is not StageState.READY:
        notes.append("the script was written from the old title, and stays until it is made again")
    return notes


def _write(connection: Connection, video_id: int, brief: Brief) -> None:
    same = connection.execute(_SAME, {"fingerprint": brief.fingerprint, "id": video_id}).scalar()
    if same is not None:
        raise InvalidInput(f"video {same} already has this brief; two videos cannot have the same title, angle, facts and channel")
    values = {
        "id": video_id,
        "title": brief.title,
        "brief": brief.model_dump_json(),
        "platforms": [str(platform) for platform in brief.platforms],
        "publish_at": brief.publish_at,
        "priority": brief.priority,
        "fingerprint": brief.fingerprint,
    }
    try:
        connection.execute(_WRITE, values)
    except IntegrityError as error:  # the same brief was added a moment ago
        raise InvalidInput("another video was added meanwhile with the same title, angle, facts and channel") from error


def _revoke_approval(connection: Connection, video_id: int) -> None:
    """Revoke the approval. Published posts keep their rows. Every other platform starts again after the new approval."""
    connection.execute(NEW_REVISION, {"ids": [video_id], "stage": "approval", "before": [str(StageState.DONE)]})
    connection.execute(VOID, {"ids": [video_id], "stages": [stage.name for stage in downstream("approval")]})


def _names(platforms: Sequence[Platform]) -> str:
    return " and ".join(platform.title for platform in platforms)
