"""The tables of a desk that is used for a year: videos in all stages, their attempts, letters, posts, decisions, results.

PostgreSQL itself makes all rows. Videos are numbered from the oldest on. The newest are under way and the others are posted, as in
a pipeline that keeps up. `desk_pages` and the benchmark say how pages use them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine, text

from phantoms_dagster.domain.models import (
    Channel,
    MediaFile,
    Platform,
    Probe,
    RenderedVideoOutput,
    Scene,
    Script,
    ScriptOutput,
    Sentence,
    VoiceoverOutput,
)
from phantoms_dagster.platforms.tiktok.choices import TikTokChoices
from phantoms_dagster.store.performance.sums import renew_sums

ZONES = ("Europe/Berlin", "America/New_York", "Asia/Tokyo", "UTC", "Australia/Sydney", "America/Sao_Paulo")
# How many of the newest videos are not through, by where they are. The first ones are the newest.
NEW, VOICED, RENDERING, REVIEWED, PLANNED = 300, 500, 800, 1_300, 2_300
PLATFORMS = [str(platform) for platform in Platform.usual()]

# `age`: 0 is the newest. A video was added every so many seconds.
_VIDEOS = """
    INSERT INTO phantoms.videos
        (key, channel, title, brief, platforms, publish_at, priority, source, fingerprint, created_at, registered_at,
        retired_at, place)
    SELECT 'v' || to_char(:now - age * :gap, 'YYYYMMDD') || '-' || w.a || '-' || w.b || '-' || n, c.name, w.title,
        jsonb_build_object('title', w.title, 'angle', 'One surprising fact, told in fifteen seconds.', 'facts',
            jsonb_build_array('Fact ' || n || ' is not like the others.'), 'channel', c.name, 'platforms', :platforms,
            'publish_at', t.at, 'priority', n % 10),
        :platforms, t.at, n % 10, 'import', md5(n::text), :now - age * :gap, :now - age * :gap,
        CASE WHEN n % 997 = 0 THEN :now - age * :gap END, n
    FROM (SELECT n, :videos - n AS age FROM generate_series(1, :videos) AS n) g
    CROSS JOIN LATERAL (SELECT (CAST(:channels AS text[]))[n % cardinality(CAST(:channels AS text[])) + 1] AS name) c
    CROSS JOIN LATERAL (SELECT CASE WHEN age BETWEEN :reviewed AND :planned - 1 THEN
        date_trunc('minute', :now + (:planned - age) * interval '20 minutes')
        WHEN n % 3 = 0 THEN :now - age * :gap + interval '2 hours' END AS at) t
    CROSS JOIN LATERAL (SELECT w.a, w.b, initcap(w.a) || ' ' || w.b || ' that nobody knew, number ' || n AS title FROM (
        SELECT (CAST(:words AS text[]))[n % 40 + 1] AS a, (CAST(:words AS text[]))[n / 40 % 40 + 1] AS b) w) w
