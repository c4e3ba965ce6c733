"""What a platform says of itself: one record. It holds values and names of modules, and imports nothing that sends a request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from phantoms_dagster.registry.media import MediaLimits
from phantoms_dagster.registry.pools import PoolLimits
from phantoms_dagster.registry.routes import Route


@dataclass(frozen=True)
class Setting:
    """One setting of a platform or a provider: type, default, and its line in docs/settings.md.

    Its variable is PHANTOMS_<NAME OF THE PLATFORM OR PROVIDER>_<NAME OF THE SETTING>.
    """

    type: Any
    default: Any
    description: str


@dataclass(frozen=True)
class WordRules:
    """How a title and a caption must be for a platform.

    `room`: the most that a caption may have, as `size` counts it. `clean` replaces what the platform refuses. `hashtags`: the most.
    `limits_key`: the channel's key with its own numbers of hashtags and mentions; `choices_key`: the channel's key with what a
    person must choose. `titled`: people see the title. `repeats`: two posts of one caption within a day may be taken for spam.
    `names_in_picture`: whether the picture may carry a name or a logo. `privacy`: who may see a post, as the platform calls it.
    """

    room: int
    size: Callable[[str], int] = len
    clean: Callable[[str], str] = str
    hashtags: int = 30
    limits_key: str | None = None
    choices_key: str | None = None
    titled: bool = True
    repeats: bool = False
    names_in_picture: bool = True
    privacy: str = "public"


@dataclass(frozen=True)
class Appearance:
    """How the desk and the charts show a platform. `colours`: in light and in dark; `chart`: on white; `dot`: a CSS background.

    `safe`: what the platform's own buttons cover of a picture, from the top, bottom, left and right, in CSS lengths; None: nothing
    is known. `screen`: the review page draws what surrounds a film in its app.
    """

    colours: tuple[str, str] = ("#475569", "#94a3b8")
    chart: str = "#475569"
    dot: str = "#64748b"
    safe: tuple[str, str, str, str] | None = None
    screen: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class IntegrationSpec:
    """What platforms and providers have in common.

    `adapters`: the module that makes its adapters (see `platforms.tools` and `providers.tools`).
    `remote`: it is a service, with a client, pools and a breaker. One that is not is never sandboxed.
    `sandbox`: the module of its stand-in, whose `routes(sandbox)` are served; None: it has none. `sandbox_path`: what follows the
    sandbox's address in its base URL. `paces`: how long the stand-in takes over a video, by the setting's name: at once, and the
    shortest and longest of the real service, in seconds.
    """

    name: str
    title: str
    adapters: str
    remote: bool = True
    pools: Mapping[str, PoolLimits] = field(default_factory=dict)
    routes: tuple[Route, ...] = ()
    settings: Mapping[str, Setting] = field(default_factory=dict)
    sandbox: str | None = None
    sandbox_path: str = ""
    paces: Mapping[str, tuple[float, tuple[float, float]]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class PlatformSpec(IntegrationSpec):
    """All that is special about a platform.

    `settings`: a remote platform has at least `token` and `base_url`. `usual`: the sandbox answers for it even before a channel
    names it. `late_ids`: it may publish a post before it names the post's public id. `roomy`: the settings of its stand-in, with
    values that let a demonstration post more than the real platform allows.
    """

    words: WordRules
    media: MediaLimits
    usual: bool = False
    late_ids: bool = False
    roomy: Mapping[str, int] = field(default_factory=dict)
    look: Appearance = Appearance()
