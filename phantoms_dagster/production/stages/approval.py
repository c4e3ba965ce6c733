"""The `approval` stage: a person's decision about exactly these bytes and words."""

from __future__ import annotations

from collections.abc import Mapping

from phantoms_dagster.domain.claims import StageResult, StageTask
from phantoms_dagster.domain.errors import HumanRejection, WaitsForPerson
from phantoms_dagster.domain.models import ApprovalOutput, Platform, PostWords, RenderedVideoOutput, ScriptOutput, content_hash
from phantoms_dagster.domain.ports import Clock
from phantoms_dagster.domain.wording import DEFAULT_PRIVACY, post_words


class Approve:
    """Turns a recorded decision into the stage's outcome. Without a decision the video waits.

    The words of all posts are fixed here. A later change to the channel does not change what was approved.
    """

    def __init__(self, clock: Clock, privacy: Mapping[Platform, str] = DEFAULT_PRIVACY) -> None:
        self._clock = clock
        self._privacy = privacy

    async def __call__(self, task: StageTask) -> StageResult:
        """Raises WaitsForPerson without a decision on exactly this content, and HumanRejection for a rejection."""
        decision, key = task.claim.decision, task.video.key
        approved = self._content(task)
        if decision is None or approved is None:
            about = "nobody has decided yet" if decision is None else "the decision was about an earlier version"
            raise WaitsForPerson(
                f"waits for a person, {about}: `phantoms approve {key}`, or materialize `approval` with a decision "
                "in the run config"
            )
        if not decision.approved:
            raise HumanRejection(f"rejected by {decision.reviewer}" + (f": {decision.note}" if decision.note else ""))
        words, content = approved
        output = ApprovalOutput(
            reviewer=decision.reviewer,
            note=decision.note,
            content_sha256=content,
            decided_at=decision.decided_at or self._clock.now(),
            words=words,
        )
        return StageResult(output)

    def _content(self, task: StageTask) -> tuple[tuple[PostWords, ...], str] | None:
        """The decided words and the hash of all content; None when the decision is about other content."""
        decision = task.claim.decision
        script = task.claim.output("script", ScriptOutput).script
        rendered = task.claim.output("rendered_video", RenderedVideoOutput)
        if decision is None:
            return None
        if decision.words and not set(task.video.brief.platforms) <= {post.platform for post in decision.words}:
            return None  # a platform was added later, and nobody has seen its words
        words = decision.words or post_words(script, task.video.channel, task.video.brief.platforms, self._privacy)
        content = content_hash(script, rendered.video, words)
        # A decision without a hash is about what the render showed. Renders and decisions from older versions have no words.
        seen = decision.content_sha256 or content_hash(script, rendered.video, rendered.words or words)
        old = not rendered.words and not decision.words and seen == content_hash(script, rendered.video)
        return (words, content) if seen == content or old else None
