"""Changes that a person may make to an existing brief, as values. `store.brief_edits` writes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from phantoms_dagster.domain.models import Brief, Platform


@dataclass(frozen=True)
class BriefChanges:
    """New values for a brief; None keeps the old one. `publish_now` removes the publish time and overrides `publish_at`.

    Angle, facts and channel cannot change: with others the brief would be a different video.
    """

    title: str | None = None
    platforms: tuple[Platform, ...] | None = None
    publish_at: datetime | None = None
    publish_now: bool = False
    priority: int | None = None

    def applied_to(self, brief: Brief) -> Brief:
        """The brief with the new values. Raises pydantic's ValidationError for an invalid value."""
        return self.applied_to_fields(brief.model_dump())

    def applied_to_fields(self, fields: Mapping[str, Any]) -> Brief:
        """The same for the fields of a brief that may be invalid. The change may fix them."""
        given = {"title": self.title, "platforms": self.platforms, "publish_at": self.publish_at, "priority": self.priority}
        changed: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        if self.publish_now:
            changed["publish_at"] = None
        return Brief.model_validate({**fields, **changed})


@dataclass(frozen=True)
class EditedBrief:
    """The result of an edit: the brief before and after, and notes for the person."""

    key: str
    before: Brief
    after: Brief
    notes: tuple[str, ...] = ()

    @property
    def differences(self) -> Iterator[tuple[str, object, object]]:
        """Yield (field, old value, new value) for each field that changed."""
        for field in ("title", "platforms", "publish_at", "priority"):
            old, new = getattr(self.before, field), getattr(self.after, field)
            if old != new:
                yield field, old, new
