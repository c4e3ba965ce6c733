"""Everything in the tables that waits for a person, and the notices that other code leaves for people."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine, RowMapping, text

from phantoms_dagster.domain.accounts import ACTIVE, EXPIRING, EXPIRING_WITHIN, Account, Standing, standing
from phantoms_dagster.domain.attention import Attention, Notice
from phantoms_dagster.domain.counting import counted
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.reconciliation import CREATOR_HAS_TIME, UnknownPost
from phantoms_dagster.store.accounts import listed
from phantoms_dagster.store.posts import unknown_posts

# How long each kind waits before an alert. `phantoms status` shows all of them at once.
UNREAD_ALERT = timedelta(hours=6)
DEFERRED_LONG = timedelta(days=1)
# How long a post is shown that was found gone, private or blocked, or whose captions or thumbnail were refused.
# `phantoms posts show` shows it for good.
CHANGED_SHOWN = timedelta(days=7)
_SHOWN_KEYS = 3

_LOOK = text(
    """
    SELECT 'review' AS kind, NULL AS subject, NULL AS why, count(*) AS n, min(s.ready_at) AS since,
        (array_agg(v.key ORDER BY v.publish_at NULLS LAST, v.priority, v.id))[1:3] AS keys, clock_timestamp() AS now
    FROM phantoms.stages s JOIN phantoms.videos v ON v.id = s.video_id
    WHERE s.stage = 'approval' AND s.state IN ('ready', 'deferred')
        AND NOT EXISTS (SELECT FROM phantoms.approvals d WHERE d.video_id = v.id AND d.decided_at >= s.ready_at)
        AND NOT EXISTS (SELECT FROM phantoms.holds h WHERE h.video_id = v.id)
    UNION ALL
    SELECT 'deferred', s.stage, min(s.reason), count(*), min(s.started_at), (array_agg(v.key ORDER BY s.started_at))[1:3],
        clock_timestamp()
    FROM phantoms.stages s JOIN phantoms.videos v ON v.id = s.video_id
    WHERE s.state = 'deferred' AND s.stage <> 'approval' AND COALESCE(s.reason, '') NOT LIKE 'goes out at %'
        -- Posts that wait for a person are in the next part.
        AND s.error_class IS DISTINCT FROM 'person'
        -- The account itself is in this list. It is one problem, however many posts wait for it.
        AND NOT EXISTS (SELECT FROM phantoms.accounts a WHERE a.state <> 'active'
            AND starts_with(s.reason, a.platform || ' account ' || a.name || ' waits: '))
        -- The creator has it. Each such draft is in this list.
        AND NOT EXISTS (SELECT FROM phantoms.posts p WHERE p.video_id = s.video_id AND p.platform || '/post' = s.stage
            AND p.state = 'handed_over' AND NOT p.duplicate)
        AND s.started_at < clock_timestamp() - make_interval(secs => :long)
    GROUP BY s.stage
    UNION ALL
    SELECT 'calendar', b.state, min(b.note), count(*), min(b.updated_at), (array_agg(v.key ORDER BY b.updated_at, v.id))[1:3],
        clock_timestamp()
    FROM phantoms.bookings b JOIN phantoms.videos v ON v.id = b.video_id
    JOIN phantoms.stages s ON s.video_id = b.video_id AND s.stage = b.platform || '/post' AND s.state NOT IN ('done', 'discarded')
    WHERE b.state IN ('missed', 'repeat') AND v.retired_at IS NULL GROUP BY b.state
    UNION ALL
    SELECT 'changed', p.platform || ':' || p.account, min(c.state || ': ' || c.evidence), count(*), min(c.at),
        (array_agg(v.key ORDER BY c.id))[1:3], clock_timestamp()
    FROM phantoms.post_changes c JOIN phantoms.posts p ON p.id = c.post_id JOIN phantoms.videos v ON v.id = p.video_id
    WHERE c.at > clock_timestamp() - make_interval(secs => :shown) AND c.state IN ('private', 'blocked', 'gone')
        AND NOT EXISTS (SELECT FROM phantoms.post_changes later WHERE later.post_id = c.post_id AND later.id > c.id)
    GROUP BY p.platform, p.account
    UNION ALL
    -- A caption track or a thumbnail that will never be added.
    SELECT 'extra', p.platform || ':' || p.account || ':' || e.name, (array_agg(e.detail ORDER BY e.updated_at DESC))[1], count(*),
        min(e.updated_at), (array_agg(v.key ORDER BY e.updated_at DESC))[1:3], clock_timestamp()
    FROM phantoms.post_extras e JOIN phantoms.posts p ON p.id = e.post_id JOIN phantoms.videos v ON v.id = p.video_id
    WHERE e.state = 'refused' AND e.updated_at > clock_timestamp() - make_interval(secs => :shown)
        AND NOT EXISTS (SELECT FROM phantoms.post_changes c WHERE c.post_id = p.id AND c.state IN ('taken_down', 'gone'))
    GROUP BY p.platform, p.account, e.name
    UNION ALL
    SELECT 'draft', p.platform || ':' || v.key, p.account, 1,
        COALESCE(CAST(p.handle->>'handed_over_at' AS timestamptz), p.attempted_at), ARRAY[v.key], clock_timestamp()
    FROM phantoms.posts p JOIN phantoms.videos v ON v.id = p.video_id WHERE p.state = 'handed_over' AND NOT p.duplicate
    UNION ALL
    SELECT 'letters', d.stage, NULL, count(*), min(d.created_at), (array_agg(v.key ORDER BY d.id DESC))[1:3], clock_timestamp()
    FROM phantoms.dead_letters d JOIN phantoms.videos v ON v.id = d.video_id WHERE d.state = 'open' GROUP BY d.stage
    UNION ALL
    -- One line for each account: its own checks, and those of its posts that are due.
    SELECT 'preflight', w.platform || ':' || w.account, min(w.why), max(w.posts), min(w.since),
        (array_agg(w.key) FILTER (WHERE w.key IS NOT NULL))[1:3], clock_timestamp()
    FROM (
        SELECT p.platform, p.account, v.key, p.checked_at AS since, c->>'found' || '; ' || (c->>'fix') AS why,
            count(*) OVER (PARTITION BY p.platform, p.account) AS posts
        FROM phantoms.preflight_posts p JOIN phantoms.videos v ON v.id = p.video_id,
            LATERAL (SELECT * FROM jsonb_array_elements(p.checks) e(c)
                WHERE c->>'verdict' = 'wrong' AND c->>'name' <> 'video' LIMIT 1) f
        WHERE p.due_at > clock_timestamp() AND p.verdict = 'wrong' AND NOT EXISTS (SELECT FROM phantoms.preflight_posts later
            WHERE later.video_id = p.video_id AND later.platform = p.platform AND later.checked_at > p.checked_at)
        UNION ALL
        SELECT a.platform, a.account, NULL, a.wrong_since, c->>'found' || '; ' || (c->>'fix'), 1
        FROM phantoms.preflight_accounts a,
            LATERAL (SELECT * FROM jsonb_array_elements(a.checks) e(c) WHERE c->>'verdict' = 'wrong' LIMIT 1) f
        WHERE a.wrong_since IS NOT NULL AND EXISTS (SELECT FROM phantoms.preflight_posts p
            WHERE p.platform = a.platform AND p.account = a.account AND p.due_at > clock_timestamp())
    ) w
    WHERE NOT EXISTS (SELECT FROM phantoms.accounts a WHERE a.platform = w.platform AND a.name = w.account AND a.state <> 'active')
    GROUP BY w.platform, w.account
    UNION ALL
    SELECT 'unread', platform || ':' || account, problem, 1, failing_since, NULL, clock_timestamp()
    FROM phantoms.account_reads r WHERE failing_since IS NOT NULL AND NOT EXISTS (
        SELECT FROM phantoms.accounts a WHERE a.platform = r.platform AND a.name = r.account AND a.state <> 'active')
    """
)

_NOTICES = text("SELECT id, what, next_step, since FROM phantoms.notices ORDER BY id")
# An existing notice keeps its `since`.
_LEAVE = text(
    """
    INSERT INTO phantoms.notices AS n (id, what, next_step, since)
    SELECT g.id, g.what, g.next_step, g.since
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS g(id text, what text, next_step text, since timestamptz)
    ON CONFLICT (id) DO UPDATE SET what = excluded.what, next_step = excluded.next_step, since = LEAST(n.since, excluded.since)
    """
)
_CLEAR = text("DELETE FROM phantoms.notices WHERE starts_with(id, :prefix) AND NOT id = ANY(:ids)")


class AttentionBoard:
    """Reads what waits for a person, and stores notices."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def read(self) -> list[Attention]:
        """Everything that waits, the longest first."""
        with self._engine.connect() as connection:
            values = {"long": DEFERRED_LONG.total_seconds(), "shown": CHANGED_SHOWN.total_seconds()}
            rows = connection.execute(_LOOK, values).mappings().all()
            notices = connection.execute(_NOTICES).all()
            unknown = unknown_posts(connection)
            accounts = listed(connection)
        found = [_KINDS[row["kind"]](row) for row in rows if row["n"]]
        for platform in dict.fromkeys(post.platform for post, _ in unknown):
            found.append(_unknown(platform, [one for one in unknown if one[0].platform == platform]))
        now = datetime.now(UTC)
        stands = [(account, standing(account, now)) for account in accounts]
        found += [_stopped(account, there) for account, there in stands if account.state != ACTIVE]
        found += [_expiring(account, there) for account, there in stands if there.state == EXPIRING]
        found += [Attention(f"notice:{n.id}", n.what, n.next_step, n.since) for n in notices]
        return sorted(found, key=lambda item: item.since)

    def keep(self, prefix: str, notices: Sequence[Notice]) -> None:
        """Replace all notices whose ids begin with `prefix` by these."""
        rows = [{"id": n.id, "what": n.what, "next_step": n.next_step, "since": n.since.isoformat()} for n in notices]
        with self._engine.begin() as connection:
            connection.execute(_CLEAR, {"prefix": prefix, "ids": [n.id for n in notices]})
            if rows:
                connection.execute(_LEAVE, {"rows": json.dumps(rows)})


