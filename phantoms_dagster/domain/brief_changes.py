"""What a person may change of a brief that is there already, as values. Who writes it down is the business of `store`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

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
        publish_at = None if self.publish_now else self.publish_at or brief.publish_at
        return Brief.model_validate(
            {
                **brief.model_dump(),
                "title": brief.title if self.title is None else self.title,
                "platforms": brief.platforms if self.platforms is None else self.platforms,
                "publish_at": publish_at,
                "priority": brief.priority if self.priority is None else self.priority,
            }
        )


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
