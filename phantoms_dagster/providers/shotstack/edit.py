"""The Edit: lays out a render job on Shotstack's timeline, and reads the job back from such an Edit.

Pure functions between `RenderJob` and JSON. Apart from the voiceover, an Edit needs no hosted file.
The clips hold each part of the job once, and `job_from_edit` reads it from there; so an Edit that lacks a caption gives a job
without it. Only what is not on screen is in merge fields, such as sentences with all their punctuation, some of which captions
leave out. The fields' names start with `PHANTOMS_`, so that no `{{...}}` in a script can be taken for one of them. Facts about
fields and ranges: JSON schema of @shotstack/schemas 1.18.3.
"""

from __future__ import annotations

import itertools
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from phantoms_dagster.domain import caption_marks
from phantoms_dagster.domain.models import Palette, Sentence
from phantoms_dagster.domain.phrases import cells, trimmed
from phantoms_dagster.domain.ports import RenderJob
from phantoms_dagster.domain.values import JsonObject, JsonValue

WIDTH, HEIGHT, FPS = 1080, 1920, 30
ATTEMPT_FIELD = "PHANTOMS_ATTEMPT_ID"
VIDEO_FIELD = "PHANTOMS_VIDEO_KEY"
TITLE_FIELD = "PHANTOMS_TITLE"
LANGUAGE_FIELD = "PHANTOMS_LANGUAGE"
SENTENCES_FIELD = "PHANTOMS_SENTENCES"

FONT = "Montserrat"  # built in at Shotstack: needs no font file
CAPTION_WORDS, CAPTION_CELLS = 4, 24
CAPTION_PIXELS = 88
TITLE_PIXELS, TITLE_HEIGHT = 60, 260
TEXT_WIDTH = 940  # leaves 70 px at both sides, where phones round their corners
HOOK_SECONDS = 3.0  # how long the hook is shown if no sentence speaks it
PROGRESS_HEIGHT = 14

# One cell is the width of a Latin letter: 0.62 em in a heavy sans.
_CELL_EM = 0.62
_CAPTION_ALIAS = re.compile(r"caption-(\d+)-(hook|\d+)-(\d+)(-glued)?")
_SCENE_ALIAS = re.compile(r"scene-(\d+)")
_GRADIENT = re.compile(r"--from:(#[0-9a-fA-F]{6});--to:(#[0-9a-fA-F]{6})")


def build_edit(job: RenderJob, audio_url: str) -> JsonObject:
    """The body of `POST /render` for a job. `audio_url` is the voiceover's URL for Shotstack.

    1080x1920, 30 fps, MP4. Layers from top to bottom: progress bar, scene titles, captions, hook, channel, background, voiceover.
    Times are rounded to milliseconds.
    """
    layers = [
        [_progress_bar(job)],
        list(_scene_titles(job)),
        list(_captions(job)),
        [_hook(job)],
        [_channel(job)] if job.channel_title else [],
        [_background(job)],
        [_voiceover(job, audio_url)],
    ]
    tracks: list[JsonValue] = [{"clips": list[JsonValue](clips)} for clips in layers if clips]
    fields = {ATTEMPT_FIELD: job.attempt_id, VIDEO_FIELD: job.video_key, TITLE_FIELD: job.title}
    fields[SENTENCES_FIELD] = json.dumps([sentence.text for sentence in job.sentences], ensure_ascii=False)
    if job.language:
        fields[LANGUAGE_FIELD] = job.language
    return {
        "timeline": {"background": job.palette.background[0], "tracks": tracks},
        "output": {"format": "mp4", "size": {"width": WIDTH, "height": HEIGHT}, "fps": FPS, "quality": "high"},
        "merge": [{"find": find, "replace": replace} for find, replace in fields.items()],
    }


# --- the layers -----------------------------------------------------------------------------------------------------


