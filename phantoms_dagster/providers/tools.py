"""What a provider's adapters are made with.

A provider's module `adapters` has the function of each kind of work that it does: `writer(tools)`, `voice(tools)`,
`renderer(tools)`, which make the ports `ScriptWriter`, `Voice` and `Renderer`. They make objects and send nothing.

Two coroutines are optional. `check(service)` asks the real service whether the key is good, by a read that costs nothing, and
returns findings. `model(service)` returns one finding about the model that is set; it is asked in the sandbox, too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import httpx

from phantoms_dagster.domain.ports import Clock, MediaStore


@dataclass(frozen=True)
class ProviderFinding:
    """What `phantoms doctor` says of a provider. `check` is what was looked at; `verdict`: ok, note or wrong; `fix`: what to do."""

    check: str
    verdict: str
    found: str
    fix: str = ""


@dataclass(frozen=True, kw_only=True)
class ServiceTools:
    """A provider as it is reached now.

    `client`: one that keeps the fleet's limits, except in `check` and `model`; a provider that is not remote has none. `base_url`
    and `key` are those of the sandbox when `sandbox` says so; `key` is called for each request. `setting`: the value of one of the
    provider's settings, by its short name. `secret`: the same for a secret, as its file has it at that moment; None in the sandbox.
    """

    client: httpx.AsyncClient
    base_url: str
    key: Callable[[], str]
    clock: Clock
    sandbox: bool
    setting: Callable[[str], Any]
    secret: Callable[[str], str | None]

    @property
    def today(self) -> date:
        """The day in UTC."""
        return self.clock.now().date()


@dataclass(frozen=True, kw_only=True)
class ProviderTools(ServiceTools):
    """What a writer, a voice or a renderer works with. `work_dir`: a folder that outlives the process.

    `renders_in_flight`: the most renders at once in this process, for a renderer that renders on this machine.
    """

    media: MediaStore
    work_dir: Path
    renders_in_flight: int
