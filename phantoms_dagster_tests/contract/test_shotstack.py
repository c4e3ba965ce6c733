"""The Shotstack adapter against the stand-in: from voiceover to file, what each refusal means, and never billed twice."""

from __future__ import annotations

import asyncio
import json
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import av
import httpx
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from httpx_aiohttp import AiohttpTransport

from phantoms_dagster.domain.errors import NotYet, Permanent, ProviderError, StaleClaim, Throttled, Transient, Unknown
from phantoms_dagster.domain.models import Palette, Platform, Sentence
from phantoms_dagster.domain.paid_job import NotBilled
from phantoms_dagster.domain.ports import RenderJob
from phantoms_dagster.domain.publication import RemoteId, Undecided
from phantoms_dagster.media.studio import FfmpegStudio
from phantoms_dagster.providers.shotstack.api import ERRORS
from phantoms_dagster.providers.shotstack.edit import job_from_edit
from phantoms_dagster.providers.shotstack.renderer import ShotstackRenderer
from phantoms_dagster.sandbox.core import Fault, Sandbox, application
from phantoms_dagster.sandbox.shotstack import routes as shotstack
from phantoms_dagster.sandbox.shotstack.studio import Progress

KEY = "sandbox-secret-key"
MASTER = b"\x00\x00\x00\x18ftypmp42" + bytes(range(256)) * 2_000


