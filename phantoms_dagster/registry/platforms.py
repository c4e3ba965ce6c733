"""The platforms that videos are posted to. Each has a name and one record, its `PlatformSpec`.

`BUILT_IN` registers the platforms of this package, one line each: the name of a folder in `platforms`. Other packages register
theirs through the entry-point group `phantoms.platforms`; each entry point names a `PlatformSpec`. Entry points are read once, when
this module is imported. Every look-up after that is a dictionary look-up.

This module imports only each platform's rules, which need nothing but this package. `wiring` imports the code that sends requests,
by the module names in the record.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any

from phantoms_dagster.registry.errors import CannotRegister
from phantoms_dagster.registry.packages import cannot_register, of_group
from phantoms_dagster.registry.spec import PlatformSpec

GROUP = "phantoms.platforms"
BUILT_IN = (
    "youtube",
    "tiktok",
    "instagram",
    "folder",
    "bluesky",
)
NAME = re.compile(r"[a-z][a-z0-9]{1,29}")
# Names that providers, breakers, kinds of stage, fields and the sandbox's own pages use.
RESERVED = frozenset(
    {
        *("openai", "hibari", "shotstack", "uploadpost", "local", "media", "sandbox"),
        *("script", "voiceover", "render", "approval", "variant", "post", "make"),
        # Fields of a channel and of a post's words. A platform's own field is next to them and has the platform's name.
        *("name", "title", "language", "voice", "accounts", "tokens", "hashtags", "timezone", "palette", "reviewers"),
        *("slots", "missed", "repeats"),
        *("platform", "caption", "privacy"),
    }
)


class _Names(type):
    """Makes the class `Platform` iterable: it yields all registered platforms, in the order of their registration."""

    def __iter__(cls) -> Iterator[Platform]:
        return iter(_PLATFORMS.values())

    def __len__(cls) -> int:
        return len(_PLATFORMS)

    def __contains__(cls, name: object) -> bool:
        return isinstance(name, str) and name in _PLATFORMS


class Platform(str, metaclass=_Names):
    """The name of a registered platform. `Platform("youtube")` is always the same object. Raises ValueError for an unknown name."""

    __slots__ = ()

    def __new__(cls, name: object) -> Platform:
        """The registered platform of that name."""
        found = _PLATFORMS.get(name) if isinstance(name, str) else None
        if found is None:
            raise ValueError(f"unknown platform {name!r}; the platforms are {', '.join(_PLATFORMS)}")
        return found

    def __getnewargs__(self) -> tuple[str]:
        """The arguments for copying and unpickling, which return the same object."""
        return (str.__str__(self),)

    @property
    def spec(self) -> PlatformSpec:
        """The platform's record."""
        return _SPECS[self]

    @property
    def title(self) -> str:  # type: ignore[override]
        """The name as people write it."""
        return _SPECS[self].title

    @classmethod
    def usual(cls) -> tuple[Platform, ...]:
        """The platforms that every installation offers. The others cost nothing until a channel names them."""
        return tuple(platform for platform in _PLATFORMS.values() if platform.spec.usual)

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: Any) -> Any:
        """Accept one of the registered names and return the registered object."""
        from pydantic_core import core_schema  # noqa: PLC0415 - a caller has it loaded already, and `--help` does not need it

        return core_schema.literal_schema(list(_PLATFORMS.values()))


_PLATFORMS: dict[str, Platform] = {}
_SPECS: dict[str, PlatformSpec] = {}
SPECS: Mapping[str, PlatformSpec] = MappingProxyType(_SPECS)


def register(spec: PlatformSpec) -> Platform:
    """Add a platform. Raises CannotRegister when it would break something.

    Its name is invalid or taken, its routes and pools do not match, or channels without its key would be refused.
    """
    if not isinstance(spec, PlatformSpec):
        raise CannotRegister(f"{spec!r:.100} is not a PlatformSpec")
    if not NAME.fullmatch(spec.name):
        raise CannotRegister(
            f"{spec.name!r} cannot name a platform: use 2 to 30 lower-case letters and digits, starting with a letter"
        )
    if spec.name in _PLATFORMS or spec.name in RESERVED:
        raise CannotRegister(f"the name {spec.name!r} is taken")
    if spec.remote and not (spec.routes and spec.routes[-1].method is None and spec.routes[-1].url == ""):
        raise CannotRegister(f"the routes of {spec.name} must end with one that matches every request")
    if strange := {route.pool for route in spec.routes} - {pool.removesuffix(":*") for pool in spec.pools}:
        raise CannotRegister(f"the routes of {spec.name} name pools that it does not have: {', '.join(sorted(strange))}")
    if strange := {pool for pool in spec.pools if spec.name not in re.split(r"[_:]", pool)}:
        raise CannotRegister(
            f"the names of all pools of {spec.name} must contain its name; these do not: {', '.join(sorted(strange))}"
        )
    if spec.channel_key is not None:
        try:
            spec.channel_key.default()
        except ValueError as error:
            raise CannotRegister(
                f"channels without the key {spec.name} would be refused: give each of its fields a default, or set `required`"
            ) from error
    platform = _PLATFORMS[spec.name] = str.__new__(Platform, spec.name)
    _SPECS[spec.name] = spec
    return platform


def _register_all() -> None:
    for name in BUILT_IN:
        register(import_module(f"phantoms_dagster.platforms.{name}.rules").PLATFORM)
    for entry in of_group(GROUP):
        try:
            register(entry.load())
        except Exception as error:
            # Without the platform, its videos would have no stages. So stop, and say what to do.
            raise cannot_register("platform", entry, error) from error


_register_all()