"""
# What is through has all stages done, but for one in 200 whose post failed for good, and some rejected ones.
_STAGES = """
    INSERT INTO phantoms.stages (video_id, stage, state, attempts, generation, revision, ready_at, retry_at, lease_owner,
        lease_until,
        run_id, output, cost, error_class, reason, started_at, finished_at, updated_at)
    SELECT v.id, s.name, x.state, 1, 1, CASE WHEN v.place % 50 = 0 AND s.place = 3 THEN 2 ELSE 1 END,
        CASE WHEN x.state <> 'blocked' THEN y.at END,
        CASE WHEN x.state = 'deferred' THEN COALESCE(v.publish_at, :now + v.place % 600 * interval '1 second') END,
        CASE WHEN x.state = 'running' THEN 'w' || v.place % 8 END, CASE WHEN x.state = 'running'
        THEN :now + interval '60 s' END,
        CASE WHEN x.state NOT IN ('blocked', 'ready') THEN md5((v.place * 20 + s.place)::text) END,
        CASE WHEN x.state = 'done' THEN CASE s.place WHEN 1 THEN CAST(:script AS jsonb) WHEN 2 THEN CAST(:voiceover AS jsonb)
            WHEN 3 THEN CAST(:master AS jsonb) ELSE CAST(:small AS jsonb) END END,
        CASE WHEN s.place <= 3 THEN 0.01 ELSE 0 END, CASE WHEN x.state = 'failed' THEN 'transient' END,
        CASE x.state WHEN 'failed' THEN 'the upload failed' WHEN 'deferred' THEN 'waits for its time' END,
        y.at, CASE WHEN x.state = 'done' THEN y.at + interval '20 s' END, y.at + interval '20 s'
    FROM (SELECT v.*, :videos - v.place AS age FROM phantoms.videos v) v
    CROSS JOIN unnest(CAST(:stages AS text[])) WITH ORDINALITY AS s(name, place)
    CROSS JOIN LATERAL (SELECT CASE
        WHEN v.age < :new THEN CASE WHEN s.place = 1 THEN 'ready' ELSE 'blocked' END
        WHEN v.age < :voiced THEN CASE WHEN s.place < 2 THEN 'done' WHEN s.place = 2 THEN
            CASE WHEN v.age % 3 = 0 THEN 'running' ELSE 'ready' END ELSE 'blocked' END
        WHEN v.age < :rendering THEN CASE WHEN s.place < 3 THEN 'done' WHEN s.place = 3 THEN
            CASE WHEN v.age % 2 = 0 THEN 'deferred' ELSE 'ready' END ELSE 'blocked' END
        WHEN v.age < :reviewed THEN CASE WHEN s.place < 4 THEN 'done' WHEN s.place = 4 THEN 'deferred' ELSE 'blocked' END
        WHEN v.age < :planned THEN CASE WHEN s.place < 5 OR s.name LIKE '%/variant' THEN 'done' ELSE 'deferred' END
        WHEN v.place % 200 = 0 AND s.name = 'tiktok/post' THEN 'failed'
        WHEN v.place % 499 = 0 AND s.place >= 4 THEN CASE s.place WHEN 4 THEN 'rejected' ELSE 'blocked' END
        ELSE 'done' END AS state) x
    CROSS JOIN LATERAL (SELECT v.created_at + s.place * interval '3 minutes' AS at) y
"""
_ATTEMPTS = """
    INSERT INTO phantoms.attempts (video_id, stage, revision, generation, run_id, state, provider, provider_ref, cost,
        error_class, code,
        message, evidence, started_at, finished_at)
    SELECT s.video_id, s.stage, 1, n, s.run_id, x.state, p.provider, 'ref-' || s.video_id,
        CASE WHEN p.provider = 'openai' THEN 0.01 ELSE 0 END,
        CASE WHEN x.state = 'failed' THEN 'transient' END, CASE WHEN x.state = 'failed' THEN '503' END,
        CASE WHEN x.state = 'failed' THEN 'the provider answered 503 for video ' || s.video_id END,
        CASE WHEN x.state = 'failed' THEN '{"status": 503, "body": "try again later", "request": "r-123"}'::jsonb END,
        t.at, CASE WHEN x.state <> 'intent' THEN t.at + interval '2 s' END
    FROM (SELECT * FROM phantoms.stages WHERE state NOT IN ('blocked', 'ready')) s
    CROSS JOIN generate_series(1, :each + (s.video_id % 50 = 0)::int) AS n
    CROSS JOIN LATERAL (SELECT CASE split_part(s.stage, '/', 1) WHEN 'script' THEN 'openai' WHEN 'voiceover' THEN 'openai'
        WHEN 'rendered_video' THEN 'shotstack' WHEN 'approval' THEN NULL ELSE split_part(s.stage, '/', 1) END AS provider) p
    CROSS JOIN LATERAL (SELECT CASE WHEN s.state = 'running' THEN 'intent' WHEN s.state = 'failed' OR (s.video_id + n) % 23 = 0
        THEN 'failed' ELSE 'done' END AS state) x
    CROSS JOIN LATERAL (SELECT LEAST(s.started_at + n * interval '5 s', :now - n * interval '1 s') AS at) t
