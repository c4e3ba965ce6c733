"""The TikTok stand-in refuses what TikTok refuses, in TikTok's own envelope."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from phantoms_dagster_tests.contract.tiktok_world import MB, World, a_world

AUTHORIZED = {"Authorization": "Bearer sandbox-ocean_facts"}
CREATOR = "/v2/post/publish/creator_info/query/"
INIT = "/v2/post/publish/video/init/"
STATUS = "/v2/post/publish/status/fetch/"
QUERY = "/v2/video/query/"
LIST = "/v2/video/list/"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with a_world(tmp_path) as made:
        yield made


async def call(world: World, path: str, body: Any = None, **more: Any) -> httpx.Response:
    headers = more.pop("headers", AUTHORIZED)
    return await world.client.post(world.base_url + path, json=body, headers=headers, **more)


def refusal(response: httpx.Response) -> tuple[int, str]:
    envelope = response.json()
    assert set(envelope) == {"data", "error"}
    assert set(envelope["error"]) == {"code", "message", "log_id"}
    return response.status_code, envelope["error"]["code"]


def body(size: int = 9, chunk_size: int | None = None, count: int = 1, **info: Any) -> dict[str, Any]:
    post_info = {"privacy_level": "SELF_ONLY", "title": "x", "brand_content_toggle": False, "brand_organic_toggle": False}
    source = {"video_size": size, "chunk_size": size if chunk_size is None else chunk_size, "total_chunk_count": count}
    return {"post_info": post_info | info, "source_info": {"source": "FILE_UPLOAD", **source}}


async def opened(world: World, **source: Any) -> tuple[str, str]:
    data = (await call(world, INIT, body(**source))).json()["data"]
    return data["publish_id"], data["upload_url"]


async def put(world: World, url: str, content: bytes, first: int, total: int, **headers: str) -> httpx.Response:
    said = {"Content-Type": "video/mp4", "Content-Range": f"bytes {first}-{first + len(content) - 1}/{total}"}
    return await world.client.put(url, content=content, headers=said | {k.replace("_", "-"): v for k, v in headers.items()})


@pytest.mark.parametrize("path", [CREATOR, INIT, STATUS, QUERY, LIST])
@pytest.mark.parametrize("header", [None, "Bearer act.real", "Bearer sandbox-", "Basic sandbox-x"])
async def test_every_call_needs_a_token_of_the_sandbox(world: World, path: str, header: str | None) -> None:
    response = await call(world, path, {}, headers={} if header is None else {"Authorization": header})
    assert refusal(response) == (401, "access_token_invalid")


@pytest.mark.parametrize(
    ("size", "chunk_size", "count", "accepted"),
    [
        (50_000_123, 10_000_000, 5, True),  # the official example
        (150_000_000, 64_000_000, 2, True),
        (96_000_005, 32_000_000, 3, True),
        (4 << 30, 32_000_000, 134, True),
        (64_000_000, 64_000_000, 1, True),
        (3_000_000, 3_000_000, 1, True),
        (64_000_001, 64_000_000, 1, False),  # legal by floor, illegal by "must be several chunks"
        (50_000_123, 10_000_000, 6, False),
        (3_000_000, 1_000_000, 3, False),
        (20_000_000, 4_000_000, 5, False),
        (200_000_000, 100_000_000, 2, False),
        ((4 << 30) + 1, 32_000_000, 134, False),
        (0, 0, 0, False),
    ],
)
async def test_init_keeps_the_chunk_rules(world: World, size: int, chunk_size: int, count: int, accepted: bool) -> None:
    response = await call(world, INIT, body(size, chunk_size, count))
    assert refusal(response) == ((200, "ok") if accepted else (400, "invalid_param"))


@pytest.mark.parametrize(
    ("info", "status", "code"),
    [
        ({"privacy_level": None}, 400, "invalid_param"),
        ({"privacy_level": "FOLLOWER_OF_CREATOR"}, 403, "privacy_level_option_mismatch"),
        ({"title": "🐙" * 1_101}, 400, "invalid_param"),
        ({"title": 7}, 400, "invalid_param"),
        ({"brand_content_toggle": None}, 400, "invalid_param"),
        ({"brand_content_toggle": True}, 400, "invalid_param"),  # a paid partnership that nobody sees
        ({"disable_duet": "no"}, 400, "invalid_param"),
        ({"is_aigc": 1}, 400, "invalid_param"),
        ({"video_cover_timestamp_ms": -1}, 400, "invalid_param"),
    ],
)
async def test_init_refuses_fields_that_are_wrong(world: World, info: dict[str, Any], status: int, code: str) -> None:
    assert refusal(await call(world, INIT, body(**info))) == (status, code)


async def test_init_refuses_a_url_that_is_not_verified_and_a_body_that_is_not_json(world: World) -> None:
    pulled = body() | {"source_info": {"source": "PULL_FROM_URL", "video_url": "https://example.com/a.mp4"}}
    assert refusal(await call(world, INIT, pulled)) == (403, "url_ownership_unverified")
    assert refusal(await call(world, INIT, [])) == (400, "invalid_param")
    form = await world.client.post(world.base_url + INIT, data={"a": "b"}, headers=AUTHORIZED)
    assert refusal(form) == (400, "invalid_param")


async def test_an_app_that_was_not_audited_posts_to_oneself_only_and_only_to_private_accounts(world: World) -> None:
    world.sandbox.config["tiktok.audited"] = False
    unaudited = (403, "unaudited_client_can_only_post_to_private_accounts")
    assert refusal(await call(world, INIT, body(privacy_level="PUBLIC_TO_EVERYONE"))) == unaudited
    assert refusal(await call(world, INIT, body())) == unaudited
    world.sandbox.config["tiktok.private_accounts"] = ["ocean_facts"]
    assert refusal(await call(world, INIT, body(privacy_level="FOLLOWER_OF_CREATOR"))) == unaudited
    assert refusal(await call(world, INIT, body())) == (200, "ok")


async def test_a_private_account_offers_its_followers_instead_of_everyone(world: World) -> None:
    world.sandbox.config["tiktok.private_accounts"] = ["ocean_facts"]
    options = (await call(world, CREATOR)).json()["data"]["privacy_level_options"]
    assert options == ["FOLLOWER_OF_CREATOR", "MUTUAL_FOLLOW_FRIENDS", "SELF_ONLY"]
    refused = await call(world, INIT, body(privacy_level="PUBLIC_TO_EVERYONE"))
    assert refusal(refused) == (403, "privacy_level_option_mismatch")


async def test_an_app_that_was_not_audited_posts_for_five_users_a_day(world: World) -> None:
    accounts = [f"user_{number}" for number in range(6)]
    world.sandbox.config |= {"tiktok.audited": False, "tiktok.private_accounts": accounts}
    for account in accounts:
        token = {"Authorization": f"Bearer sandbox-{account}"}
        opened = await call(world, INIT, body(), headers=token)
        if account == accounts[-1]:
            assert refusal(opened) == (403, "reached_active_user_cap")
            assert refusal(await call(world, CREATOR, headers=token)) == (200, "reached_active_user_cap")
            break
        await put(world, opened.json()["data"]["upload_url"], b"123456789", 0, 9)
    again = {"Authorization": f"Bearer sandbox-{accounts[0]}"}
    assert refusal(await call(world, INIT, body(), headers=again)) == (200, "ok"), "the cap counts users, not posts"
    world.sandbox.advance(86_401)
    assert refusal(await call(world, INIT, body(), headers=token)) == (200, "ok")


async def test_a_publish_id_is_forgotten_a_day_after_its_end(world: World) -> None:
    publish_id, url = await opened(world)
    world.sandbox.advance(1_000)
    assert refusal(await call(world, STATUS, {"publish_id": publish_id})) == (200, "ok")
    await put(world, url, b"123456789", 0, 9)
    world.sandbox.advance(86_000)
    assert refusal(await call(world, STATUS, {"publish_id": publish_id})) == (200, "ok")
    world.sandbox.advance(500)
    assert refusal(await call(world, STATUS, {"publish_id": publish_id})) == (400, "invalid_publish_id")


async def test_chunks_are_counted_and_the_last_one_starts_the_post(world: World) -> None:
    publish_id, url = await opened(world, size=10 * MB + 3, chunk_size=5 * MB, count=2)
    first = await put(world, url, bytes(5 * MB), 0, 10 * MB + 3)
    assert (first.status_code, first.headers["content-range"]) == (206, "bytes 0-5000000/10000003")
    status = (await call(world, STATUS, {"publish_id": publish_id})).json()["data"]
    assert status == {"status": "PROCESSING_UPLOAD", "uploaded_bytes": 5 * MB}
    assert not world.posts
    last = await put(world, url, bytes(5 * MB + 3), 5 * MB, 10 * MB + 3)
    assert (last.status_code, last.headers["content-range"]) == (201, "bytes 0-10000003/10000003")
    assert len(world.posts) == 1
    again = await put(world, url, bytes(5 * MB + 3), 5 * MB, 10 * MB + 3)
    assert again.status_code == 416
    assert len(world.posts) == 1


@pytest.mark.parametrize(
    ("first", "length", "headers", "status"),
    [
        (5 * MB, 5 * MB, {}, 416),  # not the next byte
        (0, 5 * MB - 1, {}, 400),  # not the announced chunk size
        (0, 10 * MB, {}, 400),
        (0, 5 * MB, {"Content_Type": "application/json"}, 400),
        (0, 5 * MB, {"Content_Range": "bytes 0-4999999/*"}, 400),
        (0, 5 * MB, {"Content_Range": "bytes 0-4999999/10000001"}, 400),
        (0, 5 * MB, {"Content_Range": "bytes 0-4999998/10000000"}, 400),
    ],
)
async def test_a_chunk_that_does_not_fit_is_refused_and_leaves_no_trace(
    world: World, first: int, length: int, headers: dict[str, str], status: int
) -> None:
    publish_id, url = await opened(world, size=10 * MB, chunk_size=5 * MB, count=2)
    assert (await put(world, url, bytes(length), first, 10 * MB, **headers)).status_code == status
    assert (await call(world, STATUS, {"publish_id": publish_id})).json()["data"]["uploaded_bytes"] == 0


async def test_an_upload_address_is_dead_after_an_hour_and_an_invented_one_is_unknown(world: World) -> None:
    _, url = await opened(world)
    assert (await put(world, url[:-1], b"123456789", 0, 9)).status_code == 404
    world.sandbox.advance(3_601)
    assert (await put(world, url, b"123456789", 0, 9)).status_code == 403
    assert not world.posts


async def test_the_same_last_chunk_sent_twice_at_once_posts_once(world: World) -> None:
    _, url = await opened(world, size=4 * MB)
    answers = await asyncio.gather(*(put(world, url, bytes(4 * MB), 0, 4 * MB) for _ in range(3)))
    assert sorted(a.status_code for a in answers) == [201, 416, 416]
    assert len(world.posts) == 1


async def test_a_chunk_that_a_fault_has_read_is_kept_anyway(world: World) -> None:
    world.fault("upload", "latency", match="upload_token")
    _, url = await opened(world)
    assert (await put(world, url, b"123456789", 0, 9)).status_code == 201
    assert world.posts[0]["sha256"] == "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225"


async def test_a_chunk_that_is_cut_leaves_no_trace(world: World) -> None:
    publish_id, address = await opened(world, size=4 * MB)
    url = httpx.URL(address)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    target = url.raw_path.decode()
    lines = [f"PUT {target} HTTP/1.1", f"Host: {url.host}", "Content-Type: video/mp4", f"Content-Length: {4 * MB}"]
    writer.write("\r\n".join([*lines, f"Content-Range: bytes 0-{4 * MB - 1}/{4 * MB}", "", ""]).encode() + bytes(2 * MB))
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    await reader.read()
    assert (await call(world, STATUS, {"publish_id": publish_id})).json()["data"]["uploaded_bytes"] == 0
    assert (await put(world, address, bytes(4 * MB), 0, 4 * MB)).status_code == 201
    assert len(world.posts) == 1


async def test_status_knows_only_its_own_uploads(world: World) -> None:
    publish_id, _ = await opened(world)
    assert refusal(await call(world, STATUS, {"publish_id": "v_pub_file~nope"})) == (400, "invalid_publish_id")
    stranger = await call(world, STATUS, {"publish_id": publish_id}, headers={"Authorization": "Bearer sandbox-other"})
    assert refusal(stranger) == (400, "token_not_authorized_for_specified_publish_id")


async def test_processing_then_complete_then_the_public_id(world: World) -> None:
    world.sandbox.config |= {"tiktok.processing_seconds": 10, "tiktok.moderation_seconds": 20}
    data = (await call(world, INIT, body(privacy_level="PUBLIC_TO_EVERYONE"))).json()["data"]
    await put(world, data["upload_url"], b"123456789", 0, 9)

    async def status() -> tuple[str, Any]:
        said = (await call(world, STATUS, {"publish_id": data["publish_id"]})).json()["data"]
        return said["status"], said.get("publicaly_available_post_id")

    assert await status() == ("PROCESSING_UPLOAD", None)
    world.sandbox.advance(10)
    assert await status() == ("PUBLISH_COMPLETE", [])
    world.sandbox.advance(20)
    assert await status() == ("PUBLISH_COMPLETE", [int(world.posts[0]["remote_id"])])


@pytest.mark.parametrize(("path", "request_body", "limit"), [(CREATOR, None, 20), (INIT, {}, 6), (STATUS, {"publish_id": "x"}, 30)])
async def test_limits_hold_per_token_in_a_sliding_minute(world: World, path: str, request_body: Any, limit: int) -> None:
    for _ in range(limit):
        assert (await call(world, path, request_body)).status_code != 429
    assert refusal(await call(world, path, request_body)) == (429, "rate_limit_exceeded")
    other = await call(world, path, request_body, headers={"Authorization": "Bearer sandbox-other"})
    assert other.status_code != 429
    world.sandbox.advance(60)
    assert (await call(world, path, request_body)).status_code != 429


async def test_the_daily_cap_is_per_creator_and_ends_after_a_day(world: World) -> None:
    world.sandbox.config["tiktok.daily_posts"] = 2
    for _ in range(2):
        _, url = await opened(world)
        await put(world, url, b"123456789", 0, 9)
    assert refusal(await call(world, CREATOR)) == (200, "spam_risk_too_many_posts")
    assert refusal(await call(world, INIT, body())) == (403, "spam_risk_too_many_posts")
    assert refusal(await call(world, CREATOR, headers={"Authorization": "Bearer sandbox-other"})) == (200, "ok")
    world.sandbox.advance(86_401)
    assert refusal(await call(world, CREATOR)) == (200, "ok")


async def test_a_banned_creator_is_told_so_with_200_and_with_403(world: World) -> None:
    world.sandbox.config["tiktok.banned_accounts"] = ["ocean_facts"]
    assert refusal(await call(world, CREATOR)) == (200, "spam_risk_user_banned_from_posting")
    assert refusal(await call(world, INIT, body())) == (403, "spam_risk_user_banned_from_posting")


@pytest.mark.parametrize(
    ("fields", "ids"),
    [
        ("", ["1"]),
        ("id,watch_time", ["1"]),
        ("id", []),
        ("id", ["1"] * 21),
        ("id", ["1", "v_pub_file~v2-1.7"]),
        ("id", [1]),
        ("id", "1"),
    ],
)
async def test_a_query_that_is_wrong_fails_as_a_whole(world: World, fields: str, ids: Any) -> None:
    response = await call(world, QUERY, {"filters": {"video_ids": ids}}, params={"fields": fields})
    assert refusal(response) == (400, "invalid_params")


async def test_the_list_goes_back_page_by_page_and_shows_public_posts_of_the_account_alone(world: World) -> None:
    for number in range(5):
        privacy = "SELF_ONLY" if number == 2 else "PUBLIC_TO_EVERYONE"
        data = (await call(world, INIT, body(privacy_level=privacy, title=f"{number}"))).json()["data"]
        await put(world, data["upload_url"], b"123456789", 0, 9)
        world.sandbox.advance(10)
    titles, cursor, more = [], None, True
    while more:
        asked = {"max_count": 2} | ({"cursor": cursor} if cursor else {})
        data = (await call(world, LIST, asked, params={"fields": "id,title,create_time"})).json()["data"]
        titles += [video["title"] for video in data["videos"]]
        cursor, more = data["cursor"], data["has_more"]
    assert titles == ["4", "3", "1", "0"]
    stranger = await call(world, LIST, {}, params={"fields": "id"}, headers={"Authorization": "Bearer sandbox-other"})
    assert stranger.json()["data"]["videos"] == []
    assert refusal(await call(world, LIST, {"max_count": 21}, params={"fields": "id"})) == (400, "invalid_params")


async def test_a_query_finds_public_posts_of_the_account_by_id_newest_first(world: World) -> None:
    for privacy in ("PUBLIC_TO_EVERYONE", "SELF_ONLY", "PUBLIC_TO_EVERYONE"):
        data = (await call(world, INIT, body(privacy_level=privacy))).json()["data"]
        await put(world, data["upload_url"], b"123456789", 0, 9)
        world.sandbox.advance(10)
    first, private, last = (post["remote_id"] for post in world.posts)

    async def found(*ids: str, **more: Any) -> list[str]:
        answer = await call(world, QUERY, {"filters": {"video_ids": list(ids)}}, params={"fields": "id"}, **more)
        return [video["id"] for video in answer.json()["data"]["videos"]]

    assert await found(first, private, last, first, "1") == [last, first]
    assert await found(f"0{first}", "9" * 5_000) == []
    assert await found(first, headers={"Authorization": "Bearer sandbox-other"}) == []


async def test_the_page_of_a_video_escapes_its_caption_and_an_unknown_one_is_404(world: World) -> None:
    data = (await call(world, INIT, body(privacy_level="PUBLIC_TO_EVERYONE", title="<script>alert(1)</script>"))).json()["data"]
    await put(world, data["upload_url"], b"123456789", 0, 9)
    page = await world.client.get(f"{world.base_url}/watch/{world.posts[0]['remote_id']}")
    assert "&lt;script&gt;" in page.text
    assert "<script>" not in page.text
    assert (await world.client.get(f"{world.base_url}/watch/7")).status_code == 404


# --- who it is, and what its token allows


async def test_user_info_tells_whose_the_token_is(world: World) -> None:
    path = "/v2/user/info/?fields=open_id,display_name"
    first = (await world.client.get(f"{world.base_url}{path}", headers=AUTHORIZED)).json()
    assert first["error"]["code"] == "ok"
    other = (await world.client.get(f"{world.base_url}{path}", headers={"Authorization": "Bearer sandbox-other"})).json()
    assert first["data"]["user"]["open_id"] != other["data"]["user"]["open_id"]
    again = (await world.client.get(f"{world.base_url}{path}", headers={"Authorization": "Bearer sandbox-ocean_facts~2"})).json()
    assert again["data"]["user"] == first["data"]["user"]


async def test_a_call_without_its_scope_is_refused(world: World) -> None:
    world.sandbox.config["tiktok.scopes"] = {"ocean_facts": ["video.list"]}
    assert refusal(await call(world, CREATOR)) == (401, "scope_not_authorized")
    assert refusal(await call(world, LIST, {}, params={"fields": "id"})) == (200, "ok")


async def test_a_token_that_has_expired_is_refused_and_its_successor_taken(world: World) -> None:
    world.sandbox.config["tiktok.token_seconds"] = 86_400
    assert refusal(await call(world, CREATOR)) == (200, "ok")
    world.sandbox.advance(86_401)
    assert refusal(await call(world, CREATOR)) == (401, "access_token_invalid")
    assert refusal(await call(world, CREATOR, headers={"Authorization": "Bearer sandbox-ocean_facts~2"})) == (200, "ok")
