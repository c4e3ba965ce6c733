"""Creates the adapters of registered platforms from the settings. Their modules are imported once, before processes fork."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any, Generic, TypeVar, cast

import httpx

from phantoms_dagster.domain.grants import OAuth
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import Clock, Tokens
from phantoms_dagster.platforms.scopes import Scope
from phantoms_dagster.platforms.tools import Tools
from phantoms_dagster.settings import Settings
from phantoms_dagster.wiring.endpoints import Endpoints
from phantoms_dagster.wiring.providers import service_tools

T = TypeVar("T")


@cache
def adapters(platform: Platform) -> ModuleType:
    """The module that creates the platform's adapters. Raises ImportError."""
    return import_module(platform.spec.adapters)


def can(platform: Platform, what: str) -> bool:
    """Whether the platform has the adapter of that name (see `platforms.tools`), such as `publisher` or `post_reader`."""
    return hasattr(adapters(platform), what)


def scopes_of(platform: Platform) -> tuple[Scope, ...]:
    """The permissions that posting and reading metrics need."""
    found: tuple[Scope, ...] = getattr(adapters(platform), "SCOPES", ())
    return found


class Toolbox:
    """Creates any adapter of any platform."""

    def __init__(
        self,
        settings: Settings,
        endpoints: Endpoints,
        clients: Mapping[str, httpx.AsyncClient],
        tokens: Tokens,
        clock: Clock,
        *,
        route: str | None = None,
    ) -> None:
        """`route`: see `Tools`."""
        self._route = route
        self._settings = settings
        self._endpoints = endpoints
        self._clients = clients
        self._tokens = tokens
        self._clock = clock

    def tools(self, platform: Platform, *, asked: bool = True) -> Tools:
        """The arguments for creating the platform's adapters. Raises InvalidInput without a token while the sandbox is off.

        `asked`: the adapter sends requests to the platform itself. Without it, no token is needed.
        """
        name, endpoints = str(platform), self._endpoints
        return Tools(
            # A platform that is not remote has no client and uses none.
            client=cast(httpx.AsyncClient, self._clients.get(name)),
            base_url=endpoints.base_url(name) if platform.spec.remote and asked else "",
            tokens=self._tokens,
            clock=self._clock,
            sandbox=asked and endpoints.sandboxed(name),
            max_wait=self._settings.pacing.max_wait_seconds,
            setting=lambda setting: endpoints.setting(name, setting),
            secret=lambda setting: endpoints.secret_of(name, setting),
            folder=self._settings.paths.home.expanduser().absolute(),
            service=lambda provider: service_tools(self._settings, endpoints, provider, self._clients[provider], self._clock),
            route=self._route,
        )

    def make(self, platform: Platform, what: str) -> object:
        """Create the adapter `what` of the platform. Raises KeyError if the platform does not have it."""
        maker: Callable[[Tools], object] | None = getattr(adapters(platform), what, None)
        if maker is None:
            raise KeyError(f"{platform.title} has no adapter `{what}`")
        return maker(self.tools(platform, asked=not what.startswith("gateway")))


class LazyAdapters(dict[Platform, T], Generic[T]):
    """Adapters by platform, each created on first access, so that unused platforms cost nothing."""

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

    def get(self, platform: Platform, default: Any = None) -> Any:
        """As for any mapping. That of `dict` would not create the adapter."""
        if platform not in self:
            return default
        return self[platform]


def oauth_adapters(toolbox: Toolbox) -> Mapping[Platform, OAuth]:
    """The token endpoints of the platforms that have OAuth."""

    def make(platform: Platform) -> OAuth:
        return cast(OAuth, toolbox.make(platform, "oauth"))

    return LazyAdapters(make, tuple(platform for platform in Platform if can(platform, "oauth")))


for _platform in Platform:
    adapters(_platform)
