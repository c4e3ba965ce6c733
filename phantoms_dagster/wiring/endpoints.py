"""The address and key of each integration: the real service if there is a key, else the sandbox."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from phantoms_dagster.domain.accounts import connect_command
from phantoms_dagster.domain.errors import InvalidInput, Permanent
from phantoms_dagster.domain.models import Channel, Platform
from phantoms_dagster.domain.wording import DEFAULT_PRIVACY
from phantoms_dagster.registry import integrations as registered
from phantoms_dagster.registry.channel_keys import GATEWAY
from phantoms_dagster.registry.provider_spec import ProviderSpec
from phantoms_dagster.registry.providers import GATEWAYS, KINDS, RENDERERS, VOICES, WRITERS, ProviderKind
from phantoms_dagster.registry.spec import IntegrationSpec, PlatformSpec
from phantoms_dagster.settings import Settings
from phantoms_dagster.settings.leaves import leaves
from phantoms_dagster.settings.sources import SECRET_BYTES

CONNECTED_SECONDS = 30.0

INTEGRATIONS = tuple(name for name, spec in registered.INTEGRATIONS.items() if spec.remote)


def spec_of(integration: str) -> IntegrationSpec:
    """The record of a provider or a platform. Raises KeyError."""
    return registered.INTEGRATIONS[integration]


def variable_of_key(integration: str) -> str:
    """The variable with the key or token; empty when none is needed."""
    name = _key_setting(integration)
    return "" if name is None else f"PHANTOMS_{name.upper()}"


def _key_setting(integration: str) -> str | None:
    spec = spec_of(integration)
    name = spec.key if isinstance(spec, ProviderSpec) else "token"
    return f"{integration}_{name}" if spec.remote and name is not None else None


def gateway_of(platform: Platform) -> str:
    """The provider that publishes for accounts of the platform whose route is the gateway."""
    assert platform.spec.gateway is not None, "such a route is refused in channels.yaml"
    return platform.spec.gateway


def named_by(channels: Iterable[Channel]) -> set[str]:
    """The platforms that channels post on, and the gateways that publish for them."""
    pairs = [(channel, platform) for channel in channels for platform in channel.accounts]
    keys = [(channel.key_of(platform), platform) for channel, platform in pairs]
    gateways = {gateway_of(platform) for key, platform in keys if key is not None and key.way() == GATEWAY}
    return {*(str(platform) for _, platform in pairs), *gateways}


def routes_of(channels: Iterable[Channel]) -> dict[tuple[Platform, str], str]:
    """The route of each account's posts, where it is not the usual one."""
    found = {}
    for channel in channels:
        for platform, account in channel.accounts.items():
            key = channel.key_of(platform)
            if key is not None and key.way():
                found[platform, account] = key.way()
    return found


def wanted_privacy(settings: Settings) -> dict[Platform, str]:
    """Who may see finished posts, in each platform's own terms: its setting, else its default. The channel may choose otherwise."""
    chosen = {platform: settings.of(platform, "privacy") for platform in Platform if "privacy" in platform.spec.settings}
    return {**DEFAULT_PRIVACY, **chosen}


def current_secret(path: Path) -> str:
    """Read the single line of a secret's file. Raises OSError, UnicodeDecodeError or ValueError."""
    with path.open("rb") as opened:
        text = opened.read(SECRET_BYTES + 1).decode("utf-8-sig").strip()
    if len(text.splitlines()) > 1 or len(text) > SECRET_BYTES:
        raise ValueError("not one line of text")
    return text


