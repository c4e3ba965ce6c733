"""What the adapters send, checked against what the vendors themselves publish: Google's discovery document, Bluesky's lexicons,
the parameters of Meta's client, the types of OpenAI's client, Shotstack's schema. The adapters run against the sandbox, and the
requests are taken from the transport.

Some numbers are checked against vectors: the chunks of TikTok's and YouTube's guides.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import httpx
import pytest
from atproto import models
from atproto_client.models.utils import get_model_as_dict, get_or_create
from facebook_business.adobjects.igmedia import IGMedia
from facebook_business.adobjects.iguser import IGUser
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming
from pydantic import TypeAdapter

from phantoms_dagster.domain.errors import Unknown
from phantoms_dagster.platforms.bluesky.metrics import BlueskyMetricsReader
from phantoms_dagster.platforms.instagram.metrics import InstagramMetricsReader
from phantoms_dagster.platforms.tiktok.chunks import plan_chunks
from phantoms_dagster.platforms.youtube.metrics import YouTubeMetricsReader
from phantoms_dagster.platforms.youtube.publisher import GRANULE
from phantoms_dagster.production.publication import publish
from phantoms_dagster.sandbox.shotstack.schema import problem
from phantoms_dagster_tests.contract import bluesky_world, test_instagram, test_openai, test_shotstack, test_youtube
from phantoms_dagster_tests.contract.publishing_kit import FakeJournal, SandboxTokens
from phantoms_dagster_tests.vendor_specs import errors, google_method, meta_parameters, meta_problem, published

# --- YouTube ----------------------------------------------------------------------------------------------------------


def google_problems(requests: Iterable[httpx.Request]) -> tuple[list[str], list[str]]:
    """The methods that were called, and what Google's discovery document has against the requests."""
    called, wrong = [], []
    for request in requests:
        if "upload_id" in request.url.params:
            continue  # the protocol of an upload session is not part of the document
        method = google_method(request.method, request.url.path)
        called.append(method.id.removeprefix("youtube."))
        is_json = request.headers.get("content-type", "").startswith("application/json")
        wrong += method.problems(dict(request.url.params), json.loads(request.content) if is_json else None)
    return called, wrong


async def test_each_request_to_youtube_is_valid_by_googles_discovery_document(tmp_path: Path) -> None:
    async with test_youtube.world() as w:
        post = await publish(w.publisher, test_youtube.make_job(tmp_path), FakeJournal())
        reader = YouTubeMetricsReader(client=w.client, base_url=w.base_url, tokens=SandboxTokens(), clock=w.clock)
        assert [page async for page in reader.pages("main", [post.remote_id])]
        called, wrong = google_problems(w.transport.requests)
    assert wrong == []
    assert {"videos.insert", "videos.update", "videos.list"} <= set(called)


async def test_the_search_for_a_lost_video_is_valid_by_googles_discovery_document(tmp_path: Path) -> None:
    async with test_youtube.world() as w:
        w.fault("youtube.upload", "drop_after", after=2)
        job, journal = test_youtube.make_job(tmp_path), FakeJournal()
        with pytest.raises(Unknown):
            await publish(w.publisher, job, journal)
        w.forget_sessions()
        await test_youtube.publish_until_done(w, job, journal)
        called, wrong = google_problems(w.transport.requests)
    assert wrong == []
    assert {"channels.list", "playlistItems.list"} <= set(called)


def test_the_check_sees_a_wrong_field_a_missing_field_and_a_wrong_parameter() -> None:
    insert, update = google_method("POST", "/upload/youtube/v3/videos"), google_method("PUT", "/youtube/v3/videos")
    assert insert.problems({"part": "status", "notifySubscribers": "no"}) == ["notifySubscribers is no and not a boolean"]
    unknown, missing = insert.problems({"parts": "status"})
    assert (unknown, missing) == ("youtube.videos.insert has no parameter parts", "youtube.videos.insert needs part")
    [stray] = insert.problems({"part": "status"}, {"status": {"privacy": "private"}})
    assert "privacy" in stray
    [enum] = insert.problems({"part": "status"}, {"status": {"privacyStatus": "secret"}})
    assert "secret" in enum
    [missing] = update.problems({"part": "status"}, {"status": {"privacyStatus": "private"}})
    assert "'id' is a required property" in missing


