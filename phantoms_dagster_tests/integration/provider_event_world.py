"""Deliveries of TikTok and Meta to a desk, and posts that wait for one, for the tests of provider events."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from pydantic import SecretStr

from phantoms_dagster.domain.claims import AttemptOutcome
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.stages import StageState
from phantoms_dagster_tests.integration.desk_world import DeskWorld

PUBLIC = "https://desk.example.org"
SECRET, APP_SECRET, VERIFY = "sandbox-secret", "meta-app-secret", "told-to-meta"
ADDRESS_SECRET = "end-of-the-address"
PUBLISH_ID = "v_pub_file~v2-1.0000010000000000001"
SETTINGS = {
    "provider_events_url": PUBLIC,
    "provider_events_secret": SecretStr("s" * 40),
    "tiktok_client_secret": SecretStr(SECRET),
    "instagram_app_secret": SecretStr(APP_SECRET),
    "instagram_verify_token": SecretStr(VERIFY),
    "uploadpost_events_secret": SecretStr(ADDRESS_SECRET),
}


def tiktok_event(kind: str = "post.publish.complete", publish_id: str = PUBLISH_ID, **facts: Any) -> bytes:
    content = json.dumps({"publish_id": publish_id, "publish_type": "DIRECT_PUBLISH"})
    return json.dumps(
        {"client_key": "k", "event": kind, "create_time": 1, "user_openid": "o", "content": content, **facts}
    ).encode()


def by_tiktok(body: bytes, *, at: float | None = None, secret: str = SECRET) -> Mapping[str, str]:
    stamp = str(int(time.time() if at is None else at))
    return {"TikTok-Signature": f"t={stamp},s={hmac.new(secret.encode(), f'{stamp}.'.encode() + body, hashlib.sha256).hexdigest()}"}


def by_meta(body: bytes, secret: str = APP_SECRET) -> Mapping[str, str]:
    return {"X-Hub-Signature-256": f"sha256={hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}"}


def upload_post_event(kind: str = "upload_completed", profile: str = "a", **facts: Any) -> bytes:
    result = {"success": True, "url": "https://www.tiktok.com/@a/video/1", "publish_id": None, "error": None}
    told = {"event": kind, "profile_username": profile, "platform": "tiktok", "media_type": "video", "result": result}
    return json.dumps({**told, **facts}).encode()


async def deliver(world: DeskWorld, service: str, body: bytes, headers: Mapping[str, str], query: str = "") -> httpx.Response:
    """A delivery from outside, as a proxy passes it on: without a cookie, a session or a CSRF token."""
    browser = world.browser(address="203.0.113.7", host="desk.example.org")
    return await browser.client.post(f"/provider-events/{service}{query}", content=body, headers=dict(headers))


def stored(world: DeskWorld) -> list[dict[str, Any]]:
    return [dict(row) for row in world.world.rows("SELECT * FROM phantoms.provider_events ORDER BY id")]


async def deferred_post(
    world: DeskWorld, platform: str = "tiktok", *, state: str = "committing", account: str = "a", publish_id: str = PUBLISH_ID
) -> str:
    """A video whose post waits for an hour, with the handle of its upload in the ledger."""
    stages = ("script", "voiceover", "rendered_video", "approval", f"{platform}/variant")
    [key] = world.world.add(platforms=(Platform(platform),))
    world.world.write("UPDATE phantoms.videos SET place = id")  # Dagster knows them
    await world.world.carry([key], *stages)
    store, claim = await world.world.claimed(f"{platform}/post", key)
    world.world.write_post(
        """INSERT INTO phantoms.posts (video_id, platform, account, state, marker, handle, video_sha256, caption_sha256)
            SELECT id, :platform, :account, :state, key, jsonb_build_object('publish_id', CAST(:publish_id AS text)), '', ''
            FROM phantoms.videos WHERE key = :key""",
        key=key,
        platform=platform,
        account=account,
        state=state,
        publish_id=publish_id,
    )
    later = datetime.now(UTC) + timedelta(hours=1)
    assert await store.finish(claim, AttemptOutcome(StageState.DEFERRED, retry_at=later, counts=False))
    return key