def _review(row: RowMapping) -> Attention:
    what = f"{counted(row['n'], 'video waits', 'videos wait')} for your approval, the oldest since {_time(row['since'])}"
    # No alert: review notices already report these videos (`wiring.review_notices`).
    return _attention(row, "review", what, f"phantoms show {row['keys'][0]}", alert=False)


def _unknown(platform: Platform, unknown: Sequence[tuple[UnknownPost, bool]]) -> Attention:
    """The unknown posts of a platform. If some need a person, only those are counted: the others are still being read."""
    posts = [post for post, _ in unknown]
    stuck = [post for post, needs_person in unknown if needs_person]
    shown = stuck or posts
    since = _time(shown[0].since)
    doubt = f"{counted(len(shown), 'post')} on {platform} may be out: the outcome has been unknown since {since}"
    if stuck:
        what = f"{doubt}, and {counted(max(post.reads for post in stuck), 'read', 'reads')} did not settle it"
    else:
        what = f"{doubt}; it is being read back"
    keys = tuple(post.key for post in shown)[:_SHOWN_KEYS]
    next_step = f"phantoms posts show {keys[0]} {platform}"
    return Attention(f"unknown:{platform}", what, next_step, shown[0].since, len(shown), keys, alert=bool(stuck))


def _deferred(row: RowMapping) -> Attention:
    videos = counted(row["n"], "video waits", "videos wait")
    what = f"{videos} in {row['subject']} for longer than a day, since {_time(row['since'])}: {_short(row['why'])}"
    return _attention(row, f"deferred:{row['subject']}", what, f"phantoms show {row['keys'][0]}", alert=True)