@pytest.mark.parametrize(
    ("size", "ranges"),
    [
        (1_000, ["bytes 0-999/1000"]),
        (GRANULE, ["bytes 0-262143/262144"]),
        (GRANULE + 1, ["bytes 0-262143/262145", "bytes 262144-262144/262145"]),
        (2 * GRANULE + 1_000, ["bytes 0-262143/525288", "bytes 262144-524287/525288", "bytes 524288-525287/525288"]),
    ],
)
async def test_the_ranges_of_an_upload_are_those_of_googles_guide(tmp_path: Path, size: int, ranges: list[str]) -> None:
    """Every chunk but the last is a multiple of 262,144 bytes, and both ends of a range are inclusive."""
    async with test_youtube.world() as w:
        await publish(w.publisher, test_youtube.make_job(tmp_path, size=size), FakeJournal())
        chunks = [r for r in w.transport.requests if "content-range" in r.headers]
        assert [r.headers["content-range"] for r in chunks] == ranges
        for chunk in chunks:
            first, last = (int(n) for n in chunk.headers["content-range"].removeprefix("bytes ").split("/")[0].split("-"))
            assert chunk.headers["content-length"] == str(last - first + 1)


async def test_a_cut_upload_asks_for_the_range_that_youtube_has_and_sends_the_rest(tmp_path: Path) -> None:
    async with test_youtube.world(chunk_bytes=2 * GRANULE) as w:
        w.fault("youtube.upload", "drop_after")
        job, journal = test_youtube.make_job(tmp_path, size=3 * GRANULE), FakeJournal()
        await test_youtube.publish_until_done(w, job, journal)
        sent = [r.headers["content-range"] for r in w.transport.requests if "content-range" in r.headers]
    assert sent == ["bytes 0-524287/786432", "bytes */786432", "bytes 524288-786431/786432"]


# --- TikTok -----------------------------------------------------------------------------------------------------------

MIB = 1 << 20


