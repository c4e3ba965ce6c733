"""What TikTok is told about a post and its file, and what is refused before anything is sent."""

from __future__ import annotations

from types import MappingProxyType

from phantoms_dagster.domain.errors import Permanent, Rejected
from phantoms_dagster.domain.ports import PublishJob
from phantoms_dagster.domain.values import JsonObject
from phantoms_dagster.platforms.tiktok.api import PROVIDER
from phantoms_dagster.platforms.tiktok.choices import TikTokTerms
from phantoms_dagster.platforms.tiktok.chunks import ChunkPlan
from phantoms_dagster.platforms.tiktok.routes import INBOX

MAX_TITLE_UNITS = 2_200
MAX_VIDEO_BYTES = 4 << 30
CONTENT_TYPES = MappingProxyType({".mp4": "video/mp4", ".mov": "video/quicktime", ".webm": "video/webm"})


def _refused(message: str) -> Permanent:
    return Permanent(f"TikTok: {message}", provider=PROVIDER, code="invalid_param")


def check_file(job: PublishJob) -> None:
    """Refuse a file that is not the one of the job, or no video. Raises Permanent."""
    if job.file.suffix.lower() not in CONTENT_TYPES:
        raise _refused(f"accepts {', '.join(CONTENT_TYPES)}, not {job.file.suffix}")
    try:
        size = job.file.stat().st_size
    except OSError as error:
        raise _refused(f"the file {job.file.name} cannot be read: {error.strerror}") from error
    if size != job.size:
        raise _refused(f"the file {job.file.name} has {size} bytes, not {job.size}")


def check_job(job: PublishJob) -> None:
    """Refuse a job that TikTok would refuse, before anything is sent. Raises Permanent."""
    check_file(job)
    if job.size > MAX_VIDEO_BYTES:
        raise _refused(f"accepts at most {MAX_VIDEO_BYTES} bytes, the file has {job.size}")
    if job.route == INBOX:  # neither the caption nor any choice is sent
        return
    if job.terms is None:
        raise Permanent(
            "TikTok: the channel does not say who may see this post. Set its `tiktok: {privacy: ...}` in channels.yaml, then "
            "approve the video again",
            provider=PROVIDER,
            code="no_choice",
        )
    if utf16_units(job.caption) > MAX_TITLE_UNITS:
        raise _refused(f"the caption has {utf16_units(job.caption)} UTF-16 units, at most {MAX_TITLE_UNITS} are allowed")


def utf16_units(text: str) -> int:
    """The length as TikTok counts it, in UTF-16 units: an emoji has two."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def init_body(job: PublishJob, creator: JsonObject, plan: ChunkPlan) -> JsonObject:
    """The body for init, within the limits of creator_info. Raises Rejected or Permanent when it does not permit the post."""
    return {"post_info": post_info(job, creator), "source_info": source_info(plan)}


def post_info(job: PublishJob, creator: JsonObject) -> JsonObject:
    """The settings of a post, within the limits of creator_info. Raises Rejected or Permanent when it does not permit the post."""
    terms, privacy = job.terms, job.privacy
    assert isinstance(terms, TikTokTerms), "checked before"
    options = creator.get("privacy_level_options")
    offered = [str(option) for option in options] if isinstance(options, list) else []
    if privacy not in offered:
        message = f"TikTok: @{job.account} does not offer the privacy level {privacy}; it offers {', '.join(offered) or 'none'}"
        raise Rejected(message, provider=PROVIDER, code="privacy_level_option_mismatch")
    longest = creator.get("max_video_post_duration_sec")
    if isinstance(longest, int | float) and job.probe.seconds > longest:
        raise _refused(f"@{job.account} may post at most {longest} seconds, the video has {job.probe.seconds:.1f}")
    return {
        "title": job.caption,
        "privacy_level": privacy,
        "disable_comment": not terms.comments or bool(creator.get("comment_disabled")),
        "disable_duet": not terms.duets or bool(creator.get("duet_disabled")),
        "disable_stitch": not terms.stitches or bool(creator.get("stitch_disabled")),
        "brand_content_toggle": terms.branded_content,
        "brand_organic_toggle": terms.your_brand,
        "is_aigc": terms.ai_generated,
    }


def source_info(plan: ChunkPlan) -> JsonObject:
    """What both kinds of init say about the file."""
    return {
        "source": "FILE_UPLOAD",
        "video_size": plan.size,
        "chunk_size": plan.chunk_size,
        "total_chunk_count": plan.count,
    }
