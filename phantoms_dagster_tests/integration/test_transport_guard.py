"""The guarded transport on a real Valkey: what it lets through, what it learns, what it gives back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import openai
import pytest
from redis.asyncio import Redis

from phantoms_dagster.domain.errors import NotYet, StaleClaim
from phantoms_dagster.providers.http import send
from phantoms_dagster.resilience.admission.pools import Admission, Granted, Request
from phantoms_dagster.resilience.breakers.breaker import BreakerOpen, BreakerPolicy, Breakers
from phantoms_dagster.resilience.limits import PoolFull, RedisLimits, calling_for, redis_limits
from phantoms_dagster.resilience.pools import PoolLimits, Pools
from phantoms_dagster.resilience.redis.scripts import Scripts, redis_client
from phantoms_dagster.resilience.scopes import scope_of
from phantoms_dagster.resilience.transport import CallRecord, CallScope, Deadlines, UnguardedLimits, build_client

Handler = Callable[[httpx.Request], Any]
URL = "https://api.example/render"
SCOPE = CallScope("shotstack", pool="render")
POOLS = {
    "render": PoolLimits(slots=1),
    "free": PoolLimits(),
    "publish": PoolLimits(slots=4),
    "publish:*": PoolLimits(slots=1),
    "slow": PoolLimits(rates=((1, 60, 1),)),
}


class RecordingClock:
    """Notes how long it was asked to sleep, and sleeps as good as not at all unless `real`."""

    def __init__(self) -> None:
        self.slept: list[float] = []
        self.asleep = asyncio.Event()
        self.real = False

    def now(self) -> datetime:
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.asleep.set()
        await asyncio.sleep(seconds if self.real else 0.001)


class Bench:
    """One process: its limits, and clients whose provider is a function."""

    def __init__(self, redis: Redis) -> None:
        scripts, pools = Scripts(redis), Pools(POOLS, defaults={})
        self.clock = RecordingClock()
        self.calls: list[CallRecord] = []
        self.admission = Admission(scripts, pools)
        self.breakers = Breakers(scripts, policy=BreakerPolicy(minimum_calls=3, reset_seconds=60))
        self.limits = RedisLimits(self.admission, self.breakers, pools, self.clock)
        self._clients: list[httpx.AsyncClient] = []

    def client(self, handler: Handler, scope: Any = SCOPE, **deadlines: float) -> httpx.AsyncClient:
        self._clients.append(
            build_client(
                limits=self.limits,
                scope=scope,
                deadlines=Deadlines(**deadlines),
                observer=self.calls.append,
                inner=httpx.MockTransport(handler),
            )
        )
        return self._clients[-1]

    async def in_flight(self) -> dict[str, int]:
        return {state.pool: state.in_flight for state in await self.admission.look()}

    async def aclose(self) -> None:
        for client in self._clients:
            await client.aclose()
        await self.limits.aclose()
        await self.admission.aclose()


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with redis_client(redis_url) as client:
        yield client


@pytest.fixture
async def bench(redis: Redis) -> AsyncIterator[Bench]:
    bench = Bench(redis)
    yield bench
    await bench.aclose()


def noting(sent: list[httpx.Request]) -> Handler:
    def provider(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(200)

    return provider


def answers(status: int, **more: Any) -> Handler:
    return lambda _request: httpx.Response(status, **more)


async def free_again(bench: Bench) -> None:
    """Slots come back in the background."""
    for _ in range(6_000):
        if not any((await bench.in_flight()).values()):
            return
        await asyncio.sleep(0.01)
    pytest.fail("a slot was kept")


async def test_a_call_passes_holds_its_slot_meanwhile_and_gives_it_back(bench: Bench) -> None:
    seen: list[int] = []

    async def provider(_request: httpx.Request) -> httpx.Response:
        seen.append((await bench.in_flight())["render"])
        return httpx.Response(200, json={"ok": True})

    response = await bench.client(provider).get(URL)
    assert response.json() == {"ok": True}
    assert seen == [1]
    await free_again(bench)
    (call,) = bench.calls
    assert (call.scope, call.method, call.host, call.outcome, call.status) == (SCOPE, "GET", "api.example", "answered", 200)


async def test_the_slot_is_held_until_a_streamed_answer_is_closed(bench: Bench) -> None:
    async with bench.client(answers(200, content=b"x" * 100)).stream("GET", URL) as response:
        assert (await bench.in_flight())["render"] == 1
        assert not bench.calls
        assert await response.aread() == b"x" * 100
    await free_again(bench)


async def test_an_answer_closed_before_its_end_gives_its_slot_back(bench: Bench) -> None:
    async with bench.client(answers(200, content=b"x" * 100)).stream("GET", URL):
        pass
    await free_again(bench)
    assert [call.outcome for call in bench.calls] == ["answered"]


async def test_every_way_a_call_can_fail_gives_its_slot_back(bench: Bench) -> None:
    for error in (httpx.ConnectError("no"), httpx.ReadError("cut"), httpx.UnsupportedProtocol("what"), ValueError("ours")):

        def fail(_request: httpx.Request, error: Exception = error) -> httpx.Response:
            raise error

        with pytest.raises(type(error)):
            await bench.client(fail).get(URL)
        await free_again(bench)
    assert [(call.outcome, call.why) for call in bench.calls] == [
        ("failed", "ConnectError"),
        ("failed", "ReadError"),
        ("none", "UnsupportedProtocol"),
        ("none", "ValueError"),
    ]


async def test_a_cancelled_call_gives_its_slot_back_and_counts_as_no_failure(bench: Bench) -> None:
    begun = asyncio.Event()

    async def never(_request: httpx.Request) -> httpx.Response:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    task = asyncio.create_task(bench.client(never).get(URL))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await free_again(bench)
    assert (bench.calls[0].outcome, bench.calls[0].why) == ("none", "CancelledError")
    assert (await bench.breakers.state("shotstack")).calls == 0


async def test_a_call_past_its_deadline_is_a_read_timeout_and_counts_against_the_integration(bench: Bench) -> None:
    async def never(_request: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(httpx.ReadTimeout):
        await bench.client(never, total=0.05).get(URL)
    with pytest.raises(httpx.ReadTimeout, match=r"0\.04 s"):
        await bench.client(never, total=99).get(URL, extensions={"phantoms": {"total": 0.04}})
    await free_again(bench)
    assert (await bench.breakers.state("shotstack")).failures == 2


async def test_a_short_wait_is_slept_and_a_long_one_is_deferred_with_its_reason(bench: Bench, redis: Redis) -> None:
    client = bench.client(answers(200), CallScope("shotstack", pool="slow"), max_wait=30)
    await client.get(URL)
    with pytest.raises(PoolFull, match="slow: the rate is used up") as refused:
        await client.get(URL)
    assert 55 < refused.value.retry_after <= 61
    assert refused.value.until is not None
    assert bench.clock.slept == []
    assert (bench.calls[-1].outcome, bench.calls[-1].why) == ("deferred", "rate")
    assert await redis.zcard("phantoms:pool:slow#q") == 0


async def test_a_call_that_finds_all_slots_taken_waits_its_turn(bench: Bench) -> None:
    held = await bench.admission.acquire(Request(("render",)), max_wait=0)
    assert isinstance(held, Granted)
    call = asyncio.create_task(bench.client(answers(200), max_wait=30).get(URL))
    await bench.clock.asleep.wait()
    await bench.admission.release(held.lease)
    assert (await call).status_code == 200
    assert bench.calls[0].waited > 0


async def test_what_is_done_before_a_call_is_done_when_the_call_may_be_sent_and_not_while_it_waits(bench: Bench) -> None:
    """A journal said of fifty renders that they were being sent while four were, so a crash put fifty in doubt."""
    told: list[str] = []

    async def about_to_send() -> None:
        told.append("told")

    def provider(_request: httpx.Request) -> httpx.Response:
        told.append("sent")
        return httpx.Response(200)

    held = await bench.admission.acquire(Request(("render",)), max_wait=0)
    assert isinstance(held, Granted)
    call = asyncio.create_task(send(bench.client(provider, max_wait=30), "POST", URL, provider="shotstack", before=about_to_send))
    await bench.clock.asleep.wait()
    assert told == []
    await bench.admission.release(held.lease)
    await call
    assert told == ["told", "sent"]


async def test_a_call_that_is_stopped_right_before_it_is_sent_gives_its_slot_back_and_counts_as_no_failure(bench: Bench) -> None:
    async def overtaken() -> None:
        raise StaleClaim("another runner has taken over")

    sent: list[httpx.Request] = []
    client = bench.client(noting(sent))
    for _ in range(5):  # the breaker judges from three calls on
        with pytest.raises(StaleClaim):
            await send(client, "POST", URL, provider="shotstack", commits=True, before=overtaken)
        await free_again(bench)
    assert sent == []
    assert (await bench.breakers.state("shotstack")).state == "closed"


async def test_what_is_done_before_a_call_does_not_use_up_its_time(bench: Bench) -> None:
    async def slow() -> None:
        await asyncio.sleep(0.3)

    client = bench.client(answers(200), total=0.2)
    assert (await send(client, "POST", URL, provider="shotstack", commits=True, before=slow)).status_code == 200


async def test_patience_ends_and_the_place_in_line_is_given_up(bench: Bench, redis: Redis) -> None:
    held = await bench.admission.acquire(Request(("render",)), max_wait=0)
    assert isinstance(held, Granted)
    with pytest.raises(PoolFull, match="slots"):
        await bench.client(answers(200), max_wait=0.2).get(URL)
    assert 0 < sum(bench.clock.slept) <= 0.2
    await bench.admission.aclose()
    assert await redis.zcard("phantoms:pool:render#q") == 0


async def test_a_call_that_is_cancelled_while_it_waits_gives_its_place_in_line_up(bench: Bench, redis: Redis) -> None:
    """Its place in the queue stayed for a minute, and every later call waited behind a caller that had gone."""
    client = bench.client(answers(200), CallScope("shotstack", pool="slow"), max_wait=120)
    await client.get(URL)
    bench.clock.real = True  # it sleeps for most of a minute, so the cancellation meets it asleep
    call = asyncio.create_task(client.get(URL))
    await bench.clock.asleep.wait()
    assert await redis.zcard("phantoms:pool:slow#q") == 1
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await bench.admission.aclose()
    assert await redis.zcard("phantoms:pool:slow#q") == 0


async def test_a_429_pauses_the_pool_for_as_long_as_the_provider_asked(bench: Bench) -> None:
    scope = CallScope("tiktok", "main", pool="publish")
    client = bench.client(answers(429, headers={"Retry-After": "45"}), scope)
    assert (await client.get(URL)).status_code == 429
    with pytest.raises(PoolFull, match="publish:main: the provider asked us to wait") as refused:
        await client.get(URL)
    assert 43 < refused.value.retry_after <= 45
    other = await client.get(URL, extensions={"phantoms": {"account": "other"}})
    assert other.status_code == 429  # another account is another limit


@pytest.mark.parametrize(
    ("headers", "most", "least"),
    [({}, 1.0, 0.5), ({"retry-after-ms": "40000"}, 40, 38), ({"Retry-After": "soon"}, 1.0, 0.5), ({"Retry-After": "-3"}, 1.0, 0.5)],
)
async def test_every_form_of_retry_after_is_understood(bench: Bench, headers: dict[str, str], most: float, least: float) -> None:
    client = bench.client(answers(429, headers=headers), max_wait=0)
    await client.get(URL)
    with pytest.raises(PoolFull) as refused:
        await client.get(URL)
    assert least < refused.value.retry_after <= most


async def test_server_errors_open_the_breaker_and_nothing_more_is_sent(bench: Bench) -> None:
    client = bench.client(answers(503))
    for _ in range(3):
        assert (await client.get(URL)).status_code == 503
    with pytest.raises(BreakerOpen, match="shotstack") as refused:
        await client.get(URL)
    assert refused.value.until is not None
    assert [call.outcome for call in bench.calls] == ["failed"] * 3 + ["deferred"]
    assert bench.calls[-1].why == "breaker"
    await free_again(bench)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429])
async def test_what_the_provider_refuses_opens_no_breaker(bench: Bench, status: int) -> None:
    client = bench.client(answers(status), CallScope("youtube", "main"))
    for _ in range(10):
        await client.get(URL)


async def test_a_call_in_line_is_stopped_when_the_breaker_opens_elsewhere(bench: Bench, redis: Redis) -> None:
    held = await bench.admission.acquire(Request(("render",)), max_wait=0)
    assert isinstance(held, Granted)
    sent: list[httpx.Request] = []
    call = asyncio.create_task(bench.client(noting(sent), max_wait=600).get(URL))
    await bench.clock.asleep.wait()
    await bench.breakers.trip("shotstack", why="seen by another process")
    with pytest.raises(BreakerOpen):
        await call
    assert sent == []
    await bench.admission.aclose()
    assert await redis.zcard("phantoms:pool:render#q") == 0  # it keeps no place in line


async def test_a_probe_that_finds_its_pool_full_hands_the_probe_back(bench: Bench) -> None:
    await bench.breakers.trip("shotstack", seconds=0, why="to be probed at once")
    held = await bench.admission.acquire(Request(("render",)), max_wait=0)
    assert isinstance(held, Granted)
    with pytest.raises(PoolFull):
        await bench.client(answers(200), max_wait=0).get(URL)
    await bench.limits.aclose()
    await bench.admission.release(held.lease)
    bench.breakers.invalidate("shotstack")
    assert (await bench.client(answers(200)).get(URL)).status_code == 200
    assert (await bench.breakers.state("shotstack")).state == "closed"


async def test_a_request_names_its_own_scope_without_knowing_this_package(bench: Bench) -> None:
    client = bench.client(answers(200), lambda request: CallScope("tiktok", pool="free" if request.method == "GET" else "publish"))
    await client.get(URL)
    await client.post(URL, extensions={"phantoms": {"account": "main", "commits": True}})
    await client.get(URL, extensions={"phantoms": CallScope("instagram", "x", pool="publish")})
    assert [call.scope for call in bench.calls] == [
        CallScope("tiktok", pool="free"),
        CallScope("tiktok", "main", pool="publish", commits=True),
        CallScope("instagram", "x", pool="publish"),
    ]


async def test_calls_made_for_an_account_fall_under_its_limits_even_from_tasks_begun_inside(bench: Bench) -> None:
    client = bench.client(answers(200), CallScope("tiktok", pool="publish"))
    with calling_for("main"):
        await asyncio.gather(client.get(URL), client.get(URL))
        await client.get(URL, extensions={"phantoms": {"account": "other"}})
    await client.get(URL)
    assert [call.scope.account for call in bench.calls] == ["main", "main", "other", None]
    assert set(await bench.in_flight()) == {"publish", "publish:main", "publish:other", "publish:-"}


async def test_limits_made_from_a_url_guard_calls_and_close_cleanly(redis_url: str) -> None:
    mine = {"render": PoolLimits(rates=((1, 60, 1),))}
    async with redis_limits(redis_url, clock=RecordingClock(), pools=mine, namespace="mine") as limits:
        async with build_client(limits=limits, scope=SCOPE, inner=httpx.MockTransport(answers(200))) as client:
            await client.get(URL)
            with pytest.raises(PoolFull):
                await client.get(URL)
        assert [state.pool for state in await limits.admission.look()] == ["render"]
        assert (await limits.breakers.state("shotstack")).state == "closed"


@pytest.mark.parametrize(
    ("integration", "method", "url", "scope"),
    [
        ("openai", "POST", "https://api.openai.com/v1/chat/completions", CallScope("openai", pool="script")),
        ("openai", "POST", "https://api.openai.com/v1/audio/speech", CallScope("openai", pool="voiceover")),
        ("shotstack", "POST", "https://api.shotstack.io/edit/v1/render", CallScope("shotstack", pool="render")),
        ("shotstack", "GET", "https://api.shotstack.io/serve/v1/assets/render/1", CallScope("shotstack", pool="render_serve")),
        ("shotstack", "GET", "https://cdn.shotstack.io/au/v1/x.mp4", CallScope("shotstack_files", pool="transfer")),
        (
            "youtube",
            "POST",
            "https://www.googleapis.com/upload/youtube/v3/videos?uploadType=resumable&part=snippet,status",
            CallScope("youtube", pool="publish_youtube"),
        ),
        (
            "youtube",
            "PUT",
            "https://www.googleapis.com/upload/youtube/v3/videos?upload_id=1",
            CallScope("youtube", pool="upload_youtube"),
        ),
        ("youtube", "PUT", "https://youtube.googleapis.com/youtube/v3/videos", CallScope("youtube", pool="youtube_api", cost=50)),
        ("youtube", "GET", "https://youtube.googleapis.com/youtube/v3/videos?id=1", CallScope("youtube", pool="youtube_api")),
        ("youtube", "POST", "https://oauth2.googleapis.com/token", CallScope("youtube", pool="youtube_oauth")),
        (
            "youtube",
            "POST",
            "https://www.googleapis.com/oauth2/v2/tokeninfo?access_token=1",
            CallScope("youtube", pool="youtube_oauth"),
        ),
        (
            "youtube",
            "GET",
            "https://youtubeanalytics.googleapis.com/v2/reports",
            CallScope("youtube_metrics", pool="youtube_analytics"),
        ),
        (
            "youtube",
            "GET",
            "https://youtube.googleapis.com/youtube/v3/videos:batchGetStats?id=1",
            CallScope("youtube_metrics", pool="metrics_youtube"),
        ),
        ("youtube", "GET", "https://youtube.googleapis.com/youtube/v3/search?q=1", CallScope("youtube", pool="youtube_search")),
        (
            "youtube",
            "POST",
            "https://www.googleapis.com/upload/youtube/v3/thumbnails/set?videoId=1",
            CallScope("youtube_extras", pool="youtube_extras", cost=50),
        ),
        (
            "youtube",
            "POST",
            "https://www.googleapis.com/upload/youtube/v3/captions?part=snippet",
            CallScope("youtube_extras", pool="youtube_extras", cost=400),
        ),
        (
            "youtube",
            "GET",
            "https://youtube.googleapis.com/youtube/v3/captions",
            CallScope("youtube_extras", pool="youtube_extras", cost=50),
        ),
        ("tiktok", "POST", "https://open.tiktokapis.com/v2/post/publish/video/init/", CallScope("tiktok", pool="publish_tiktok")),
        ("tiktok", "POST", "https://open.tiktokapis.com/v2/post/publish/status/fetch/", CallScope("tiktok", pool="tiktok_status")),
        (
            "tiktok",
            "POST",
            "https://open.tiktokapis.com/v2/post/publish/creator_info/query/",
            CallScope("tiktok", pool="tiktok_creator"),
        ),
        ("tiktok", "PUT", "https://open-upload.tiktokapis.com/video/?upload_token=1", CallScope("tiktok", pool="upload_tiktok")),
        ("tiktok", "POST", "https://open.tiktokapis.com/v2/video/query/", CallScope("tiktok_metrics", pool="metrics_tiktok")),
        ("tiktok", "GET", "https://open.tiktokapis.com/v2/user/info/", CallScope("tiktok", pool="tiktok_api")),
        ("instagram", "POST", "https://graph.facebook.com/v26.0/1/media", CallScope("instagram", pool="instagram_container")),
        ("instagram", "POST", "https://graph.facebook.com/v26.0/1/media_publish", CallScope("instagram", pool="publish_instagram")),
        ("instagram", "GET", "https://graph.facebook.com/v26.0/1/media", CallScope("instagram", pool="instagram_api")),
        (
            "instagram",
            "GET",
            "https://graph.facebook.com/v26.0/1/insights?metric=views",
            CallScope("instagram_metrics", pool="metrics_instagram"),
        ),
        (
            "instagram",
            "POST",
            "https://rupload.facebook.com/ig-api-upload/v26.0/1",
            CallScope("instagram", pool="upload_instagram"),
        ),
    ],
)
def test_every_request_falls_under_the_pool_whose_limit_its_provider_counts(
    integration: str, method: str, url: str, scope: CallScope
) -> None:
    assert scope_of(integration)(httpx.Request(method, url)) == scope
    Pools().of(scope.pool, "main")


async def test_no_request_goes_without_time_outs(bench: Bench) -> None:
    asked: list[dict[str, float]] = []

    def provider(request: httpx.Request) -> httpx.Response:
        asked.append(request.extensions["timeout"])
        return httpx.Response(200)

    client = bench.client(provider, connect=3, read=7)
    await client.get(URL, timeout=None)
    await client.get(URL, timeout=600)
    assert [(timeout["connect"], timeout["read"]) for timeout in asked] == [(3, 7), (3, 600)]


async def test_the_openai_client_passes_the_guard_and_a_deferral_comes_out_as_it_is(bench: Bench) -> None:
    body = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": []}
    http = bench.client(
        lambda request: httpx.Response(200 if request.url.host == "up" else 500, json=body), CallScope("openai", pool="free")
    )
    messages: Any = [{"role": "user", "content": "hi"}]
    up, down = (
        openai.AsyncOpenAI(api_key="k", base_url=f"http://{host}/v1", max_retries=0, http_client=http)  # type: ignore[arg-type]
        for host in ("up", "down")
    )
    assert (await up.chat.completions.create(model="m", messages=messages)).id == "c"
    for _ in range(2):
        with pytest.raises(openai.InternalServerError):
            await down.chat.completions.create(model="m", messages=messages)
    with pytest.raises(BreakerOpen):
        await up.chat.completions.create(model="m", messages=messages)


async def test_without_limits_everything_passes_and_time_outs_hold() -> None:
    calls: list[CallRecord] = []
    scope = CallScope("any", pool="no such pool")
    transport = httpx.MockTransport(answers(500))
    async with build_client(limits=UnguardedLimits(), scope=scope, observer=calls.append, inner=transport) as client:
        for _ in range(20):
            assert (await client.get(URL)).status_code == 500
    assert [call.outcome for call in calls] == ["failed"] * 20


async def test_no_log_has_a_session_address(caplog: pytest.LogCaptureFixture) -> None:
    """httpx logs whole URLs, and Google's session URIs, TikTok's upload URLs and Meta's tokens are secrets in the query."""
    with caplog.at_level(logging.DEBUG):
        async with build_client(limits=UnguardedLimits(), scope=SCOPE) as client:
            with pytest.raises(httpx.ConnectError):
                await client.put("http://127.0.0.1:9/videos?upload_id=SECRET&access_token=SECRET")
            inner = httpx.MockTransport(answers(200))
        async with build_client(limits=UnguardedLimits(), scope=SCOPE, inner=inner) as client:
            await client.put("https://up.example/videos?upload_id=SECRET&access_token=SECRET")
    assert "SECRET" not in caplog.text


