"""Edits the texts of a rendered video: makes a new revision of only what depends on them.

Texts that only posts show change the stored script and the words of the same master. Spoken or drawn texts change the script and
make the voiceover or the render again. The approval becomes void in each case. Published posts stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Engine, RowMapping, text

from phantoms_dagster.domain.errors import InvalidInput, NotFound
from phantoms_dagster.domain.models import Platform, RenderedVideoOutput, ScriptOutput, content_hash
from phantoms_dagster.domain.publication import UNDER_WAY
from phantoms_dagster.domain.script_edits import EditedTexts, ScriptEdit, already_posted
from phantoms_dagster.domain.stages import PostState, StageState, downstream
from phantoms_dagster.store.audit import Actor, AuditEntry, note
from phantoms_dagster.store.dead_letters import statements as sql
from phantoms_dagster.store.decisions import DecidedFirst, Decisions
from phantoms_dagster.store.earlier import keep
from phantoms_dagster.store.judgement import already_decided
from phantoms_dagster.store.planning import NOTIFY
from phantoms_dagster.store.stored import brief_of, channel_of, output_of
from phantoms_dagster.store.transactions import persons_transaction

# Editing a brief takes this lock, too. A runner's attempts, which refer to the row, need not wait for it.
_VIDEO = text(
    """
    SELECT v.id, v.brief, v.retired_at, c.config AS channel FROM phantoms.videos v
    JOIN phantoms.channels c ON c.name = v.channel WHERE v.key = :key FOR NO KEY UPDATE OF v
    """
)
# In the same order as claims lock them.
_STAGES = text("SELECT stage, state, output FROM phantoms.stages WHERE video_id = :id ORDER BY stage FOR UPDATE")
_POSTS = text("SELECT platform, state FROM phantoms.posts WHERE video_id = :id AND NOT duplicate")
_FIRST = text(
    """
    SELECT NULL AS held, (SELECT to_jsonb(p) FROM phantoms.pending_decisions p
        WHERE p.video_id = :id AND p.state = 'pending') AS pending
    """
)
_KEEP = text(keep("r.video_id = ANY(:ids)"))
# Already done, with a new output. The new generation refuses late writes of earlier runs.
_REPLACE = text(
    """
    UPDATE phantoms.stages SET output = CAST(:output AS jsonb), revision = revision + 1, generation = generation + 1,
        reason = :reason, updated_at = clock_timestamp()
    WHERE video_id = :id AND stage = :stage AND state = 'done'
    """
)
# From every state of an approval. A run that works on it loses its claim.
_ASK_AGAIN = text(
    """
    UPDATE phantoms.stages
    SET state = 'ready', revision = revision + 1, attempts = 0, failing_since = NULL, waits = 0, generation = generation + 1,
        output = NULL, ready_at = clock_timestamp(), retry_at = NULL, lease_owner = NULL, lease_until = NULL, reason = :reason,
        error_class = NULL, started_at = NULL, finished_at = NULL, updated_at = clock_timestamp()
    WHERE video_id = :id AND stage = 'approval'
    """
)
# A published post whose stage has not ended yet also counts as on its way.
_BEGUN = UNDER_WAY | {PostState.PUBLISHED, PostState.CONFIRMED}


class TextEdits:
    """Edits texts of stored videos. `decisions` provides the current content for review."""

    def __init__(self, engine: Engine, decisions: Decisions) -> None:
        self._engine = engine
        self._decisions = decisions

    def edit(self, key: str, edit: ScriptEdit, actor: Actor, *, content_sha256: str | None = None) -> EditedTexts:
        """Change the texts of one video, in one transaction with its audit row.

        `content_sha256`: the hash of what the editor looked at, or its beginning. Raises NotFound. Raises DecidedFirst when another
        person edited or decided first. Raises InvalidInput, with the next step, for an invalid text, when there is no master yet,
        when a post is in progress, and when the video is published everywhere.
        """

        def work(connection: Connection) -> EditedTexts:
            video = connection.execute(_VIDEO, {"key": key}).mappings().one_or_none()
            if video is None:
                raise NotFound(f"no video {key!r}; `phantoms status` lists them")
            stages = {row["stage"]: row for row in connection.execute(_STAGES, {"id": video["id"]}).mappings()}
            out = self._may_edit(connection, key, video, stages, content_sha256)
            made = output_of(key, "script", stages["script"]["output"])
            assert isinstance(made, ScriptOutput)
            channel = channel_of(key, video["channel"])
            after = edit.applied_to(made.script, channel)
            edited = EditedTexts(key, made.script, after)
            if after == made.script:
                return edited
            platforms = brief_of(key, video["brief"]).platforms
            words = self._decisions.words(after, channel, platforms)
            output = made.model_copy(update={"script": after, "edited_by": actor.name})
            self._write(connection, video["id"], edited, output, actor)
            if edited.remakes is None:
                master = output_of(key, "rendered_video", stages["rendered_video"]["output"])
                assert isinstance(master, RenderedVideoOutput)
                said = {"words": words, "content_sha256": content_hash(after, master.video, words)}
                _replace(connection, video["id"], "rendered_video", master.model_copy(update=said), actor)
            before, now = ({place: pair[n] for place, *pair in edited.differences} for n in (0, 1))
            note(connection, [AuditEntry(actor, "edit texts", key, before=before, after=now)])
            connection.execute(text(NOTIFY))
            notes = [f"no room on {post.platform.title} for {' '.join(post.left_out)}" for post in words if post.left_out]
            if out:
                notes.append(already_posted(out))
            if video["retired_at"] is not None:
                notes.append(f"the video is retired; bring it back with `phantoms unretire {key}`")
            return EditedTexts(key, made.script, after, tuple(notes))

        return persons_transaction(self._engine, work)

    def _may_edit(
        self,
        connection: Connection,
        key: str,
        video: RowMapping,
        stages: Mapping[str, RowMapping],
        content_sha256: str | None,
    ) -> list[Platform]:
        """The platforms on which the video is published.

        Raises InvalidInput, with the reason, when its texts cannot be edited now.
        """
        states = {name: StageState(row["state"]) for name, row in stages.items()}
        last = (stages["script"]["output"] or {}).get("edited_by") or ""
        review = self._decisions.review_in(connection, key)
        if review is None or states["voiceover"] is not StageState.DONE:
            if content_sha256 and last:
                raise DecidedFirst(
                    f"{last} changed the texts of {key} first: it is made again, and can be edited when it is rendered"
                )
            raise InvalidInput(f"{key} is not rendered yet: its texts can be edited when it is (see `phantoms show {key}`)")
        if content_sha256 and not review.content.startswith(content_sha256):
            who = f"{last} changed its texts" if last else "its video or its words changed"
            raise DecidedFirst(f"{key} is not what you looked at: {who} meanwhile. Nothing of yours was saved yet")
        first = already_decided(key, connection.execute(_FIRST, {"id": video["id"]}).mappings().one())
        if first is not None:
            raise first
        if states["approval"] is StageState.DISCARDED:
            raise InvalidInput(f"{key} was given up; bring it back with `phantoms retry {key}`")
        posts = {row.platform: row.state for row in connection.execute(_POSTS, {"id": video["id"]})}
        wanted = [platform for platform in Platform if f"{platform}/post" in states]
        out = [p for p in wanted if states[f"{p}/post"] is StageState.DONE]
        if wanted and out == wanted:
            raise InvalidInput(f"{key} cannot be edited any more: {already_posted(out)}")
        busy = [p for p in wanted if p not in out and (posts.get(p) in _BEGUN or states[f"{p}/post"] is StageState.RUNNING)]
        if busy:
            raise InvalidInput(f"{key} is on its way to {busy[0].title} now; wait until `phantoms show {key}` says how it ended")
        return out

    def _write(self, connection: Connection, video_id: int, edited: EditedTexts, output: ScriptOutput, actor: Actor) -> None:
        """Write the new script, and reset everything after it that must be made or approved again."""
        ids, start = [video_id], edited.remakes
        connection.execute(_KEEP, {"ids": ids, "stage": "script"})
        if start is None:
            voided = [stage.name for stage in downstream("approval")]
            connection.execute(_ASK_AGAIN, {"id": video_id, "reason": f"{actor.name} edited its words"})
            following = ["approval", *voided]
        else:
            connection.execute(sql.NEW_REVISION, {"ids": ids, "stage": start, "before": [str(StageState.DONE)]})
            following = voided = [stage.name for stage in downstream(start)]
        connection.execute(sql.VOID, {"ids": ids, "stages": voided})
        _replace(connection, video_id, "script", output, actor)
        letters = connection.execute(sql.OPEN_LETTERS, {"ids": ids, "stages": following}).mappings()
        closing = {
            "ids": [letter["id"] for letter in letters],
            "to": "replayed",
            "by": actor.name,
            "reason": "its texts were edited",
        }
        connection.execute(sql.CLOSE, closing)


def _replace(connection: Connection, video_id: int, stage: str, output: ScriptOutput | RenderedVideoOutput, actor: Actor) -> None:
    values: dict[str, Any] = {"id": video_id, "stage": stage, "output": output.model_dump_json()}
    connection.execute(_REPLACE, {**values, "reason": f"edited by {actor.name}"})