def _calendar(row: RowMapping) -> Attention:
    posts = counted(row["n"], "post waits", "posts wait")
    missed = row["subject"] == "missed"
    what = (
        f"{posts} for your decision after a missed slot, since {_time(row['since'])}: {_short(row['why'])}"
        if missed
        else f"{posts} for you to allow a repetition, since {_time(row['since'])}: {_short(row['why'])}"
    )
    return _attention(row, f"calendar:{row['subject']}", what, "phantoms calendar", alert=True)


def _changed(row: RowMapping) -> Attention:
    platform, _, name = row["subject"].partition(":")
    posts = counted(row["n"], "post")
    what = f"{posts} of the {platform} account {name} changed at the platform since {_time(row['since'])}: {_short(row['why'])}"
    return _attention(row, f"changed:{row['subject']}", what, f"phantoms posts show {row['keys'][0]} {platform}", alert=True)


def _extra(row: RowMapping) -> Attention:
    platform, name, extra = row["subject"].split(":")
    posts = counted(row["n"], "post")
    what = f"{posts} of the {platform} account {name} went out without {extra} since {_time(row['since'])}: {_short(row['why'])}"
    return _attention(row, f"extra:{row['subject']}", what, f"phantoms posts show {row['keys'][0]} {platform}", alert=True)