"""
# What is open has causes of its own, as different as those of a bad day; the others were replayed long ago.
_LETTERS = """
    INSERT INTO phantoms.dead_letters (video_id, stage, revision, provider, error_class, code, message, evidence, attempts,
        created_at, state,
        closed_at, closed_by, closed_reason, tries, counted)
    SELECT v.id, 'tiktok/post', 1, 'tiktok', (ARRAY['transient', 'permanent', 'rejected', 'unknown'])[k % 4 + 1],
        'code_' || chr(97 + k),
        'the upload of video ' || v.id || ' failed: ' || chr(97 + k) || repeat('x', k) || ' was not taken',
        '{"status": 503, "body": "try again later"}'::jsonb, '[{"class": "transient", "code": "503", "message": "no"}]'::jsonb,
        v.created_at + interval '40 minutes', x.state, CASE WHEN x.state <> 'open' THEN v.created_at + interval '2 hours' END,
        CASE WHEN x.state <> 'open' THEN 'ann' END, CASE WHEN x.state <> 'open' THEN 'replayed' END, 3, 3
    FROM (SELECT v.*, v.place::int / 20 % 24 AS k FROM phantoms.videos v WHERE v.place % 20 = 0
        AND :videos - v.place >= :planned) v
    CROSS JOIN LATERAL (SELECT CASE WHEN v.place % 200 = 0 THEN 'open' ELSE 'replayed' END AS state) x
"""
_POSTS = """
    INSERT INTO phantoms.posts (video_id, platform, account, state, marker, handle, remote_id, url, sandbox, video_sha256,
        caption_sha256,
        attempted_at, published_at, created_at, updated_at)
    SELECT v.id, p.name, v.channel || '-' || p.name, 'confirmed', md5(v.place || p.name), '{"upload": "u-1"}',
        v.place || '-' || p.place,
        'https://example.org/' || v.place, true, md5('v' || v.place), md5('c' || v.place || p.name), y.at, y.at, y.at, y.at
    FROM phantoms.videos v CROSS JOIN unnest(CAST(:platforms AS text[])) WITH ORDINALITY AS p(name, place)
    CROSS JOIN LATERAL (SELECT v.created_at + p.place * interval '1 hour' AS at) y
    WHERE :videos - v.place >= :planned AND v.place % 499 <> 0 AND NOT (v.place % 200 = 0 AND p.name = 'tiktok')
"""
_RENDERS = """
    INSERT INTO phantoms.renders (video_id, revision, state, render_id, attempted_at, sandbox)
    SELECT v.id, 1, 'done', 'r-' || v.place, v.created_at, true FROM phantoms.videos v WHERE :videos - v.place >= :rendering
"""
_APPROVALS = """
    INSERT INTO phantoms.approvals (video_id, approved, reviewer, note, content_sha256, via, decided_at)
    SELECT v.id, v.place % 499 <> 0, 'person' || v.place % 9, '', md5('c'), 'desk', v.created_at + interval '14 minutes'
    FROM phantoms.videos v WHERE :videos - v.place >= :reviewed
"""
_DECIDED = """
    INSERT INTO phantoms.pending_decisions (video_id, answer, reviewer, content_sha256, via, state, made_at, commit_at,
        ended_at)
    SELECT v.id, 'approve', 'person' || v.place % 9, md5('c'), 'desk', 'committed', y.at, y.at, y.at
    FROM phantoms.videos v CROSS JOIN LATERAL (SELECT v.created_at + interval '14 minutes' AS at) y
    WHERE :videos - v.place >= :reviewed
"""
_HOLDS = """
    INSERT INTO phantoms.holds (video_id, reviewer, note, via)
    SELECT v.id, 'person' || v.place % 9, 'ask the editor', 'desk' FROM phantoms.videos v
    WHERE :videos - v.place BETWEEN :rendering AND :reviewed - 1 AND v.place % 10 = 0