def _progress_bar(job: RenderJob) -> JsonObject:
    """A full-width bar that slides in from the left during the whole video, because no asset can animate its width."""
    return {
        "alias": "progress",
        "asset": {
            "type": "shape",
            "shape": "rectangle",
            "width": WIDTH,
            "height": PROGRESS_HEIGHT,
            "rectangle": {"width": WIDTH, "height": PROGRESS_HEIGHT, "cornerRadius": 0},
            "fill": {"color": job.palette.accent, "opacity": 1},
        },
        "start": 0,
        "length": _ms(job.seconds),
        "position": "top",
        "offset": {"x": [{"from": -1, "to": 0, "start": 0, "length": _ms(job.seconds), "interpolation": "linear"}], "y": 0},
    }


def _scene_titles(job: RenderJob) -> Iterator[JsonObject]:
    """One clip per title, from its scene's first word to the next scene's first word.

    A scene without speech or without a headline has no clip.
    """
    starts: dict[int, float] = {}
    ends: dict[int, float] = {}
    for sentence in job.sentences:
        if 0 <= sentence.scene < len(job.scene_titles):
            starts.setdefault(sentence.scene, sentence.start)
            ends[sentence.scene] = sentence.end
    order = sorted(starts, key=lambda scene: starts[scene])
    for scene, following in itertools.zip_longest(order, order[1:]):
        end = ends[scene] if following is None else starts[following]
        title = job.scene_titles[scene]
        if not title.strip():
            continue
        yield {
            "alias": f"scene-{scene}",
            "asset": _text(title, size=_title_size(title), color=job.palette.accent, animation="slideIn"),
            "start": _ms(starts[scene]),
            "length": _length(starts[scene], end),
            **_box("top", height=TITLE_HEIGHT, y=-0.1),
            "transition": {"out": "fadeFast"},
        }


def _captions(job: RenderJob) -> Iterator[JsonObject]:
    """The spoken words in short chunks. Each chunk gets a share of its sentence's time, by its width."""
    for number, sentence in enumerate(job.sentences):
        chunks = _chunks(sentence.text)
        bounds = _bounds(sentence, chunks)
        if any(end - start < 1 / FPS for start, end in itertools.pairwise(bounds)):
            chunks = [(trimmed(sentence.text) or sentence.text, False)]  # too short to show one after the other
            bounds = [sentence.start, sentence.end]
        scene = "hook" if sentence.scene < 0 else str(sentence.scene)
        for index, ((text, glued), (start, end)) in enumerate(zip(chunks, itertools.pairwise(bounds), strict=True)):
            if not text:
                continue  # the chunk was punctuation only
            yield {
                "alias": f"caption-{number}-{scene}-{index}" + ("-glued" if glued else ""),
                "asset": _text(text, size=_fitting(text), color=job.palette.text, outlined=True),
                "start": _ms(start),
                "length": _length(start, end),
                **_box("center", height=420, y=-0.14),
            }


def _hook(job: RenderJob) -> JsonObject:
    """The title card: the hook in large letters while it is spoken."""
    spoken = [sentence.end for sentence in job.sentences if sentence.scene < 0]
    scenes = [sentence.start for sentence in job.sentences if sentence.scene >= 0]
    end = max(spoken) if spoken else min([HOOK_SECONDS, job.seconds, *scenes])
    return {
        "alias": "hook",
        "asset": _text(job.hook, size=76, color=job.palette.text, card=True, animation="fadeIn"),
        "start": 0,
        "length": _length(0, end),
        **_box("center", height=760, y=0.14),
        "transition": {"in": "zoom", "out": "fadeFast"},
    }


def _channel(job: RenderJob) -> JsonObject:
    return {
        "alias": "channel",
        "asset": _text(job.channel_title, size=36, color=job.palette.text, opacity=0.8),
        "start": 0,
        "length": _ms(job.seconds),
        **_box("bottom", height=80, y=0.09),
    }


def _background(job: RenderJob) -> JsonObject:
    """A slowly drifting gradient of the channel's two colours. The html5 asset records CSS animations."""
    first, second = job.palette.background
    css = (
        f":root{{--from:{first};--to:{second}}}"
        "html,body{margin:0;width:100%;height:100%}"
        ".sky{width:100%;height:100%;background:linear-gradient(135deg,var(--from),var(--to),var(--from));"
        "background-size:300% 300%;animation:drift 12s ease-in-out infinite alternate}"
        "@keyframes drift{from{background-position:0% 0%}to{background-position:100% 100%}}"
    )
    return {
        "alias": "background",
        "asset": {"type": "html5", "html": '<div class="sky"></div>', "css": css},
        "start": 0,
        "length": _ms(job.seconds),
        "width": WIDTH,
        "height": HEIGHT,
    }


