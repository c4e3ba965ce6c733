"""The arguments with which a provider's adapters are made.

A provider's module `adapters` has one function for each kind of work that it does. `writer(tools)`, `voice(tools)` and
`renderer(tools)` make the ports `ScriptWriter`, `Voice` and `Renderer`. They only make objects and send nothing.

Two coroutines are optional. `check(service)` checks the key at the real service, with a read that costs nothing, and returns
findings. `model(service)` returns one finding about the configured model. It also runs with the sandbox.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import httpx

from phantoms_dagster.domain.ports import Clock, MediaStore


@dataclass(frozen=True)
class ProviderFinding:
    """A finding that `phantoms doctor` shows. `check`: what was checked. `verdict`: ok, note or wrong. `fix`: what to do."""

    check: str
    verdict: str
    found: str
    fix: str = ""


@dataclass(frozen=True, kw_only=True)
class ServiceTools:
    """How to reach a provider.

    - `client` keeps the shared limits, except in `check` and `model`. A provider that is not remote has none.
    - `base_url` and `key` are those of the sandbox if `sandbox` is true. `key` is called for each request.
    - `setting` returns the value of one of the provider's settings, by its short name.
    - `secret` does the same for a secret and reads its file each time. None in the sandbox.
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
    """The arguments for making a writer, a voice or a renderer. `work_dir`: a folder that outlives the process.

    `renders_in_flight`: the most renders at once in this process, for a renderer that renders on this machine.
    `callback`: the address to which the service sends events about an order, by our id of it; None: it cannot reach us.
    `named`: the service's ids that such events gave for an order. They are claims, which a read must confirm.
    """

    media: MediaStore
    work_dir: Path
    renders_in_flight: int
    callback: Callable[[str], str | None]
    named: Callable[[str], Awaitable[Sequence[str]]]
