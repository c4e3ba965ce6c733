"""What each answer of an S3 store means, from a server that gives those answers, as the stores' own error pages list them."""

from __future__ import annotations

import asyncio
import os
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from phantoms_dagster.domain.errors import InvalidInput, NotFound, Permanent, ProviderError, Throttled, Transient
from phantoms_dagster.domain.models import MediaFile
from phantoms_dagster.media.cache import Cache
from phantoms_dagster.media.object_store.client import Bucket
from phantoms_dagster.media.object_store.errors import is_outage
from phantoms_dagster.media.object_store.store import ObjectStore

KEY_ID, SECRET = "AKIAREFUSED", "n0t/to+be+shown"
FILE = MediaFile(sha256="ab" * 32, size=3, suffix=".mp4")
OK = "200"


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in os.environ if n.startswith("AWS_")]:
        monkeypatch.delenv(name)


@dataclass
class Answers:
    """A server whose answers are said beforehand: by method, `status` or `status code`. HEAD has no body, as in HTTP."""

    said: dict[str, list[str]]
    headers: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    url: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                method = head.split()[0].decode()
                length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                await reader.readexactly(int(length[0].split(b":")[1]) if length else 0)
                self.asked.append(method)
                left = self.said[method]
                status, _, code = (left.pop(0) if len(left) > 1 else left[0]).partition(" ")
                body = f"<Error><Code>{code}</Code><Message>{KEY_ID}</Message></Error>" if code else ""
                lines = [f"HTTP/1.1 {status} x", f"Content-Length: {len(body) if method != 'HEAD' else 3}"]
                lines += ["Last-Modified: Sun, 22 Nov 2026 16:01:24 GMT", 'ETag: "e"']
                lines += [f"{name}: {value}" for name, value in self.headers.items()]
                writer.write("\r\n".join([*lines, "", body if method != "HEAD" else ""]).encode())
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def answering(**said: list[str]) -> AsyncIterator[Answers]:
    answers = Answers(said)
    server = await asyncio.start_server(answers.serve, "127.0.0.1", 0)
    answers.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield answers
    finally:
        server.close()


def store_at(url: str, folder: Path) -> ObjectStore:
    bucket = Bucket("s3://bucket/latest", endpoint_url=url, access_key_id=KEY_ID, secret_access_key=SECRET)
    return ObjectStore(bucket, Cache(folder / "cache", 10**6))


@pytest.mark.parametrize(
    ("answer", "kind", "says"),
    [
        ("403 AccessDenied", Permanent, "let this key get, put and delete objects"),
        ("403 InvalidAccessKeyId", Permanent, "PHANTOMS_MEDIA_ACCESS_KEY_ID"),
        ("403 SignatureDoesNotMatch", Permanent, "PHANTOMS_MEDIA_SECRET_ACCESS_KEY"),
        ("403", Permanent, "PHANTOMS_MEDIA_SECRET_ACCESS_KEY"),
        ("401", Permanent, "PHANTOMS_MEDIA_SECRET_ACCESS_KEY"),
        ("400 ExpiredToken", Permanent, "AWS_SESSION_TOKEN"),
        ("404 NoSuchBucket", Permanent, "PHANTOMS_MEDIA_URL"),
        ("400 AuthorizationHeaderMalformed", Permanent, "PHANTOMS_MEDIA_REGION"),
        ("301 PermanentRedirect", Permanent, "PHANTOMS_MEDIA_REGION"),
        ("400 SomethingNew", Permanent, "SomethingNew"),
        ("403 RequestTimeTooSkewed", Transient, "clock"),
        ("400 RequestTimeout", Transient, "too slow"),
        ("400 XAmzContentSHA256Mismatch", Transient, "damaged in transit"),
        ("403 QuotaExceeded", Transient, "free some space"),
        ("507 XMinioStorageFull", Transient, "free some space"),
        ("500 InternalError", Transient, "InternalError"),
        ("502", Transient, "HTTP 502"),
        ("503 ServiceUnavailable", Transient, "ServiceUnavailable"),
        ("503 SlowDown", Throttled, "slow down"),
        ("429", Throttled, "slow down"),
    ],
)
async def test_each_refusal_has_its_class_and_says_what_to_do(
    tmp_path: Path, answer: str, kind: type[ProviderError], says: str
) -> None:
    (tmp_path / "a.mp4").write_bytes(b"abc")
    async with answering(HEAD=["404"], PUT=[answer], GET=[answer], DELETE=[answer]) as server:
        store = store_at(server.url, tmp_path)
        for call in (store.add(tmp_path / "a.mp4"), store.local(FILE), store.remove(FILE)):
            with pytest.raises(ProviderError, match=says) as refused:
                await call
            assert type(refused.value) is kind
            assert refused.value.provider == "media"
            shown = f"{''.join(traceback.format_exception(refused.value))} {refused.value.evidence!r}"
            assert SECRET not in shown
            assert KEY_ID not in shown
            server_is_ill = kind is Transient and answer.startswith("5")
            assert is_outage(refused.value) is server_is_ill


