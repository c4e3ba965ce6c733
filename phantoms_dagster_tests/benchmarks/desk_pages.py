"""Every address of the desk that can be opened, with typical parameters, for the benchmark and for the test of query plans.

Both fail if a route is in `desk.access` but not here, because a page that is never measured gets slow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from sqlalchemy import Engine, text

from phantoms_dagster.desk.access import ROLES

# They stay open, are answered before anything is read, are for a guest who has nothing but a secret, or take another site's answer.
NOT_PAGES = {
    "/events",
    "/media/{name}",
    "/static/{digest}/{name}",
    "/health",
    "/guest/{secret}",
    "/calendar/{secret}.ics",
    "/provider-events/{integration}",
    "/login/oidc",
    "/login/oidc/back",
    "/callback",
    "/callback/",
}


@dataclass(frozen=True)
class Samples:
    """Parameters for the pages: keys of videos by stage, causes and numbers of dead letters, bulk actions and days."""

    waiting: Sequence[str]
    out: Sequence[str]
    remade: Sequence[str]
    planned: Sequence[str]
    failed: Sequence[str]
    causes: Sequence[str]
    letters: Sequence[int]
    bulk: Sequence[int]
    ids: Sequence[int]
    decisions: Sequence[int]
    deliveries: Sequence[int]

    @classmethod
    def of(cls, database: Engine) -> Samples:
        """Pick samples from these tables."""
        with database.connect() as connection:

            def some(statement: str) -> list[object]:
                return list(connection.execute(text(statement)).scalars())

            def keys(condition: str) -> list[object]:
                wanted = (
                    "SELECT v.key FROM phantoms.videos v JOIN phantoms.stages s ON s.video_id = v.id WHERE {} ORDER BY v.id DESC"
                )
                return some(f"{wanted.format(condition)} LIMIT 40")

            found = {
                "waiting": keys("s.stage = 'approval' AND s.state = 'deferred'"),
                "out": keys("s.stage = 'youtube/post' AND s.state = 'done' AND v.id % 7 = 0"),
                "remade": keys("s.stage = 'rendered_video' AND s.state = 'done' AND s.revision = 2"),
                "planned": keys("s.stage = 'youtube/post' AND s.state = 'deferred'"),
                "failed": keys("s.stage = 'tiktok/post' AND s.state = 'failed'"),
                "causes": some("SELECT DISTINCT cause FROM phantoms.dead_letters WHERE state = 'open' LIMIT 20"),
                "letters": some("SELECT id FROM phantoms.dead_letters ORDER BY id DESC LIMIT 20"),
                "bulk": some("SELECT id FROM phantoms.bulk_actions ORDER BY id DESC LIMIT 20"),
                "ids": some("SELECT id FROM phantoms.videos WHERE id % 1999 = 0 ORDER BY id"),
                "deliveries": some("SELECT id FROM phantoms.webhook_deliveries ORDER BY id DESC LIMIT 20"),
                "decisions": some("SELECT id FROM phantoms.pending_decisions ORDER BY id DESC LIMIT 20"),
            }
        return cls(**found)  # type: ignore[arg-type]


Address = Callable[[Samples, int], str]


def _one(given: Sequence[object], number: int) -> str:
    return quote(str(given[number % len(given)]), safe="")


def _search(*typed: str) -> Address:
    return lambda _, n: f"/pipeline?q={quote(typed[n % len(typed)])}"


def _same(*addresses: str) -> Address:
    return lambda _, n: addresses[n % len(addresses)]


_WORDS = ("ocean", "moon glass", "har", '"silk"', "number 7")
# By route, then by what is asked: the name of a figure, and its address of the n-th time.
PAGES: Mapping[str, Mapping[str, Address]] = {
    "/": {"front": _same("/")},
    "/login": {"login": _same("/login")},
    "/review": {
        "review": _same("/review"),
        "review of a channel": _same(*(f"/review?channel=channel-{n}" for n in range(6))),
        "review held": _same("/review?held=1"),
    },
    "/review/{key}": {
        "review of a video": lambda s, n: f"/review/{_one(s.waiting, n)}",
        "review of one that is out": lambda s, n: f"/review/{_one(s.out, n)}",
        "review compared": lambda s, n: f"/review/{_one(s.remade, n)}?against=1",
    },
    "/review/{key}/edit": {"edit": lambda s, n: f"/review/{_one(s.waiting, n)}/edit"},
    "/pipeline": {
        "pipeline": _same("/pipeline"),
        "pipeline by words": _search(*_WORDS),
        "pipeline by stage and state": _search(
            "state:failed", "stage:post", "stage:render state:deferred", "stage:script state:done"
        ),
        "pipeline by channel": _search("channel:channel-1", "channel:channel-2 platform:tiktok priority:1", "platform:youtube"),
        "pipeline by time": _search("since:6h", "since:30d", "stage:post state:failed since:26w", "stage:post state:done since:6h"),
        "pipeline by video": _search("state:held", "state:retired", "priority:3"),
        "pipeline, old videos": lambda s, n: f"/pipeline?before={_one(s.ids, n)}",
    },
    "/pipeline/act": {
        "act on all found": _same(
            "/pipeline/act?action=retry&whole=1&q=state%3Afailed", "/pipeline/act?action=hold&whole=1&q=since%3A20d"
        ),
        "act on a video": lambda s, n: f"/pipeline/act?action=priority&key={_one(s.waiting, n)}",
    },
    "/videos/{key}": {"video": lambda s, n: f"/videos/{_one([*s.out, *s.failed, *s.waiting], n * 7)}"},
    "/videos/{key}/takedown/{platform}": {"takedown": lambda s, n: f"/videos/{_one(s.out, n)}/takedown/youtube"},
    "/videos/{key}/raw": {"video as rows": lambda s, n: f"/videos/{_one(s.out, n)}/raw"},
    "/bulk": {"bulk actions": _same("/bulk")},
    "/bulk/{number}": {
        "bulk action": lambda s, n: f"/bulk/{_one(s.bulk, n)}",
        "bulk action, done steps": lambda s, n: f"/bulk/{_one(s.bulk, n)}?state=done&after={n % 400}",
    },
    "/dead-letters": {
        "dead letters": _same("/dead-letters"),
        "dead letters, all": _same("/dead-letters?state=all", "/dead-letters?state=resolved", "/dead-letters?provider=tiktok"),
    },
    "/dead-letters/{cause}": {
        "issue": lambda s, n: f"/dead-letters/{_one(s.causes, n)}",
        "issue, closed": lambda s, n: f"/dead-letters/{_one(s.causes, n)}?which=closed",
    },
    "/dead-letters/{cause}/act": {
        "replay of an issue": lambda s, n: f"/dead-letters/{_one(s.causes, n)}/act?action=replay&whole=1"
    },
    "/calendar": {
        "calendar": _same("/calendar", "/calendar?channel=channel-2"),
        "calendar, list": _same("/calendar?view=list", "/calendar?view=list&channel=channel-1"),
        "calendar, month": _same("/calendar?view=month", "/calendar?view=month&channel=channel-3"),
    },
    "/calendar-feeds": {"calendar feeds": _same("/calendar-feeds")},
    "/calendar/{key}": {"move": lambda s, n: f"/calendar/{_one(s.planned, n)}"},
    "/accounts": {"accounts": _same("/accounts")},
    "/accounts/disconnect": {"disconnect": _same("/accounts/disconnect?account=youtube%3Achannel-1-youtube")},
    "/providers": {"providers": _same("/providers")},
    "/providers/{provider}": {"provider": _same(*(f"/providers/{name}" for name in ("tiktok", "openai", "youtube", "shotstack")))},
    "/performance": {
        "performance": _same("/performance", "/performance?channel=channel-2"),
        "performance of a year": _same("/performance?days=365", "/performance?days=365&channel=channel-4", "/performance?days=90"),
        "performance, other orders": _same(
            "/performance?days=365&sort=engagement_rate",
            "/performance?days=365&sort=cost&page=9",
            "/performance?days=90&hook=Hook%207",
        ),
    },
    "/add": {"add": _same("/add")},
    "/audit": {
        "audit": _same("/audit"),
        "audit of a video": lambda s, n: f"/audit?subject={_one(s.out, n)}",
        "audit of a person": _same(*(f"/audit?who=person{n}" for n in range(9))),
    },
    "/webhooks": {
        "webhooks": _same("/webhooks"),
        "webhooks, some": _same(
            "/webhooks?state=failed", "/webhooks?event=video.posted", "/webhooks?endpoint=1", "/webhooks?before=9000"
        ),
    },
    "/webhooks/deliveries/{number}": {"webhook": lambda s, n: f"/webhooks/deliveries/{_one(s.deliveries, n)}"},
    "/guest-links": {"guest links": _same("/guest-links")},
    "/api/v1/guest-links": {"API: guest links": _same("/api/v1/guest-links")},
    "/api/v1/webhooks": {"API: webhooks": _same("/api/v1/webhooks")},
    "/api/v1/webhook-deliveries": {
        "API: deliveries": _same("/api/v1/webhook-deliveries", "/api/v1/webhook-deliveries?state=failed")
    },
    "/api/v1/webhook-deliveries/{number}": {"API: delivery": lambda s, n: f"/api/v1/webhook-deliveries/{_one(s.deliveries, n)}"},
    "/api/v1/openapi.json": {"API: document": _same("/api/v1/openapi.json")},
    "/api/v1/me": {"API: me": _same("/api/v1/me")},
    "/api/v1/audit": {"API: audit": _same("/api/v1/audit", "/api/v1/audit?who=person3&limit=100")},
    "/api/v1/videos": {
        "API: videos": _same("/api/v1/videos", "/api/v1/videos?limit=100"),
        "API: videos found": lambda _, n: f"/api/v1/videos?q={quote(_WORDS[n % len(_WORDS)])}",
    },
    "/api/v1/videos/{key}": {"API: video": lambda s, n: f"/api/v1/videos/{_one(s.out, n)}"},
    "/api/v1/posts": {"API: posts": _same("/api/v1/posts", "/api/v1/posts?platform=tiktok&state=confirmed")},
    "/api/v1/videos/{key}/posts/{platform}": {"API: post": lambda s, n: f"/api/v1/videos/{_one(s.out, n)}/posts/youtube"},
    "/api/v1/review": {"API: review": _same("/api/v1/review", "/api/v1/review?channel=channel-1")},
    "/api/v1/videos/{key}/review": {"API: review of a video": lambda s, n: f"/api/v1/videos/{_one(s.waiting, n)}/review"},
    "/api/v1/decisions/{number}": {"API: decision": lambda s, n: f"/api/v1/decisions/{_one(s.decisions, n)}"},
    "/api/v1/videos/{key}/texts": {"API: texts": lambda s, n: f"/api/v1/videos/{_one(s.waiting, n)}/texts"},
    "/api/v1/issues": {"API: issues": _same("/api/v1/issues", "/api/v1/issues?state=all&q=tiktok")},
    "/api/v1/issues/{cause}": {"API: issue": lambda s, n: f"/api/v1/issues/{_one(s.causes, n)}"},
    "/api/v1/performance": {
        "API: performance": _same(
            "/api/v1/performance", "/api/v1/performance?days=365", "/api/v1/performance?days=365&channel=channel-1"
        ),
    },
    "/api/v1/dead-letters": {
        "API: dead letters": _same("/api/v1/dead-letters", "/api/v1/dead-letters?provider=tiktok&stage=post&class=transient"),
        "API: dead letters, all": _same("/api/v1/dead-letters?state=all", "/api/v1/dead-letters?state=replayed&cursor=3000"),
    },
    "/api/v1/dead-letters/{number}": {"API: dead letter": lambda s, n: f"/api/v1/dead-letters/{_one(s.letters, n)}"},
    "/api/v1/bulk-actions": {"API: bulk actions": _same("/api/v1/bulk-actions")},
    "/api/v1/bulk-actions/{number}": {"API: bulk action": lambda s, n: f"/api/v1/bulk-actions/{_one(s.bulk, n)}"},
    "/api/v1/bulk-actions/{number}/steps": {"API: steps": lambda s, n: f"/api/v1/bulk-actions/{_one(s.bulk, n)}/steps?state=done"},
    "/api/v1/pools": {"API: pools": _same("/api/v1/pools")},
    "/api/v1/breakers": {"API: breakers": _same("/api/v1/breakers")},
    "/api/v1/calendar": {"API: calendar": _same("/api/v1/calendar", "/api/v1/calendar?channel=channel-2")},
}


def left_out() -> set[str]:
    """The routes that can be opened and are not in `PAGES`."""
    return {path for method, path in ROLES if method == "GET"} - set(PAGES) - NOT_PAGES


def addresses(samples: Samples, number: int) -> dict[str, str]:
    """By name, the address of each figure for the n-th time."""
    return {name: make(samples, number) for asked in PAGES.values() for name, make in asked.items()}
