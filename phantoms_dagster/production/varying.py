"""The `<platform>/variant` stages: the approved master made to fit one platform, and the words that go with it."""

from __future__ import annotations

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
from phantoms_dagster.domain.work import Made, Work
from phantoms_dagster.production.rendering import scratch_file

# YouTube refuses < and >; single guillemets read the same.
_NO_BRACKETS = str.maketrans({"<": "\u2039", ">": "\u203a"})
_MOST_HASHTAGS = 30  # Instagram's limit; nobody reads more anywhere


class MakeVariant:
    """Remuxes or transcodes only when it must; what comes out is probed before anybody may publish it."""

    def __init__(self, *, studio: Studio, media: MediaStore) -> None:
        self._studio = studio
        self._media = media

    async def __call__(self, work: Work) -> Made:
        """Raises Permanent when the master cannot be made to fit, or is not what was approved."""
        platform = work.claim.stage.platform
        assert platform is not None
        script = work.claim.output("script", ScriptOutput).script
        master = work.claim.output("rendered_video", RenderedVideoOutput)
        approval = work.claim.output("approval", ApprovalOutput)
        content = content_hash(script, master.video)
        if content != approval.content_sha256:
            raise Permanent("this is not what was approved: approve it again", provider="approval", code="content_changed")
        path = await self._media.local(master.video)
        with scratch_file(self._media, "variant.mp4") as destination:
            fitted = await self._studio.fit(path, platform, destination, known=master.probe)
            kept = fitted.how == "kept"
            video = master.video if kept else await self._media.add(destination())
        title, caption = words(script, work.video.channel, platform)
        output = VariantOutput(
            platform=platform,
            video=video,
            probe=master.probe if kept else fitted.probe,
            how=fitted.how,
            title=title,
            caption=caption,
            content_sha256=content,
        )
        return Made(output)


def words(script: Script, channel: Channel, platform: Platform) -> tuple[str, str]:
    """The title and the caption, hashtags included, as that platform shows them.

    Limits (contracts of the platforms): YouTube 100 characters without < and >, 5,000 bytes of description; TikTok 2,200
    UTF-16 units; Instagram 2,200 characters and 30 hashtags. Hashtags that do not fit are left out, the last ones first;
    a caption that does not fit even so is cut.
    """
    title, caption, tags = script.title, script.caption, list(dict.fromkeys([*script.hashtags, *channel.hashtags]))
    if platform is Platform.YOUTUBE:
        title, caption, tags = (
            title.translate(_NO_BRACKETS),
            caption.translate(_NO_BRACKETS),
            [tag.translate(_NO_BRACKETS) for tag in tags],
        )
    del tags[max(0, _MOST_HASHTAGS - caption.count("#")) :]
    while tags and not _fits(f"{caption}\n\n{' '.join(tags)}", platform):
        tags.pop()
    if not _fits(caption, platform):
        while not _fits(f"{caption}…", platform):
            caption = caption[:-1]
        caption += "…"
    return title, f"{caption}\n\n{' '.join(tags)}".strip()


def _fits(caption: str, platform: Platform) -> bool:
    match platform:
        case Platform.YOUTUBE:
            return len(caption.encode()) <= 5_000
        case Platform.TIKTOK:
            return len(caption.encode("utf-16-le")) // 2 <= 2_200
        case Platform.INSTAGRAM:
            return len(caption) <= 2_200
