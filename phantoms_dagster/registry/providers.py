"""The providers, which write scripts, speak them, render videos or publish them. Each has one record, its `ProviderSpec`.

Each `ProviderKind` below lists the providers of this package, by the names of their folders in `providers`. Other packages register
theirs through the entry-point groups `phantoms.writers`, `phantoms.voices` and `phantoms.renderers`; each entry point names a
`ProviderSpec`. A provider that does several kinds of work registers the same record in several groups. All records are read once,
when this module is imported. Gateways, which publish for us, are not chosen by a setting: a channel chooses the route of its posts.

This module imports only records. `wiring` imports the code that sends requests, by the module names in the record.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from types import MappingProxyType

from phantoms_dagster.registry.errors import CannotRegister
from phantoms_dagster.registry.packages import cannot_register, of_group
from phantoms_dagster.registry.platforms import NAME, RESERVED, Platform
from phantoms_dagster.registry.provider_spec import ProviderSpec


@dataclass(frozen=True)
class ProviderKind:
    """A kind of work: writing, speaking or rendering. A setting chooses the provider that does it.

    - `name`: the name of that setting, and of the function in `adapters` that makes the adapter.
    - `group`: the entry-point group.
    - `stage`: the stage that needs this work.
    - `auto`: the setting has a value that chooses by which keys are set.
    """

    name: str
    group: str
    stage: str
    built_in: tuple[str, ...]
    auto: bool = False
    specs: dict[str, ProviderSpec] = field(default_factory=dict, compare=False, repr=False)

    def chosen(self, name: str) -> str:
        """Return the name if a provider of this kind has it. Otherwise raises ValueError, which lists the providers."""
        known = [*(["auto"] if self.auto else []), *self.specs]
        if name not in known:
            raise ValueError(f"there is no {self.name} {name!r}; the {self.name}s are {', '.join(known)}")
        return name


WRITERS = ProviderKind("writer", "phantoms.writers", "script", ("openai",))
VOICES = ProviderKind("voice", "phantoms.voices", "voiceover", ("hibari",))
RENDERERS = ProviderKind("renderer", "phantoms.renderers", "rendered_video", ("shotstack", "local"), auto=True)
KINDS = (WRITERS, VOICES, RENDERERS)
GATEWAYS = ProviderKind("gateway", "phantoms.gateways", "post", ("uploadpost",))

_PROVIDERS: dict[str, ProviderSpec] = {}
PROVIDERS: Mapping[str, ProviderSpec] = MappingProxyType(_PROVIDERS)
_OURS = frozenset(name for kind in (*KINDS, GATEWAYS) for name in kind.built_in)


def register(kind: ProviderKind, spec: ProviderSpec) -> None:
    """Add a provider of that kind. Raises CannotRegister if the record would break something."""
    if not isinstance(spec, ProviderSpec):
        raise CannotRegister(f"{spec!r:.100} is no ProviderSpec")
    if problem := next(_problems(kind, spec), None):
        raise CannotRegister(problem)
    kind.specs[spec.name] = _PROVIDERS[spec.name] = spec


def _problems(kind: ProviderKind, spec: ProviderSpec) -> Iterator[str]:
    """Yield each reason why the record cannot be registered."""
    if not NAME.fullmatch(spec.name) or spec.name == "auto":
        yield f"{spec.name!r} is no name for a {kind.name}: 2 to 30 small letters and digits, a letter first"
    another = _PROVIDERS.get(spec.name, spec) is not spec
    if another or spec.name in kind.specs or spec.name in Platform or spec.name in RESERVED - _OURS:
        yield f"the name {spec.name!r} is taken"
    if spec.remote:
        if not (spec.routes and spec.routes[-1].method is None and spec.routes[-1].url == ""):
            yield f"the routes of {spec.name} do not end with one for all requests"
        if missing := {"base_url", *([spec.key] if spec.key else [])} - set(spec.settings):
            yield f"{spec.name} is a service and has no setting {', '.join(sorted(missing))}"
    if strange := {route.pool for route in spec.routes} - {pool.removesuffix(":*") for pool in spec.pools}:
        yield f"the routes of {spec.name} name pools that it does not have: {', '.join(sorted(strange))}"
    if spec.name not in _OURS and (strange := {pool for pool in spec.pools if spec.name not in re.split(r"[_:]", pool)}):
        yield f"the pools of {spec.name} must have its name in theirs: {', '.join(sorted(strange))}"


def stages_of(provider: str) -> frozenset[str]:
    """Return the stages that a provider works for."""
    return frozenset(kind.stage for kind in KINDS if provider in kind.specs)


def _register_all() -> None:
    for kind in (*KINDS, GATEWAYS):
        for name in kind.built_in:
            register(kind, import_module(f"phantoms_dagster.providers.{name}.spec").PROVIDER)
    for kind in KINDS:
        for entry in of_group(kind.group):
            try:
                register(kind, entry.load())
            except Exception as error:
                # Without the provider, a setting would name nothing. So stop, and say what to do.
                raise cannot_register(kind.name, entry, error) from error


_register_all()
