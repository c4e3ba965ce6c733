"""The sandbox's watch pages play the posted video from the media folder, and a browser can seek in it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from aiohttp.test_utils import TestServer

from phantoms_dagster.sandbox.core import SANDBOX_KEY, Sandbox
from phantoms_dagster.sandbox.instagram.people import ig_user_id
from phantoms_dagster.wiring.sandbox import sandbox_application
from phantoms_dagster_tests.made_videos import video_bytes

VIDEO = video_bytes(seconds=5.0, fps=24, width=360, height=640)
SHA = hashlib.sha256(VIDEO).hexdigest()
TOKEN = {"Authorization": "Bearer sandbox-eels"}


@dataclass
class Site:
    sandbox: Sandbox
    client: httpx.AsyncClient
    folder: Path

    def keep(self) -> None:
        path = self.folder / SHA[:2] / f"{SHA[2:]}.mp4"
        path.parent.mkdir(parents=True)
        path.write_bytes(VIDEO)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    app = sandbox_application(seed=1, base_url="", work_dir=tmp_path / "work", real_renders=False, media=tmp_path / "media")
    async with TestServer(app) as server:
        app[SANDBOX_KEY].base_url = str(server.make_url("")).rstrip("/")
        async with httpx.AsyncClient(base_url=app[SANDBOX_KEY].base_url, headers=TOKEN) as client:
            yield Site(app[SANDBOX_KEY], client, tmp_path / "media")


async def youtube(site: Site) -> str:
    body = {"snippet": {"title": "Eels"}, "status": {"privacyStatus": "public", "selfDeclaredMadeForKids": False}}
    headers = {"X-Upload-Content-Length": str(len(VIDEO)), "X-Upload-Content-Type": "video/mp4"}
    where = {"uploadType": "resumable", "part": "snippet,status"}
    session = (await site.client.post("/upload/youtube/v3/videos", params=where, json=body, headers=headers)).headers["location"]
    return f"/watch/{(await site.client.put(session, content=VIDEO)).json()['id']}"


async def tiktok(site: Site) -> str:
    info = {"privacy_level": "SELF_ONLY", "title": "Eels", "brand_content_toggle": False, "brand_organic_toggle": False}
    source = {"source": "FILE_UPLOAD", "video_size": len(VIDEO), "chunk_size": len(VIDEO), "total_chunk_count": 1}
    begun = await site.client.post("/tiktok/v2/post/publish/video/init/", json={"post_info": info, "source_info": source})
    data = begun.json()["data"]
    span = {"Content-Type": "video/mp4", "Content-Range": f"bytes 0-{len(VIDEO) - 1}/{len(VIDEO)}"}
    await site.client.put(data["upload_url"], content=VIDEO, headers=span)
    site.sandbox.advance(60)
    await site.client.post("/tiktok/v2/post/publish/status/fetch/", json={"publish_id": data["publish_id"]})
    return f"/tiktok/watch/{data['publish_id']}"


async def instagram(site: Site) -> str:
    root = f"/instagram/v26.0/{ig_user_id('eels')}"
    opened = (await site.client.post(f"{root}/media", data={"media_type": "REELS", "upload_type": "resumable"})).json()
    headers = {"Authorization": "OAuth sandbox-eels", "offset": "0", "file_size": str(len(VIDEO))}
    await site.client.post(opened["uri"], headers=headers, content=VIDEO)
    site.sandbox.advance(60)
    return f"/instagram/watch/{(await site.client.post(f'{root}/media_publish', data={'creation_id': opened['id']})).json()['id']}"


@pytest.mark.parametrize("platform", [youtube, tiktok, instagram])
async def test_the_watch_page_of_each_platform_plays_the_posted_video_and_lets_a_browser_jump(site: Site, platform: object) -> None:
    site.keep()
    address = await platform(site)  # type: ignore[operator]
    site.sandbox.advance(60)
    page = await site.client.get(address)
    [source] = re.findall(r'<video [^>]*src="([^"]+)"', page.text)
    whole = await site.client.get(source)
    assert (page.status_code, whole.content, whole.headers["content-type"]) == (200, VIDEO, "video/mp4")
    part = await site.client.get(source, headers={"Range": "bytes=5-9"})
    assert (part.status_code, part.content, part.headers["content-range"]) == (206, VIDEO[5:10], f"bytes 5-9/{len(VIDEO)}")


async def test_a_page_whose_video_is_not_in_the_folder_says_so(site: Site) -> None:
    page = await site.client.get(await youtube(site))
    assert (page.status_code, "does not have this one" in page.text, "<video" in page.text) == (200, True, False)
    assert (await site.client.get(f"/_sandbox/videos/{SHA}.mp4")).status_code == 404


@pytest.mark.parametrize("name", ["..%2f..%2fetc%2fpasswd", "x" * 64, SHA.upper(), SHA[:-1]])
async def test_nothing_but_videos_by_their_hash_is_served(site: Site, name: str) -> None:
    site.keep()
    assert (await site.client.get(f"/_sandbox/videos/{name}.mp4")).status_code == 404
