"""The `approval` stage: a person's decision about exactly these bytes and words."""

from __future__ import annotations

from datetime import timedelta

from phantoms_dagster.domain.errors import HumanRejection, NotYet
from phantoms_dagster.domain.models import ApprovalOutput, RenderedVideoOutput, ScriptOutput, content_hash
from phantoms_dagster.domain.ports import Clock
from phantoms_dagster.domain.work import Made, Work

# Nobody polls for a person: a decision makes the stage due at once.
_UNTIL_DECIDED = timedelta(days=3650)


class Approve:
    """Turns a recorded decision into the stage's ending. Without one the video waits."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def __call__(self, work: Work) -> Made:
        """Raises NotYet without a decision on this very content, HumanRejection for a no."""
        script = work.claim.output("script", ScriptOutput).script
        content = content_hash(script, work.claim.output("rendered_video", RenderedVideoOutput).video)
        decision, key = work.claim.decision, work.video.key
        if decision is None or decision.content_sha256 not in (None, content):
            about = "nobody has decided yet" if decision is None else "the decision was about an earlier version"
            raise NotYet(
                f"{about}: `phantoms approve {key}`, or materialize `approval` with a decision in the run config",
                retry_after=_UNTIL_DECIDED.total_seconds(),
            )
        if not decision.approved:
            raise HumanRejection(f"rejected by {decision.reviewer}" + (f": {decision.note}" if decision.note else ""))
        output = ApprovalOutput(
            reviewer=decision.reviewer,
            note=decision.note,
            content_sha256=content,
            decided_at=decision.decided_at or self._clock.now(),
        )
        return Made(output)