class Endpoints:
    """The address and key of each integration: the real service if there is a key, else the sandbox."""

    def __init__(
        self,
        settings: Settings,
        connected: Callable[[], Collection[str]] = tuple,
        named: Callable[[], Collection[str]] = tuple,
    ) -> None:
        """`connected` returns the platforms on which an account has its own token; it is called when that is first needed.

        `named` returns the platforms that channels name, and the gateways that publish for them.
        """
        self._named = named
        self._settings = settings
        self._ask = connected
        self._connected: frozenset[str] | None = None
        self._asked: tuple[float, frozenset[str]] | None = None
        self._last_good: dict[str, str] = {}

    def connect(self, platforms: Collection[str]) -> None:
        """Set the platforms on which an account has its own token. They do not need the sandbox."""
        self._connected = frozenset(platforms)

    @property
    def connected(self) -> frozenset[str]:
        """The platforms on which an account has its own token. Read again from time to time, because a person may connect one."""
        if self._connected is not None:
            return self._connected
        if self._asked is None or time.monotonic() - self._asked[0] > CONNECTED_SECONDS:
            self._asked = (time.monotonic(), frozenset(self._ask()))
        return self._asked[1]

    def missing(self, integration: str) -> bool:
        """Whether the integration needs a key or token and has none, not even that of a single account."""
        if _key_setting(integration) is None:
            return False
        return self.secret(integration) is None and not (integration in Platform and integration in self.connected)

    def secret(self, integration: str) -> str | None:
        """The current key or token of the integration; None if there is none."""
        name = _key_setting(integration)
        return None if name is None else self._current(name)

    def secret_of(self, integration: str, name: str) -> str | None:
        """Another secret of the platform or provider, such as its app's. The sandbox never gets one."""
        return None if self.sandboxed(integration) else self._current(f"{integration}_{name}")

    def _current(self, name: str) -> str | None:
        """The secret of a setting. Its file is read each time, because workers and the daemon outlive keys.

        If the file is unusable for a moment because it is being replaced, the last good secret stays in use.
        """
        leaf = leaves(Settings)[name]
        value: SecretStr | None = leaf.value(self._settings)
        variable = leaf.variable
        path = os.environ.get(f"{variable}_FILE")
        if value is None or not path or os.environ.get(variable):
            return value.get_secret_value() if value else None
        try:
            found = current_secret(Path(path).expanduser())
        except (OSError, UnicodeDecodeError, ValueError):
            found = ""
        if found:
            self._last_good[name] = found
        return self._last_good.get(name) or value.get_secret_value()

    def sandboxed(self, integration: str) -> bool:
        """Whether the sandbox answers. Raises InvalidInput when a key is missing, and the sandbox is off or has no stand-in."""
        spec = spec_of(integration)
        if not spec.remote:
            return False
        match self._settings.sandbox.mode:
            case "on":
                found = True
            case "off" if self.missing(integration):
                raise InvalidInput(f"{variable_of_key(integration)} is not set and PHANTOMS_SANDBOX is off")
            case _:
                found = self.missing(integration)
        if found and isinstance(spec, ProviderSpec) and spec.sandbox is None:
            why = "PHANTOMS_SANDBOX is on" if self._settings.sandbox.mode == "on" else f"{variable_of_key(integration)} is not set"
            raise InvalidInput(f"{why}, and the sandbox cannot answer for {spec.title}")
        return found

    def chosen(self, kind: ProviderKind) -> str:
        """The provider that does that kind of work."""
        name = str(getattr(self._settings, kind.name).choice)
        return self.renderer if name == "auto" else name

    @property
    def renderer(self) -> str:
        """The provider that renders: as the setting says, else by the keys that are set."""
        if self._settings.renderer.choice != "auto":
            return self._settings.renderer.choice
        renderers = RENDERERS.specs
        if found := next((name for name in renderers if self.secret(name) is not None), None):
            return found
        keys = [*(self.chosen(kind) for kind in (WRITERS, VOICES)), *map(str, Platform)]
        others_are_real = any(_key_setting(name) is not None and not self.missing(name) for name in keys)
        return next(name for name, spec in renderers.items() if (not spec.remote if others_are_real else spec.sandbox is not None))

    @property
    def sandbox_needed(self) -> list[str]:
        """The integrations that the sandbox answers for."""
        if self._settings.sandbox.mode == "off":
            return []
        used = [name for name in INTEGRATIONS if self.used(name) and spec_of(name).sandbox is not None]
        return [name for name in used if self.sandboxed(name) or self.with_sandbox_app(name)]

    def used(self, integration: str) -> bool:
        """Whether a provider is chosen, a gateway or a platform is named by a channel, or a platform is usual."""
        if integration in Platform:
            return Platform(integration).spec.usual or integration in self._named()
        if integration in GATEWAYS.specs:
            return integration in self._named()
        return any(self.chosen(kind) == integration for kind in KINDS)

    def base_url(self, integration: str) -> str:
        """The base URL for the adapter."""
        if self.sandboxed(integration):
            return self.sandbox_url + spec_of(integration).sandbox_path
        return str(self.setting(integration, "base_url"))

    def with_sandbox_app(self, integration: str) -> bool:
        """Whether its accounts are connected with the app of the sandbox, so that they are in the sandbox themselves."""
        spec = spec_of(integration)
        app = spec.sandbox_app if isinstance(spec, PlatformSpec) else None
        return app is not None and self._settings.of(integration, "client_id") == app.client_id

    def setting(self, integration: str, name: str) -> Any:
        """A setting of a platform or provider. With the app of the sandbox, the addresses that nobody set are the sandbox's."""
        value, spec = self._settings.of(integration, name), spec_of(integration)
        if not self.with_sandbox_app(integration) or value != spec.settings[name].default:
            return value
        assert isinstance(spec, PlatformSpec), "only platforms have an app in the sandbox"
        assert spec.sandbox_app is not None, "its accounts are connected with it"
        address = spec.sandbox_app.addresses.get(name)
        if address is None:
            return value
        return address if "://" in address else self.sandbox_url + address

    @property
    def sandbox_url(self) -> str:
        """The sandbox's address. Raises InvalidInput when no sandbox is running."""
        if self._settings.sandbox.url is None:
            raise InvalidInput("no key is set and no sandbox is running: start `phantoms up`, or set PHANTOMS_SANDBOX_URL")
        return self._settings.sandbox.url.rstrip("/")

    def key(self, integration: str) -> str:
        """The current key. Adapters receive this method and call it for each request."""
        return "sandbox-key" if self.sandboxed(integration) else self.secret(integration) or ""

    async def token(self, platform: Platform, account: str) -> str:
        """See `ports.Tokens`."""
        if self.sandboxed(str(platform)):
            return f"sandbox-{account}"
        token = self.secret(str(platform))
        if token is None:
            message = f"{platform.title} account {account} is not connected; set PHANTOMS_{platform.upper()}_TOKEN"
            if platform.spec.oauth:
                message += f", or run `{connect_command(platform, account)}`"
            raise Permanent(message, provider=str(platform), code="not_connected")
        return token
