"""Makes the adapters of the chosen providers from the settings: the writer, the voice and the renderer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from phantoms_dagster.domain.ports import Clock, MediaStore
from phantoms_dagster.registry.providers import PROVIDERS, VOICES, ProviderKind
from phantoms_dagster.settings import Settings
from phantoms_dagster.wiring.endpoints import Endpoints
from phantoms_dagster.wiring.provider_events import callback_for

# Many commands read the records of providers, but few send anything.
if TYPE_CHECKING:
    import httpx

    from phantoms_dagster.domain.models import Channel
    from phantoms_dagster.providers.tools import ServiceTools


def adapters(provider: str) -> ModuleType:
    """The module that makes the provider's adapters. Raises ImportError."""
    return import_module(PROVIDERS[provider].adapters)


def has(provider: str, what: str) -> bool:
    """Whether the provider has that optional adapter: `check` or `model`."""
    return hasattr(adapters(provider), what)


def channel_problem(settings: Settings) -> Callable[[Channel], tuple[str, str] | None]:
    """Return a function that says why the chosen voice cannot speak for a channel."""
    dotted = VOICES.specs[settings.voice.choice].channel_problem
    if dotted is None:
        return lambda _channel: None
    module, _, name = dotted.partition(":")

    def ask(channel: Channel) -> tuple[str, str] | None:
        found: tuple[str, str] | None = getattr(import_module(module), name)(channel)
        return found

    return ask


def _reach(
    settings: Settings, endpoints: Endpoints, provider: str, client: httpx.AsyncClient | None, clock: Clock
) -> dict[str, Any]:
    remote = PROVIDERS[provider].remote
    return {
        # A provider that is not remote has no client and uses none.
        "client": client,
        "base_url": endpoints.base_url(provider) if remote else "",
        "key": partial(endpoints.key, provider),
        "clock": clock,
        "sandbox": endpoints.sandboxed(provider),
        "setting": partial(settings.of, provider),
        "secret": partial(endpoints.secret_of, provider),
    }


def service_tools(settings: Settings, endpoints: Endpoints, provider: str, client: httpx.AsyncClient, clock: Clock) -> ServiceTools:
    """Return the argument for `check` and `model`. Raises InvalidInput when there is neither a key nor a sandbox."""
    from phantoms_dagster.providers.tools import ServiceTools  # noqa: PLC0415

    return ServiceTools(**_reach(settings, endpoints, provider, client, clock))


class Providers:
    """Makes the chosen writer, voice and renderer."""

    def __init__(
        self,
        settings: Settings,
        endpoints: Endpoints,
        clients: Mapping[str, httpx.AsyncClient],
        media: MediaStore,
        clock: Clock,
        *,
        named: Callable[[str, str], Awaitable[Sequence[str]]],
    ) -> None:
        """`named`: the ids that a provider's events gave for an order, by provider and our id of the order."""
        self._named = named
        self._settings = settings
        self._endpoints = endpoints
        self._clients = clients
        self._media = media
        self._clock = clock

    def make(self, kind: ProviderKind) -> Any:
        """Make the adapter for that kind of work. Raises InvalidInput when there is neither a key nor a sandbox."""
        from phantoms_dagster.providers.tools import ProviderTools  # noqa: PLC0415

        provider = self._endpoints.chosen(kind)
        reach = _reach(self._settings, self._endpoints, provider, self._clients.get(provider), self._clock)
        tools = ProviderTools(
            **reach,
            media=self._media,
            work_dir=self._settings.media_path / "work",
            renders_in_flight=self._settings.renderer.in_flight,
            callback=callback_for(self._settings, provider),
            named=partial(self._named, provider),
        )
        return getattr(adapters(provider), kind.name)(tools)
