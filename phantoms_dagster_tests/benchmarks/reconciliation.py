"""The tables against the sandbox's ledger: what was posted, rendered and written, how often, and why the rest was not."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from phantoms_dagster.domain.models import Platform
from phantoms_dagster_tests.benchmarks.world import Bench

_POSTED = """
    SELECT v.key, split_part(s.stage, '/', 1) AS platform, s.output->>'remote_id' AS remote_id
    FROM phantoms.stages s JOIN phantoms.videos v ON v.id = s.video_id WHERE s.stage LIKE '%/post' AND s.state = 'done'
"""

_WANTED = """
    SELECT v.key, v.title, split_part(s.stage, '/', 1) AS platform, s.output->>'caption' AS caption,
        c.config->'accounts'->>split_part(s.stage, '/', 1) AS account
    FROM phantoms.stages s JOIN phantoms.videos v ON v.id = s.video_id JOIN phantoms.channels c ON c.name = v.channel
    WHERE s.stage LIKE '%/variant' AND s.output IS NOT NULL
"""

_GIVEN_UP = """
    SELECT v.key, count(*) AS n FROM phantoms.attempts a JOIN phantoms.videos v ON v.id = a.video_id
    WHERE a.stage = 'rendered_video' AND a.code = 'render_lost' GROUP BY v.key
"""

_LETTERS = """
    SELECT v.key, d.stage, d.provider, d.error_class, d.code, d.message, d.evidence, d.attempts
    FROM phantoms.dead_letters d JOIN phantoms.videos v ON v.id = d.video_id WHERE d.state = 'open' ORDER BY d.id
"""


@dataclass
class Reconciliation:
    """What the ledger says. `doubled` and `lost` describe each case in one line. Both should be empty."""

    posts: Counter[str] = field(default_factory=Counter)
    doubled: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    given_up: int = 0
    """Renders whose submission got no answer and that were made again after their time."""
    unrecorded: int = 0
    """Posts that the sandbox has and whose stage is not done: in a dead letter or unknown, never sent again."""


def compare(bench: Bench) -> Reconciliation:
    """Every post, upload, render and script that took effect, held against what was wanted and what is recorded.

    A render API cannot find an order whose answer was lost. Such an order is booked as spent and repeated after
    `PHANTOMS_LOST_RENDER_SECONDS`. For each such record of a video, one extra render is not a double but given up.
    """
    found = Reconciliation()
    entries: list[dict[str, Any]] = bench.sandbox.ledger()["entries"]
    wanted = {_words(row["platform"], row["account"], row["caption"]): row["key"] for row in bench.rows(_WANTED)}
    posts = [entry for entry in entries if entry["kind"] == "post"]
    owner = {(e["platform"], e["remote_id"]): wanted.get(_words(e["platform"], e["account"], e["caption"])) for e in posts}
    found.posts.update(entry["platform"] for entry in posts)
    _once(found, "posts", Counter((owner[e["platform"], e["remote_id"]], e["platform"]) for e in posts))
    _once(found, "uploads", Counter((e["marker"], e["platform"]) for e in entries if e["kind"] == "youtube.video"))
    given_up = Counter({row["key"]: row["n"] for row in bench.rows(_GIVEN_UP)})
    found.given_up = given_up.total()
    _once(found, "renders", Counter(e["video_key"] for e in entries if e["kind"] == "render") - given_up)
    _once(found, "scripts", Counter(e["title"] for e in entries if e["kind"] == "script"))
    for place, key in owner.items():
        if key is None:
            found.problems.append(f"{place[0]} has the post {place[1]} that belongs to no video")
    posted = [row for row in bench.rows(_POSTED) if Platform(row["platform"]).spec.remote]  # the sandbox has no other posts
    recorded = {(row["platform"], row["remote_id"]): row["key"] for row in posted}
    for place, key in recorded.items():
        if owner.get(place) != key:
            found.problems.append(f"{key} is recorded as {place[0]} post {place[1]}, which the sandbox has for {owner.get(place)}")
    found.unrecorded = len(posts) - len(recorded)
    return found


def letters(bench: Bench) -> list[dict[str, Any]]:
    """The open dead letters."""
    return [dict(row) for row in bench.rows(_LETTERS)]


def _words(platform: str, account: str, caption: str) -> tuple[str, str, str]:
    """Return the words that tell posts apart at the platform, which may trim captions."""
    return platform, account, " ".join(caption.split())


def _once(found: Reconciliation, what: str, counted: Counter[Any]) -> None:
    found.doubled[what] = 0
    for thing, times in counted.items():
        if times > 1:
            found.doubled[what] += times - 1
            found.problems.append(f"{times} {what} of {thing}")
