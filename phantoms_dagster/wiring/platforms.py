"""The adapters of each registered platform, made of the settings. Imported here once, in the parent: a run imports none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Generic, TypeVar, cast

import httpx

from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import Clock, Tokens
from phantoms_dagster.platforms.scopes import Scope
from phantoms_dagster.platforms.tools import Tools
from phantoms_dagster.settings import Settings
from phantoms_dagster.wiring.endpoints import Endpoints

T = TypeVar("T")


@cache
def adapters(platform: Platform) -> ModuleType:
    """The module that makes the platform's adapters. Raises ImportError."""
    return import_module(platform.spec.adapters)


def can(platform: Platform, what: str) -> bool:
    """Whether the platform has that adapter: `publisher`, `metrics`, `identity`, `grants` or `late_ids`."""
    return hasattr(adapters(platform), what)


def scopes_of(platform: Platform) -> tuple[Scope, ...]:
    """The permissions that posting and reading need."""
    found: tuple[Scope, ...] = getattr(adapters(platform), "SCOPES", ())
    return found


class Toolbox:
    """Makes adapters of one kind for any platform."""

    def __init__(
        self,
        settings: Settings,
        endpoints: Endpoints,
        clients: Mapping[str, httpx.AsyncClient],
        tokens: Tokens,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._endpoints = endpoints
        self._clients = clients
        self._tokens = tokens
        self._clock = clock

    def tools(self, platform: Platform) -> Tools:
        """What the platform's adapters are made with. Raises InvalidInput when it has no token and the sandbox is off."""
        name, endpoints = str(platform), self._endpoints
        return Tools(
            # A platform that is no service has no client, and asks for none.
            client=cast(httpx.AsyncClient, self._clients.get(name)),
            base_url=endpoints.base_url(name) if platform.spec.remote else "",
            tokens=self._tokens,
            clock=self._clock,
            sandbox=endpoints.sandboxed(name),
            max_wait=self._settings.max_wait_seconds,
            setting=lambda setting: self._settings.of(name, setting),
            secret=lambda setting: endpoints.secret_of(name, setting),
            folder=self._settings.home.expanduser().absolute(),
        )

    def make(self, platform: Platform, what: str) -> object:
        """The adapter `what` of the platform. Raises KeyError when it has none."""
        maker: Callable[[Tools], object] | None = getattr(adapters(platform), what, None)
        if maker is None:
            raise KeyError(f"{platform.title} has no adapter `{what}`")
        return maker(self.tools(platform))


class LazyAdapters(dict[Platform, T], Generic[T]):
    """Adapters by platform, each made when it is first asked for: platforms that nobody uses cost nothing."""

    def __init__(self, make: Callable[[Platform], T], platforms: tuple[Platform, ...]) -> None:
        super().__init__()
        self._make = make
        self._platforms = platforms

    def __missing__(self, platform: Platform) -> T:
        if platform not in self._platforms:
            raise KeyError(platform)
        self[platform] = made = self._make(platform)
        return made

    def __contains__(self, platform: object) -> bool:
        return platform in self._platforms


for _platform in Platform:
    adapters(_platform)