def _voiceover(job: RenderJob, audio_url: str) -> JsonObject:
    return {
        "alias": "voiceover",
        "asset": {"type": "audio", "src": audio_url, "volume": 1},
        "start": 0,
        "length": _ms(job.seconds),
    }


def _text(
    text: str,
    *,
    size: int,
    color: str,
    opacity: float = 1,
    outlined: bool = False,
    card: bool = False,
    animation: str | None = None,
) -> JsonObject:
    """A rich-text asset. `outlined` makes text legible on any background; `card` puts a dark box behind it."""
    asset: JsonObject = {
        "type": "rich-text",
        "text": text,
        "font": {"family": FONT, "size": size, "weight": 800, "color": color, "opacity": opacity},
        "align": {"horizontal": "center", "vertical": "middle"},
    }
    if outlined:
        asset["stroke"] = {"width": 6, "color": "#000000", "opacity": 0.85}
    if card:
        asset["background"] = {"color": "#000000", "opacity": 0.45, "borderRadius": 36, "wrap": True, "padding": 48}
    if animation is not None:
        asset["animation"] = {"preset": animation, "duration": 0.4}
    return asset


def _box(position: str, *, height: int, y: float) -> JsonObject:
    """The position of a text. `y` is an upward offset, as a share of the picture's height."""
    return {"width": TEXT_WIDTH, "height": height, "position": position, "offset": {"x": 0, "y": y}}


# --- captions: words into chunks, chunks into time ------------------------------------------------------------------


def _pieces(word: str) -> list[str]:
    """A word cut into pieces that fit a caption: a Chinese or Japanese sentence is one word without spaces."""
    if cells(word) <= CAPTION_CELLS:
        return [word]
    pieces, width = [""], 0
    for character in word:
        width += cells(character)
        if width > CAPTION_CELLS:
            pieces.append("")
            width = cells(character)
        pieces[-1] += character
    return pieces


def _chunks(text: str) -> list[tuple[str, bool]]:
    """The chunks of a sentence as shown, in order. True marks a chunk that follows the previous one without a space."""
    chunks: list[tuple[list[str], list[bool], bool]] = []
    words = caption_marks.attached(text.split())
    for word, quoted in zip(words, caption_marks.quotes(words), strict=True):
        parts = [piece for part in caption_marks.pieces(word) for piece in _pieces(part)]
        for index, piece in enumerate(parts):
            room = bool(chunks) and len(chunks[-1][0]) < CAPTION_WORDS and cells(" ".join([*chunks[-1][0], piece])) <= CAPTION_CELLS
            if room and index == 0 and not caption_marks.ends_a_part(chunks[-1][0][-1]):
                chunks[-1][0].append(piece)
                chunks[-1][1].append(quoted)
            else:
                chunks.append(([piece], [quoted], index > 0))
    return [(" ".join(" ".join(caption_marks.shown(said, quoted)).split()), glued) for said, quoted, glued in chunks]


def _bounds(sentence: Sentence, chunks: list[tuple[str, bool]]) -> list[float]:
    """The times at which the chunks of a sentence begin, and the end of the last. Wider chunks are shown longer."""
    weights = [cells(text) + 1 for text, _ in chunks]
    pace = (sentence.end - sentence.start) / max(1, sum(weights))
    return [sentence.start + pace * weight for weight in itertools.accumulate(weights, initial=0)]


def _fitting(text: str) -> int:
    """The font size, in pixels, at which the longest word of a caption fits its line."""
    longest = max(cells(word) for word in text.split())
    return max(1, min(CAPTION_PIXELS, int(TEXT_WIDTH / (longest * _CELL_EM))))


