"""A key whose file is replaced: running workers use the new key for their next call, without a restart."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import httpx
import pytest

from phantoms_dagster.domain.errors import Permanent
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.registry.providers import RENDERERS, WRITERS
from phantoms_dagster.settings import Settings
from phantoms_dagster.wiring.clock import SystemClock
from phantoms_dagster.wiring.endpoints import Endpoints
from phantoms_dagster.wiring.pipeline import _Parts, identity_readers
from phantoms_dagster_tests.contract.test_openai import BRIEF, CHANNEL, FakeAttempt
from phantoms_dagster_tests.sandbox_thread import Running, sandbox_thread

FILES = ("OPENAI_API_KEY", "SHOTSTACK_API_KEY", "INSTAGRAM_APP_SECRET", "INSTAGRAM_TOKEN")


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Running]:
    with sandbox_thread(tmp_path / "sandbox") as running:
        yield running


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """The files of the secrets, with what was good at the start of the worker."""
    found = {name: tmp_path / name.lower() for name in FILES}
    for name, file in found.items():
        file.write_text("revoked-key-of-june\n")
        monkeypatch.setenv(f"PHANTOMS_{name}_FILE", str(file))
        monkeypatch.delenv(f"PHANTOMS_{name}", raising=False)
    return found


def put(file: Path, text: str) -> None:
    """Replace a file as secret stores do: the new one is renamed over it."""
    new = file.with_name(f"{file.name}.new")
    new.write_text(text)
    new.replace(file)


class Worker:
    """The parts of a pipeline as a worker holds them for its whole life."""

    def __init__(self, sandbox: Running, home: Path, client: httpx.AsyncClient) -> None:
        self.settings = Settings(
            paths={"home": home},
            providers={
                "openai": {"base_url": f"{sandbox.url}/openai/v1"},
                "shotstack": {"base_url": f"{sandbox.url}/shotstack"},
            },
            platforms={"instagram": {"base_url": f"{sandbox.url}/instagram"}},
        )
        self.endpoints = Endpoints(self.settings)
        clients = dict.fromkeys(("openai", "shotstack", "instagram"), client)
        nothing: object = None
        self.parts = _Parts(
            self.settings,
            self.endpoints,
            SystemClock(),
            clients,
            nothing,  # type: ignore[arg-type]
            gate=nothing,  # type: ignore[arg-type]
            accounts=Places(),  # type: ignore[arg-type]
            grants=nothing,  # type: ignore[arg-type]
            named=unnamed,
        )


async def unnamed(_provider: str, _attempt_id: str) -> Sequence[str]:
    """No event has come."""
    return ()


class Places:
    """No account has a token of its own."""

    async def token_sources(self) -> dict[tuple[str, str], str]:
        return {}


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False) as opened:
        yield opened


async def test_a_renewed_openai_key_is_used_by_the_next_call(
    sandbox: Running, files: dict[str, Path], tmp_path: Path, client: httpx.AsyncClient
) -> None:
    writer = Worker(sandbox, tmp_path, client).parts.providers.make(WRITERS)
    with pytest.raises(Permanent, match="invalid_api_key"):
        await writer.write(BRIEF, CHANNEL, FakeAttempt())
    put(files["OPENAI_API_KEY"], "sandbox-key-of-july\n")
    written = await writer.write(BRIEF, CHANNEL, FakeAttempt())
    assert written.script.scenes


async def test_a_renewed_shotstack_key_is_used_by_the_next_call(
    sandbox: Running, files: dict[str, Path], tmp_path: Path, client: httpx.AsyncClient
) -> None:
    renderer = Worker(sandbox, tmp_path, client).parts.providers.make(RENDERERS)
    with pytest.raises(Permanent, match="403"):
        await renderer.check_key()
    put(files["SHOTSTACK_API_KEY"], "sandbox-key-of-july\n")
    await renderer.check_key()


async def test_a_renewed_app_secret_proves_the_next_call(
    sandbox: Running, files: dict[str, Path], tmp_path: Path, client: httpx.AsyncClient
) -> None:
    put(files["INSTAGRAM_TOKEN"], "sandbox-shore\n")
    parts = Worker(sandbox, tmp_path, client).parts
    reader = identity_readers(parts.toolbox, parts.endpoints)[Platform("instagram")]
    with pytest.raises(Permanent, match="appsecret_proof"):
        await reader.read("shore")
    put(files["INSTAGRAM_APP_SECRET"], "sandbox-app-secret\n")
    assert (await reader.read("shore")).label == "shore"


def test_a_file_that_is_gone_for_a_moment_leaves_the_last_good_key_in_force(
    sandbox: Running, files: dict[str, Path], tmp_path: Path
) -> None:
    endpoints = Endpoints(Settings(paths={"home": tmp_path}))
    assert endpoints.key("openai") == "revoked-key-of-june"
    put(files["OPENAI_API_KEY"], "key-of-july\n")
    assert endpoints.key("openai") == "key-of-july"
    for damage in ("", "two\nlines\n"):
        put(files["OPENAI_API_KEY"], damage)
        assert endpoints.key("openai") == "key-of-july"
    files["OPENAI_API_KEY"].unlink()
    assert endpoints.key("openai") == "key-of-july"