async def test_a_key_that_may_not_look_may_still_write(tmp_path: Path) -> None:
    """If a key may not list the bucket, S3 answers 403 when it looks for an object that does not exist."""
    (tmp_path / "a.mp4").write_bytes(b"abc")
    async with answering(HEAD=["403", OK], PUT=[OK]) as server:
        file = await store_at(server.url, tmp_path).add(tmp_path / "a.mp4")
        assert file.size == 3
        assert server.asked == ["HEAD", "PUT", "HEAD", "HEAD"]  # the third one looks whether cleaning is at work


async def test_an_upload_that_the_store_took_for_another_size_is_tried_again(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"abcd")
    async with answering(HEAD=["404", OK], PUT=[OK]) as server:
        with pytest.raises(Transient, match="3 bytes instead of 4 after its upload"):
            await store_at(server.url, tmp_path).add(tmp_path / "a.mp4")


async def test_an_object_that_shows_a_moment_after_its_upload_is_waited_for_once(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"abc")
    async with answering(HEAD=["404", "404", "404", OK], PUT=[OK]) as server:
        await store_at(server.url, tmp_path).add(tmp_path / "a.mp4")
        assert server.asked == ["HEAD", "PUT", "HEAD", "HEAD", "HEAD"]
    async with answering(HEAD=["404"], PUT=[OK]) as server:
        with pytest.raises(Transient, match="has no bytes instead of 3"):
            await store_at(server.url, tmp_path).add(tmp_path / "a.mp4")
        assert server.asked == ["HEAD", "PUT", "HEAD", "HEAD", "HEAD", "PUT", "HEAD"]


async def test_a_passing_failure_is_not_even_noticed(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"abc")
    async with answering(HEAD=["503", "404", OK], PUT=["500 InternalError", "503 SlowDown", OK]) as server:
        await store_at(server.url, tmp_path).add(tmp_path / "a.mp4")
        assert server.asked == ["HEAD", "HEAD", "PUT", "PUT", "PUT", "HEAD", "HEAD"]


async def test_a_missing_object_is_not_found_and_deleting_it_is_nothing(tmp_path: Path) -> None:
    async with answering(HEAD=["404"], PUT=[OK], GET=["404 NoSuchKey"], DELETE=["404 NoSuchKey"]) as server:
        store = store_at(server.url, tmp_path)
        with pytest.raises(NotFound, match="there is no s3://bucket/latest/ab/"):
            await store.local(FILE)
        await store.remove(FILE)


async def test_no_keys_anywhere_says_where_they_could_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with answering(PUT=["404"], GET=["404"]) as nowhere:
        monkeypatch.setenv("AWS_METADATA_ENDPOINT", nowhere.url)
        bucket = Bucket("s3://bucket", endpoint_url="http://127.0.0.1:1")
        with pytest.raises(Transient, match=r"there are no keys.*PHANTOMS_MEDIA_ACCESS_KEY_ID") as refused:
            await bucket.size("x")
        assert not is_outage(refused.value), "one machine without keys must not stop the others"


def test_a_machine_without_authorities_of_its_own_can_use_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", os.devnull)
    monkeypatch.setenv("SSL_CERT_DIR", os.devnull)
    Bucket("s3://bucket")


async def test_a_variable_of_the_environment_that_cannot_be_used_is_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CHECKSUM_ALGORITHM", "crc-of-its-own")
    with pytest.raises(InvalidInput, match=r"the object store cannot be set up: .*AWS_"):
        Bucket("s3://bucket")
