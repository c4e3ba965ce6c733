"""Everything drawn over the background except captions: header, progress bar, title card, scene titles, moving bars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from phantoms_dagster.domain.markup import one_line
from phantoms_dagster.domain.models import Palette
from phantoms_dagster.domain.ports import RenderJob
from phantoms_dagster.domain.text import capitals
from phantoms_dagster.media import ass, layout
from phantoms_dagster.media.ass import SubtitleEvent
from phantoms_dagster.media.captions import OUTLINE, STYLE, caption_events
from phantoms_dagster.media.fonts import Fonts

_NAME_Y = 278
_PROGRESS_Y, _PROGRESS_HEIGHT, _PROGRESS_GAP = 346, 10, 12
_TITLE_Y, _TITLE_BOTTOM = 432, 900
_BARS_Y, _BAR_COUNT, _BAR_WIDTH, _BAR_STEP, _BAR_TALLEST = 1402, 24, 14, 30, 150
_NUMERAL_EM = 760


@dataclass(frozen=True)
class Part:
    """A part of the video with its own title: the hook (`scene` -1) or a scene. Times in seconds."""

    scene: int
    start: float
    end: float


def parts(job: RenderJob) -> list[Part]:
    """The hook and the scenes, without gaps from 0 to the end. A scene begins 0.12 s before its first word."""
    begins: list[tuple[int, float]] = []
    for sentence in job.sentences:
        if not begins or sentence.scene != begins[-1][0]:
            begins.append((sentence.scene, max(0.0, sentence.start - 0.12) if begins else 0.0))
    begins = begins or [(-1, 0.0)]
    ends = [start for _, start in begins[1:]] + [job.seconds]
    return [Part(scene, start, end) for (scene, start), end in zip(begins, ends, strict=True)]


def screenplay(job: RenderJob, levels: NDArray[np.float32], fonts: Fonts) -> str:
    """The whole ASS document. `levels` comes from `waveform.band_levels`."""
    palette = job.palette
    shade = shadow(palette)
    styles = [
        ass.style(name, family=face.family, size=40, colour=palette.text, outline_colour=shade, outline=outline)
        for name, face, outline in (
            (STYLE, fonts.text, OUTLINE),
            ("Title", fonts.display, 0),
            ("Label", fonts.text, 0),
            ("Shape", fonts.text, 0),
        )
    ]
    stretches = parts(job)
    events = [*_bars(levels, palette), *_header(job, stretches, fonts)]
    for part in stretches:
        events += _title(job, part, fonts)
    return ass.document(styles, [*events, *caption_events(job.sentences, palette, fonts, job.language)], job.language)


def shadow(palette: Palette) -> str:
    """The colour of outlines: dark behind light text, light behind dark text."""
    ground = "#000000" if ass.luminance(palette.text) > 0.45 else "#ffffff"
    return ass.mix(palette.background[0], ground, 0.82)


def _header(job: RenderJob, stretches: Sequence[Part], fonts: Fonts) -> list[SubtitleEvent]:
    """The channel's name, if the video shows one, and below it a progress bar for each part."""
    palette, end = job.palette, job.seconds
    events = _name(job, fonts) if job.channel_title else []
    width = (ass.SAFE_WIDTH - _PROGRESS_GAP * (len(stretches) - 1)) / len(stretches)
    for index, part in enumerate(stretches):
        x = ass.SAFE_LEFT + index * (width + _PROGRESS_GAP)
        shape = f"\\p1}}{ass.pill(width, _PROGRESS_HEIGHT)}"
        place = f"\\pos({x:.1f},{_PROGRESS_Y})"
        events.append(SubtitleEvent(3, 0, end, "Shape", f"{{{place}\\1a&HB4&{shape}"))
        top, bottom = _PROGRESS_Y - 4, _PROGRESS_Y + _PROGRESS_HEIGHT + 4
        empty, full = f"\\clip({x:.0f},{top},{x:.0f},{bottom})", f"\\clip({x:.0f},{top},{x + width + 1:.0f},{bottom})"
        milliseconds = round((part.end - part.start) * 1000)
        fill = f"{{{place}{ass.colour(palette.accent)}{empty}\\t(0,{milliseconds},{full}){shape}"
        events.append(SubtitleEvent(4, part.start, part.end, "Shape", fill))
        events.append(SubtitleEvent(4, part.end, end, "Shape", f"{{{place}{ass.colour(palette.accent)}{shape}"))
    return events


def _name(job: RenderJob, fonts: Fonts) -> list[SubtitleEvent]:
    name, palette, end = one_line(job.channel_title), job.palette, job.seconds
    set_in = layout.fit(
        layout.breakable(name) or ["·"], fonts.for_text(name), width=ass.SAFE_WIDTH - 40, largest=36, smallest=20, most_lines=1
    )
    label = f"\\an4\\pos({ass.SAFE_LEFT + 34},{_NAME_Y + 22}){set_in.face.tag(set_in.em)}"
    shown = set_in.face.set(layout.joined(set_in.lines[0]), set_in.em)
    dot = f"{{\\pos({ass.SAFE_LEFT},{_NAME_Y + 12}){ass.colour(palette.accent)}\\p1}}{ass.pill(20, 20)}"
    return [
        SubtitleEvent(3, 0, end, "Shape", dot),
        SubtitleEvent(3, 0, end, "Label", f"{{{label}}}{shown}"),
    ]