async def test_while_redis_is_lost_nothing_is_sent_and_nothing_fails(
    bench: Bench, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[httpx.Request] = []
    client = bench.client(noting(sent))
    await client.get(URL)
    with monkeypatch.context() as broken:
        broken.setattr(redis.connection_pool, "connection_kwargs", {**redis.connection_pool.connection_kwargs, "port": 1})
        await redis.connection_pool.disconnect()
        redis.connection_pool.reset()  # type: ignore[no-untyped-call]
        with pytest.raises(NotYet, match="Redis"):
            await client.get(URL)
        assert len(sent) == 1
    redis.connection_pool.reset()  # type: ignore[no-untyped-call]
    bench.clock.real = True
    assert (await client.get(URL)).status_code == 200


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize(
    "body",
    [
        {},
        {"content": b""},
        {"content": b"bytes"},
        {"content": "text"},
        {"json": {"ä": [1, None]}},
        {"json": ""},
        {"data": {"a": "b c"}},
    ],
)
@pytest.mark.parametrize("headers", [None, {"X-A": "1"}, {"content-type": "text/plain", "HOST": "other", "accept": "text/html"}])
@pytest.mark.parametrize("params", [None, {"q": "a b/ü", "n": 1}])
async def test_a_request_is_what_httpx_makes_of_it(
    method: str, body: dict[str, Any], headers: dict[str, str] | None, params: dict[str, Any] | None
) -> None:
    # What httpx offers to decompress depends on the packages that are installed. We offer what we can bound.
    plain = httpx.AsyncClient(trust_env=False, headers={"Accept-Encoding": "gzip, deflate"})
    async with build_client(limits=UnguardedLimits(), scope=SCOPE) as ours, plain as theirs:
        arguments: dict[str, Any] = {**body, "headers": headers, "params": params}
        found, wanted = (client.build_request(method, "https://h.example:8443/p?a=b", **arguments) for client in (ours, theirs))
    assert (found.method, str(found.url), found.content) == (wanted.method, str(wanted.url), wanted.content)
    assert sorted(found.headers.multi_items()) == sorted(wanted.headers.multi_items())