@pytest.mark.parametrize(
    ("size", "chunk", "count", "last"),
    [
        (4_999_999, 4_999_999, 1, 4_999_999),  # below 5 MB: one chunk of the whole file
        (5_000_000, 5_000_000, 1, 5_000_000),
        (50_000_123, 50_000_123, 1, 50_000_123),  # the guide's own file, which may also have 5 chunks
        (64_000_000, 64_000_000, 1, 64_000_000),
        (64_000_001, 32_000_000, 2, 32_000_001),  # "over 64 MB must be several chunks"
        (64 * MIB, 32_000_000, 2, 35_108_864),
        (95_999_999, 32_000_000, 2, 63_999_999),  # the last chunk takes the remainder
        (150_000_000, 32_000_000, 4, 54_000_000),
        (4 << 30, 32_000_000, 134, 38_967_296),
    ],
)
def test_the_chunks_of_a_file_are_those_that_tiktoks_guide_allows(size: int, chunk: int, count: int, last: int) -> None:
    plan = plan_chunks(size)
    assert (plan.chunk_size, plan.count, size - plan.last_start) == (chunk, count, last)
    assert plan.count == max(1, size // plan.chunk_size)
    assert plan.count <= 1_000
    if size > 64_000_000:
        assert 5 * MIB <= plan.chunk_size <= 64_000_000
        assert plan.chunk_size <= last <= 128_000_000
    ends = [plan.end(number * plan.chunk_size) for number in range(plan.count)]
    assert ends == [*((number + 1) * plan.chunk_size for number in range(plan.count - 1)), size]


# --- Instagram --------------------------------------------------------------------------------------------------------


def meta_problems(given: dict[str, str], node: Any, method: str) -> list[str]:
    """What Meta's client has against the parameters of a request."""
    kinds, _ = meta_parameters(node, method)
    unknown = [f"{method} has no {name}" for name in given if name not in kinds]
    return unknown + [wrong for name, text in given.items() if name in kinds and (wrong := meta_problem(kinds[name], text))]


def form(request: httpx.Request) -> dict[str, str]:
    return dict(parse_qsl(request.content.decode(), strict_parsing=True))


async def test_each_request_to_instagram_has_parameters_that_metas_client_knows(tmp_path: Path) -> None:
    async with test_instagram.standing() as stand:
        post = await publish(stand.publisher(), test_instagram.make_job(tmp_path), FakeJournal())
        sent = stand.transport.requests
        [made] = [form(r) for r in sent if r.method == "POST" and r.url.path.endswith("/media")]
        [out] = [form(r) for r in sent if r.url.path.endswith("/media_publish")]
        assert meta_problems(made, IGUser, "create_media") == []
        assert meta_problems(out, IGUser, "create_media_publish") == []
        assert (made["media_type"], made["is_ai_generated"]) == ("REELS", "true")
        stand.sandbox.advance(86_400)
        reader = InstagramMetricsReader(
            client=stand.client, base_url=f"{stand.origin}/instagram", tokens=stand.tokens, clock=stand.clock
        )
        assert [page async for page in reader.pages(test_instagram.ACCOUNT, [post.remote_id])]
        asked = [r.url.params["metric"].split(",") for r in stand.transport.requests if r.url.path.endswith("/insights")]
    _, enums = meta_parameters(IGMedia, "get_insights")
    assert asked
    assert {name for names in asked for name in names} <= enums["metric_enum"]
    media_fields = {value for name, value in vars(IGMedia.Field).items() if not name.startswith("_")}
    for request in sent:
        if request.method == "GET" and request.url.path.endswith("/media"):
            assert set(request.url.params["fields"].split(",")) <= media_fields


# --- Bluesky ----------------------------------------------------------------------------------------------------------


def within(sent: Any, kept: Any) -> bool:
    """Whether the client's model has kept all that was sent. It adds the names of types."""
    if isinstance(sent, dict):
        return isinstance(kept, dict) and all(within(value, kept.get(name)) for name, value in sent.items())
    if isinstance(sent, list):
        return isinstance(kept, list) and len(sent) == len(kept) and all(within(a, b) for a, b in zip(sent, kept, strict=True))
    return bool(sent == kept)


async def test_each_request_to_bluesky_is_valid_by_the_lexicons(tmp_path: Path) -> None:
    async with bluesky_world.world() as sky:
        post = await publish(sky.publisher(), bluesky_world.make_job(tmp_path), FakeJournal(clock=sky.clock))
        assert [page async for page in BlueskyMetricsReader(sky.calls()).pages(bluesky_world.ACCOUNT, [post.remote_id])]
        sent = {r.url.path.rsplit("/", 1)[-1]: r for r in sky.transport.requests}
    bodies = {name: json.loads(r.content) for name, r in sent.items() if r.headers.get("content-type") == "application/json"}
    queries = {name: dict(r.url.params) for name, r in sent.items() if r.method == "GET" or name == "app.bsky.video.uploadVideo"}
    schemas: dict[str, Any] = {
        "com.atproto.server.createSession": models.ComAtprotoServerCreateSession.Data,
        "com.atproto.repo.createRecord": models.ComAtprotoRepoCreateRecord.Data,
        "com.atproto.server.getServiceAuth": models.ComAtprotoServerGetServiceAuth.Params,
        "com.atproto.repo.getRecord": models.ComAtprotoRepoGetRecord.Params,
        "app.bsky.video.getJobStatus": models.AppBskyVideoGetJobStatus.Params,
        "app.bsky.feed.getPosts": models.AppBskyFeedGetPosts.Params,
    }
    checked = {**bodies, **queries}
    assert {"com.atproto.server.createSession", "com.atproto.repo.createRecord"} <= set(bodies)
    for name in set(checked) & set(schemas):
        given = checked[name]
        fields = schemas[name].model_fields
        assert set(given) <= {field.alias or key for key, field in fields.items()}, name
        required = {field.alias or key for key, field in fields.items() if field.is_required()}
        assert required <= set(given), name
    record = bodies["com.atproto.repo.createRecord"]["record"]
    parsed = get_or_create(record, models.AppBskyFeedPost.Record)
    assert isinstance(parsed, models.AppBskyFeedPost.Record)
    assert within(json.loads(json.dumps(record)), get_model_as_dict(parsed)), "the lexicon does not know a field of the record"


# --- OpenAI -----------------------------------------------------------------------------------------------------------


async def test_each_request_for_a_script_is_valid_by_openais_own_types_and_specification() -> None:
    """The first call, and the second with the model's faulty answer in it."""
    async with test_openai.opened() as bench:
        bench.sandbox.config["openai.outcome"] = ["nonsense", "script"]
        await bench.writer().write(test_openai.BRIEF, test_openai.CHANNEL, test_openai.FakeAttempt())
        sent = bench.posted()
    assert len(sent) == 2
    types = TypeAdapter(CompletionCreateParamsNonStreaming)
    specification = published("openai.subset.openapi.json")
    for body in sent:
        assert set(body) <= set(CompletionCreateParamsNonStreaming.__annotations__)
        types.validate_python(body)
        if specification is not None:
            schema = {"$ref": "#/components/schemas/CreateChatCompletionRequest", "components": specification["components"]}
            assert errors(schema, body) == []


# --- Shotstack --------------------------------------------------------------------------------------------------------


async def test_each_render_that_is_ordered_is_valid_by_shotstacks_schema(tmp_path: Path) -> None:
    """Without the vendor's schema only the sandbox's checks it. With it, `test_shotstack_edit` compares the two."""
    async with test_shotstack.running(tmp_path) as w:
        orders: list[dict[str, Any]] = []

        async def saw(request: httpx.Request) -> None:
            if request.url.path.endswith("/render"):
                orders.append(json.loads(request.content))

        w.client.event_hooks = {"request": [saw]}
        await w.renderer().submit(w.job(), w.about_to_bill)
    [edit] = orders
    assert problem(edit) is None
    if (schema := published("shotstack.edit.schema.json")) is not None:
        assert errors(schema, edit) == []