"""
_EARLIER = """
    INSERT INTO phantoms.earlier_revisions (video_id, revision, script, rendered, replaced_at)
    SELECT v.id, 1, CAST(:script AS jsonb), CAST(:master AS jsonb), v.created_at FROM phantoms.videos v WHERE v.place % 50 = 0
"""
_AUDIT = """
    INSERT INTO phantoms.audit_log (at, who, via, address, action, subject, before, after)
    SELECT v.created_at, 'person' || v.place % 9, 'desk', '127.0.0.1', x.action, v.key, NULL, '{"note": "as written"}'::jsonb
    FROM phantoms.videos v CROSS JOIN unnest(ARRAY['approve', 'edit']) AS x(action)
    WHERE :videos - v.place >= :reviewed ORDER BY v.id
"""
_BULK = """
    INSERT INTO phantoms.bulk_actions (action, chosen, who, via, state, made_at, ended_at)
    SELECT 'retry', 'state:failed', 'ann', 'desk', 'ended', :now - n * interval '1 day', :now FROM generate_series(1, 200) AS n
"""
_ITEMS = """
    INSERT INTO phantoms.bulk_items (bulk_id, n, key, state, outcome, ended_at)
    SELECT b.id, v.n, v.key, CASE WHEN v.n % 50 = 0 THEN 'failed' ELSE 'done' END, 'tiktok/post: starts over', :now
    FROM phantoms.bulk_actions b CROSS JOIN (SELECT key, row_number() OVER (ORDER BY id) AS n FROM phantoms.videos LIMIT 500) v
"""
_ENDPOINTS = """
    INSERT INTO phantoms.webhook_endpoints (url, events, secret)
    SELECT 'https://example.org/' || n, '{video.posted,video.failed}', 'none' FROM generate_series(1, 3) AS n
"""
_EVENTS = """
    INSERT INTO phantoms.webhook_events (message_id, type, source, at, data)
    SELECT 'm' || v.id, CASE WHEN v.place % 9 = 0 THEN 'video.failed' ELSE 'video.posted' END, 's' || v.id, v.created_at,
        jsonb_build_object('key', v.key) FROM phantoms.videos v WHERE :videos - v.place >= :planned ORDER BY v.id
"""
_DELIVERIES = """
    INSERT INTO phantoms.webhook_deliveries (event_id, endpoint_id, state, tries, created_at, next_at, ended_at)
    SELECT e.id, w.id, CASE WHEN e.id % 50 = 0 THEN 'failed' ELSE 'delivered' END, 1, e.at, e.at, e.at
    FROM phantoms.webhook_events e CROSS JOIN phantoms.webhook_endpoints w ORDER BY e.id
"""
_DELIVERED = """
    INSERT INTO phantoms.webhook_attempts (delivery_id, at, seconds, status)
    SELECT d.id, d.created_at, 0.2, 200 FROM phantoms.webhook_deliveries d
"""
_SNAPSHOTS = """
    INSERT INTO phantoms.metric_snapshots (post_id, at, views, likes, comments, shares, watch_seconds)
    SELECT p.id, p.published_at + interval '1 day', p.id % 9000, p.id % 300, p.id % 30, p.id % 20, p.id % 9000 * 7.5
        FROM phantoms.posts p
"""
_OF_VIDEOS = """
    INSERT INTO phantoms.video_performance (video_key, title, channel, hook, first_published_at, posts, views, likes,
        comments, shares,
        watch_seconds, engagement_rate, cost, computed_at)
    SELECT v.key, v.title, v.channel, 'Hook ' || v.place % 700, v.created_at + interval '1 hour', 3, n, n / 30, n / 300,
        n / 450, n * 7.5,
        0.04, 0.03, :now
    FROM phantoms.videos v CROSS JOIN LATERAL (SELECT (v.place * 7919 % 90000) AS n) x WHERE :videos - v.place >= :planned
