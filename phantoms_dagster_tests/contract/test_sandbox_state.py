"""The state of the sandbox after its process is killed and started again. A kill leaves the files as they are at that moment."""

from __future__ import annotations

import hashlib
import itertools
import shutil
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp.test_utils import TestServer

from phantoms_dagster.sandbox.core import SANDBOX_KEY, Sandbox
from phantoms_dagster.sandbox.state_store import StateStore, StateUnusable
from phantoms_dagster.wiring.sandbox import sandbox_application
from phantoms_dagster_tests.made_videos import video_bytes

MEGABYTE = 1_000_000
TOKEN = {"Authorization": "Bearer sandbox-ocean"}
STUDIO = {"x-api-key": "sandbox-ocean"}
TIKTOK_INFO = {
    "privacy_level": "PUBLIC_TO_EVERYONE",
    "title": "Tides",
    "brand_content_toggle": False,
    "brand_organic_toggle": False,
}
EDIT = {
    "timeline": {"tracks": [{"clips": [{"asset": {"type": "rich-text", "text": "Tides"}, "start": 0, "length": 2}]}]},
    "output": {"format": "mp4", "size": {"width": 1080, "height": 1920}},
}
_copies = itertools.count(1)


@dataclass
class Site:
    """A sandbox over HTTP, with its state in `folder`."""

    sandbox: Sandbox
    client: httpx.AsyncClient
    folder: Path

    def after_a_kill(self) -> Path:
        """A folder as a kill of this sandbox would leave it now."""
        return Path(shutil.copytree(self.folder, self.folder.with_name(f"killed-{next(_copies)}")))

    async def ok(self, method: str, url: str, **options: Any) -> httpx.Response:
        answer = await self.client.request(method, url, **{"headers": TOKEN, **options})
        assert answer.status_code < 300, answer.text
        return answer

    # --- posting

    async def youtube_session(self, size: int) -> str:
        body = {"snippet": {"title": "Tides"}, "status": {"privacyStatus": "public"}}
        given = {**TOKEN, "X-Upload-Content-Length": str(size), "X-Upload-Content-Type": "video/mp4"}
        query = {"uploadType": "resumable", "part": "snippet,status"}
        opened = await self.ok("POST", "/upload/youtube/v3/videos", params=query, json=body, headers=given)
        return httpx.URL(opened.headers["Location"]).raw_path.decode()

    async def youtube_post(self, content: bytes) -> str:
        session = await self.youtube_session(len(content))
        return str((await self.ok("PUT", session, content=content)).json()["id"])

    async def tiktok_upload(self, size: int, chunk: int, count: int) -> dict[str, str]:
        source = {"source": "FILE_UPLOAD", "video_size": size, "chunk_size": chunk, "total_chunk_count": count}
        body = {"post_info": TIKTOK_INFO, "source_info": source}
        data: dict[str, str] = (await self.ok("POST", "/tiktok/v2/post/publish/video/init/", json=body)).json()["data"]
        return {**data, "upload_url": httpx.URL(data["upload_url"]).raw_path.decode()}

    async def tiktok_put(self, url: str, content: bytes, first: int, total: int) -> httpx.Response:
        said = {"Content-Type": "video/mp4", "Content-Range": f"bytes {first}-{first + len(content) - 1}/{total}"}
        return await self.ok("PUT", url, content=content, headers=said)

    async def tiktok_post(self, content: bytes) -> str:
        upload = await self.tiktok_upload(len(content), len(content), 1)
        await self.tiktok_put(upload["upload_url"], content, 0, len(content))
        return upload["publish_id"]

    async def instagram_container(self, content: bytes) -> str:
        form = {"media_type": "REELS", "upload_type": "resumable", "caption": "Tides"}
        user = (await self.ok("GET", "/instagram/v26.0/me/accounts?fields=instagram_business_account")).json()
        self.user = user["data"][0]["instagram_business_account"]["id"]
        made = (await self.ok("POST", f"/instagram/v26.0/{self.user}/media", data=form)).json()
        said = {"Authorization": "OAuth sandbox-ocean", "offset": "0", "file_size": str(len(content))}
        await self.ok("POST", httpx.URL(made["uri"]).raw_path.decode(), content=content, headers=said)
        return str(made["id"])

    async def instagram_publish(self, container: str) -> str:
        form = {"creation_id": container}
        return str((await self.ok("POST", f"/instagram/v26.0/{self.user}/media_publish", data=form)).json()["id"])

    async def script(self, **more: Any) -> dict[str, Any]:
        body = {"model": "gpt-6-luna", "messages": [{"role": "user", "content": '{"title": "Tides"}'}], "store": True, **more}
        answer: dict[str, Any] = (await self.ok("POST", "/openai/v1/chat/completions", json=body)).json()
        return answer

    async def views(self, video: str) -> int:
        found = (await self.ok("GET", "/youtube/v3/videos", params={"id": video, "part": "statistics"})).json()["items"]
        return int(found[0]["statistics"]["viewCount"])


