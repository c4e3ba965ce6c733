"""Another package's writer, voice and renderer, installed by their entry points, do the work of their stages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from phantoms_dagster.registry.errors import CannotRegister
from phantoms_dagster.registry.pools import PoolLimits
from phantoms_dagster.registry.provider_spec import ProviderSpec
from phantoms_dagster.registry.providers import PROVIDERS, RENDERERS, VOICES, WRITERS, ProviderKind, register
from phantoms_dagster.registry.routes import Route
from phantoms_dagster.registry.spec import Setting

KEY = "key-of-the-pond"

SPEC = """
from pydantic import SecretStr
from phantoms_dagster.registry.pools import PoolLimits
from phantoms_dagster.registry.provider_spec import ProviderSpec
from phantoms_dagster.registry.routes import Route
from phantoms_dagster.registry.spec import Setting

POND = ProviderSpec(
    name="pond", title="Pond", adapters="phantoms_pond.adapters", usd_per_minute="price",
    pools={"script_pond": PoolLimits(slots=3)}, routes=(Route(None, "", "script_pond"),),
    settings={
        "api_key": Setting(SecretStr | None, None, "Key of the pond."),
        "base_url": Setting(str, "https://pond.example", "Host of the pond."),
        "price": Setting(float, 0.5, "Price of a rendered minute."),
    },
)
"""
ADAPTERS = """
import wave
from decimal import Decimal
from phantoms_dagster.domain.models import Scene, Script, Sentence, VoiceoverOutput
from phantoms_dagster.domain.ports import WrittenScript
from phantoms_dagster.media.local_renderer import LocalRenderer
from phantoms_dagster.providers import http
from phantoms_dagster.providers.tools import ProviderFinding


class Writer:
    provider = "pond"

    def __init__(self, tools):
        self.tools = tools

    async def write(self, brief, channel, attempt):
        tools = self.tools
        answer = await http.send(tools.client, "GET", tools.base_url, provider="pond", headers=http.bearer(tools.key()))
        said = http.json_object(answer, provider="pond")["said"]
        script = Script(hook="Ponds are deep.", scenes=(Scene(narration=said, on_screen_text=""),), title="Ponds", caption="Deep.",
                        hashtags=())
        return WrittenScript(script, "frog-1", "f1", 1, 2, Decimal("0.01"), tools.sandbox)


class Voice:
    provider = "pond"

    def __init__(self, tools):
        self.media = tools.media

    async def speak(self, script, channel):
        path = self.media.scratch_file(".wav")
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1); file.setsampwidth(2); file.setframerate(24_000)
            file.writeframes(bytes(range(1, 241)) * 1_000)
        audio = await self.media.add(path)
        spoken = Sentence(text=script.text, scene=-1, start=0, end=5)
        return VoiceoverOutput(audio=audio, seconds=5.0, voice="pond/frog", sentences=(spoken,))


class Renderer(LocalRenderer):
    provider = "pond"

    def price(self, seconds):
        return Decimal("0.04")


def writer(tools):
    return Writer(tools)


def voice(tools):
    return Voice(tools)


def renderer(tools):
    return Renderer(tools.work_dir, in_flight=tools.renders_in_flight)


async def check(service):
    return [ProviderFinding("pond", "ok", f"the key has {len(service.key())} letters")]
"""
RUN = """
import asyncio, json
from phantoms_dagster.domain.claims import RunContext
from phantoms_dagster.production.intake import make_brief
from phantoms_dagster.domain.stages import stage
from phantoms_dagster.wiring import Services
from phantoms_dagster.wiring.pipeline import open_pipeline

services = Services.from_environment()
services.catalogue().put_channels(services.channels().values())
[added] = services.catalogue().add([make_brief({"title": "Why ponds are deep"}, services.channels())], source="test")

async def run():
    found = {}
    async with open_pipeline(services.settings, services.endpoints, services.clock, services.database_url) as pipeline:
        for name in ("script", "voiceover", "rendered_video"):
            [result] = await pipeline.runner.run(stage(name), [added.key], RunContext("r", "person"))
            assert result.output is not None, result
            found[name] = result.output.model_dump(mode="json")
    return found