def _title_size(title: str) -> int:
    """The font size, in pixels, at which a headline fits its box. A long headline is set smaller, never cut."""
    longest = max(min(cells(word), CAPTION_CELLS) for word in title.split())
    size = min(TITLE_PIXELS, int(TEXT_WIDTH / (longest * _CELL_EM)))
    while size > 1 and -(-cells(title) * size * _CELL_EM * 1.1 // TEXT_WIDTH) * size * 1.3 > TITLE_HEIGHT:
        size -= 1
    return max(1, size)


def _ms(seconds: float) -> float:
    return round(seconds, 3)


def _length(start: float, end: float) -> float:
    """The length of a clip in seconds: at least one frame, because Shotstack refuses empty clips."""
    return max(_ms(_ms(end) - _ms(start)), _ms(1 / FPS))


# --- and back -------------------------------------------------------------------------------------------------------


def job_from_edit(edit: Mapping[str, Any], audio: Path) -> RenderJob:
    """The job from which `build_edit` made an Edit. Times are rounded to milliseconds, runs of white space to single spaces.

    `audio` is the voiceover on this machine. Raises ValueError for an Edit that `build_edit` did not make.
    """
    try:
        clips = {str(clip.get("alias", "")): clip for track in edit["timeline"]["tracks"] for clip in track["clips"]}
        merge = {str(field["find"]): str(field["replace"]) for field in edit["merge"]}
        return RenderJob(
            video_key=merge[VIDEO_FIELD],
            attempt_id=merge[ATTEMPT_FIELD],
            title=merge[TITLE_FIELD],
            hook=clips["hook"]["asset"]["text"],
            scene_titles=_titles_of(clips),
            sentences=tuple(_sentences_of(clips, json.loads(merge.get(SENTENCES_FIELD, "[]")))),
            seconds=float(clips["voiceover"]["length"]),
            audio=audio,
            palette=_palette_of(clips),
            channel_title=clips["channel"]["asset"]["text"] if "channel" in clips else "",
            language=merge.get(LANGUAGE_FIELD, ""),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"this Edit was not made from a render job: {type(error).__name__} {error}") from error


def _titles_of(clips: Mapping[str, Any]) -> tuple[str, ...]:
    titles = {int(found[1]): clip["asset"]["text"] for alias, clip in clips.items() if (found := _SCENE_ALIAS.fullmatch(alias))}
    spoken = {int(found[2]) for alias in clips if (found := _CAPTION_ALIAS.fullmatch(alias)) and found[2] != "hook"}
    return tuple(titles.get(scene, "") for scene in range(max({*titles, *spoken}, default=-1) + 1))


def _sentences_of(clips: Mapping[str, Any], written: list[str]) -> Iterable[Sentence]:
    """The sentences of the captions. One with the same words as in `written` keeps the punctuation written there."""
    chunks: defaultdict[int, list[tuple[int, bool, Any]]] = defaultdict(list)
    scenes: dict[int, int] = {}
    for alias, clip in clips.items():
        if found := _CAPTION_ALIAS.fullmatch(alias):
            number = int(found[1])
            scenes[number] = -1 if found[2] == "hook" else int(found[2])
            chunks[number].append((int(found[3]), found[4] is not None, clip))
    for number in sorted(chunks):
        ordered = sorted(chunks[number], key=lambda chunk: chunk[0])
        text = "".join(("" if glued or not index else " ") + clip["asset"]["text"] for index, glued, clip in ordered)
        if number < len(written) and _letters(written[number]) == _letters(text):
            text = written[number]
        last = ordered[-1][2]
        yield Sentence(text=text, scene=scenes[number], start=ordered[0][2]["start"], end=_ms(last["start"] + last["length"]))


def _letters(text: str) -> str:
    return "".join(character for character in text if character.isalnum())


def _palette_of(clips: Mapping[str, Any]) -> Palette:
    gradient = _GRADIENT.search(clips["background"]["asset"]["css"])
    if gradient is None:
        raise ValueError("this Edit was not made from a render job: its background has no gradient")
    return Palette(
        background=(gradient[1], gradient[2]),
        text=clips["hook"]["asset"]["font"]["color"],
        accent=clips["progress"]["asset"]["fill"]["color"],
    )