"""
_OF_PLATFORMS = """
    INSERT INTO phantoms.platform_performance (day, platform, channel, posts, views, likes, comments, shares, watch_seconds,
        engagement_rate, cost, computed_at)
    SELECT (p.published_at AT TIME ZONE 'UTC')::date, p.platform, v.channel, count(*), sum(p.id % 9000), sum(p.id % 300),
        sum(p.id % 30),
        sum(p.id % 20), 0, 0.04, 0, :now
    FROM phantoms.posts p JOIN phantoms.videos v ON v.id = p.video_id GROUP BY 1, 2, 3
"""
_OF_HOOKS = """
    INSERT INTO phantoms.hook_performance (hook, posts, views, likes, comments, shares, engagement_rate, computed_at)
    SELECT hook, sum(posts), sum(views), sum(likes), sum(comments), sum(shares), 0.04, :now
        FROM phantoms.video_performance GROUP BY 1
"""
STEPS = {
    "videos": _VIDEOS,
    "stages": _STAGES,
    "attempts": _ATTEMPTS,
    "dead letters": _LETTERS,
    "posts": _POSTS,
    "renders": _RENDERS,
    "approvals": _APPROVALS,
    "decisions": _DECIDED,
    "holds": _HOLDS,
    "earlier revisions": _EARLIER,
    "audit log": _AUDIT,
    "bulk actions": _BULK,
    "their steps": _ITEMS,
    "webhooks": _ENDPOINTS,
    "their events": _EVENTS,
    "their deliveries": _DELIVERIES,
    "attempts of these": _DELIVERED,
    "snapshots": _SNAPSHOTS,
    "results of videos": _OF_VIDEOS,
    "results of platforms": _OF_PLATFORMS,
    "results of hooks": _OF_HOOKS,
}
_STAGE_NAMES = ["script", "voiceover", "rendered_video", "approval", *(f"{p}/{k}" for p in PLATFORMS for k in ("variant", "post"))]
_TOPICS = [
    "ocean",
    "moon",
    "glass",
    "honey",
    "whale",
    "river",
    "comet",
    "coral",
    "desert",
    "echo",
    "falcon",
    "glacier",
    "harbor",
    "island",
    "jungle",
    "kelp",
    "lava",
    "meadow",
    "night",
    "orbit",
    "pearl",
    "quartz",
    "rain",
    "salt",
    "tide",
    "urchin",
    "valley",
    "wind",
    "yeast",
    "zebra",
    "amber",
    "basalt",
    "cloud",
    "dune",
    "ember",
    "fjord",
    "garnet",
    "heron",
    "iris",
    "jade",
]


def fill(database: Engine, *, videos: int, attempts_each: int = 1, said: Callable[[str], None] = lambda _: None) -> dict[str, int]:
    """Fill empty tables; how many rows there are, by table. A video has ten stages, each with so many attempts, and one more
    of one video in fifty.

    `said` is called with what is being made. With fewer videos, fewer are under way.
    """
    share = min(1.0, videos / 20_000)
    with database.begin() as connection:
        # The rows fit one another: the keys between tables need not be checked one by one.
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text("SET LOCAL synchronous_commit = off"))
        for channel in channels():
            config = channel.model_dump_json()
            added = text("INSERT INTO phantoms.channels (name, config) VALUES (:name, CAST(:config AS jsonb))")
            connection.execute(added, {"name": channel.name, "config": config})
            account = text("INSERT INTO phantoms.accounts (platform, name) VALUES (:platform, :name)")
            connection.execute(account, [{"platform": str(on), "name": name} for on, name in channel.accounts.items()])
        values = {
            "now": connection.execute(text("SELECT now()")).scalar_one(),
            "videos": videos,
            "channels": [channel.name for channel in channels()],
            "platforms": PLATFORMS,
            "words": _TOPICS,
            "stages": _STAGE_NAMES,
            "each": attempts_each,
            **{name: int(count * share) for name, count in _UNDER_WAY.items()},
            **{name: value.model_dump_json() for name, value in outputs().items()},
            "small": json.dumps({"kind": "variant", "title": "A fact", "caption": "A fact about the sea."}),
        }
        for name, statement in STEPS.items():
            said(name)
            connection.execute(
                text(_typed(statement)), {n: v for n, v in values.items() if f":{n}" in statement} | _gap(statement, videos)
            )
        renew_sums(connection)
    with database.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("VACUUM ANALYZE"))
        counted = text("SELECT relname, n_live_tup FROM pg_stat_user_tables WHERE schemaname = 'phantoms' AND n_live_tup > 0")
        return {row.relname: row.n_live_tup for row in connection.execute(counted)}


_UNDER_WAY = {"new": NEW, "voiced": VOICED, "rendering": RENDERING, "reviewed": REVIEWED, "planned": PLANNED}


def _typed(statement: str) -> str:
    """The statement with its parameters' types, which PostgreSQL cannot guess everywhere."""
    kinds = {"now": "timestamptz", "gap": "interval", "platforms": "text[]", "videos": "bigint"}
    for name, kind in kinds.items():
        statement = statement.replace(f"CAST(:{name} AS text[])", f":{name}").replace(f":{name}", f"CAST(:{name} AS {kind})")
    return statement


