"""The Instagram stand-in by itself: it refuses what the Graph API refuses, with its error bodies, and counts what it accepted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from phantoms_dagster.sandbox.instagram.people import ig_user_id
from phantoms_dagster_tests.contract.test_instagram import ACCOUNT, Stand, mp4, standing

BEARER = {"Authorization": f"Bearer sandbox-{ACCOUNT}"}
USER = ig_user_id(ACCOUNT)
OAUTH = {"Authorization": f"OAuth sandbox-{ACCOUNT}"}
REEL = {"media_type": "REELS", "upload_type": "resumable", "caption": "Eels"}


class Api:
    """Plain requests, as a client of the documents would make them."""

    def __init__(self, stand: Stand) -> None:
        self.stand, self.client = stand, stand.client
        self.root = f"{stand.origin}/instagram/v26.0"

    async def post(self, path: str, headers: dict[str, str] | None = None, **form: str) -> httpx.Response:
        return await self.client.post(f"{self.root}/{path}", headers=BEARER if headers is None else headers, data=form)

    async def get(self, path: str, **params: str) -> dict[str, Any]:
        answer: dict[str, Any] = (await self.client.get(f"{self.root}/{path}", headers=BEARER, params=params)).json()
        return answer

    async def open(self, **changes: str) -> dict[str, Any]:
        answer: dict[str, Any] = (await self.post(f"{USER}/media", None, **{**REEL, **changes})).json()
        return answer

    async def upload(self, opened: dict[str, Any], content: bytes, **headers: str) -> httpx.Response:
        given = {**OAUTH, "offset": "0", "file_size": str(len(content)), **headers}
        return await self.client.post(opened["uri"], headers=given, content=content)

    async def finished(self, content: bytes | None = None, **changes: str) -> str:
        opened = await self.open(**changes)
        assert (await self.upload(opened, mp4() if content is None else content)).json()["success"]
        self.stand.sandbox.advance(1)
        return str(opened["id"])

    async def publish(self, container: str) -> httpx.Response:
        return await self.post(f"{USER}/media_publish", creation_id=container)


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with standing() as stand:
        yield Api(stand)


def codes(answer: httpx.Response) -> tuple[int, int | None]:
    error = answer.json()["error"]
    assert answer.status_code >= 400
    assert {"message", "type", "code", "fbtrace_id"} <= set(error)
    return error["code"], error.get("error_subcode")


async def test_the_token_may_stand_in_the_header_the_query_or_the_form(api: Api) -> None:
    token = f"sandbox-{ACCOUNT}"
    assert (await api.post(f"{USER}/media", {}, access_token=token, **REEL)).status_code == 200
    query = httpx.QueryParams({**REEL, "access_token": token})
    assert (await api.client.post(f"{api.root}/{USER}/media?{query}")).status_code == 200
    assert (await api.post(f"{USER}/media", OAUTH, **REEL)).status_code == 200


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer EAAG-real"}, {"Authorization": "Bearer sandbox-"}])
async def test_a_missing_or_foreign_token_is_refused_with_code_190(api: Api, headers: dict[str, str]) -> None:
    answer = await api.post(f"{USER}/media", headers, **REEL)
    assert answer.status_code == 401
    assert codes(answer)[0] == 190


async def test_an_account_cannot_touch_what_is_anothers(api: Api) -> None:
    container = await api.finished()
    other = {"Authorization": "Bearer sandbox-other"}
    assert codes(await api.post(f"{USER}/media", other, **REEL)) == (100, 33)
    assert codes(await api.client.get(f"{api.root}/{container}", headers=other)) == (100, 33)
    assert codes(await api.post(f"{ig_user_id('other')}/media_publish", other, creation_id=container)) == (24, 2_207_006)
    assert api.stand.posts == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"caption": "x" * 2_201}, (36_004, 2_207_010)),
        ({"caption": "#a " * 31}, (100, 2_207_028)),
        ({"caption": "@a " * 21}, (100, 2_207_040)),
        ({"media_type": "IMAGE"}, (100, 2_207_023)),
        ({"thumb_offset": "-1"}, (1, 2_207_057)),
        ({"upload_type": "simple"}, (100, None)),
        ({"share_to_feed": "perhaps"}, (100, None)),
    ],
)
async def test_a_container_with_bad_parameters_is_refused(
    api: Api, changes: dict[str, str], expected: tuple[int, int | None]
) -> None:
    assert codes(await api.post(f"{USER}/media", None, **{**REEL, **changes})) == expected


async def test_a_container_needs_an_upload_or_a_url_that_can_be_fetched(api: Api) -> None:
    assert codes(await api.post(f"{USER}/media", media_type="REELS")) == (100, None)
    answer = await api.post(f"{USER}/media", media_type="REELS", video_url="https://example.com/a.mp4")
    assert codes(answer) == (9004, 2_207_052)


async def test_more_containers_than_a_day_allows_are_refused(api: Api) -> None:
    api.stand.sandbox.config["instagram.containers_total"] = 2
    await api.open()
    await api.open()
    assert codes(await api.post(f"{USER}/media", None, **REEL)) == (9, 2_207_042)
    api.stand.sandbox.advance(86_401)
    assert "id" in await api.open()


async def test_a_container_goes_from_in_progress_to_finished_to_published(api: Api) -> None:
    api.stand.sandbox.config["instagram.processing_seconds"] = 50.0
    opened = await api.open()
    await api.upload(opened, mp4())
    assert (await api.get(opened["id"], fields="status_code"))["status_code"] == "IN_PROGRESS"
    assert codes(await api.publish(opened["id"])) == (9007, 2_207_027)
    api.stand.sandbox.advance(50)
    assert (await api.get(opened["id"], fields="status_code"))["status_code"] == "FINISHED"
    assert (await api.publish(opened["id"])).status_code == 200
    assert (await api.get(opened["id"], fields="status_code"))["status_code"] == "PUBLISHED"


async def test_a_container_is_published_once(api: Api) -> None:
    api.stand.sandbox.config["instagram.status_lag_seconds"] = 100.0
    container = await api.finished()
    assert (await api.publish(container)).status_code == 200
    assert codes(await api.publish(container)) == (9007, 2_207_027)
    assert len(api.stand.posts) == 1


async def test_a_container_expires_after_a_day(api: Api) -> None:
    container = await api.finished()
    api.stand.sandbox.advance(86_400)
    assert (await api.get(container, fields="status_code"))["status_code"] == "EXPIRED"
    assert codes(await api.publish(container)) == (24, 2_207_008)


@pytest.mark.parametrize(
    ("headers", "kind"),
    [
        ({"offset": "5"}, "OffsetInvalidError"),
        ({"file_size": "5"}, "PartialRequestError"),
        ({"file_url": "x"}, "ProcessingFailedError"),
    ],
)
async def test_an_upload_with_wrong_headers_is_refused(api: Api, headers: dict[str, str], kind: str) -> None:
    opened = await api.open()
    answer = await api.upload(opened, mp4(), **headers)
    assert answer.status_code == 400
    assert answer.json()["debug_info"]["type"] == kind
    assert (await api.get(opened["id"], fields="status_code"))["status_code"] == "IN_PROGRESS"


async def test_an_upload_needs_the_token_and_goes_in_once(api: Api) -> None:
    opened = await api.open()
    assert (await api.upload(opened, mp4(), Authorization="OAuth nobody")).status_code == 401
    assert (await api.upload(opened, mp4())).status_code == 200
    assert (await api.upload(opened, mp4())).status_code == 400


@pytest.mark.parametrize(
    "content",
    [b"no video at all", mp4(moov_first=False), mp4(seconds=2.0), mp4(seconds=901.0)],
    ids=["no_mp4", "moov_last", "too_short", "too_long"],
)
async def test_a_video_against_the_media_rules_ends_in_error(api: Api, content: bytes) -> None:
    container = await api.finished(content)
    status = await api.get(container, fields="status_code,status")
    assert status["status_code"] == "ERROR"
    assert "2207026" in status["status"]
    assert codes(await api.publish(container)) == (9007, 2_207_027)


async def test_a_video_that_is_too_big_ends_in_error(api: Api) -> None:
    api.stand.sandbox.config["instagram.max_bytes"] = 1_000
    container = await api.finished()
    assert (await api.get(container, fields="status_code"))["status_code"] == "ERROR"


async def test_the_publishing_quota_is_reported_and_kept_over_a_sliding_day(api: Api) -> None:
    api.stand.sandbox.config["instagram.quota_total"] = 1
    await api.publish(await api.finished())
    told = (await api.get(f"{USER}/content_publishing_limit", fields="quota_usage,config"))["data"][0]
    assert told == {"quota_usage": 1, "config": {"quota_total": 1, "quota_duration": 86_400}}
    assert codes(await api.publish(await api.finished())) == (9, 2_207_042)
    api.stand.sandbox.advance(86_401)
    assert (await api.publish(await api.finished())).status_code == 200


async def test_media_are_listed_newest_first_in_pages_and_by_time(api: Api) -> None:
    ids = []
    for number in range(3):
        ids.append((await api.publish(await api.finished(caption=f"@eel {number}"))).json()["id"])
        api.stand.sandbox.advance(100)
    first = await api.get(f"{USER}/media", fields="caption", limit="2")
    assert [m["id"] for m in first["data"]] == [ids[2], ids[1]]
    assert first["data"][0]["caption"] == "eel 2"
    assert "next" in first["paging"]
    second = await api.get(f"{USER}/media", limit="2", after=first["paging"]["cursors"]["after"])
    assert [m["id"] for m in second["data"]] == [ids[0]]
    assert "next" not in second["paging"]
    late = await api.get(f"{USER}/media", since=str(int(api.stand.sandbox.now() - 150)))
    assert [m["id"] for m in late["data"]] == [ids[2]]


async def test_media_between_two_moments_are_listed_with_both_ends(api: Api) -> None:
    ids, state = [], api.stand.sandbox.state["instagram"]
    for _ in range(4):
        ids.append((await api.publish(await api.finished())).json()["id"])
        api.stand.sandbox.advance(100)
    times = [state.media[number].published_at for number in ids]
    between = await api.get(f"{USER}/media", since=str(int(times[1] - 50)), until=str(int(times[2] + 50)))
    assert [m["id"] for m in between["data"]] == [ids[2], ids[1]]
    assert [m.id for m in state.posts_between(ACCOUNT, times[1], times[2])] == [ids[2], ids[1]]
    assert (await api.get(f"{USER}/media", until=str(int(times[0] - 50))))["data"] == []


async def test_a_field_that_does_not_exist_is_refused(api: Api) -> None:
    container = await api.finished()
    answer = await api.client.get(f"{api.root}/{container}", headers=BEARER, params={"fields": "media_id"})
    assert codes(answer) == (100, None)


async def test_an_unknown_object_or_page_is_not_found(api: Api) -> None:
    assert codes(await api.client.get(f"{api.root}/18059999999999999", headers=BEARER)) == (100, 33)
    assert codes(await api.client.get(f"{api.root}/123", headers=BEARER)) == (100, 33)
    assert (await api.client.get(f"{api.stand.origin}/instagram/watch/1")).status_code == 404


async def test_a_caption_on_the_watch_page_is_escaped(api: Api) -> None:
    number = (await api.publish(await api.finished(caption="<script>alert(1)</script>"))).json()["id"]
    page = await api.client.get(f"{api.stand.origin}/instagram/watch/{number}")
    assert "<script>" not in page.text
    assert "&lt;script&gt;" in page.text


async def test_a_fault_that_looks_into_the_body_still_lets_the_upload_through(api: Api) -> None:
    api.stand.fail("upload", "latency", match="no such text")
    opened = await api.open()
    assert (await api.upload(opened, mp4())).json()["success"]


# --- who it is, and what its token allows


async def test_the_account_is_addressed_by_its_number(api: Api) -> None:
    number = ig_user_id(ACCOUNT)
    (page,) = (await api.get("me/accounts", fields="name,instagram_business_account{id,username}"))["data"]
    assert page["instagram_business_account"] == {"id": number, "username": ACCOUNT}
    assert "id" in (await api.post(f"{number}/media", None, **REEL)).json()
    assert codes(await api.post(f"{ig_user_id('other')}/media", None, **REEL)) == (100, 33)


async def test_an_account_that_is_addressed_by_its_name_is_refused(api: Api) -> None:
    assert codes(await api.post(f"{ACCOUNT}/media", None, **REEL)) == (100, 33)
    assert (await api.get(f"{ACCOUNT}/media"))["error"]["code"] == 803
    assert (await api.get(f"{ACCOUNT}/content_publishing_limit"))["error"]["code"] == 803
    assert (await api.get(ACCOUNT))["error"]["code"] == 803


async def test_with_instagram_login_me_is_the_account_itself(api: Api) -> None:
    assert (await api.get("me", fields="user_id"))["error"]["code"] == 100
    api.stand.sandbox.config["instagram.login"] = "instagram"
    me = await api.get("me", fields="user_id,username")
    assert (me["user_id"], me["username"]) == (ig_user_id(ACCOUNT), ACCOUNT)
    assert (await api.get("me/accounts"))["error"]["code"] == 100


async def test_a_call_without_its_scope_is_refused(api: Api) -> None:
    container = await api.finished()
    media = (await api.publish(container)).json()["id"]
    api.stand.sandbox.config["instagram.scopes"] = {ACCOUNT: ["instagram_basic"]}
    assert codes(await api.post(f"{USER}/media", None, **REEL)) == (10, None)
    assert codes(await api.publish(container)) == (10, None)
    assert (await api.get(f"{media}/insights", metric="views"))["error"]["code"] == 10
    assert (await api.get("me/accounts"))["error"]["code"] == 10
    assert (await api.get(media))["id"] == media


@pytest.mark.parametrize(("setting", "value", "subcode"), [("token_seconds", 60, 463), ("revoked", [ACCOUNT], 458)])
async def test_a_dead_token_is_refused_as_the_platform_does(api: Api, setting: str, value: Any, subcode: int) -> None:
    api.stand.sandbox.config[f"instagram.{setting}"] = value
    await api.get("me")
    api.stand.sandbox.advance(61)
    answer = await api.post(f"{USER}/media", None, **REEL)
    assert answer.status_code == 401
    assert codes(answer) == (190, subcode)
    if setting == "token_seconds":
        renewed = {"Authorization": f"Bearer sandbox-{ACCOUNT}~2"}
        assert (await api.post(f"{USER}/media", renewed, **REEL)).status_code == 200
