"""Issues: all dead letters with one cause, the state that people gave it, and what a replay of its letters would do.

An acknowledged or resolved issue reopens by itself with the next letter of its cause. An issue without an open letter is resolved,
whatever people said, because nothing is left to do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal

from sqlalchemy import Engine, text

from phantoms_dagster.domain.errors import InvalidInput, NotFound
from phantoms_dagster.store.audit import Actor, AuditEntry, note
from phantoms_dagster.store.engine import reading

IssueState = Literal["open", "acknowledged", "resolved"]
STATES: tuple[IssueState, ...] = ("open", "acknowledged", "resolved")
Verdict = Literal["safe", "read_back", "person"]
VERDICTS: tuple[Verdict, ...] = ("safe", "read_back", "person")
TREND_DAYS = 14
MOST_ISSUES = 2_000
NEWEST = 2**62
NOTE_CHARACTERS = 1_000

# There are few causes and many letters, so each cause is one step along the index.
_CAUSES = """
    WITH RECURSIVE causes AS (
        (SELECT d.cause FROM phantoms.dead_letters d ORDER BY d.cause LIMIT 1)
        UNION ALL
        SELECT (SELECT d.cause FROM phantoms.dead_letters d WHERE d.cause > c.cause ORDER BY d.cause LIMIT 1)
        FROM causes c WHERE c.cause IS NOT NULL
    )"""
# `total > counted`: a letter may be committed after one with a higher number was seen.
_ISSUES = """
    SELECT x.cause, x.stage, x.provider, x.error_class, x.code, x.message, x.first_seen, x.last_seen, x.newest, x.total, x.open,
        x.came_back, x.said, x.said_by, x.said_at, x.note,
        CASE WHEN x.open = 0 THEN 'resolved' WHEN x.said IS NULL OR x.came_back THEN 'open' ELSE x.said END AS state
    FROM (
        SELECT c.cause, l.stage, l.provider, l.error_class, l.code, "left"(l.message, 600) AS message, l.created_at AS last_seen,
            l.id AS newest, f.created_at AS first_seen, n.total, o.open, i.state AS said, i.said_by, i.said_at, i.note,
            COALESCE(i.state <> 'open' AND (l.id > i.seen OR n.total > i.counted), false) AS came_back
        FROM causes c
        JOIN LATERAL (SELECT * FROM phantoms.dead_letters d WHERE d.cause = c.cause ORDER BY d.id DESC LIMIT 1) l ON true
        JOIN LATERAL (SELECT d.created_at FROM phantoms.dead_letters d WHERE d.cause = c.cause ORDER BY d.id LIMIT 1) f ON true
        JOIN LATERAL (SELECT count(*) AS total FROM phantoms.dead_letters d WHERE d.cause = c.cause) n ON true
        JOIN LATERAL (SELECT count(*) AS open FROM phantoms.dead_letters d WHERE d.cause = c.cause AND d.state = 'open') o ON true
        LEFT JOIN phantoms.issues i ON i.cause = c.cause
    ) x"""
ALL = text(f"{_CAUSES} {_ISSUES} ORDER BY x.newest DESC LIMIT :limit")
ONE = text(f"WITH causes AS (SELECT CAST(:cause AS text) AS cause) {_ISSUES}")
TREND = text(
    """
    SELECT d.cause, (d.created_at AT TIME ZONE 'UTC')::date AS day, count(*) AS n FROM phantoms.dead_letters d
    WHERE d.cause = ANY(:causes) AND d.created_at >= CAST(:since AS timestamptz) GROUP BY 1, 2
    """
)
# What a replay would do, according to the ledgers. A started post, or a render that may be running, is read back before anything is
# sent. Content that was rejected is rejected again.
_VERDICT = """CASE WHEN d.error_class = 'rejected' OR d.code IN ('ambiguous', 'content_changed') THEN 'person'
    WHEN p.begun OR r.begun THEN 'read_back' ELSE 'safe' END"""
_FIELDS = f"""d.id, v.key, v.title, d.stage, d.message, d.created_at, d.state, d.closed_at, d.closed_by, d.closed_reason,
    {_VERDICT} AS verdict"""
# The limits prevent full scans of the ledgers. Each letter has one row there, found by an index.
_LETTERS = """phantoms.dead_letters d JOIN phantoms.videos v ON v.id = d.video_id
    LEFT JOIN LATERAL (SELECT true AS begun FROM phantoms.posts p
        WHERE p.video_id = d.video_id AND p.platform = split_part(d.stage, '/', 1) AND NOT p.duplicate AND d.stage LIKE '%/post'
            AND (p.state IN ('opened', 'uploading', 'committing', 'unknown', 'handed_over')
                OR (p.state = 'failed' AND p.handle <> '{}'))
        LIMIT 1) p ON true
    LEFT JOIN LATERAL (SELECT true AS begun FROM phantoms.renders r
        WHERE r.video_id = d.video_id AND r.revision = d.revision AND d.stage = 'rendered_video'
            AND r.state IN ('sending', 'unknown', 'submitted')
        LIMIT 1) r ON true"""
LETTERS = {
    "open": text(
        f"""
        SELECT {_FIELDS} FROM {_LETTERS}
        WHERE d.cause = :cause AND d.state = 'open' AND d.id < :before ORDER BY d.id DESC LIMIT :limit
        """
    ),
    "closed": text(
        f"""
        SELECT {_FIELDS} FROM {_LETTERS}
        WHERE d.cause = :cause AND d.state <> 'open' AND d.id < :before ORDER BY d.id DESC LIMIT :limit
        """
    ),
}
# Safe letters come first, so that the canary is one of them, then the oldest letters.
CHOSEN = text(
    f"""
    SELECT {_FIELDS} FROM {_LETTERS}
    WHERE d.cause = :cause AND d.state = 'open' AND (CAST(:ids AS bigint[]) IS NULL OR d.id = ANY(:ids))
    ORDER BY array_position(ARRAY['safe', 'read_back', 'person'], {_VERDICT}), d.id LIMIT :limit
    """
)
_SAY = text(
    """
    INSERT INTO phantoms.issues (cause, state, seen, counted, said_by, note, said_at)
    VALUES (:cause, :state, :seen, (SELECT count(*) FROM phantoms.dead_letters d WHERE d.cause = :cause AND d.id <= :seen), :by,
        :note, clock_timestamp())
    ON CONFLICT (cause) DO UPDATE SET state = excluded.state, seen = excluded.seen, counted = excluded.counted,
        said_by = excluded.said_by, note = excluded.note, said_at = excluded.said_at
    """
)


@dataclass(frozen=True)
class Issue:
    """One cause, with the message of its newest letter. `newest`: that letter's number. `open`: how many letters are open.

    `came_back`: it was acknowledged or resolved, and there are newer letters. `said`, `said_by`: the last state given, and by whom.
    """

    cause: str
    stage: str
    provider: str | None
    error_class: str
    code: str | None
    message: str
    first_seen: datetime
    last_seen: datetime
    newest: int
    total: int
    open: int
    came_back: bool
    said: str | None
    said_by: str | None
    said_at: datetime | None
    note: str | None
    state: IssueState

    @property
    def name(self) -> str:
        """A short name, such as `script: 503 from openai (transient)`."""
        where = f" from {self.provider}" if self.provider and not self.stage.startswith(self.provider) else ""
        what = f"{self.code}{where} ({self.error_class})" if self.code else f"{self.error_class}{where}"
        return f"{self.stage.replace('_', ' ')}: {what}"

    def has(self, words: Sequence[str]) -> bool:
        """Whether each of these words (in lower case) is somewhere in its name, its message or a note on it."""
        texts = (self.name, self.stage, self.message, self.note, self.said_by)
        said = " ".join(text for text in texts if text).casefold()
        return all(word in said for word in words)


@dataclass(frozen=True)
class IssueLetter:
    """A letter of an issue. `verdict`: what a replay would do, as the ledgers say: safe, read_back (first), person (must look)."""

    id: int
    key: str
    title: str
    stage: str
    message: str
    created_at: datetime
    state: str
    closed_at: datetime | None
    closed_by: str | None
    closed_reason: str | None
    verdict: Verdict


class Issues:
    """Reads issues, and stores the states that people give them."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def all(self, *, limit: int = MOST_ISSUES) -> list[Issue]:
        """The issues, the most recently seen first."""
        with reading(self._engine).connect() as connection:
            return [Issue(**row) for row in connection.execute(ALL, {"limit": limit}).mappings()]

    def get(self, cause: str) -> Issue:
        """One issue. Raises NotFound."""
        with reading(self._engine).connect() as connection:
            row = connection.execute(ONE, {"cause": cause}).mappings().one_or_none()
        if row is None:
            raise NotFound("There is no such issue: no dead letter has that cause.")
        return Issue(**row)

    def trend(self, causes: Sequence[str], *, since: date) -> Mapping[str, Mapping[date, int]]:
        """How many letters each cause had on each day (UTC) from that one on. Days without a letter are not there."""
        found: dict[str, dict[date, int]] = {cause: {} for cause in causes}
        with reading(self._engine).connect() as connection:
            for row in connection.execute(TREND, {"causes": list(causes), "since": f"{since.isoformat()}T00:00:00+00:00"}):
                found[row.cause][row.day] = row.n
        return found

    def letters(self, cause: str, *, which: str = "open", before: int = NEWEST, limit: int = 50) -> list[IssueLetter]:
        """The letters of an issue that are `open` or `closed`, the newest first."""
        with reading(self._engine).connect() as connection:
            rows = connection.execute(LETTERS[which], {"cause": cause, "before": before, "limit": limit}).mappings()
            return [IssueLetter(**row) for row in rows]

    def chosen(self, cause: str, ids: Sequence[int] | None, *, limit: int) -> list[IssueLetter]:
        """Its open letters with these numbers (None: all), in the order of a replay: what is safe first, then the oldest."""
        values = {"cause": cause, "ids": None if ids is None else list(ids), "limit": limit}
        with reading(self._engine).connect() as connection:
            return [IssueLetter(**row) for row in connection.execute(CHOSEN, values).mappings()]

    def say(self, cause: str, state: str, actor: Actor, *, seen: int, reason: str = "") -> Issue:
        """Acknowledge, resolve or reopen an issue, and return it. `seen`: the newest letter that the person saw.

        Raises InvalidInput for another state, NotFound for no issue.
        """
        if state not in STATES:
            raise InvalidInput(f"there is no state {state!r}; there are {', '.join(STATES)}")
        before = self.get(cause)
        values = {"cause": cause, "state": state, "seen": min(seen, before.newest), "by": actor.name}
        with self._engine.begin() as connection:
            connection.execute(_SAY, {**values, "note": reason.strip()[:NOTE_CHARACTERS]})
            after = {"state": state, "cause": before.name, **({"reason": reason.strip()} if reason.strip() else {})}
            note(connection, [AuditEntry(actor, f"{_DEEDS[state]} issue", f"issue {cause}", {"state": before.state}, after)])
        return self.get(cause)


_DEEDS: Mapping[str, str] = {"open": "reopen", "acknowledged": "acknowledge", "resolved": "resolve"}
