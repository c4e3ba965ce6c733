"""The tables of checks before posts: `preflight_posts` (a row for each post and phase) and `preflight_accounts` (the last one)."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, RowMapping, TextClause, text

from phantoms_dagster.domain.models import ApprovalOutput, Channel, Platform, PostWords, VariantOutput
from phantoms_dagster.domain.preflight import PHASES, PreflightCheck, Upcoming, Verdict, as_rows, of_rows, worst
from phantoms_dagster.domain.stages import STAGES
from phantoms_dagster.store.stored import channel_of, output_of

_STATES = "('blocked', 'ready', 'deferred')"
# Booked posts, posts by the publish time of their video, and approved posts that wait for the posting hours.
_SOON = f"""
        SELECT s.video_id, s.stage FROM phantoms.videos v JOIN phantoms.stages s ON s.video_id = v.id AND s.stage = ANY(:stages)
        WHERE v.publish_at > :now AND v.publish_at <= :until AND v.retired_at IS NULL AND s.state IN {_STATES}
        UNION
        SELECT s.video_id, s.stage FROM phantoms.bookings b
        JOIN phantoms.stages s ON s.video_id = b.video_id AND s.stage = b.platform || '/post' AND s.state IN {_STATES}
        WHERE b.at > :now AND b.at <= :until AND b.state = 'booked'
        UNION
        SELECT video_id, stage FROM phantoms.stages
        WHERE stage = ANY(:stages) AND state = 'deferred' AND retry_at > :now AND retry_at <= :until
"""
_OF_VIDEO = f"""
        SELECT s.video_id, s.stage FROM phantoms.videos v JOIN phantoms.stages s ON s.video_id = v.id AND s.stage = ANY(:stages)
        WHERE v.key = :key AND s.state IN {_STATES}
