"""Retries a stage of one video for a person, from any state. Synchronous, for commands.

`dead_letters` replays stages that have a dead letter. This module handles the other states, and says what a retry may cost.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from sqlalchemy import Connection, Engine, RowMapping, text

from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.publication import UNDER_WAY
from phantoms_dagster.domain.stages import STAGES, StageState, downstream, stage
from phantoms_dagster.store.dead_letters import statements as sql
from phantoms_dagster.store.dead_letters.letters import FRESH_STARTS, DeadLetters, LetterFilter
from phantoms_dagster.store.planning import NOTIFY
from phantoms_dagster.store.transactions import persons_transaction

_ROWS = text(
    """
    SELECT s.video_id, s.stage, s.state, s.revision, s.retry_at, s.lease_until > clock_timestamp() AS held, s.lease_until,
        CASE WHEN jsonb_typeof(s.output -> 'seconds') = 'number'
            THEN CAST(s.output ->> 'seconds' AS double precision) END AS seconds,
        r.state AS render, r.render_id, p.state AS post, p.platform
    FROM phantoms.stages s JOIN phantoms.videos v ON v.id = s.video_id
    LEFT JOIN phantoms.renders r ON r.video_id = s.video_id AND r.revision = s.revision AND s.stage = 'rendered_video'
    LEFT JOIN phantoms.posts p ON p.video_id = s.video_id AND s.stage = p.platform || '/post'
    WHERE v.key = :key
    """
)
_LOCK = text("SELECT FROM phantoms.stages s WHERE s.video_id = :id ORDER BY s.stage FOR UPDATE")
_WAKE = text(
    """
    UPDATE phantoms.stages SET retry_at = clock_timestamp(), attempts = 0, failing_since = NULL, waits = 0,
        reason = :reason, updated_at = clock_timestamp()
    WHERE video_id = :id AND stage = :stage AND state = 'deferred'
    """
)
# The only step of a render that a person takes. It writes off what may have been billed, as `production.publication` does.
_GIVE_UP_RENDER = text(
    """
    WITH old AS (
        SELECT r.id, r.attempt_id FROM phantoms.renders r
        WHERE r.video_id = :id AND r.revision = :revision AND r.state IN ('sending', 'unknown', 'submitted') FOR UPDATE
    ), booked AS (
        UPDATE phantoms.attempts a SET cost = a.cost + :billed FROM old
        WHERE a.video_id = :id AND a.id = CAST(substring(old.attempt_id FROM '^a([0-9]+)-') AS bigint)
    )
    UPDATE phantoms.renders r SET state = 'intent', render_id = NULL, attempted_at = NULL, updated_at = clock_timestamp(),
        proof = :proof, proved_at = clock_timestamp(), written_off = :billed
    FROM old WHERE r.id = old.id
    """
)
_LETTERED = (StageState.FAILED, StageState.REJECTED, StageState.DISCARDED)


@dataclass(frozen=True)
class Plan:
    """What a retry would do. `lines`: its effects, costs and risks, in words. `stage`: where it begins."""

    key: str
    stage: str
    how: str
    lines: tuple[str, ...]
    seconds: float | None = None
    retry_at: datetime | None = None


class Retrying:
    """Retries single videos. `price_per_minute`: US dollars for one minute of rendered video."""

    def __init__(self, engine: Engine, *, price_per_minute: Decimal) -> None:
        self._engine = engine
        self._price_per_minute = price_per_minute

    def plan(self, key: str, start: str | None = None) -> Plan:
        """What a retry would do. Raises InvalidInput, with the reason and the next step, when nothing can be done."""
        with self._engine.connect() as connection:
            return self._plan(self._rows(connection, key), key, start)

    def carry_out(self, plan: Plan, *, by: str) -> None:
        """Carry the plan out. Raises InvalidInput when the video has changed since."""
        persons_transaction(self._engine, lambda connection: self.carry_out_in(connection, plan, by=by))

    def retry_in(self, connection: Connection, key: str, *, by: str) -> Plan:
        """Retry the first stage that is not done, in the caller's transaction. Returns the plan. Raises InvalidInput."""
        plan = self._plan(self._rows(connection, key), key, None)
        self.carry_out_in(connection, plan, by=by)
        return plan

    def carry_out_in(self, connection: Connection, plan: Plan, *, by: str) -> None:
        """`carry_out` in the caller's transaction."""
        if plan.how == "replay":
            letters = DeadLetters(self._engine)
            found = connection.execute(sql.LIST, {**LetterFilter(keys=[plan.key], state=None).values(), "limit": None})
            ids = [row.id for row in found if row.stage == plan.stage and row.state != "replayed"]
            if not letters.replay_in(connection, LetterFilter(ids=ids[:1], state=None), by=by).closed:
                raise InvalidInput(
                    f"{plan.stage} of {plan.key} has no dead letter that can be replayed; see `phantoms show {plan.key}`"
                )
            return
        rows = self._rows(connection, plan.key)
        row = rows[plan.stage]
        connection.execute(_LOCK, {"id": row["video_id"]})
        rows = self._rows(connection, plan.key)
        if self._plan(rows, plan.key, plan.stage if plan.how in ("fresh", "render") else None).how != plan.how:
            raise InvalidInput(f"{plan.key} has changed meanwhile: run the command again")
        row, reason = rows[plan.stage], f"asked for again by {by}"
        if plan.how == "fresh":
            following = [s.name for s in downstream(plan.stage)]
            values = {"ids": [row["video_id"]], "stage": plan.stage, "before": [str(StageState.DONE)]}
            connection.execute(sql.NEW_REVISION, values)
            connection.execute(sql.VOID, {"ids": [row["video_id"]], "stages": following})
            open_letters = connection.execute(sql.OPEN_LETTERS, {"ids": [row["video_id"]], "stages": following}).mappings()
            closing = [letter["id"] for letter in open_letters]
            connection.execute(sql.CLOSE, {"ids": closing, "to": "replayed", "by": by, "reason": f"retried from {plan.stage}"})
        if plan.how == "render":
            billed = self.price(plan.seconds)
            given = {"id": row["video_id"], "revision": row["revision"], "billed": billed, "proof": f"given up by {by}"}
            connection.execute(_GIVE_UP_RENDER, given)
        connection.execute(_WAKE, {"id": row["video_id"], "stage": plan.stage, "reason": reason})
        connection.execute(text(NOTIFY))

    def _rows(self, connection: Connection, key: str) -> dict[str, RowMapping]:
        found = {row["stage"]: row for row in connection.execute(_ROWS, {"key": key}).mappings()}
        return {name: found[name] for name in STAGES if name in found}

    def price(self, seconds: float | None) -> Decimal:
        """The price of a render of that length, in US dollars."""
        return (Decimal(str(seconds or 0.0)) / 60 * self._price_per_minute).quantize(Decimal("0.0001"))

    def _plan(self, rows: dict[str, RowMapping], key: str, start: str | None) -> Plan:
        doubt = [name for name, row in rows.items() if row["post"] in UNDER_WAY]
        if start is None:
            return self._as_it_is(rows, key)
        if start not in rows:
            raise InvalidInput(f"{key} has no stage {start!r}; its stages are {', '.join(rows)}")
        row = rows[start]
        seconds = rows["voiceover"]["seconds"]
        if (
            row["state"] == StageState.DEFERRED
            and start == "rendered_video"
            and row["render"] in ("sending", "unknown", "submitted")
        ):
            price = self.price(seconds)
            lines = (
                f"render {row['render_id'] or '(its answer was lost)'} is given up and booked as spent: {price:.2f} USD",
                f"a new render costs about {price:.2f} USD more, if the channel's budget allows it",
                "risk: the old render may still end; its file is not used",
            )
            return Plan(key, start, "render", lines, seconds)
        if row["state"] != StageState.DONE:
            plan = self._as_it_is(rows, key)
            if plan.stage != start:
                raise InvalidInput(
                    f"{start} is {row['state']}: {plan.stage} comes first; run `phantoms retry {key}` without --from"
                )
            return plan
        if stage(start).kind not in FRESH_STARTS:
            raise InvalidInput(f"{start} is done, and a post is never made twice; give an earlier stage")
        following = {s.name for s in downstream(start)}
        if busy := [name for name in doubt if name in following]:
            raise InvalidInput(
                f"{busy[0]} is not over yet: it is read back, never sent again. Wait for it "
                f"(`phantoms show {key}`), then start over from {start}"
            )
        said = [f"{start} is made again, and what follows it; what is published stays"]
        if start in ("script", "voiceover", "rendered_video"):
            said.append(
                f"a new render costs about {self.price(seconds):.2f} USD, a new script its tokens; the video needs approval again"
            )
        return Plan(key, start, "fresh", tuple(said), seconds)

    def _as_it_is(self, rows: dict[str, RowMapping], key: str) -> Plan:
        """The plan for the first stage that is not done."""
        waiting = [name for name, row in rows.items() if row["state"] not in (StageState.DONE, StageState.BLOCKED)]
        if not waiting:
            raise InvalidInput(f"every stage of {key} is done; `phantoms retry {key} --from STAGE` makes one again")
        # Stages that can be retried come before stages that are running or already wait for a worker.
        order = [*_LETTERED, StageState.DEFERRED, StageState.RUNNING, StageState.READY]
        name = min(waiting, key=lambda found: order.index(StageState(rows[found]["state"])))
        row = rows[name]
        note = ("its post is not over yet: it is read back, never sent again",) if row["post"] in UNDER_WAY else ()
        if row["state"] in _LETTERED:
            return Plan(key, name, "replay", (f"{name} is {row['state']}: it starts over with a fresh budget", *note))
        if row["state"] == StageState.DEFERRED:
            if row["render"] in ("sending", "unknown", "submitted"):
                note = (
                    "the same render is looked at again, which costs nothing; --from rendered_video gives it up and makes another",
                )
            return Plan(key, name, "wake", (f"{name} waits until {row['retry_at']:%Y-%m-%d %H:%M} UTC: it is tried now", *note))
        if row["state"] == StageState.RUNNING and not row["held"]:
            return Plan(key, name, "takeover", (f"the run that held {name} is dead: the next run takes it over by itself", *note))
        what = "is being worked on" if row["state"] == StageState.RUNNING else "waits for a worker already"
        raise InvalidInput(f"{name} of {key} {what}: nothing to do; see `phantoms show {key}`")
