"""What people see of media in a bucket: `phantoms doctor`, and the metadata of the UI."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from phantoms_dagster.cli.main import app
from phantoms_dagster.defs import metadata
from phantoms_dagster.domain.models import RenderedVideoOutput
from phantoms_dagster.settings import Settings
from phantoms_dagster.wiring.media import MediaFiles, media_store
from phantoms_dagster_tests.integration.stage_world import PROBE
from phantoms_dagster_tests.s3_server import BUCKET, KEY_ID, SECRET, S3Server, s3_server

URL = f"s3://{BUCKET}/of/ours"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [n for n in os.environ if n.startswith(("PHANTOMS_", "AWS_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PHANTOMS_HOME", str(tmp_path / "home"))


def doctor(server: S3Server, **changed: str) -> tuple[dict[str, str], str]:
    """Return the doctor's findings about media, and its whole output."""
    given = {"URL": URL, "ENDPOINT_URL": server.url, "ACCESS_KEY_ID": KEY_ID, "SECRET_ACCESS_KEY": SECRET, **changed}
    variables = {f"PHANTOMS_MEDIA_{name}": value for name, value in given.items()}
    result = CliRunner().invoke(app, ["doctor", "--json"], env=variables)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    [found] = [f for f in json.loads(result.stdout)["findings"] if f["check"] == "media"]
    assert result.exit_code == (1 if found["verdict"] == "wrong" else 0)
    return found, result.output


def test_doctor_tries_the_store_and_leaves_nothing_in_it(server: S3Server, tmp_path: Path) -> None:
    found, _ = doctor(server)
    assert found["verdict"] == "ok"
    assert URL in found["found"]
    assert server.objects() == []
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"SECRET_ACCESS_KEY": "n0t/the+secret"}, "the secret does not belong to the key"),
        ({"URL": "s3://not-there-yet"}, "create the bucket, or correct PHANTOMS_MEDIA_URL"),
        ({"ENDPOINT_URL": "http://127.0.0.1:1"}, "check PHANTOMS_MEDIA_ENDPOINT_URL"),
        ({"SECRET_ACCESS_KEY": ""}, "set both PHANTOMS_MEDIA_ACCESS_KEY_ID and PHANTOMS_MEDIA_SECRET_ACCESS_KEY"),
    ],
)
def test_doctor_says_what_is_wrong_with_the_store_and_what_to_do(server: S3Server, changed: dict[str, str], says: str) -> None:
    found, output = doctor(server, **changed)
    assert found["verdict"] == "wrong"
    assert says in found["found"]
    assert "n0t/the+secret" not in output
    assert SECRET not in output


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PHANTOMS_MEDIA_URL", f"s3://{KEY_ID}:{SECRET}@bucket"),
        ("PHANTOMS_MEDIA_URL", "https://bucket.s3.amazonaws.com"),
        ("PHANTOMS_MEDIA_ENDPOINT_URL", f"https://{KEY_ID}:{SECRET}@minio:9000"),
        ("PHANTOMS_MEDIA_ENDPOINT_URL", "minio:9000"),
    ],
)
def test_a_url_of_another_kind_is_refused_with_its_setting_and_without_its_value(name: str, value: str) -> None:
    result = CliRunner().invoke(app, ["doctor"], env={name: value})
    assert result.exit_code == 2
    assert name in result.stderr
    assert "should read" in result.stderr
    assert SECRET not in result.output


def test_the_ui_shows_the_objects_url_and_the_picture_that_another_machine_made(server: S3Server, tmp_path: Path) -> None:
    media = {"url": URL, "endpoint_url": server.url, "access_key_id": KEY_ID, "secret_access_key": SECRET}
    (tmp_path / "thumbnail.jpg").write_bytes(b"\xff\xd8 a picture")
    (tmp_path / "master.mp4").write_bytes(b"a video")

    async def made() -> RenderedVideoOutput:
        store = media_store(Settings(paths={"home": tmp_path / "one"}, media=media))
        video, still = await store.add(tmp_path / "master.mp4"), await store.add(tmp_path / "thumbnail.jpg")
        return RenderedVideoOutput(video=video, thumbnail=still, probe=PROBE, renderer="local", render_id="r1")

    output = asyncio.run(made())
    shown = metadata.of_output(output, MediaFiles(Settings(paths={"home": tmp_path / "two"}, media=media)))
    assert shown["file"].value == f"{URL}/{output.video.name}"
    assert base64.b64encode(b"\xff\xd8 a picture").decode() in shown["thumbnail"].value
    assert not (tmp_path / "two" / "media" / "cache" / output.video.name).exists(), "a video is not fetched to be named"
