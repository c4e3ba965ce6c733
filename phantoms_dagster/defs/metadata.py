"""The metadata of stage outputs in the Dagster UI: texts, pictures, numbers and links."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import dagster as dg

from phantoms_dagster.domain.claims import DISCARDED, NOT_WANTED, REJECTED, WAITS_FOR_PERSON, Result
from phantoms_dagster.domain.models import (
    ApprovalOutput,
    MediaFile,
    PostOutput,
    PostWords,
    Probe,
    RenderedVideoOutput,
    ScriptOutput,
    StageOutput,
    VariantOutput,
    VoiceoverOutput,
)
from phantoms_dagster.domain.wording import notes
from phantoms_dagster.wiring.media import MediaFiles

# The name of the metadata entry that says why nothing was made, by the result's error class.
_NOTHING = {WAITS_FOR_PERSON: "waits_for_a_person", REJECTED: "rejected", DISCARDED: "given_up", NOT_WANTED: "not_wanted"}


def image(content: bytes, kind: str, alt: str) -> dg.MarkdownMetadataValue:
    """Embed a picture in the metadata."""
    return dg.MetadataValue.md(f"![{alt}](data:image/{kind};base64,{base64.b64encode(content).decode()})")


def of_result(result: Result, media_files: MediaFiles) -> dict[str, Any]:
    """Return the metadata of a materialization."""
    assert result.output is not None
    entries = of_output(result.output, media_files)
    if result.fresh and result.cost:
        entries["cost_usd"] = float(result.cost)
    if not result.fresh:
        entries["reused"] = True
    return entries


def of_nothing(result: Result, shown: StageOutput | None = None, media_files: MediaFiles | None = None) -> dict[str, Any]:
    """Return the metadata that says why nothing was made. `shown` is the output that a person should decide on."""
    looked_at = of_output(shown, media_files) if shown is not None and media_files is not None else {}
    return {_NOTHING.get(result.error_class or "", "nothing_made"): result.message, **looked_at}


def of_output(output: StageOutput, media_files: MediaFiles) -> dict[str, Any]:
    """Return the metadata entries of an output, by its kind."""
    match output:
        case ScriptOutput():
            return _script(output)
        case VoiceoverOutput():
            lines = "\n".join(f"- `{s.start:6.2f}-{s.end:6.2f} s` {s.text}" for s in output.sentences)
            return {
                "seconds": output.seconds,
                "voice": output.voice,
                "sentences": dg.MetadataValue.md(lines),
                "file": _place(output.audio, media_files),
                **({"not_spoken": ", ".join(output.unspoken)} if output.unspoken else {}),
            }
        case RenderedVideoOutput():
            still = media_files.bytes_of(output.thumbnail)
            picture = {"thumbnail": image(still, "jpeg", "thumbnail")} if still else {}
            entries = {"renderer": output.renderer, "render_id": output.render_id, **_words(output.words)}
            if output.content_sha256:
                entries["content_sha256"] = output.content_sha256
            if output.not_shown:
                entries["not_shown"] = " ".join(output.not_shown)
            return {**picture, **_probe(output.probe), **entries, "file": _place(output.video, media_files)}
        case ApprovalOutput():
            return {
                "reviewer": output.reviewer,
                "note": output.note or "(none)",
                "decided_at": dg.MetadataValue.timestamp(output.decided_at),
                "content_sha256": output.content_sha256,
                **_words(output.words),
            }
        case VariantOutput():
            return {
                "how": output.how,
                "title": output.title,
                "caption": dg.MetadataValue.md(output.caption),
                **_probe(output.probe),
                "file": _place(output.video, media_files),
            }
        case PostOutput():
            return {
                "url": dg.MetadataValue.url(output.url),
                "account": output.account,
                "remote_id": output.remote_id,
                "published_at": dg.MetadataValue.timestamp(output.published_at),
                "sandbox": output.sandbox,
            }


def _words(words: Sequence[PostWords]) -> dict[str, Any]:
    """Return the words of the posts, which an approval is about."""
    if not words:
        return {}
    texts = []
    for post in words:
        said = [f"*{note}*" for note in notes(post)]
        texts.append("\n\n".join([f"**{post.platform.title}** ({post.privacy})", post.title, post.caption, *said]))
    return {"posts": dg.MetadataValue.md("\n\n---\n\n".join(texts))}


def _place(file: MediaFile, media_files: MediaFiles) -> dg.UrlMetadataValue | dg.PathMetadataValue:
    """Return the file's path on this machine, or its URL in the object store."""
    address = media_files.address(file)
    return dg.MetadataValue.url(address) if "://" in address else dg.MetadataValue.path(address)


def _script(output: ScriptOutput) -> dict[str, Any]:
    script = output.script
    shown = [f"**{scene.on_screen_text}** " if scene.on_screen_text else "" for scene in script.scenes]
    scenes = "\n".join(f"{n}. {shown[n - 1]}{scene.narration}" for n, scene in enumerate(script.scenes, start=1))
    return {
        "title": script.title,
        "script": dg.MetadataValue.md(f"> {script.hook}\n\n{scenes}"),
        "caption": script.caption,
        "hashtags": " ".join(script.hashtags),
        "words": len(script.text.split()),
        "model": output.model,
        "tokens": output.input_tokens + output.output_tokens,
        "sandbox": output.sandbox,
        **({"removed": "\n".join(output.removed)} if output.removed else {}),
    }


def _probe(probe: Probe) -> dict[str, Any]:
    entries: dict[str, Any] = {
        "seconds": round(probe.seconds, 2),
        "picture": f"{probe.width}x{probe.height}, {probe.fps:g} fps, {probe.video_codec} {probe.video_profile or ''}".strip(),
        "sound": f"{probe.audio_codec or 'none'}, {probe.audio_hz or 0} Hz",
        "megabytes": round(probe.size / 1e6, 2),
    }
    if probe.loudness_lufs is not None:
        entries["loudness_lufs"] = probe.loudness_lufs
    return entries