found = asyncio.run(run())
print(json.dumps({
    "model": found["script"]["model"], "said": found["script"]["script"]["scenes"][0]["narration"],
    "sandbox": found["script"]["sandbox"],
    "voice": found["voiceover"]["voice"], "renderer": found["rendered_video"]["renderer"],
    "seconds": round(found["rendered_video"]["probe"]["seconds"]),
}))
"""


@contextmanager
def pond() -> Iterator[tuple[str, list[str]]]:
    """A service with a key: its address, and the keys that calls brought."""
    keys: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            keys.append(self.headers.get("Authorization", ""))
            body = json.dumps({"said": "Frogs know why."}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", keys
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def installed(folder: Path, spec: str = SPEC, **more: str) -> dict[str, str]:
    """A package as pip would install it, and an environment that sees it."""
    for name, text in {"__init__.py": "", "spec.py": spec, "adapters.py": ADAPTERS}.items():
        path = folder / "phantoms_pond" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    facts = folder / "phantoms_pond-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: phantoms-pond\nVersion: 1.0\n", encoding="utf-8")
    groups = "".join(f"[phantoms.{kind}s]\npond = phantoms_pond.spec:POND\n" for kind in ("writer", "voice", "renderer"))
    (facts / "entry_points.txt").write_text(groups, encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PHANTOMS_")}
    chosen = {f"PHANTOMS_{kind}": "pond" for kind in ("WRITER", "VOICE", "RENDERER")}
    return {**kept, **chosen, "PYTHONPATH": str(folder), "PHANTOMS_HOME": str(folder / "home"), **more}


def ran(command: list[str], environment: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command], env=environment, cwd=folder, capture_output=True, text=True, check=False, timeout=300
    )


def test_another_packages_writer_voice_and_renderer_make_a_video(database_url: str, redis_url: str, tmp_path: Path) -> None:
    with pond() as (url, keys):
        stores = {"PHANTOMS_DATABASE_URL": database_url, "PHANTOMS_REDIS_URL": redis_url}
        environment = installed(tmp_path, PHANTOMS_POND_BASE_URL=url, PHANTOMS_POND_API_KEY=KEY, **stores)
        done = ran(["-c", RUN], environment, tmp_path)
    assert done.returncode == 0, done.stderr[-3_000:]
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "model": "frog-1", "said": "Frogs know why.", "sandbox": False, "voice": "pond/frog", "renderer": "pond", "seconds": 5,
    }  # fmt: skip
    assert keys == [f"Bearer {KEY}"]


def test_its_settings_and_its_check_are_shown_like_ours(tmp_path: Path) -> None:
    environment = installed(tmp_path, PHANTOMS_POND_API_KEY=KEY)
    shown = ran(["-m", "phantoms_dagster.cli.main", "settings", "--json", "pond"], environment, tmp_path)
    assert shown.returncode == 0, shown.stderr
    found = {one["variable"]: one["value"] for one in json.loads(shown.stdout)["settings"]}
    assert found["PHANTOMS_POND_API_KEY"] == "********"
    assert (found["PHANTOMS_POND_BASE_URL"], found["PHANTOMS_POND_PRICE"]) == ("https://pond.example", "0.5")
    assert found["PHANTOMS_WRITER"] == found["PHANTOMS_VOICE"] == found["PHANTOMS_RENDERER"] == "pond"
    told = ran(["-m", "phantoms_dagster.cli.main", "doctor", "--json"], environment, tmp_path)
    findings = {one["check"]: one for one in json.loads(told.stdout)["findings"]}
    assert findings["pond"]["found"] == f"the key has {len(KEY)} letters"
    assert not {"openai", "model", "shotstack", "renderer", "voice"} & set(findings)


def test_without_its_key_doctor_says_that_the_sandbox_cannot_answer_for_it(tmp_path: Path) -> None:
    told = ran(["-m", "phantoms_dagster.cli.main", "doctor", "--json"], installed(tmp_path), tmp_path)
    [finding] = [one for one in json.loads(told.stdout)["findings"] if one["check"] == "pond"]
    assert finding["verdict"] == "wrong"
    assert finding["found"] == "PHANTOMS_POND_API_KEY is not set, and the sandbox cannot answer for Pond"


@pytest.mark.parametrize("kind", [WRITERS, VOICES, RENDERERS], ids=lambda kind: kind.name)
def test_an_unknown_name_is_answered_with_those_that_there_are(kind: ProviderKind, tmp_path: Path) -> None:
    environment = installed(tmp_path, **{f"PHANTOMS_{kind.name.upper()}": "lake"})
    done = ran(["-m", "phantoms_dagster.cli.main", "settings"], environment, tmp_path)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
    said = " ".join(done.stderr.split())
    assert f"there is no {kind.name} 'lake'" in said
    assert all(name in said for name in [*kind.built_in, "pond"])


def test_a_package_whose_renderer_cannot_be_registered_is_named_with_the_way_out(tmp_path: Path) -> None:
    environment = installed(tmp_path, SPEC.replace('name="pond"', 'name="shotstack"'))
    done = ran(["-m", "phantoms_dagster.cli.main", "status"], environment, tmp_path)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
    assert "the writer 'pond' of the package phantoms-pond cannot be registered" in done.stderr
    assert "pip uninstall phantoms-pond" in done.stderr


def test_a_setting_whose_variable_another_one_has_is_refused_with_its_name(tmp_path: Path) -> None:
    named = SPEC.replace('name="pond"', 'name="web"').replace("script_pond", "script_web")
    environment = installed(tmp_path, named.replace("settings={", 'settings={"port": Setting(int, 1, "Port."),'))
    done = ran(["-m", "phantoms_dagster.cli.main", "status"], environment, tmp_path)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
    assert "PHANTOMS_WEB_PORT, which is taken" in " ".join(done.stderr.split())


def spec(name: str = "pond", **changes: object) -> ProviderSpec:
    given = {
        "name": name,
        "title": "Pond",
        "adapters": "nowhere",
        "pools": {f"script_{name}": PoolLimits()},
        "routes": (Route(None, "", f"script_{name}"),),
        "settings": {"api_key": Setting(str, "", "Key."), "base_url": Setting(str, "", "Host.")},
    }
    return ProviderSpec(**{**given, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (spec("Pond"), "no name for a writer"),
        (spec("auto"), "no name for a writer"),
        (spec("openai"), "taken"),
        (spec("youtube"), "taken"),
        (spec("sandbox"), "taken"),
        (spec(routes=()), "do not end with one for all"),
        (spec(settings={}), "has no setting api_key, base_url"),
        (spec(routes=(Route(None, "", "script_lake"),)), "script_lake"),
        (spec(pools={"script_pond": PoolLimits(), "render": PoolLimits()}), "render"),
    ],
)
def test_a_provider_that_would_break_others_is_refused_with_the_reason(given: ProviderSpec, said: str) -> None:
    with pytest.raises(CannotRegister, match=said):
        register(WRITERS, given)
    assert "pond" not in PROVIDERS