@asynccontextmanager
async def site(folder: Path, *, seed: int = 1) -> AsyncIterator[Site]:
    app = sandbox_application(seed=seed, base_url="", work_dir=folder, real_renders=False, lasting=True)
    async with TestServer(app) as server, httpx.AsyncClient(base_url=str(server.make_url("/")), trust_env=False) as client:
        app[SANDBOX_KEY].base_url = str(server.make_url("")).rstrip("/")
        yield Site(app[SANDBOX_KEY], client, folder)


async def _configured(made: Site) -> None:
    values = {f"{name}.processing_seconds": 0 for name in ("youtube", "tiktok", "instagram", "shotstack")}
    await made.ok("POST", "/_sandbox/config", json={**values, "shotstack.ingest_seconds": 0})


async def test_posts_drafts_scripts_renders_numbers_and_settings_survive_a_kill(tmp_path: Path) -> None:
    """After a restart of `phantoms up` every link was dead, and every post missing from the results."""
    content = video_bytes(seconds=5)
    async with site(tmp_path / "state") as first:
        await _configured(first)
        await first.ok("POST", "/_sandbox/config", json={"tiktok.publish_id_seconds": None})  # it is asked for after a day
        video = await first.youtube_post(content)
        publish_id = await first.tiktok_post(content)
        container, draft = await first.instagram_container(content), await first.instagram_container(content)
        media = await first.instagram_publish(container)
        script = await first.script(metadata={"attempt": "a-1"})
        render = (await first.ok("POST", "/shotstack/edit/v1/render", json=EDIT, headers=STUDIO)).json()["response"]["id"]
        caption = {"snippet": {"videoId": video, "language": "en", "name": ""}}
        body = b"--x\n\n" + str(caption).replace("'", '"').encode() + b"\n--x\n\nWEBVTT\n--x--"
        kind = {**TOKEN, "Content-Type": "multipart/related; boundary=x"}
        query = {"uploadType": "multipart", "part": "snippet"}
        await first.ok("POST", "/upload/youtube/v3/captions", params=query, content=body, headers=kind)
        while (await first.ok("GET", f"/shotstack/edit/v1/render/{render}", headers=STUDIO)).json()["response"]["status"] != "done":
            pass
        await first.ok("POST", "/_sandbox/advance", json={"seconds": 86_400})
        views, ledger = await first.views(video), first.sandbox.ledger
        killed = first.after_a_kill()

    async with site(killed) as second:
        assert second.sandbox.ledger == ledger
        assert second.sandbox.now() > ledger[-1]["at"] + 80_000
        assert await second.views(video) >= views > 0
        status = (await second.ok("POST", "/tiktok/v2/post/publish/status/fetch/", json={"publish_id": publish_id})).json()["data"]
        post = status["publicaly_available_post_id"][0]
        for page in (f"/watch/{video}", f"/tiktok/watch/{post}", f"/instagram/watch/{media}"):
            await second.ok("GET", page)
        query = {"fields": "id,view_count"}
        found = (await second.ok("POST", "/tiktok/v2/video/list/", params=query, json={"max_count": 5})).json()["data"]["videos"]
        assert [v["id"] for v in found] == [str(post)]
        assert (await second.ok("GET", f"/instagram/v26.0/{draft}?fields=status_code")).json()["status_code"] == "EXPIRED"
        kept = (await second.ok("GET", "/openai/v1/chat/completions", params={"metadata[attempt]": "a-1"})).json()["data"]
        assert [c["choices"] for c in kept] == [script["choices"]]
        assert len((await second.ok("GET", f"/openai/v1/chat/completions/{script['id']}/messages")).json()["data"]) == 1
        captions = (await second.ok("GET", "/youtube/v3/captions", params={"videoId": video, "part": "snippet"})).json()["items"]
        assert [c["snippet"]["language"] for c in captions] == ["en"]
        done = (await second.ok("GET", f"/shotstack/edit/v1/render/{render}", headers=STUDIO)).json()["response"]
        assert done["data"] == EDIT
        hosted = (await second.ok("GET", f"/shotstack/serve/v1/assets/render/{render}", headers=STUDIO)).json()["data"]
        file = await second.ok("GET", httpx.URL(hosted[0]["attributes"]["url"]).path)
        assert file.content[4:8] == b"ftyp"


