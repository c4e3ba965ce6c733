"""Trial reels, collaborators and covers, and reels that Instagram fetches itself: what is sent, what is refused, and that no death
or lost answer posts twice."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import httpx
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from facebook_business.adobjects.iguser import IGUser

from phantoms_dagster.domain.errors import Permanent, Throttled
from phantoms_dagster.domain.ports import PublishJob
from phantoms_dagster.domain.stages import PostState
from phantoms_dagster.platforms.instagram.api import Graph
from phantoms_dagster.platforms.instagram.choices import InstagramChoices, InstagramTerms
from phantoms_dagster.platforms.instagram.preflight import InstagramPreflight
from phantoms_dagster.platforms.instagram.source import Way, address_of
from phantoms_dagster.production.publication import publish
from phantoms_dagster_tests.contract.publishing_kit import MOMENTS, FakeJournal, at
from phantoms_dagster_tests.contract.test_instagram import ACCOUNT, Stand, assert_one_post, make_job, mp4, standing, until_published
from phantoms_dagster_tests.vendor_specs import meta_parameters, meta_problem


@pytest.fixture
async def stand() -> AsyncIterator[Stand]:
    async with standing() as made:
        yield made


def job_with(folder: Path, **choices: Any) -> PublishJob:
    terms = InstagramChoices.model_validate(choices).terms()
    return make_job(folder, terms=terms)


def created(stand: Stand) -> dict[str, str]:
    """The form of the only container."""
    [made] = [r for r in stand.transport.requests if r.method == "POST" and r.url.path.endswith("/media")]
    return dict(parse_qsl(made.content.decode()))


# --- how a reel is posted


async def test_a_reel_without_choices_is_shared_to_the_feed_and_labelled_as_made_by_ai(stand: Stand, tmp_path: Path) -> None:
    job = job_with(tmp_path)
    assert job.terms is None
    await publish(stand.publisher(), job, FakeJournal())
    given = created(stand)
    assert given == {
        "media_type": "REELS",
        "caption": job.caption,
        "is_ai_generated": "true",
        "share_to_feed": "true",
        "upload_type": "resumable",
    }


@pytest.mark.parametrize(
    ("choices", "sent"),
    [
        ({"trial": "manual"}, {"trial_params": {"graduation_strategy": "MANUAL"}}),
        ({"trial": "performance"}, {"trial_params": {"graduation_strategy": "SS_PERFORMANCE"}}),
        ({"collaborators": ["@Marine_Lab", "eels.daily"]}, {"share_to_feed": True, "collaborators": ["marine_lab", "eels.daily"]}),
        ({"cover_seconds": 1.25}, {"share_to_feed": True, "thumb_offset": 1250}),
        ({"cover_url": "https://example.org/cover.jpg"}, {"share_to_feed": True, "cover_url": "https://example.org/cover.jpg"}),
        ({"share_to_feed": False}, {"share_to_feed": False}),
    ],
)
async def test_what_a_channel_chose_is_in_the_container_and_known_to_metas_client(
    stand: Stand, tmp_path: Path, choices: dict[str, Any], sent: dict[str, Any]
) -> None:
    await publish(stand.publisher(), job_with(tmp_path, **choices), FakeJournal())
    given = created(stand)
    assert given.pop("is_ai_generated") == "true"
    for name in ("media_type", "caption", "upload_type"):
        del given[name]
    told = {name: text if name == "cover_url" else json.loads(text) for name, text in given.items()}
    assert told == sent
    kinds, _ = meta_parameters(IGUser, "create_media")
    assert [wrong for name, text in given.items() if (wrong := meta_problem(kinds[name], text))] == []
    [post] = stand.posts
    assert {name for name in sent if name != "share_to_feed"} == set(post["choices"])


@pytest.mark.parametrize(
    ("choices", "why"),
    [
        ({"trial": "performance", "collaborators": ["a"]}, "a trial reel cannot have collaborators"),
        ({"collaborators": ["a", "b", "c", "d"]}, "at most 3 items"),
        ({"collaborators": ["a", "@A"]}, "names an account twice"),
        ({"collaborators": ["two words"]}, "is no Instagram username"),
        ({"trial": "yes"}, "'manual' or 'performance'"),
        ({"cover_seconds": 1, "cover_url": "https://example.org/a.jpg"}, "not both"),
        ({"cover_url": "http://example.org/a.jpg"}, "whole https address"),
        ({"cover_url": "https://example.org/é.jpg"}, "whole https address"),
        ({"cover_seconds": -1}, "greater than or equal to 0"),
        ({"is_ai_generated": False}, "Extra inputs are not permitted"),
    ],
)
def test_choices_that_instagram_would_refuse_are_refused_in_channels_yaml(choices: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        InstagramChoices.model_validate(choices)


def test_a_reviewer_reads_how_a_reel_is_posted_and_nothing_if_the_channel_chose_nothing() -> None:
    assert InstagramChoices(hashtags=3).terms() is None
    terms = InstagramChoices(trial="performance", cover_seconds=2).terms()
    assert terms is not None
    assert "Instagram shares it with followers if it does well" in terms.summary()
    assert "the frame at 2 s" in terms.summary()
    assert terms.set_apart() == "trial reel"
    invited = InstagramTerms(collaborators=("a", "b"))
    assert (invited.summary(), invited.set_apart()) == ("invites @a, @b as collaborators", None)


async def test_a_cover_after_the_end_of_the_video_is_refused_before_anything_is_sent(stand: Stand, tmp_path: Path) -> None:
    with pytest.raises(Permanent, match="cover is the frame at 31 s, but the video lasts 30 s"):
        await publish(stand.publisher(), job_with(tmp_path, cover_seconds=31), FakeJournal())
    assert stand.calls("create") == 0


async def test_a_cover_that_instagram_does_not_find_in_the_video_fails_the_post(stand: Stand, tmp_path: Path) -> None:
    """The probe of the job says 30 s, but the file has 10."""
    short = make_job(tmp_path, mp4(10.0), terms=InstagramTerms(cover_seconds=20))
    journal = FakeJournal()
    with pytest.raises(Permanent, match="2207057"):
        await publish(stand.publisher(), short, journal)
    assert (stand.posts, journal.record.state) == ([], PostState.FAILED)


@pytest.mark.parametrize("why", [{"instagram.trials": False}, {"instagram.followers": 999}])
async def test_an_account_that_may_not_post_trial_reels_is_told_what_to_change(
    stand: Stand, tmp_path: Path, why: dict[str, Any]
) -> None:
    stand.sandbox.config |= why
    journal = FakeJournal()
    with pytest.raises(Permanent, match=r"may not post trial reels: leave `trial` out of its channel's `instagram`"):
        await publish(stand.publisher(), job_with(tmp_path, trial="manual"), journal)
    assert journal.record.state is PostState.FAILED


@pytest.mark.parametrize(("followers", "verdict"), [(1_000, "ok"), (999, "note")])
async def test_before_a_trial_reel_is_due_its_account_is_measured(
    stand: Stand, tmp_path: Path, followers: int, verdict: str
) -> None:
    stand.sandbox.config["instagram.followers"] = followers
    graph = Graph(client=stand.client, base_url=f"{stand.origin}/instagram", version="v26.0", tokens=stand.tokens)
    checks = InstagramPreflight(graph, stand.clock)
    [check] = await checks.checks(ACCOUNT, job_with(tmp_path, trial="manual"))
    assert (check.name, check.verdict) == ("trial reel", verdict)
    assert f"{followers:,} followers" in check.found
    assert list(await checks.checks(ACCOUNT, job_with(tmp_path))) == []


LOGIN, FACEBOOK = "https://graph.instagram.com", "https://graph.facebook.com"


@pytest.mark.parametrize(
    ("host", "upload", "address", "verdict"),
    [
        (LOGIN, "auto", None, "note"),
        (LOGIN, "auto", "http://10.0.0.1/reel.mp4", "note"),
        (LOGIN, "auto", "https://media.example.org/reel.mp4", None),
        (LOGIN, "resumable", None, None),
        (LOGIN, "url", None, "wrong"),
        (FACEBOOK, "auto", None, None),
    ],
)
async def test_before_a_reel_is_due_it_is_known_whether_instagram_can_get_it(
    stand: Stand, tmp_path: Path, host: str, upload: Way, address: str | None, verdict: str | None
) -> None:
    """With Instagram Login and the media in a folder, the first post was refused after its approval."""

    async def found() -> str | None:
        return address

    graph = Graph(client=stand.client, base_url=host, version="v26.0", tokens=stand.tokens)
    checks = InstagramPreflight(graph, stand.clock, upload=upload)
    job = dataclasses.replace(job_with(tmp_path), address=found)
    if verdict == "wrong":
        with pytest.raises(Permanent, match="has no https address"):
            await checks.checks(ACCOUNT, job)
        return
    assert [check.verdict for check in await checks.checks(ACCOUNT, job)] == ([verdict] if verdict else [])


DAY = 86_400


@pytest.mark.parametrize(
    ("lives", "age", "verdict"),
    [
        (None, 0, None),  # a system user's token has no end
        (60 * DAY, 0, "ok"),
        (60 * DAY, 54 * DAY, "wrong"),
        (365 * DAY, 80 * DAY, "ok"),
        (365 * DAY, 84 * DAY, "wrong"),  # the consent to the use of data ends after 90 days
    ],
)
async def test_a_token_that_nobody_can_renew_is_reported_a_week_before_its_end(
    stand: Stand, lives: int | None, age: int, verdict: str | None
) -> None:
    stand.sandbox.config["instagram.token_seconds"] = lives
    graph = Graph(client=stand.client, base_url=f"{stand.origin}/instagram", version="v26.0", tokens=stand.tokens)
    preflight = InstagramPreflight(graph, stand.clock)
    await preflight.checks(ACCOUNT, None)
    stand.sandbox.advance(age)
    found = {check.name: check for check in await preflight.checks(ACCOUNT, None)}
    assert found["quota"].verdict == "ok"
    assert (found["token life"].verdict if "token life" in found else None) == verdict


async def test_a_token_that_may_not_inspect_itself_still_has_its_quota_checked(stand: Stand) -> None:
    stand.refuse("debug_token", 100)
    graph = Graph(client=stand.client, base_url=f"{stand.origin}/instagram", version="v26.0", tokens=stand.tokens)
    assert [check.name for check in await InstagramPreflight(graph, stand.clock).checks(ACCOUNT, None)] == ["quota"]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"trial_params": "{}"}, 100),
        ({"trial_params": "MANUAL"}, 100),
        ({"trial_params": '{"graduation_strategy": "SOMETIMES"}'}, 100),
        ({"trial_params": '{"graduation_strategy": "MANUAL"}', "collaborators": '["a"]'}, 100),
        ({"collaborators": '["a", "b", "c", "d"]'}, 100),
        ({"cover_url": "a picture"}, 100),
    ],
)
async def test_the_sandbox_refuses_what_the_documentation_excludes(stand: Stand, changes: dict[str, str], code: int) -> None:
    url = f"{stand.origin}/instagram/v26.0/{await stand_user(stand)}/media"
    form = {"media_type": "REELS", "upload_type": "resumable", **changes}
    answer = await stand.client.post(url, headers={"Authorization": "Bearer sandbox-ocean.facts"}, data=form)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)


async def stand_user(stand: Stand) -> str:
    return await Graph(client=stand.client, base_url=f"{stand.origin}/instagram", version="v26.0", tokens=stand.tokens).user(
        "ocean.facts"
    )


# --- the quota


async def test_the_quota_is_read_again_before_the_commit_and_the_container_waits(stand: Stand, tmp_path: Path) -> None:
    """The account was at its limit by the time the video was processed, because of posts from elsewhere."""
    stand.sandbox.config["instagram.processing_seconds"] = 90
    job, journal = job_with(tmp_path), FakeJournal(clock=stand.clock)
    stand.transport.kill = lambda moment, number: stand.sandbox.config.update({"instagram.quota_total": 0 if number > 3 else 100})
    with pytest.raises(Throttled, match="has used 0 of 0 posts"):
        await publish(stand.publisher(max_wait=200), job, journal)
    assert (stand.calls("publish"), journal.record.state) == (0, PostState.UPLOADING)
    stand.transport.kill = lambda moment, number: stand.sandbox.config.update({"instagram.quota_total": 100})
    post = await until_published(stand, job, journal)
    assert_one_post(stand, job, journal, post)
    assert stand.calls("create") == 1


# --- reels that Instagram fetches


class Store:
    """An object store that Instagram can reach, and how often it was asked."""

    def __init__(self, content: bytes, url: str) -> None:
        self.content, self.url, self.asked = content, url, 0

    async def address(self) -> str:
        return f"{self.url}?X-Amz-Signature=secret-of-the-store"


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    content = mp4()
    files = web.Application()

    async def reel(_: web.Request) -> web.Response:
        made.asked += 1
        return web.Response(body=made.content, content_type="video/mp4")

    files.router.add_get("/reel.mp4", reel)
    async with TestServer(files) as server:
        made = Store(content, str(server.make_url("/reel.mp4")))
        yield made


async def test_a_reel_is_fetched_from_its_address_and_posted_once(stand: Stand, store: Store, tmp_path: Path) -> None:
    job = make_job(tmp_path, store.content, address=store.address)
    journal = FakeJournal(clock=stand.clock)
    post = await publish(stand.publisher(upload="url"), job, journal)
    assert_one_post(stand, job, journal, post)
    assert (store.asked, stand.calls("upload")) == (1, 0)
    assert "upload_type" not in created(stand)
    assert "secret-of-the-store" not in json.dumps([record.handle for record in journal.saves])


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("number", range(1, 8))
async def test_a_fetched_reel_is_posted_once_wherever_its_process_dies(
    stand: Stand, store: Store, tmp_path: Path, moment: str, number: int
) -> None:
    job = make_job(tmp_path, store.content, address=store.address)
    kill = at(moment, number)
    journal = FakeJournal(clock=stand.clock, kill=kill)
    stand.transport.kill = kill
    post = await until_published(stand, job, journal, upload="url")
    assert_one_post(stand, job, journal, post)


@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "status"])
@pytest.mark.parametrize("route", ["create", "status", "publish", "read"])
async def test_a_fetched_reel_is_posted_once_whichever_answer_is_lost(
    stand: Stand, store: Store, tmp_path: Path, route: str, kind: str
) -> None:
    job = make_job(tmp_path, store.content, address=store.address)
    stand.fail(route, kind, **({"status": 503} if kind == "status" else {}))
    journal = FakeJournal(clock=stand.clock)
    post = await until_published(stand, job, journal, upload="url")
    assert_one_post(stand, job, journal, post)


async def test_a_fetch_that_takes_long_is_waited_for_with_the_same_container(stand: Stand, store: Store, tmp_path: Path) -> None:
    stand.sandbox.config["instagram.processing_seconds"] = 400
    job = make_job(tmp_path, store.content, address=store.address)
    journal = FakeJournal(clock=stand.clock)
    post = await until_published(stand, job, journal, upload="url")
    assert_one_post(stand, job, journal, post)
    assert stand.calls("create") == 1


async def test_an_address_that_cannot_be_fetched_says_what_to_do_and_hides_its_signature(
    stand: Stand, store: Store, tmp_path: Path
) -> None:
    store.url = store.url.replace("reel.mp4", "none.mp4")
    job = make_job(tmp_path, store.content, address=store.address)
    with pytest.raises(Permanent, match="let Meta's servers fetch files from the object store") as caught:
        await publish(stand.publisher(upload="url"), job, FakeJournal())
    assert "secret-of-the-store" not in str(caught.value)


async def test_a_login_that_takes_no_uploads_says_what_to_do(stand: Stand, tmp_path: Path) -> None:
    stand.sandbox.config |= {"instagram.login": "instagram", "instagram.login_uploads": False}
    with pytest.raises(Permanent, match="this login takes no uploads: keep the media in an object store"):
        await publish(stand.publisher(), make_job(tmp_path), FakeJournal())


async def test_a_file_that_nobody_can_fetch_is_not_sent_by_address(stand: Stand, tmp_path: Path) -> None:
    with pytest.raises(Permanent, match="has no https address: keep the media in an object store"):
        await publish(stand.publisher(upload="url"), make_job(tmp_path), FakeJournal())
    assert stand.calls("create") == 0


@pytest.mark.parametrize(
    ("way", "host", "address", "fetched"),
    [
        ("auto", "https://graph.instagram.com", "https://media.example/a.mp4?sig=1", True),
        ("auto", "https://graph.instagram.com", "http://minio.lan/a.mp4", False),
        ("auto", "https://graph.instagram.com", None, False),
        ("auto", "https://graph.facebook.com", "https://media.example/a.mp4", False),
        ("resumable", "https://graph.instagram.com", "https://media.example/a.mp4", False),
        ("url", "https://graph.facebook.com", "https://media.example/a.mp4", True),
    ],
)
async def test_with_instagram_login_a_reel_is_fetched_if_its_address_can_be_reached(
    stand: Stand, tmp_path: Path, way: Any, host: str, address: str | None, fetched: bool
) -> None:
    async def told() -> str | None:
        return address

    async with httpx.AsyncClient() as client:
        graph = Graph(client=client, base_url=host, version="v26.0", tokens=stand.tokens)
        job = dataclasses.replace(make_job(tmp_path), address=told)
        assert await address_of(job, way, graph, sandbox=False) == (address if fetched else None)