"""


def _upcoming_posts(found: str) -> TextClause:
    return text(
        f"""
    WITH found AS ({found})
    SELECT v.id AS video_id, v.key, COALESCE(k.at, v.publish_at) AS at, c.config AS channel, s.stage,
        r.output AS variant, a.output AS approval,
        (SELECT b.stage || ' ' || b.state || ': ' || COALESCE(b.reason, 'no reason is known') FROM phantoms.stages b
            WHERE b.video_id = v.id AND b.state IN ('failed', 'rejected', 'discarded') AND b.stage <> s.stage
                AND (b.stage NOT LIKE '%/%' OR b.stage = split_part(s.stage, '/', 1) || '/variant') LIMIT 1) AS stopped,
        (SELECT jsonb_object_agg(p.phase, jsonb_build_array(p.due_at, p.checked_at, p.verdict)) FROM phantoms.preflight_posts p
            WHERE p.video_id = v.id AND p.platform = split_part(s.stage, '/', 1)) AS checked
    FROM found f JOIN phantoms.videos v ON v.id = f.video_id JOIN phantoms.channels c ON c.name = v.channel
    JOIN phantoms.stages s ON s.video_id = f.video_id AND s.stage = f.stage
    LEFT JOIN phantoms.stages r ON r.video_id = v.id AND r.stage = split_part(s.stage, '/', 1) || '/variant' AND r.state = 'done'
    LEFT JOIN phantoms.stages a ON a.video_id = v.id AND a.stage = 'approval' AND a.state = 'done'
    LEFT JOIN phantoms.bookings k ON k.video_id = v.id AND k.platform = split_part(s.stage, '/', 1) AND k.state = 'booked'
    WHERE NOT EXISTS (SELECT FROM phantoms.bookings x WHERE x.video_id = v.id AND x.platform = split_part(s.stage, '/', 1)
        AND x.state = 'cancelled')
    ORDER BY at, v.id, s.stage
    """
    )


_UPCOMING, _UPCOMING_OF = _upcoming_posts(_SOON), _upcoming_posts(_OF_VIDEO)
_SAVE_POST = text(
    """
    INSERT INTO phantoms.preflight_posts (video_id, platform, account, phase, due_at, verdict, checks)
    VALUES (:video_id, :platform, :account, :phase, :due_at, :verdict, CAST(:checks AS jsonb))
    ON CONFLICT (video_id, platform, phase) DO UPDATE SET account = excluded.account, due_at = excluded.due_at,
        verdict = excluded.verdict, checks = excluded.checks, checked_at = clock_timestamp()
    """
)
_SAVE_ACCOUNT = text(
    """
    INSERT INTO phantoms.preflight_accounts (platform, account, verdict, checks, wrong_since)
    VALUES (:platform, :account, :verdict, CAST(:checks AS jsonb), CASE :verdict WHEN 'wrong' THEN clock_timestamp() END)
    ON CONFLICT (platform, account) DO UPDATE SET verdict = excluded.verdict, checks = excluded.checks,
        wrong_since = CASE excluded.verdict WHEN 'wrong' THEN COALESCE(preflight_accounts.wrong_since, excluded.wrong_since) END,
        checked_at = clock_timestamp()
    """
)


def _checked_posts(which: str) -> TextClause:
    """The newest phase of each post."""
    return text(
        f"""
    SELECT v.key, p.platform, p.account, p.phase, p.due_at, p.checked_at, p.checks
    FROM phantoms.preflight_posts p JOIN phantoms.videos v ON v.id = p.video_id
    JOIN phantoms.stages s ON s.video_id = v.id AND s.stage = p.platform || '/post' AND s.state IN {_STATES}
    WHERE {which} AND NOT EXISTS (SELECT FROM phantoms.preflight_posts later
        WHERE later.video_id = p.video_id AND later.platform = p.platform AND later.checked_at > p.checked_at)
    ORDER BY p.due_at, v.key, p.platform LIMIT 500
    """
    )


_CHECKED, _CHECKED_OF = _checked_posts("p.due_at > clock_timestamp()"), _checked_posts("v.key = :key")
_ACCOUNTS = text("SELECT platform, account, checked_at, checks FROM phantoms.preflight_accounts ORDER BY platform, account")


@dataclass(frozen=True)
class CheckedPost:
    """The last check of one post."""

    key: str
    platform: Platform
    account: str | None
    phase: str
    due_at: datetime
    checked_at: datetime
    checks: tuple[PreflightCheck, ...]


@dataclass(frozen=True)
class CheckedAccount:
    """The last check of one account."""

    platform: Platform
    account: str
    checked_at: datetime
    checks: tuple[PreflightCheck, ...]


class Preflights:
    """Implements `production.preflight.PreflightStore`, and reads what was found."""

    def __init__(self, engine: Engine, opening: Callable[[Channel, datetime], datetime]) -> None:
        """`opening`: the first time at or after the given one at which the channel posts."""
        self._engine = engine
        self._opening = opening

    def upcoming(self, now: datetime, key: str | None = None) -> list[Upcoming]:
        """See the protocol. Raises UnreadableRow."""
        stages = [stage.name for stage in STAGES.values() if stage.kind == "post"]
        values = {"stages": stages, "now": now, "until": now + max(PHASES.values()), "key": key}
        with self._engine.connect() as connection:
            rows = connection.execute(_UPCOMING if key is None else _UPCOMING_OF, values).mappings().all()
        return [_upcoming(row, self._opening, now) for row in rows]

    def save_account(self, platform: Platform, account: str, checks: Sequence[PreflightCheck]) -> None:
        """See the protocol."""
        with self._engine.begin() as connection:
            connection.execute(_SAVE_ACCOUNT, {"platform": str(platform), "account": account, **_result(checks)})

    def save_post(self, post: Upcoming, phase: str, checks: Sequence[PreflightCheck], verdict: Verdict) -> None:
        """See the protocol."""
        values = {"video_id": post.video_id, "platform": str(post.platform), "account": post.account, "phase": phase}
        with self._engine.begin() as connection:
            connection.execute(_SAVE_POST, {**values, "due_at": post.due_at, **_result(checks), "verdict": verdict})

    def posts(self, key: str | None = None) -> list[CheckedPost]:
        """The last check of each post: of one video, or of all posts that are not due yet."""
        with self._engine.connect() as connection:
            return [
                CheckedPost(**_read(row))
                for row in connection.execute(_CHECKED if key is None else _CHECKED_OF, {"key": key}).mappings()
            ]

    def accounts(self) -> list[CheckedAccount]:
        """The last check of each account."""
        with self._engine.connect() as connection:
            return [CheckedAccount(**_read(row)) for row in connection.execute(_ACCOUNTS).mappings()]


def _read(row: RowMapping) -> dict[str, Any]:
    return {**row, "platform": Platform(row["platform"]), "checks": of_rows(row["checks"])}


def _result(checks: Sequence[PreflightCheck]) -> dict[str, Any]:
    return {"verdict": worst(checks), "checks": json.dumps(as_rows(checks))}


def _upcoming(row: RowMapping, opening: Callable[[Channel, datetime], datetime], now: datetime) -> Upcoming:
    key, platform, channel = row["key"], Platform(row["stage"].partition("/")[0]), channel_of(row["key"], row["channel"])
    variant = None if row["variant"] is None else output_of(key, f"{platform}/variant", row["variant"])
    approval = None if row["approval"] is None else output_of(key, "approval", row["approval"])
    assert variant is None or isinstance(variant, VariantOutput)
    assert approval is None or isinstance(approval, ApprovalOutput)
    words, key_of = _words(variant, approval), channel.key_of(platform)
    route = words.terms.way() if words is not None and words.terms is not None else key_of.way() if key_of is not None else ""
    return Upcoming(
        video_id=row["video_id"],
        key=key,
        platform=platform,
        account=channel.accounts.get(platform),
        due_at=opening(channel, max(now, row["at"] or now)),
        approved=approval is not None,
        stopped=row["stopped"] or "",
        variant=variant,
        words=words,
        route=route,
        checked={phase: _checked(*values) for phase, values in (row["checked"] or {}).items()},
    )


def _words(variant: VariantOutput | None, approval: ApprovalOutput | None) -> PostWords | None:
    """The words of the post, as `production.stages.post` sends them."""
    if variant is None or approval is None:
        return None
    approved = next((words for words in approval.words if words.platform is variant.platform), None)
    return approved and approved.model_copy(update={"title": variant.title, "caption": variant.caption})


def _checked(due_at: str, checked_at: str, verdict: Verdict) -> tuple[datetime, datetime, Verdict]:
    return datetime.fromisoformat(due_at), datetime.fromisoformat(checked_at), verdict