class QuickClock:
    """Waits are remembered and cut to a hundredth of a second."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def now(self) -> datetime:
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(min(seconds, 0.01))


@dataclass
class World:
    sandbox: Sandbox
    url: str
    client: httpx.AsyncClient
    folder: Path
    renders: list[tuple[dict[str, Any], bytes]] = field(default_factory=list)
    clock: QuickClock = field(default_factory=QuickClock)
    warned: int = 0

    async def about_to_bill(self) -> None:
        """What the journal does before money is spent: it counts, and sees that the request is yet to come."""
        assert self.sandbox.calls.get("shotstack.render", 0) == self.warned
        self.warned += 1

    def renderer(self, **changed: Any) -> ShotstackRenderer:
        arguments = {"client": self.client, "base_url": f"{self.url}/shotstack", "api_key": lambda: KEY, "stage": "v1"}
        return ShotstackRenderer(**{**arguments, "clock": self.clock, "sandbox": True, **changed})

    def job(self, **changed: Any) -> RenderJob:
        return make_job(self.folder, **changed)

    def fault(self, route: str, kind: str = "status", times: int | None = 1, **facts: Any) -> None:
        self.sandbox.faults.append(Fault(route, kind, times=times, **facts))

    @property
    def billed(self) -> list[dict[str, Any]]:
        return [entry for entry in self.sandbox.ledger if entry["kind"] == "render"]

    async def done(self, renderer: ShotstackRenderer, render_id: str) -> None:
        for _ in range(2_000):
            if (await renderer.status(render_id)).state != "rendering":
                return
            await asyncio.sleep(0.005)
        raise AssertionError("the render does not end")


def named(answer: RemoteId | NotBilled) -> str:
    """The id of a render that was taken. Raises the refusal of one that was not."""
    if isinstance(answer, NotBilled):
        assert answer.evidence
        assert answer.error is not None
        assert not isinstance(answer.error, Unknown), "what is unknown proves nothing"
        raise answer.error
    return answer.id


def make_job(folder: Path, **changed: Any) -> RenderJob:
    audio = folder / "voiceover.wav"
    if not audio.exists():
        write_wav(audio)
    arguments: dict[str, Any] = {
        "video_key": "20261122-tides-1a2b",
        "attempt_id": "rendered-video-1a2b-1",
        "title": "Why tides turn",
        "hook": "The sea leaves twice a day.",
        "scene_titles": ("The moon pulls",),
        "sentences": (
            Sentence(text="The sea leaves twice a day.", scene=-1, start=0.0, end=2.0),
            Sentence(text="The moon pulls it, and it comes back.", scene=0, start=2.1, end=5.4),
        ),
        "seconds": 6.0,
        "audio": audio,
        "palette": Palette(),
        "channel_title": "Tiny Ocean",
    }
    return RenderJob(**{**arguments, **changed})


def write_wav(path: Path, seconds: float = 0.5) -> None:
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(24_000)
        sound.writeframes(bytes(range(200)) * int(seconds * 240))


@asynccontextmanager
async def running(folder: Path, transport: httpx.AsyncBaseTransport | None = None, **options: Any) -> AsyncIterator[World]:
    sandbox = Sandbox(seed=1)
    sandbox.config.update({"shotstack.processing_seconds": 0.02, "shotstack.ingest_seconds": 0.0})
    renders: list[tuple[dict[str, Any], bytes]] = []

    async def render(edit: dict[str, Any], audio: Path | None, destination: Path, progress: Progress) -> None:
        renders.append((edit, b"" if audio is None else await asyncio.to_thread(audio.read_bytes)))
        await asyncio.to_thread(destination.write_bytes, MASTER)

    arguments: dict[str, Any] = {"render": render, "work_dir": folder / "studio"} | options
    app = application(sandbox, [shotstack.routes(sandbox, **arguments)])
    shotstack.setup(app)
    server = TestServer(app)
    await server.start_server()
    try:
        async with httpx.AsyncClient(transport=transport) as client:
            yield World(sandbox, str(server.make_url("")).rstrip("/"), client, folder, renders)
    finally:
        await server.close()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with running(tmp_path) as made:
        yield made


# --- the way of a render ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", [httpx.AsyncHTTPTransport, AiohttpTransport])
async def test_a_job_becomes_a_file_and_is_billed_once(tmp_path: Path, transport: type[httpx.AsyncBaseTransport]) -> None:
    async with running(tmp_path, transport()) as world:
        renderer, job = world.renderer(), world.job()
        render_id = named(await renderer.submit(job, world.about_to_bill))
        await world.done(renderer, render_id)
        status = await renderer.status(render_id)
        assert (status.state, status.cost) == ("done", Decimal("6.0") / 60 * Decimal("0.4"))
        await renderer.fetch(render_id, tmp_path / "master.mp4")
        assert (tmp_path / "master.mp4").read_bytes() == MASTER
        [entry] = world.billed
        assert (entry["id"], entry["marker"], entry["video_key"]) == (render_id, job.attempt_id, job.video_key)


async def test_the_renderer_behind_the_api_gets_the_job_and_the_voiceover_as_they_were(world: World) -> None:
    renderer, job = world.renderer(), world.job()
    await world.done(renderer, named(await renderer.submit(job, world.about_to_bill)))
    [(edit, audio)] = world.renders
    assert audio == job.audio.read_bytes()
    assert job_from_edit(edit, job.audio) == job


async def test_the_marker_is_read_back_with_the_render(world: World) -> None:
    render_id = named(await world.renderer().submit(world.job(attempt_id="attempt-77"), world.about_to_bill))
    url = f"{world.url}/shotstack/edit/v1/render/{render_id}"
    with_data = await world.client.get(url, params={"data": "true"}, headers={"x-api-key": KEY})
    assert "attempt-77" in json.dumps(with_data.json()["response"]["data"]["merge"])
    without = await world.client.get(url, params={"data": "false"}, headers={"x-api-key": KEY})
    assert "data" not in without.json()["response"]


async def test_a_render_walks_through_the_states_of_the_api(world: World) -> None:
    world.sandbox.config["shotstack.processing_seconds"] = 100
    renderer = world.renderer()
    render_id = named(await renderer.submit(world.job(), world.about_to_bill))
    seen = []
    for _ in range(11):
        response = await world.client.get(f"{world.url}/shotstack/edit/v1/render/{render_id}", headers={"x-api-key": KEY})
        seen.append(response.json()["response"]["status"])
        assert (await renderer.status(render_id)).state == ("done" if seen[-1] == "done" else "rendering")
        world.sandbox.advance(10)
    assert list(dict.fromkeys(seen)) == ["queued", "fetching", "rendering", "saving", "done"]


@pytest.mark.parametrize("state", ["queued", "preprocessing", "generating", "dreaming"])
async def test_an_unknown_state_counts_as_rendering(world: World, state: str) -> None:
    body = {"success": True, "message": "OK", "response": {"id": "x", "owner": "y", "status": state}}
    world.fault("shotstack.status", status=200, body=json.dumps(body))
    assert (await world.renderer().status("x")).state == "rendering"


async def test_a_render_that_fails_says_why_and_its_file_is_never_waited_for(tmp_path: Path) -> None:
    async def broken(edit: dict[str, Any], audio: Path | None, destination: Path, progress: Progress) -> None:
        raise RuntimeError("no font for this script")

    async with running(tmp_path, render=broken) as world:
        renderer = world.renderer()
        render_id = named(await renderer.submit(world.job(), world.about_to_bill))
        await world.done(renderer, render_id)
        status = await renderer.status(render_id)
        assert (status.state, status.error, status.url) == ("failed", "no font for this script", None)
        with pytest.raises(Permanent, match="no font for this script"):
            await renderer.fetch(render_id, tmp_path / "master.mp4")


async def test_a_running_render_is_not_fetched(world: World) -> None:
    world.sandbox.config["shotstack.processing_seconds"] = 100
    renderer = world.renderer()
    render_id = named(await renderer.submit(world.job(), world.about_to_bill))
    with pytest.raises(NotYet):
        await renderer.fetch(render_id, world.folder / "master.mp4")


async def test_no_marker_finds_a_render_since_the_api_lists_none(world: World) -> None:
    renderer = world.renderer()
    named(await renderer.submit(world.job(attempt_id="attempt-1"), world.about_to_bill))
    assert await renderer.find("attempt-1") == Undecided()


async def test_two_renders_at_once_wait_for_each_other_when_one_may_run(tmp_path: Path) -> None:
    running_now, most = 0, 0

    async def slow(edit: dict[str, Any], audio: Path | None, destination: Path, progress: Progress) -> None:
        nonlocal running_now, most
        running_now += 1
        most = max(most, running_now)
        await asyncio.sleep(0.02)
        running_now -= 1
        destination.write_bytes(MASTER)

    async with running(tmp_path, render=slow) as world:
        renderer = world.renderer()
        ids = [named(await renderer.submit(world.job(attempt_id=f"attempt-{n}"), world.about_to_bill)) for n in range(3)]
        for render_id in ids:
            await world.done(renderer, render_id)
    assert most == 1


async def test_who_watches_the_sandbox_sees_how_much_of_each_video_is_made_through_any_outage(tmp_path: Path) -> None:
    told, go_on = asyncio.Event(), asyncio.Event()

    async def half(edit: dict[str, Any], audio: Path | None, destination: Path, progress: Progress) -> None:
        progress(0.5)
        told.set()
        await go_on.wait()
        destination.write_bytes(MASTER)

    async with running(tmp_path, render=half) as world:
        renderer = world.renderer()
        first, second = [named(await renderer.submit(world.job(attempt_id=f"attempt-{n}"), world.about_to_bill)) for n in range(2)]
        await asyncio.wait_for(told.wait(), 5)
        world.sandbox.faults.append(Fault("*", status=503))
        seen = (await world.client.get(f"{world.url}/_sandbox/renders")).json()["renders"]
        assert [(render["id"], render["progress"]) for render in seen] == [(first, 0.5), (second, 0.0)]
        assert {render["video_key"] for render in seen} == {world.job().video_key}
        world.sandbox.faults.clear()
        go_on.set()
        for render_id in (first, second):
            await world.done(renderer, render_id)
        assert (await world.client.get(f"{world.url}/_sandbox/renders")).json() == {"renders": []}


async def test_renders_still_running_at_shutdown_are_ended_and_leave_no_half_file(tmp_path: Path) -> None:
    started, ended = asyncio.Event(), asyncio.Event()

    async def endless(edit: dict[str, Any], audio: Path | None, destination: Path, progress: Progress) -> None:
        destination.write_bytes(b"half")
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with running(tmp_path, render=endless) as world:
        named(await world.renderer().submit(world.job(), world.about_to_bill))
        await asyncio.wait_for(started.wait(), 5)
    assert ended.is_set()
    assert not list((tmp_path / "studio").glob("*.mp4"))


async def test_without_a_renderer_every_render_is_the_same_real_video(tmp_path: Path) -> None:
    async with running(tmp_path, render=None, work_dir=None) as world:
        renderer = world.renderer()
        folder = tmp_path
        for name in ("one.mp4", "two.mp4"):
            render_id = named(await renderer.submit(world.job(), world.about_to_bill))
            await world.done(renderer, render_id)
            await renderer.fetch(render_id, tmp_path / name)
            folder = world.sandbox.state["shotstack"].folder
        first = (tmp_path / "one.mp4").read_bytes()
        assert first[4:8] == b"ftyp"
        assert first.index(b"moov") < first.index(b"mdat")
        assert first == (tmp_path / "two.mp4").read_bytes()
        assert [path.name for path in folder.iterdir()] == ["stock.mp4"]
    assert not folder.exists()


async def test_the_prepared_video_is_whole_and_needs_no_encoding_for_any_platform(tmp_path: Path) -> None:
    async with running(tmp_path, render=None, work_dir=None) as world:
        renderer = world.renderer()
        render_id = named(await renderer.submit(world.job(), world.about_to_bill))
        await world.done(renderer, render_id)
        await renderer.fetch(render_id, tmp_path / "video.mp4")
    studio = FfmpegStudio()
    found = await studio.probe(tmp_path / "video.mp4")
    assert (found.seconds, found.fps, found.width, found.height) == (16.0, 30.0, 1080, 1920)
    assert (found.video_codec, found.audio_codec, found.moov_first) == ("h264", "aac", True)
    with av.open(str(tmp_path / "video.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) == 16 * 30
    fitted = {p: (await studio.fit(tmp_path / "video.mp4", p, lambda: tmp_path / "fitted.mp4")).how for p in Platform.usual()}
    assert fitted == {Platform("youtube"): "kept", Platform("tiktok"): "kept", Platform("instagram"): "remuxed"}


# --- the voiceover ----------------------------------------------------------------------------------------------------


async def test_the_voiceover_is_waited_for_until_it_can_be_used(world: World) -> None:
    world.sandbox.config["shotstack.ingest_seconds"] = 0.1
    renderer = world.renderer()
    await world.done(renderer, named(await renderer.submit(world.job(), world.about_to_bill)))
    assert len(world.renders) == 1
    assert world.sandbox.calls["shotstack.source"] > 1


async def test_a_voiceover_that_never_becomes_ready_costs_nothing(world: World) -> None:
    world.sandbox.config["shotstack.ingest_seconds"] = 10_000
    with pytest.raises(Transient, match="still importing"):
        named(await world.renderer(ingest_max_wait=3).submit(world.job(), world.about_to_bill))
    assert sum(world.clock.slept) >= 3
    assert world.billed == []


async def test_a_source_that_is_not_known_yet_is_asked_for_again(world: World) -> None:
    world.fault("shotstack.source", status=404, times=2)
    assert named(await world.renderer().submit(world.job(), world.about_to_bill))


async def test_a_voiceover_that_is_not_audio_is_refused_before_anything_is_billed(world: World) -> None:
    nonsense = world.folder / "nonsense.wav"
    nonsense.write_bytes(b"this is no sound at all")
    with pytest.raises(Permanent, match="unsupported type"):
        named(await world.renderer().submit(world.job(audio=nonsense), world.about_to_bill))
    assert world.billed == []


async def test_the_key_is_not_sent_to_object_storage_and_errors_hold_no_secret(world: World) -> None:
    world.fault("shotstack.put", status=403, body="<Error><Code>AccessDenied</Code></Error>")
    with pytest.raises(Transient) as caught:
        named(await world.renderer().submit(world.job(), world.about_to_bill))
    shown = f"{caught.value} {caught.value.evidence.model_dump_json()}"
    assert "Signature=***" in shown
    assert KEY not in shown
    world.fault("shotstack.put", "drop_before", match=KEY)  # would hit a request that carries the key
    assert named(await world.renderer().submit(world.job(), world.about_to_bill))
    assert KEY not in repr(world.renderer())


# --- a lost answer ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", [httpx.AsyncHTTPTransport, AiohttpTransport])
@pytest.mark.parametrize(
    ("kind", "facts", "billed"),
    [
        ("drop_before", {}, 0),
        ("timeout", {"seconds": 0.01}, 0),
        ("drop_after", {}, 1),
        ("malformed", {}, 1),
        ("status", {"status": 500}, 0),
        ("status", {"status": 503}, 0),
        ("status", {"status": 201, "body": '{"success": true, "message": "Created", "response": {}}'}, 0),
    ],
)
async def test_when_the_answer_to_the_paid_request_is_lost_the_outcome_is_unknown(
    tmp_path: Path, kind: str, facts: dict[str, Any], billed: int, transport: type[httpx.AsyncBaseTransport]
) -> None:
    async with running(tmp_path, transport()) as world:
        world.fault("shotstack.render", kind, **facts)
        with pytest.raises(Unknown):
            named(await world.renderer().submit(world.job(), world.about_to_bill))
        assert len(world.billed) == billed
        assert world.sandbox.calls["shotstack.render"] == 1


@pytest.mark.parametrize(
    ("route", "kind"),
    [
        *(("shotstack.upload", kind) for kind in ("drop_before", "drop_after", "malformed")),
        *(("shotstack.put", kind) for kind in ("drop_before", "drop_after")),
        *(("shotstack.source", kind) for kind in ("drop_before", "drop_after", "malformed")),
    ],
)
async def test_a_kill_before_the_paid_request_is_tried_again_and_billed_once(world: World, route: str, kind: str) -> None:
    world.fault(route, kind)
    with pytest.raises(Transient) as caught:
        named(await world.renderer().submit(world.job(), world.about_to_bill))
    assert not isinstance(caught.value, Throttled)
    assert world.billed == []
    named(await world.renderer().submit(world.job(), world.about_to_bill))
    assert len(world.billed) == 1


async def test_the_journal_hears_of_the_paid_request_before_it_is_sent_and_can_stop_it(world: World) -> None:
    async def stop() -> None:
        assert world.sandbox.calls["shotstack.source"] == 1
        raise StaleClaim("another runner has taken over")

    with pytest.raises(StaleClaim):
        named(await world.renderer().submit(world.job(), stop))
    assert "shotstack.render" not in world.sandbox.calls
    named(await world.renderer().submit(world.job(), world.about_to_bill))
    assert (world.warned, len(world.billed)) == (1, 1)


async def test_when_nothing_listens_the_paid_request_may_be_sent_again(world: World) -> None:
    with pytest.raises(Transient):
        named(await world.renderer(base_url="http://127.0.0.1:9/shotstack").submit(world.job(), world.about_to_bill))


@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "malformed"])
async def test_a_lost_status_is_asked_for_again(world: World, kind: str) -> None:
    renderer = world.renderer()
    render_id = named(await renderer.submit(world.job(), world.about_to_bill))
    world.fault("shotstack.status", kind)
    with pytest.raises(Transient):
        await renderer.status(render_id)
    await world.done(renderer, render_id)


# --- the download -----------------------------------------------------------------------------------------------------


async def finished(world: World) -> tuple[ShotstackRenderer, str]:
    renderer = world.renderer()
    render_id = named(await renderer.submit(world.job(), world.about_to_bill))
    await world.done(renderer, render_id)
    return renderer, render_id


@pytest.mark.parametrize(("kind", "facts"), [("drop_after", {}), ("drop_before", {}), ("status", {"status": 500})])
async def test_a_download_that_breaks_off_leaves_nothing_and_works_the_next_time(
    world: World, kind: str, facts: dict[str, Any]
) -> None:
    renderer, render_id = await finished(world)
    target = world.folder / "out" / "master.mp4"
    target.parent.mkdir()
    world.fault("shotstack.file", kind, **facts)
    with pytest.raises(Transient):
        await renderer.fetch(render_id, target)
    assert list(target.parent.iterdir()) == []
    await renderer.fetch(render_id, target)
    assert target.read_bytes() == MASTER
    assert [path.name for path in target.parent.iterdir()] == ["master.mp4"]


@pytest.mark.parametrize("transport", [httpx.AsyncHTTPTransport, AiohttpTransport])
async def test_a_file_that_is_cut_on_the_way_does_not_count(tmp_path: Path, transport: type[httpx.AsyncBaseTransport]) -> None:
    async def cut(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(len(MASTER))})
        await response.prepare(request)
        await response.write(MASTER[:100_000])
        assert request.transport is not None
        request.transport.close()
        return response

    async def status(request: web.Request) -> web.Response:
        url = str(request.url.origin()) + "/cut.mp4"
        return web.json_response({"response": {"status": "done", "url": url, "duration": 6}})

    app = web.Application()
    app.add_routes([web.get("/cut.mp4", cut), web.get("/edit/v1/render/{id}", status)])
    server = TestServer(app)
    await server.start_server()
    try:
        async with httpx.AsyncClient(transport=transport()) as client:
            world = World(Sandbox(), "", client, tmp_path)
            with pytest.raises(Transient):
                await world.renderer(base_url=str(server.make_url(""))).fetch("x", tmp_path / "master.mp4")
        assert list(tmp_path.iterdir()) == []
    finally:
        await server.close()


async def test_fewer_bytes_than_were_announced_are_no_file_whatever_the_transport_says(tmp_path: Path) -> None:
    async def half() -> AsyncIterator[bytes]:
        yield MASTER[:1000]

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith(".mp4"):
            return httpx.Response(200, headers={"Content-Length": str(len(MASTER))}, content=half())
        return httpx.Response(200, json={"response": {"status": "done", "url": "http://127.0.0.1/video.mp4"}})

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        with pytest.raises(Transient, match="1000 of"):
            await World(Sandbox(), "http://127.0.0.1", client, tmp_path).renderer().fetch("x", tmp_path / "master.mp4")
    assert list(tmp_path.iterdir()) == []


async def test_when_the_address_has_expired_the_status_is_read_again(world: World) -> None:
    renderer, render_id = await finished(world)
    body = {"response": {"status": "done", "url": f"{world.url}/shotstack/files/gone.mp4"}}
    world.fault("shotstack.status", status=200, body=json.dumps(body))
    await renderer.fetch(render_id, world.folder / "master.mp4")
    assert (world.folder / "master.mp4").read_bytes() == MASTER
    assert "shotstack.hosted" not in world.sandbox.calls


async def test_a_file_whose_address_is_known_costs_one_request(world: World) -> None:
    renderer, render_id = await finished(world)
    url, asked = (await renderer.status(render_id)).url, world.sandbox.calls["shotstack.status"]
    await renderer.fetch(render_id, world.folder / "master.mp4", url=url)
    assert (world.folder / "master.mp4").read_bytes() == MASTER
    assert (world.sandbox.calls["shotstack.file"], world.sandbox.calls["shotstack.status"]) == (1, asked)


async def test_a_known_address_that_has_expired_is_asked_for_again(world: World) -> None:
    renderer, render_id = await finished(world)
    await renderer.fetch(render_id, world.folder / "master.mp4", url=f"{world.url}/shotstack/files/gone.mp4")
    assert (world.folder / "master.mp4").read_bytes() == MASTER


async def test_after_a_day_the_hosted_copy_is_taken(world: World) -> None:
    renderer, render_id = await finished(world)
    world.sandbox.advance(25 * 3600)
    await renderer.fetch(render_id, world.folder / "master.mp4")
    assert (world.folder / "master.mp4").read_bytes() == MASTER
    assert world.sandbox.calls["shotstack.cdn"] == 1


async def test_a_file_that_the_service_no_longer_keeps_is_a_dead_letter(world: World) -> None:
    renderer, render_id = await finished(world)
    world.sandbox.advance(80 * 3600)
    named(await renderer.submit(world.job(), world.about_to_bill))  # the next render clears old files away
    with pytest.raises(Permanent, match="no longer kept"):
        await renderer.fetch(render_id, world.folder / "master.mp4")


# --- the table of errors ----------------------------------------------------------------------------------------------

TABLE = [
    (400, Permanent, Permanent),
    (401, Permanent, Permanent),
    (403, Permanent, Permanent),
    (404, Permanent, Permanent),
    (418, Permanent, Permanent),
    (429, Throttled, Throttled),
    (500, Unknown, Transient),
    (502, Unknown, Transient),
    (503, Unknown, Transient),
    (504, Unknown, Transient),
]


def test_every_row_of_the_adapters_table_is_tested() -> None:
    assert set(ERRORS) <= {status for status, _, _ in TABLE}


@pytest.mark.parametrize(("status", "submitting", "reading"), TABLE)
async def test_each_status_means_what_the_table_says(
    world: World, status: int, submitting: type[ProviderError], reading: type[ProviderError]
) -> None:
    body = json.dumps({"success": False, "message": "Oh", "response": {"error": "the reason"}})
    world.fault("shotstack.render", status=status, body=body)
    with pytest.raises(ProviderError) as caught:
        named(await world.renderer().submit(world.job(), world.about_to_bill))
    assert type(caught.value) is submitting
    assert (caught.value.code, caught.value.evidence.status) == (str(status), status)
    assert "the reason" in caught.value.evidence.body
    world.fault("shotstack.status", status=status, body=body)
    with pytest.raises(ProviderError) as caught:
        await world.renderer().status("x")
    assert type(caught.value) is reading


@pytest.mark.parametrize(("header", "wait"), [(7, 7.0), (None, 60.0)])
async def test_a_used_up_rate_waits_for_its_window(world: World, header: float | None, wait: float) -> None:
    world.fault("shotstack.status", status=429, retry_after=header)
    with pytest.raises(Throttled) as caught:
        await world.renderer().status("x")
    assert caught.value.retry_after == wait


async def test_the_sandbox_counts_requests_per_key_and_minute(world: World) -> None:
    world.sandbox.config["shotstack.rate_limit"] = 2
    world.sandbox.advance(60 - world.sandbox.now() % 60 + 1)  # the start of a window
    renderer = world.renderer()
    render_id = named(await renderer.submit(world.job(), world.about_to_bill))
    await renderer.status(render_id)
    with pytest.raises(Throttled) as caught:
        await renderer.status(render_id)
    assert 1 <= (caught.value.retry_after or 0) <= 60
    assert (named(await world.renderer(api_key=lambda: "sandbox-other").submit(world.job(), world.about_to_bill))) != render_id
    world.sandbox.advance(60)
    await renderer.status(render_id)


async def test_without_credits_the_message_says_to_buy_some(world: World) -> None:
    world.sandbox.config["shotstack.credits"] = 0.15
    named(await world.renderer().submit(world.job(), world.about_to_bill))
    with pytest.raises(Permanent, match="buy credits"):
        named(await world.renderer().submit(world.job(), world.about_to_bill))
    assert len(world.billed) == 1


@pytest.mark.parametrize(
    ("key", "match"), [("", "answered 401.*check the API key"), ("live-key", "answered 403.*check the API key")]
)
async def test_a_wrong_key_is_named_as_such(world: World, key: str, match: str) -> None:
    with pytest.raises(Permanent, match=match):
        named(await world.renderer(api_key=lambda: key).submit(world.job(), world.about_to_bill))
    with pytest.raises(Permanent, match=match):
        await world.renderer(api_key=lambda: key).status("00000000-0000-4000-8000-000000000000")


# --- what the stand-in refuses ----------------------------------------------------------------------------------------


async def test_a_render_belongs_to_its_key_and_its_stage(world: World) -> None:
    render_id = named(await world.renderer().submit(world.job(), world.about_to_bill))
    for other in (world.renderer(api_key=lambda: "sandbox-other"), world.renderer(stage="stage")):
        with pytest.raises(Permanent, match="404"):
            await other.status(render_id)


@pytest.mark.parametrize("changed", [{"seconds": 601.0}, {"seconds": 3 * 3600 + 1.0}])
async def test_a_render_beyond_the_limit_of_its_stage_is_refused(world: World, changed: dict[str, Any]) -> None:
    with pytest.raises(Permanent, match="longer than the limit"):
        named(await world.renderer(stage="stage").submit(world.job(**changed), world.about_to_bill))
    assert world.billed == []


async def test_an_edit_that_the_schema_refuses_is_refused_with_its_reason(world: World) -> None:
    url, headers = f"{world.url}/shotstack/edit/v1/render", {"x-api-key": KEY}
    for body, reason in [
        ("{", "no JSON"),
        ("[]", "must be of type object"),
        ('{"timeline": {"tracks": []}, "output": {"format": "mp4"}}', "at least 1"),
        ('{"output": {"format": "mp4"}}', '"timeline" is required'),
    ]:
        answer = await world.client.post(url, headers=headers, content=body)
        assert answer.status_code == 400
        assert answer.json()["success"] is False
        assert reason in answer.json()["response"]["error"]
    assert world.billed == []


@pytest.mark.parametrize(
    ("size", "reason"),
    [({"width": 1081, "height": 1920}, "multiple of 2"), ({"width": 1080, "height": 1922}, "1920"), ({"width": 1080}, "height")],
)
async def test_sizes_that_no_encoder_takes_are_refused(world: World, size: dict[str, int], reason: str) -> None:
    clip = {"asset": {"type": "rich-text", "text": "hi"}, "start": 0, "length": 1}
    edit = {"timeline": {"tracks": [{"clips": [clip]}]}, "output": {"format": "mp4", "size": size}}
    answer = await world.client.post(f"{world.url}/shotstack/edit/v1/render", headers={"x-api-key": KEY}, json=edit)
    assert answer.status_code == 400
    assert reason in answer.json()["response"]["error"]


async def test_a_voiceover_that_was_never_uploaded_fails_the_render(world: World) -> None:
    clip = {"asset": {"type": "audio", "src": "https://elsewhere.example/a.wav"}, "start": 0, "length": 1}
    edit = {"timeline": {"tracks": [{"clips": [clip]}]}, "output": {"format": "mp4", "resolution": "1080"}}
    answer = await world.client.post(f"{world.url}/shotstack/edit/v1/render", headers={"x-api-key": KEY}, json=edit)
    renderer, render_id = world.renderer(), answer.json()["response"]["id"]
    await world.done(renderer, render_id)
    assert "could not be downloaded" in ((await renderer.status(render_id)).error or "")


async def signed(world: World) -> str:
    answer = await world.client.post(f"{world.url}/shotstack/ingest/v1/upload", headers={"x-api-key": KEY})
    return str(answer.json()["data"]["attributes"]["url"])


async def test_object_storage_refuses_what_the_signature_does_not_cover(world: World) -> None:
    async def unsized() -> AsyncIterator[bytes]:
        yield b"RIFF"

    put = world.client.put
    assert (await put((await signed(world))[:-1] + "_", content=b"x")).status_code == 403
    assert (await put(await signed(world), content=b"x", headers={"Content-Type": "audio/wav"})).status_code == 403
    assert (await put(await signed(world), content=unsized())).status_code == 411
    late = await signed(world)
    world.sandbox.advance(3601)
    answer = await put(late, content=b"x")
    assert (answer.status_code, "Request has expired" in answer.text) == (403, True)
    assert (await put(await signed(world), content=b"x")).status_code == 200
