"""Adds the platforms' own fields to the models of channels and of words: one field for each platform that has some.

A field has the platform's name. Fields are in alphabetical order, because the order of registration depends on what is installed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, Field, create_model

from phantoms_dagster.registry.channel_keys import ChannelKeySpec
from phantoms_dagster.registry.platforms import Platform

Model = TypeVar("Model", bound=BaseModel)


def platforms_with_a_key() -> Iterator[tuple[Platform, ChannelKeySpec]]:
    """Yield the platforms that have a key of their own in channels.yaml, by name."""
    for platform in sorted(Platform):
        if (key := platform.spec.channel_key) is not None:
            yield platform, key


def with_channel_keys(model: type[Model]) -> type[Model]:
    """The model of channels with the platforms' own keys."""
    fields: dict[str, Any] = {}
    for platform, key in platforms_with_a_key():
        default = key.default()
        annotation = key.model if default is not None else key.model | None
        fields[platform.spec.name] = _field(annotation, default, always="key" in key.always_written)
    return _extended(model, fields)


def with_post_terms(model: type[Model]) -> type[Model]:
    """The model of a post's words with the terms of each platform that has some."""
    fields = {
        platform.spec.name: _field(key.terms | None, None, always="terms" in key.always_written)
        for platform, key in platforms_with_a_key()
        if key.terms
    }
    return _extended(model, fields)


def _field(annotation: Any, default: Any, *, always: bool) -> tuple[Any, Any]:
    if always:
        return annotation, default
    # Without the platform's package, or in an older version, the field would be unknown, and no stored row that has it could be
    # read. So the field is written only for channels and posts that use it.
    return annotation, Field(default, exclude_if=lambda value: value == default)


def _extended(model: type[Model], fields: Mapping[str, Any]) -> type[Model]:
    """A subclass with these fields that takes the model's name, so that it is copied, pickled and described as the model."""
    return create_model(model.__name__, __base__=model, __module__=model.__module__, __doc__=model.__doc__, **fields)
