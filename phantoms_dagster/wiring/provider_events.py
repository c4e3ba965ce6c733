"""Events of platforms and providers: the addresses to which they are sent, the secrets that prove them, and their readers."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, cast

from phantoms_dagster.domain.provider_events import signed
from phantoms_dagster.registry.integrations import INTEGRATIONS
from phantoms_dagster.wiring.secret_file import kept_secret

if TYPE_CHECKING:
    from pydantic import SecretStr

    from phantoms_dagster.domain.provider_events import EventReader
    from phantoms_dagster.settings import Settings

FILE = "provider_events.key"
PATH = "/provider-events"
SENDERS = tuple(name for name, spec in INTEGRATIONS.items() if spec.events is not None)


def event_url(settings: Settings, integration: str) -> str | None:
    """The address to which the integration sends its events. None: none are accepted."""
    base = settings.provider_events.url
    return None if base is None else f"{base}{PATH}/{integration}"


def reader_of(integration: str) -> EventReader:
    """The module that reads the integration's events. Raises KeyError for one that sends none."""
    module = INTEGRATIONS[integration].events
    if module is None:
        raise KeyError(integration)
    return cast("EventReader", import_module(module))


class SettingsSecrets:
    """Implements `provider_events.EventSecrets` for one integration. Its settings count even while the sandbox answers for it."""

    def __init__(self, settings: Settings, integration: str) -> None:
        self._settings = settings
        self._integration = integration

    def settings(self, *names: str) -> Sequence[str]:
        """See the protocol."""
        found: Sequence[SecretStr | None] = [self._settings.of(self._integration, name) for name in names]
        return [text for secret in found if secret is not None and (text := secret.get_secret_value().strip())]

    def token(self, text: str) -> str:
        """See the protocol."""
        return signed(f"{self._integration}:{text}".encode(), _own_secret(self._settings))


def callback_for(settings: Settings, integration: str) -> Callable[[str], str | None]:
    """Returns a function that makes the callback's address for an order, by our id of it."""
    return partial(_callback, settings, integration)


def _callback(settings: Settings, integration: str, attempt_id: str) -> str | None:
    from phantoms_dagster.providers.shotstack.events import callback_query  # noqa: PLC0415

    url = event_url(settings, integration)
    return None if url is None else f"{url}?{callback_query(attempt_id, SettingsSecrets(settings, integration).token(attempt_id))}"


def _own_secret(settings: Settings) -> str:
    given = settings.provider_events.secret
    if given is not None:
        return given.get_secret_value()
    path = settings.paths.home.expanduser() / FILE
    return kept_secret(path, lambda: secrets.token_urlsafe(48), variable="PHANTOMS_PROVIDER_EVENTS_SECRET")
