"""The `<platform>/variant` stages make the approved master fit one platform, and add the words of its post."""

from __future__ import annotations

from phantoms_dagster.domain.claims import StageResult, StageTask
from phantoms_dagster.domain.errors import Permanent
from phantoms_dagster.domain.models import (
    ApprovalOutput,
    Channel,
    Platform,
    RenderedVideoOutput,
    Script,
    ScriptOutput,
    VariantOutput,
    content_hash,
)
from phantoms_dagster.domain.ports import MediaStore, Studio
from phantoms_dagster.domain.wording import words
from phantoms_dagster.production.stages.rendered_video import scratch_file


class MakeVariant:
    """Remuxes or transcodes only when necessary. The new file is probed before it can be published."""

    def __init__(self, *, studio: Studio, media: MediaStore) -> None:
        self._studio = studio
        self._media = media

    async def __call__(self, task: StageTask) -> StageResult:
        """Raises Permanent when the master cannot be made to fit, or is not what was approved."""
        platform = task.claim.stage.platform
        assert platform is not None
        script = task.claim.output("script", ScriptOutput).script
        master = task.claim.output("rendered_video", RenderedVideoOutput)
        approval = task.claim.output("approval", ApprovalOutput)
        content = content_hash(script, master.video, approval.words)
        if content != approval.content_sha256:
            raise Permanent("this is not what was approved: approve it again", provider="approval", code="content_changed")
        title, caption = _approved(approval, script, task.video.channel, platform)
        if not platform.spec.words.names_in_picture and master.named:
            raise Permanent(
                f"the video shows the channel's name, which {platform.title} does not accept: materialize `rendered_video` with "
                "regenerate to make it without the name, then approve it again",
                provider=str(platform),
                code="named",
            )
        path = await self._media.local(master.video)
        with scratch_file(self._media, ".mp4") as destination:
            fitted = await self._studio.fit(path, platform, destination, known=master.probe)
            kept = fitted.how == "kept"
            video = master.video if kept else await self._media.add(destination())
        output = VariantOutput(
            platform=platform,
            video=video,
            probe=master.probe if kept else fitted.probe,
            how=fitted.how,
            title=title,
            caption=caption,
            content_sha256=content,
        )
        return StageResult(output)


def _approved(approval: ApprovalOutput, script: Script, channel: Channel, platform: Platform) -> tuple[str, str]:
    """The approved title and caption. An approval from an older version has none; then the channel's current rules apply."""
    if not approval.words:
        return words(script, channel, platform)
    found = next((post for post in approval.words if post.platform is platform), None)
    if found is None:
        message = f"the approval does not cover {platform.title}: regenerate the render and approve it again"
        raise Permanent(message, provider="approval", code="not_approved")
    return found.title, found.caption