async def test_nothing_that_comes_after_a_restart_has_a_number_from_before(tmp_path: Path) -> None:
    content = video_bytes(seconds=5)
    posts: list[str] = []
    folder = tmp_path / "state"
    for _ in range(2):
        async with site(folder) as made:
            await _configured(made)
            posts += [await made.youtube_post(content), await made.tiktok_post(content)]
            posts.append(await made.instagram_publish(await made.instagram_container(content)))
            posts.append((await made.script())["id"])
            folder = made.after_a_kill()
    assert len(set(posts)) == 8


async def test_uploads_that_were_under_way_go_on_where_they_were(tmp_path: Path) -> None:
    granule = 262_144
    short = (video_bytes(seconds=5) + bytes(3 * granule))[: 2 * granule + 100]
    long = (video_bytes(seconds=5) + bytes(12 * MEGABYTE))[: 11 * MEGABYTE]
    async with site(tmp_path / "state") as first:
        await first.ok("POST", "/_sandbox/config", json={"tiktok.check_media": False, "tiktok.processing_seconds": 0})
        session = await first.youtube_session(len(short))
        said = {**TOKEN, "Content-Range": f"bytes 0-{granule - 1}/{len(short)}"}
        assert (await first.client.put(session, content=short[:granule], headers=said)).headers["Range"] == f"bytes=0-{granule - 1}"
        upload = await first.tiktok_upload(len(long), 5 * MEGABYTE, 2)
        await first.tiktok_put(upload["upload_url"], long[: 5 * MEGABYTE], 0, len(long))
        killed = first.after_a_kill()

    async with site(killed) as second:
        progress = await second.client.put(session, headers={**TOKEN, "Content-Range": f"bytes */{len(short)}"})
        assert (progress.status_code, progress.headers["Range"]) == (308, f"bytes=0-{granule - 1}")
        rest = {**TOKEN, "Content-Range": f"bytes {granule}-{len(short) - 1}/{len(short)}"}
        await second.ok("PUT", session, content=short[granule:], headers=rest)
        await second.tiktok_put(upload["upload_url"], long[5 * MEGABYTE :], 5 * MEGABYTE, len(long))
        hashes = {e["platform"]: e["sha256"] for e in second.sandbox.ledger if e["kind"] == "post"}
        assert hashes == {"youtube": hashlib.sha256(short).hexdigest(), "tiktok": hashlib.sha256(long).hexdigest()}
        assert not list((killed / "uploads").iterdir())


async def test_an_upload_whose_bytes_are_gone_begins_again(tmp_path: Path) -> None:
    content = bytes(2 * 262_144 + 100)
    async with site(tmp_path / "state") as first:
        session = await first.youtube_session(len(content))
        said = {**TOKEN, "Content-Range": f"bytes 0-262143/{len(content)}"}
        await first.client.put(session, content=content[:262_144], headers=said)
        killed = first.after_a_kill()
    shutil.rmtree(killed / "uploads")
    async with site(killed) as second:
        progress = await second.client.put(session, headers={**TOKEN, "Content-Range": f"bytes */{len(content)}"})
        assert (progress.status_code, "Range" in progress.headers) == (308, False)
        await second.ok("PUT", session, content=content)