def _draft(row: RowMapping) -> Attention:
    """A draft that its creator must finish. It is reported once, as soon as the creator has it."""
    platform, _, key = row["subject"].partition(":")
    title, since = Platform(platform).title, _time(row["since"])
    if row["now"] - row["since"] >= CREATOR_HAS_TIME:
        what = f"the draft of {key} has been in the {title} inbox of {row['why']} since {since}, and nobody has said how it ended"
    else:
        what = f"the draft of {key} has been in the {title} inbox of {row['why']} since {since}: finish it in the {title} app"
    return _attention(row, f"draft:{row['subject']}", what, f"phantoms posts show {key} {platform}", alert=True)


def _letters(row: RowMapping) -> Attention:
    what = f"{counted(row['n'], 'video')} failed for good in {row['subject']}, the first {_time(row['since'])}"
    next_step = f"phantoms dead-letters list --stage {row['subject']}"
    # No alert here: alerts already report dead letters by cause.
    return _attention(row, f"letters:{row['subject']}", what, next_step, alert=False)


def _stopped(account: Account, there: Standing) -> Attention:
    assert account.since is not None, "an account that waits has a time since when"
    named = f"{account.name}{' (through its gateway)' if account.gateway else ''}"
    command = there.command or "phantoms accounts"
    why = _short(there.why.replace(f": run `{command}`", ""))  # it is the next step, and a long reason would cut it off
    # Not "cannot post": a gateway may post for the account, and then only its numbers cannot be read.
    what = f"the {account.platform} account {named} has not worked since {_time(account.since)}: {why}"
    # No alert here: alerts already report the account when its problem begins, with the breakers (`wiring.alerts`).
    gateway = f":{account.gateway}" if account.gateway else ""
    return Attention(f"account:{account.key}{gateway}", what, command, account.since, 1, alert=False)


def _expiring(account: Account, there: Standing) -> Attention:
    assert account.ends_at is not None, "the connection of an expiring account has an end"
    began = account.ends_at - EXPIRING_WITHIN
    since = began if account.connected_at is None else max(account.connected_at, began)
    what = f"the {account.platform} account {account.name}: {there.why}; docs/accounts.md says what may extend it"
    return Attention(f"expiring:{account.platform}:{account.name}", what, there.command, since, 1, alert=True)


def _preflight(row: RowMapping) -> Attention:
    platform, _, name = row["subject"].partition(":")
    what = f"the next posts of the {platform} account {name} would fail: {_short(row['why'])}"
    return _attention(row, f"preflight:{row['subject']}", what, "phantoms preflight", alert=True)


def _unread(row: RowMapping) -> Attention:
    platform, _, name = row["subject"].partition(":")
    what = f"the results of the {platform} account {name} could not be read since {_time(row['since'])}: {_short(row['why'])}"
    return _attention(row, f"unread:{row['subject']}", what, "phantoms doctor", row["now"] - row["since"] >= UNREAD_ALERT)


_KINDS: dict[str, Callable[[RowMapping], Attention]] = {
    "review": _review,
    "deferred": _deferred,
    "calendar": _calendar,
    "changed": _changed,
    "draft": _draft,
    "extra": _extra,
    "letters": _letters,
    "preflight": _preflight,
    "unread": _unread,
}


def _attention(row: RowMapping, name: str, what: str, next_step: str, alert: bool) -> Attention:
    keys = tuple(row["keys"] or ())[:_SHOWN_KEYS]
    return Attention(name, what, next_step, row["since"], row["n"], keys, alert=alert)


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _short(why: str | None) -> str:
    line = " ".join((why or "no reason is known").split())
    return line if len(line) <= 160 else line[:159] + "\u2026"
