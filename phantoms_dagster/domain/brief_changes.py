"""What a person may change of a brief that is there already, as values. Who writes it down is the business of `store`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from phantoms_dagster.domain.models import Brief, Platform


@dataclass(frozen=True)
class BriefChanges:
    """New values of a brief; None leaves the old one. `publish_now` takes the earliest time away, and wins over `publish_at`.

    Angle, facts and channel are not here: a brief with others is another video.
    """

    title: str | None = None
    platforms: tuple[Platform, ...] | None = None
    publish_at: datetime | None = None
    publish_now: bool = False
    priority: int | None = None

    def applied_to(self, brief: Brief) -> Brief:
        """The brief with the new values. Raises pydantic's ValidationError when a value is out of its bounds."""
        return self.applied_to_fields(brief.model_dump())

    def applied_to_fields(self, fields: Mapping[str, Any]) -> Brief:
        """The same for the fields of a brief that need not be valid: a change may make them so."""
        given = {"title": self.title, "platforms": self.platforms, "publish_at": self.publish_at, "priority": self.priority}
        changed: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        if self.publish_now:
            changed["publish_at"] = None
        return Brief.model_validate({**fields, **changed})


@dataclass(frozen=True)
class EditedBrief:
    """A video after an edit: its brief before and after, and what a person should know about it."""

    key: str
    before: Brief
    after: Brief
    notes: tuple[str, ...] = ()

    @property
    def differences(self) -> Iterator[tuple[str, object, object]]:
        """Each field that changed, with its old and its new value."""
        for field in ("title", "platforms", "publish_at", "priority"):
            old, new = getattr(self.before, field), getattr(self.after, field)
            if old != new:
                yield field, old, new