async def test_a_render_that_was_under_way_is_made_after_all(tmp_path: Path) -> None:
    async with site(tmp_path / "state") as first:
        first.sandbox.state["shotstack"]._begin = lambda _: None  # killed before the first frame
        render = (await first.ok("POST", "/shotstack/edit/v1/render", json=EDIT, headers=STUDIO)).json()["response"]["id"]
        killed = first.after_a_kill()
    (killed / "renders").mkdir(exist_ok=True)
    (killed / "renders" / "half.part.mp4").write_bytes(b"half of a video")
    async with site(killed) as second:
        await _configured(second)
        while (await second.ok("GET", f"/shotstack/edit/v1/render/{render}", headers=STUDIO)).json()["response"][
            "status"
        ] != "done":
            pass
        assert not (killed / "renders" / "half.part.mp4").exists()


async def test_what_was_deleted_stays_deleted_and_a_token_keeps_its_age(tmp_path: Path) -> None:
    async with site(tmp_path / "state") as first:
        await first.ok("POST", "/_sandbox/config", json={"youtube.token_seconds": 3_600, "youtube.processing_seconds": 0})
        video, script = await first.youtube_post(video_bytes(seconds=5)), await first.script()
        await first.ok("DELETE", "/youtube/v3/videos", params={"id": video})
        await first.ok("DELETE", f"/openai/v1/chat/completions/{script['id']}")
        killed = first.after_a_kill()
    async with site(killed) as second:
        assert (await second.client.get(f"/watch/{video}")).status_code == 404
        assert (await second.client.get(f"/openai/v1/chat/completions/{script['id']}", headers=TOKEN)).status_code == 404
        await second.ok("POST", "/_sandbox/advance", json={"seconds": 3_601})
        stale = await second.client.get("/youtube/v3/channels", params={"part": "id", "mine": "true"}, headers=TOKEN)
        assert stale.status_code == 401


async def test_the_seed_that_a_state_began_with_stays(tmp_path: Path) -> None:
    """Ids and views follow from it: with another one, views of old posts would fall."""
    async with site(tmp_path / "state", seed=7) as first:
        await first.script()
    async with site(tmp_path / "state", seed=8) as second:
        assert (await second.ok("GET", "/_sandbox/health")).json()["seed"] == 7


def test_the_state_file_does_not_grow_without_end(tmp_path: Path) -> None:
    store = StateStore(tmp_path, max_bytes=400_000)
    for number in range(200):
        store.keep("ledger", str(number), {"text": "x" * 10_000})
        store.keep("number", "ledger", number)
        store.save()
    store.close()
    again = StateStore(tmp_path, max_bytes=400_000)
    kept = [int(key) for key, _ in again.rows("ledger")]
    assert 0 < len(kept) < 60
    assert kept == list(range(200))[-len(kept) :]
    assert dict(again.rows("number")) == {"ledger": 199}
    again.close()
    assert (tmp_path / "state.sqlite").stat().st_size < 800_000


def test_a_damaged_file_is_put_aside_and_a_second_sandbox_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "state.sqlite").write_bytes(b"this is no database" * 1_000)
    store = StateStore(tmp_path)
    assert "is damaged" in caplog.text
    assert [path.read_bytes()[:7] for path in tmp_path.glob("state.damaged-*.sqlite")] == [b"this is"]
    store.keep("ledger", "1", {})
    store.save()
    with pytest.raises(StateUnusable, match="another sandbox"):
        StateStore(tmp_path)
    store.close()


def test_a_state_that_cannot_be_saved_is_saved_later(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = StateStore(tmp_path)
    store._database.execute("PRAGMA query_only = ON")  # as on a disk that is full
    store.keep("ledger", "1", {"kind": "post"})
    store.save()
    assert "cannot save" in caplog.text
    store._database.execute("PRAGMA query_only = OFF")
    store.save()
    store.close()
    with sqlite3.connect(tmp_path / "state.sqlite") as database:
        assert database.execute("SELECT count(*) FROM things").fetchone() == (1,)
    database.close()


def test_a_value_that_cannot_be_saved_takes_no_other_change_with_it(tmp_path: Path) -> None:
    store = StateStore(tmp_path)
    store.keep("thing", "a", {"n": 1})
    store.keep("thing", "b", object())
    with pytest.raises(TypeError):
        store.save()
    store.forget("thing", "b")
    store.save()
    assert list(store.rows("thing")) == [("a", {"n": 1})]
    store.close()