def _gap(statement: str, videos: int) -> dict[str, str]:
    return {"gap": f"{365 * 86_400 / videos:.3f} seconds"} if ":gap" in statement else {}


def channels() -> list[Channel]:
    """Channels in several zones."""
    return [
        Channel(
            name=f"channel-{number}",
            title=f"Channel {number}",
            brand_voice="calm and exact",
            accounts={platform: f"channel-{number}-{platform}" for platform in Platform.usual()},
            timezone=zone,
        ).model_copy(update={"tiktok": TikTokChoices(privacy="PUBLIC_TO_EVERYONE")})
        for number, zone in enumerate(ZONES)
    ]


def outputs() -> dict[str, Any]:
    """What the stages of a video of half a minute have made."""
    told = [f"Sentence {n} tells one more thing about the sea, which hardly anybody has heard before today." for n in range(8)]
    scenes = tuple(Scene(narration=f"{told[n]} {told[n + 1]}", on_screen_text=f"Part {n // 2 + 1}") for n in range(0, 8, 2))
    script = Script(
        hook="Did you know that the sea is never quite dark?",
        scenes=scenes,
        title="The sea is never dark",
        caption="Some animals make light of their own, and the deep sea is full of it. Follow for a fact a day.",
        hashtags=("#sea", "#facts", "#science", "#light"),
    )
    sentences = [Sentence(text=script.hook, scene=-1, start=0.0, end=3.0)]
    sentences += [Sentence(text=line, scene=n // 2, start=3.0 + 3 * n, end=6.0 + 3 * n) for n, line in enumerate(told)]
    probe = Probe(
        container="mp4",
        seconds=27.0,
        size=9_000_000,
        width=1080,
        height=1920,
        fps=30.0,
        video_codec="h264",
        pixel_format="yuv420p",
        audio_codec="aac",
        audio_hz=48_000,
        audio_channels=2,
        bit_rate=2_600_000,
        moov_first=True,
        loudness_lufs=-14.0,
    )
    return {
        "script": ScriptOutput(script=script, model="gpt", input_tokens=900, output_tokens=400),
        "voiceover": VoiceoverOutput(audio=_file("voice", ".wav"), seconds=27.0, sentences=tuple(sentences), voice="default"),
        "master": RenderedVideoOutput(
            video=_file("video", ".mp4"), thumbnail=_file("still", ".jpg"), probe=probe, renderer="shotstack", render_id="r-1"
        ),
    }


def _file(name: str, suffix: str) -> MediaFile:
    return MediaFile(sha256=hashlib.sha256(name.encode()).hexdigest(), size=9_000_000, suffix=suffix)