def _title(job: RenderJob, part: Part, fonts: Fonts) -> list[SubtitleEvent]:
    """The title card of the hook, or the title of a scene with its number in large outlines in the background."""
    is_hook = part.scene < 0
    if not is_hook and part.scene >= len(job.scene_titles):
        return []
    words = layout.breakable(capitals(one_line(job.title if is_hook else job.scene_titles[part.scene]), job.language))
    if not words:
        return [] if is_hook else _numeral(job, part, fonts)
    largest, smallest, most_lines = (156, 84, 4) if is_hook else (118, 60, 4)
    face = fonts.for_display(layout.joined(words))
    top = _TITLE_Y + (0 if is_hook else 88)
    height = _TITLE_BOTTOM - top
    set_in = layout.fit(words, face, width=ass.SAFE_WIDTH, height=height, largest=largest, smallest=smallest, most_lines=most_lines)
    step = set_in.em * layout.LINE_HEIGHT
    events = [] if is_hook else _numeral(job, part, fonts)
    first = part.start == 0
    for index, line in enumerate(set_in.lines):
        y = top + (index + 0.5) * step
        begin = part.start if first else part.start + 0.07 * index
        motion = (
            f"\\pos({ass.SAFE_LEFT},{y:.0f})"  # the first frame is the cover, so nothing moves in
            if first
            else f"\\move({ass.SAFE_LEFT - 70},{y:.0f},{ass.SAFE_LEFT},{y:.0f},0,260)\\fad(180,120)"
        )
        tags = f"\\an4{motion}{face.tag(set_in.em)}"
        events.append(SubtitleEvent(4, begin, part.end, "Title", f"{{{tags}}}" + face.set(layout.joined(line), set_in.em)))
    if is_hook:
        events.append(_underline(job.palette, part, top + len(set_in.lines) * step + 34))
    return events


def _underline(palette: Palette, part: Part, y: float) -> SubtitleEvent:
    grow = f"\\clip({ass.SAFE_LEFT},0,{ass.SAFE_LEFT + 60},{ass.HEIGHT})"
    grown = f"\\t(0,700,0.5,\\clip({ass.SAFE_LEFT},0,{ass.SAFE_LEFT + 340},{ass.HEIGHT}))"
    tags = f"\\pos({ass.SAFE_LEFT},{y:.0f}){ass.colour(palette.accent)}{grow}{grown}\\fad(0,120)\\p1"
    return SubtitleEvent(4, part.start, part.end, "Shape", f"{{{tags}}}{ass.pill(330, 18)}")


def _numeral(job: RenderJob, part: Part, fonts: Fonts) -> list[SubtitleEvent]:
    palette, face = job.palette, fonts.display
    number = f"{part.scene + 1:02d}"
    length = round((part.end - part.start) * 1000)
    drift = f"\\move(960,1130,930,1130,0,{length})"
    outline = f"\\an6{drift}\\fn{face.family}\\fs{face.size(_NUMERAL_EM)}\\1a&HFF&\\3a&HD4&\\bord4{ass.colour(palette.text, '3c')}"
    badge = f"\\an4\\move({ass.SAFE_LEFT - 70},{_TITLE_Y + 40},{ass.SAFE_LEFT},{_TITLE_Y + 40},0,260)\\fad(180,120)"
    label = f"{{{badge}\\fn{face.family}\\fs{face.size(58)}{ass.colour(palette.accent)}}}{number}"
    total = f"{{\\alpha&H60&{ass.colour(palette.text)}}} / {len(job.scene_titles):02d}"
    return [
        SubtitleEvent(0, part.start, part.end, "Title", f"{{{outline}\\fad(300,200)}}{number}"),
        SubtitleEvent(4, part.start, part.end, "Title", label + total),
    ]


def _bars(levels: NDArray[np.float32], palette: Palette) -> list[SubtitleEvent]:
    """Vertical bars that move with the voice, mirrored so that the strong low bands are in the middle."""
    left = ass.WIDTH / 2 - (_BAR_COUNT * _BAR_STEP - (_BAR_STEP - _BAR_WIDTH)) / 2
    half = _BAR_COUNT // 2
    taper = np.linspace(1.0, 0.42, half)
    heights = np.rint(_BAR_WIDTH + levels[:, :half] * taper * (_BAR_TALLEST - _BAR_WIDTH)).astype(int)
    tags = f"{{\\an7\\pos(0,0){ass.colour(palette.accent)}\\1a&H18&\\p1}}"
    events = []
    for frame, row in enumerate(heights):
        bars = []
        for index in range(_BAR_COUNT):
            height = int(row[half - 1 - index] if index < half else row[index - half])
            bars.append(_bar(left + index * _BAR_STEP, _BARS_Y - height / 2, height))
        events.append(SubtitleEvent(1, frame / ass.FPS, (frame + 1) / ass.FPS, "Shape", tags + " ".join(bars)))
    return events


def _bar(x: float, y: float, height: int) -> str:
    """The drawing of a bar with round ends, with its position in the coordinates, so that one event can draw all bars."""
    r = _BAR_WIDTH / 2
    k = r * 0.5523
    right, top, bottom = x + _BAR_WIDTH, y + r, y + height - r
    return (
        f"m {x:g} {top:g} b {x:g} {top - k:.1f} {x + r - k:.1f} {y:g} {x + r:g} {y:g} "
        f"b {x + r + k:.1f} {y:g} {right:g} {top - k:.1f} {right:g} {top:g} l {right:g} {bottom:g} "
        f"b {right:g} {bottom + k:.1f} {x + r + k:.1f} {bottom + r:g} {x + r:g} {bottom + r:g} "
        f"b {x + r - k:.1f} {bottom + r:g} {x:g} {bottom + k:.1f} {x:g} {bottom:g}"
    )
