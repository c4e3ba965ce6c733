"""Advanced SubStation Alpha (ASS), the subtitle format that libass draws: events, escaping, colours and shapes.

`captions` and `cards` decide what is drawn.
"""

from __future__ import annotations

import colorsys
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

WIDTH, HEIGHT, FPS = 1080, 1920, 30

# The safe area: texts stay inside it, because the platforms' own buttons, names and captions cover the rest. TikTok covers the
# most.
SAFE_LEFT, SAFE_RIGHT = 130, WIDTH - 130
SAFE_TOP, SAFE_BOTTOM = 270, 1496
SAFE_WIDTH = SAFE_RIGHT - SAFE_LEFT

_HEADER = """[Script Info]
ScriptType: v4.00+
PlayResX: 1080
PlayResY: 1920
WrapStyle: 2
ScaledBorderAndShadow: yes
YCbCr Matrix: TV.709
{language}
[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, Italic, Underline, \
StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, MarginL, MarginR, MarginV, Encoding
"""
_EVENTS = "\n[Events]\nFormat: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\n"


@dataclass(frozen=True)
class SubtitleEvent:
    """Something that is shown from `start` to `end`, in seconds. A higher `layer` is closer to the viewer.

    `text` is ASS code: text that a person wrote must go through `escape` first.
    """

    layer: int
    start: float
    end: float
    style: str
    text: str


def style(name: str, *, family: str, size: int, colour: str, outline_colour: str, outline: float) -> str:
    """A style line without shadow, aligned top left. Encoding -1: each line's first letter decides its direction of writing."""
    colours = f"&H00{_bgr(colour)},&H00{_bgr(colour)},&H00{_bgr(outline_colour)},&H80{_bgr(outline_colour)}"
    return f"Style: {name},{family},{size},{colours},0,0,0,0,100,100,0,0,1,{outline:g},0,7,0,0,0,-1"


def document(styles: Iterable[str], events: Iterable[SubtitleEvent], language: str = "") -> str:
    """The whole file, without events too short to show. `language` (BCP 47) selects glyph forms, such as Chinese or Japanese."""
    lines = [
        f"Dialogue: {e.layer},{timestamp(e.start)},{timestamp(e.end)},{e.style},,0,0,0,,{e.text}"
        for e in events
        if timestamp(e.start) != timestamp(e.end)
    ]
    known = f"Language: {language}\n" if re.fullmatch(r"[A-Za-z0-9-]{2,35}", language) else ""
    return _HEADER.format(language=known) + "\n".join(styles) + "\n" + _EVENTS + "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Escape `text` so that libass shows it literally, without tags, line breaks or escapes.

    A backslash cannot be escaped. An invisible word joiner after it removes its special meaning.
    """
    return escape_part(" ".join(text.split()))


def escape_part(text: str) -> str:
    """`escape` for a part of a line: keeps the spaces at its ends."""
    return text.replace("\\", "\\\u2060").replace("{", "\\{").replace("}", "\\}")


def timestamp(seconds: float) -> str:
    """`h:mm:ss.cc`, rounded down, so that an event begins on its frame and not on the next."""
    centiseconds = max(0, math.floor(seconds * 100 + 1e-6))
    minutes, rest = divmod(centiseconds, 6_000)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest // 100:02d}.{rest % 100:02d}"


def colour(rgb: str, tag: str = "1c") -> str:
    """The override that sets a colour, such as `\\1c&H3FD2FF&` for #ffd23f."""
    return f"\\{tag}&H{_bgr(rgb)}&"


def box(width: float, height: float) -> str:
    """The drawing of a rectangle whose top left corner is at 0,0."""
    return f"m 0 0 l {width:g} 0 {width:g} {height:g} 0 {height:g}"


def pill(width: float, height: float) -> str:
    """The drawing of a bar with round ends whose top left corner is at 0,0. `width` below `height` counts as `height`."""
    r = height / 2
    k = r * 0.5523  # the handle length with which a Bezier curve is a quarter circle
    right = max(width, height) - r
    return (
        f"m {r:g} 0 l {right:g} 0 b {right + k:g} 0 {right + r:g} {r - k:g} {right + r:g} {r:g} "
        f"b {right + r:g} {r + k:g} {right + k:g} {height:g} {right:g} {height:g} "
        f"l {r:g} {height:g} b {r - k:g} {height:g} 0 {r + k:g} 0 {r:g} b 0 {r - k:g} {r - k:g} 0 {r:g} 0"
    )


def mix(first: str, second: str, share: float) -> str:
    """A mixture of two colours: `share` 0 gives the first, 1 the second."""
    pairs = zip(channels(first), channels(second), strict=True)
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in pairs)


def vivid(rgb: str, turn: float) -> str:
    """The colour, slightly brighter and more saturated, its hue rotated by `turn` (1 is the full circle). Grey stays grey."""
    hue, light, saturation = colorsys.rgb_to_hls(*(c / 255 for c in channels(rgb)))
    parts = colorsys.hls_to_rgb((hue + turn) % 1, min(light * 1.12, 0.92), min(saturation * 1.15, 1.0))
    return "#" + "".join(f"{round(255 * part):02x}" for part in parts)


def channels(rgb: str) -> tuple[int, int, int]:
    """Red, green and blue, 0..255."""
    return int(rgb[1:3], 16), int(rgb[3:5], 16), int(rgb[5:7], 16)


def luminance(rgb: str) -> float:
    """The perceived brightness of a colour, 0..1 (Rec. 709 weights)."""
    r, g, b = channels(rgb)
    return (0.2126 * r + 0.7152 * g + 0.0722 * b) / 255


def _bgr(rgb: str) -> str:
    r, g, b = channels(rgb)
    return f"{b:02X}{g:02X}{r:02X}"
