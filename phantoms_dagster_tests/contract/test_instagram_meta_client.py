"""Meta's own client (facebook-business), unchanged except for its session's GRAPH address, against the stand-in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import requests
from aiohttp import web
from aiohttp.test_utils import TestServer
from facebook_business.adobjects.igmedia import IGMedia
from facebook_business.adobjects.iguser import IGUser
from facebook_business.adobjects.user import User
from facebook_business.api import FacebookAdsApi
from facebook_business.exceptions import FacebookRequestError
from facebook_business.session import FacebookSession

from phantoms_dagster.sandbox.instagram.people import APP_ID, APP_SECRET, ig_user_id
from phantoms_dagster_tests.contract.test_instagram import ACCOUNT, Stand, mp4, standing

TOKEN = f"sandbox-{ACCOUNT}"


class Meta:
    """The client and what it talks to. Its calls block, so each runs in a thread."""

    def __init__(self, stand: Stand) -> None:
        self.stand = stand

    def api(self, *, secret: str | None = APP_SECRET, token: str = TOKEN) -> FacebookAdsApi:
        session = FacebookSession(APP_ID, secret, token)
        session.GRAPH = f"{self.stand.origin}/instagram"
        return FacebookAdsApi(session, api_version="v26.0")

    async def __call__(self, work: Callable[[FacebookAdsApi], Any], **given: Any) -> Any:
        def run() -> Any:
            api = self.api(**given)
            with api._session.requests:
                return work(api)

        return await asyncio.to_thread(run)

    async def account(self) -> str:
        def found(api: FacebookAdsApi) -> str:
            (page,) = User("me", api=api).get_accounts(fields=["id", "name", "instagram_business_account"])
            return str(page["instagram_business_account"]["id"])

        return str(await self(found))


@pytest.fixture
async def meta() -> AsyncIterator[Meta]:
    async with standing() as stand:
        yield Meta(stand)


def refusal(error: FacebookRequestError) -> tuple[int | None, int | None]:
    return error.api_error_code(), error.api_error_subcode()


async def test_metas_client_finds_the_account_of_its_token(meta: Meta) -> None:
    number = await meta.account()
    assert number == ig_user_id(ACCOUNT)
    assert number.isdecimal()
    user = await meta(lambda api: IGUser(number, api=api).api_get(fields=["id", "username"]))
    assert (user["id"], user["username"]) == (number, ACCOUNT)
    person = await meta(lambda api: User("me", api=api).api_get(fields=["id", "name"]))
    assert person["id"].isdecimal()
    assert person["id"] != number


async def test_metas_client_publishes_a_reel_and_reads_it_back(meta: Meta) -> None:
    number, content = await meta.account(), mp4()
    reel = {"media_type": "REELS", "upload_type": "resumable", "caption": "Eels", "share_to_feed": True, "is_ai_generated": True}

    def upload(api: FacebookAdsApi) -> str:
        made = IGUser(number, api=api).create_media(params=reel)
        address = made.export_all_data().get("uri") or f"{api._session.GRAPH}/rupload/ig-api-upload/v26.0/{made['id']}"
        headers = {"Authorization": f"OAuth {TOKEN}", "offset": "0", "file_size": str(len(content))}
        assert requests.post(address, headers=headers, data=content, timeout=10).json()["success"]
        return str(made["id"])

    container = await meta(upload)
    meta.stand.sandbox.advance(1)
    state = await meta(lambda api: api.call("GET", (container, ""), params={"fields": "status_code,status"}).json())
    assert state["status_code"] == "FINISHED"

    def publish(api: FacebookAdsApi) -> dict[str, Any]:
        media = IGUser(number, api=api).create_media_publish(params={"creation_id": container})
        read = IGMedia(media["id"], api=api).api_get(fields=["id", "caption", "permalink", "media_product_type"])
        (listed,) = IGUser(number, api=api).get_media(fields=["id", "caption", "timestamp"])
        assert (listed["id"], listed["caption"]) == (media["id"], "Eels")
        return dict(read.export_all_data())

    read = await meta(publish)
    assert (read["caption"], read["media_product_type"]) == ("Eels", "REELS")
    (post,) = meta.stand.posts
    assert (post["remote_id"], post["is_ai_generated"], post["share_to_feed"]) == (read["id"], True, True)


async def test_metas_client_reads_insights_by_a_list_of_metrics(meta: Meta) -> None:
    number = await meta.account()
    container = meta.stand.sandbox.state["instagram"].open(ACCOUNT, "Eels", share_to_feed=True, is_ai_generated=True)
    media = meta.stand.sandbox.state["instagram"].publish(container)
    meta.stand.sandbox.advance(86_400)
    rows = await meta(lambda api: list(IGMedia(media.id, api=api).get_insights(params={"metric": ["views", "reach", "likes"]})))
    assert {row["name"] for row in rows} == {"views", "reach", "likes"}
    assert all(row["values"][0]["value"] > 0 for row in rows)

    def limit_of(api: FacebookAdsApi) -> dict[str, Any]:
        (limit,) = IGUser(number, api=api).get_content_publishing_limit(fields=["quota_usage", "config"])
        return dict(limit.export_all_data())

    limit = await meta(limit_of)
    assert (limit["quota_usage"], limit["config"]["quota_total"]) == (0, 100)


async def test_metas_client_takes_a_reel_from_its_upload_to_its_insights(meta: Meta) -> None:
    number, content = await meta.account(), mp4()

    def uploaded(api: FacebookAdsApi) -> str:
        reel = {"media_type": "REELS", "upload_type": "resumable", "caption": "Eels", "is_ai_generated": True}
        made = IGUser(number, api=api).create_media(params=reel).export_all_data()
        headers = {"Authorization": f"OAuth {TOKEN}", "offset": "0", "file_size": str(len(content))}
        assert requests.post(made["uri"], headers=headers, data=content, timeout=10).json()["success"]
        return str(made["id"])

    def used(api: FacebookAdsApi) -> int:
        (limit,) = IGUser(number, api=api).get_content_publishing_limit(fields=["quota_usage", "config"])
        return int(limit["quota_usage"])

    container = await meta(uploaded)
    meta.stand.sandbox.advance(1)
    assert await meta(used) == 0
    media = await meta(lambda api: IGUser(number, api=api).create_media_publish(params={"creation_id": container}))
    assert await meta(used) == 1
    meta.stand.sandbox.advance(86_400 - 60)
    names = ["views", "reach", "saved", "ig_reels_avg_watch_time"]
    rows = await meta(lambda api: list(IGMedia(media["id"], api=api).get_insights(params={"metric": names})))
    assert [row["name"] for row in rows] == names
    assert all(row["period"] == "lifetime" for row in rows)
    [post] = meta.stand.posts
    assert (post["remote_id"], post["size"]) == (media["id"], len(content))


async def test_metas_client_reads_the_code_the_subcode_and_the_message_of_each_refusal(meta: Meta) -> None:
    number = await meta.account()
    reel = {"media_type": "REELS", "upload_type": "resumable", "caption": "Eels"}
    empty = await meta(lambda api: IGUser(number, api=api).create_media(params=reel))
    meta.stand.sandbox.config["instagram.quota_total"] = 0
    ready = meta.stand.sandbox.state["instagram"].open(ACCOUNT, "Eels", share_to_feed=True, is_ai_generated=True)
    ready.uploaded_at = meta.stand.sandbox.now()
    meta.stand.sandbox.advance(1)
    long = {**reel, "caption": "x" * 2_201}
    refused: list[tuple[Callable[[FacebookAdsApi], Any], tuple[int, int | None], int]] = [
        (lambda api: IGUser(number, api=api).create_media(params=long), (36_004, 2_207_010), 400),
        (lambda api: IGUser(number, api=api).create_media(params={**reel, "media_type": "STORIES"}), (100, 2_207_023), 400),
        (lambda api: IGUser(number, api=api).create_media_publish(params={"creation_id": empty["id"]}), (9007, 2_207_027), 400),
        (lambda api: IGUser(number, api=api).create_media_publish(params={"creation_id": 404}), (24, 2_207_006), 400),
        (lambda api: IGUser(number, api=api).create_media_publish(params={"creation_id": ready.id}), (9, 2_207_042), 403),
        (lambda api: IGMedia("178", api=api).get_insights(params={"metric": ["views"]}), (100, 33), 400),
    ]
    for call, code, status in refused:
        with pytest.raises(FacebookRequestError) as caught:
            await meta(call)
        assert (refusal(caught.value), caught.value.http_status()) == (code, status)
        assert caught.value.api_error_message()
        assert not caught.value.api_transient_error()
    assert meta.stand.posts == []


async def test_metas_client_publishes_from_an_address(meta: Meta) -> None:
    number, content = await meta.account(), mp4()
    files = web.Application()

    async def reel(_: web.Request) -> web.Response:
        return web.Response(body=content, content_type="video/mp4")

    files.router.add_get("/reel.mp4", reel)
    async with TestServer(files) as server:
        url = str(server.make_url("/reel.mp4"))
        made = await meta(
            lambda api: IGUser(number, api=api).create_media(params={"media_type": "REELS", "video_url": url, "caption": "Eels"})
        )
        meta.stand.sandbox.advance(1)
        await meta(lambda api: IGUser(number, api=api).create_media_publish(params={"creation_id": made["id"]}))
        assert [post["size"] for post in meta.stand.posts] == [len(content)]
        with pytest.raises(FacebookRequestError) as refused:
            await meta(
                lambda api: IGUser(number, api=api).create_media(
                    params={"media_type": "REELS", "video_url": str(server.make_url("/none.mp4"))}
                )
            )
    assert refusal(refused.value) == (9004, 2_207_052)


async def test_metas_client_proves_that_it_has_the_apps_secret(meta: Meta) -> None:
    number = await meta.account()
    meta.stand.sandbox.config["instagram.require_proof"] = True
    assert (await meta(lambda api: IGUser(number, api=api).api_get(fields=["id"])))["id"] == number
    for secret in (None, "another-secret"):
        with pytest.raises(FacebookRequestError) as refused:
            await meta(lambda api: IGUser(number, api=api).api_get(fields=["id"]), secret=secret)
        assert refusal(refused.value) == (100, None)
        assert "appsecret_proof" in refused.value.api_error_message()


async def test_metas_client_looks_into_a_token(meta: Meta) -> None:
    meta.stand.sandbox.config["instagram.token_seconds"] = 3_600

    def inspect(api: FacebookAdsApi) -> dict[str, Any]:
        params = {"input_token": TOKEN, "access_token": f"{APP_ID}|{APP_SECRET}"}
        return dict(api.call("GET", ("debug_token",), params=params).json()["data"])

    seen = await meta(inspect, secret=None)
    assert seen["is_valid"]
    assert "instagram_content_publish" in seen["scopes"]
    assert seen["expires_at"] == pytest.approx(meta.stand.sandbox.now() + 3_600, abs=60)
    meta.stand.sandbox.advance(3_601)
    assert (await meta(inspect, secret=None))["error"]["subcode"] == 463
    with pytest.raises(FacebookRequestError) as refused:
        await meta(lambda api: User("me", api=api).api_get())
    assert refusal(refused.value) == (190, 463)
