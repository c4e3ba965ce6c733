"""The render API's rules for an Edit, as far as this stand-in has them: fields, types, ranges, and no unknown keys.

Based on the JSON schema of @shotstack/schemas 1.18.3 and its descriptions (even sizes, at most 1920 px). Only the assets that can
be rendered here are supported: audio, html5, rich-text and shape.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

# A problem: the path from the checked value to the faulty place, and a sentence whose `{}` becomes the path from the root.
Wrong = tuple[str, str]
Rule = Callable[[Any], Wrong | None]

HEX = r"^#[A-Fa-f0-9]{6}$"
MAX_VIDEO_PIXELS = 1920
OTHER_ASSETS = frozenset(
    {
        *("video", "image", "luma", "svg", "html", "title", "text", "caption", "rich-caption"),
        *("text-to-image", "image-to-video", "text-to-speech"),
    }
)


def problem(edit: Any) -> str | None:
    """The first problem of an Edit, worded like the API; None if the Edit is valid."""
    if (found := _EDIT(edit)) is not None:
        path, sentence = found
        return sentence.replace("{}", path.removeprefix(".") or "value", 1)
    return _sized(edit["output"])


def seconds_of(edit: Mapping[str, Any]) -> float:
    """The length of the timeline in seconds: the end of its last clip. Clips of automatic length are ignored."""
    clips = [clip for track in edit["timeline"]["tracks"] for clip in track["clips"]]
    return max(
        (float(c["start"]) + float(c["length"]) for c in clips if _is_number(c["start"]) and _is_number(c["length"])), default=0
    )


def audio_sources(edit: Mapping[str, Any]) -> list[str]:
    """The URLs of the audio assets in an Edit."""
    clips = [clip for track in edit["timeline"]["tracks"] for clip in track["clips"]]
    return [c["asset"]["src"] for c in clips if c["asset"]["type"] == "audio" and "src" in c["asset"]]


def merge_field(edit: Mapping[str, Any], name: str) -> str | None:
    """The value of the first merge field whose name ends with `name`; None without one."""
    return next((str(f["replace"]) for f in edit.get("merge", []) if f["find"].endswith(name)), None)


# --- rules ----------------------------------------------------------------------------------------------------------


_NUMBERS = (int, float)


def _is_number(value: Any) -> bool:
    return isinstance(value, _NUMBERS) and not isinstance(value, bool)


def _anything(_: Any) -> None:
    return None


def _boolean(value: Any) -> Wrong | None:
    return None if isinstance(value, bool) else ("", '"{}" must be a boolean')


def _text(*, longest: int | None = None, shortest: int = 0, pattern: str | None = None) -> Rule:
    expression = None if pattern is None else re.compile(pattern)

    def rule(value: Any) -> Wrong | None:
        if not isinstance(value, str):
            return "", '"{}" must be a string'
        if len(value) < shortest:
            return "", '"{}" is not allowed to be empty'
        if longest is not None and len(value) > longest:
            return "", f'"{{}}" length must be less than or equal to {longest} characters long'
        if expression is not None and expression.search(value) is None:
            return "", f'"{{}}" with value "{value[:40]}" fails to match the required pattern: {expression.pattern}'
        return None

    return rule


def _number(low: float | None = None, high: float | None = None, *, whole: bool = False) -> Rule:
    def rule(value: Any) -> Wrong | None:
        if not _is_number(value):
            return "", '"{}" must be a number'
        if whole and value != int(value):
            return "", '"{}" must be an integer'
        if low is not None and value < low:
            return "", f'"{{}}" must be greater than or equal to {low:g}'
        if high is not None and value > high:
            return "", f'"{{}}" must be less than or equal to {high:g}'
        return None

    return rule


def _one_of(*allowed: str | float) -> Rule:
    def rule(value: Any) -> Wrong | None:
        if not isinstance(value, bool) and value in allowed:
            return None
        return "", f'"{{}}" must be one of [{", ".join(map(str, allowed))}]'

    return rule


def _either(first: Rule, second: Rule) -> Rule:
    def rule(value: Any) -> Wrong | None:
        found = first(value)
        return None if found is None or second(value) is None else found

    return rule


def _list(item: Rule, *, shortest: int = 0) -> Rule:
    def rule(value: Any) -> Wrong | None:
        if not isinstance(value, list):
            return "", '"{}" must be an array'
        if len(value) < shortest:
            return "", f'"{{}}" must contain at least {shortest} items'
        for i, each in enumerate(value):
            if (found := item(each)) is not None:
                return f"[{i}]{found[0]}", found[1]
        return None

    return rule


def _object(required: Mapping[str, Rule], optional: Mapping[str, Rule]) -> Rule:
    fields = {**required, **optional}

    def rule(value: Any) -> Wrong | None:
        if not isinstance(value, dict):
            return "", '"{}" must be of type object'
        for name in required:
            if name not in value:
                return f".{name}", '"{}" is required'
        for name, each in value.items():
            if name not in fields:
                return f".{name}", '"{}" is not allowed'
            if (found := fields[name](each)) is not None:
                return f".{name}{found[0]}", found[1]
        return None

    return rule


# --- assets ---------------------------------------------------------------------------------------------------------

_TWEEN = _object(
    {},
    {
        "from": _anything,
        "to": _anything,
        "start": _number(),
        "length": _number(),
        "interpolation": _one_of("linear", "bezier", "constant"),
        "easing": _text(),
    },
)
_SHARE = _number(0, 1)
_POSITIVE = _number(0)
_COLOUR = _text(pattern=HEX)


def _animated(rule: Rule) -> Rule:
    return _either(rule, _list(_TWEEN))


_STROKE = _object({}, {"width": _POSITIVE, "color": _COLOUR, "opacity": _SHARE})
_RICH_TEXT = _object(
    {"type": _one_of("rich-text"), "text": _text(longest=5_000)},
    {
        "font": _object(
            {},
            {
                "family": _text(),
                "size": _number(1, 500, whole=True),
                "weight": _anything,
                "style": _one_of("normal", "italic"),
                "color": _COLOUR,
                "opacity": _SHARE,
                "background": _COLOUR,
                "stroke": _STROKE,
            },
        ),
        "style": _object(
            {},
            {
                "letterSpacing": _number(),
                "wordSpacing": _POSITIVE,
                "lineHeight": _number(0, 10),
                "textTransform": _one_of("none", "uppercase", "lowercase", "capitalize"),
                "textDecoration": _one_of("none", "underline", "line-through"),
            },
        ),
        "stroke": _STROKE,
        "shadow": _object({}, {"offsetX": _number(), "offsetY": _number(), "blur": _POSITIVE, "color": _COLOUR, "opacity": _SHARE}),
        "background": _object(
            {},
            {
                "color": _COLOUR,
                "opacity": _SHARE,
                "borderRadius": _POSITIVE,
                "wrap": _boolean,
                "padding": _number(0, 200, whole=True),
            },
        ),
        "padding": _POSITIVE,
        "align": _object({}, {"horizontal": _one_of("left", "center", "right"), "vertical": _one_of("top", "middle", "bottom")}),
        "animation": _object(
            {"preset": _one_of("fadeIn", "slideIn", "typewriter", "ascend", "shift", "movingLetters")},
            {
                "duration": _number(0.1, 30),
                "style": _one_of("character", "word"),
                "direction": _one_of("left", "right", "up", "down"),
            },
        ),
    },
)
_WHOLE = _number(whole=True)
_SHAPE = _object(
    {"type": _one_of("shape"), "shape": _one_of("rectangle", "circle", "line")},
    {
        "width": _WHOLE,
        "height": _WHOLE,
        "fill": _object({}, {"color": _text(), "opacity": _number()}),
        "stroke": _object({}, {"color": _text(), "width": _number()}),
        "rectangle": _object({"width": _WHOLE, "height": _WHOLE}, {"cornerRadius": _WHOLE}),
        "circle": _object({"radius": _WHOLE}, {}),
        "line": _object({"length": _WHOLE, "thickness": _WHOLE}, {}),
    },
)
_AUDIO = _object(
    {"type": _one_of("audio"), "src": _text(shortest=1, pattern=r"\S")},
    {
        "trim": _number(),
        "volume": _animated(_SHARE),
        "speed": _number(0, 10),
        "effect": _one_of("none", "fadeIn", "fadeOut", "fadeInFadeOut"),
    },
)
_HTML5 = _object(
    {"type": _one_of("html5"), "html": _text(longest=1_000_000)}, {"css": _text(longest=500_000), "js": _text(longest=500_000)}
)
_ASSETS = {"rich-text": _RICH_TEXT, "shape": _SHAPE, "audio": _AUDIO, "html5": _HTML5}


def _asset(value: Any) -> Wrong | None:
    kind = value.get("type") if isinstance(value, dict) else None
    if not isinstance(kind, str):
        return ".type", '"{}" is required'
    if kind in OTHER_ASSETS:
        return ".type", f'"{{}}" {kind} is an asset of the API that this sandbox does not offer; use {", ".join(sorted(_ASSETS))}'
    if kind not in _ASSETS:
        return ".type", f'"{{}}" must be one of [{", ".join(sorted(OTHER_ASSETS | _ASSETS.keys()))}]'
    if found := _ASSETS[kind](value):
        return found
    if kind == "shape" and value["shape"] not in value:
        return f".{value['shape']}", '"{}" is required'
    return None


# --- the Edit -------------------------------------------------------------------------------------------------------

_MOVES = "fade reveal wipeLeft wipeRight slideLeft slideRight slideUp slideDown carouselLeft carouselRight carouselUp carouselDown"
_SHUFFLES = "TopRight RightTop RightBottom BottomRight BottomLeft LeftBottom LeftTop TopLeft"
_SPEEDY = [*_MOVES.split(), *(f"shuffle{corner}" for corner in _SHUFFLES.split())]
_TRANSITION = _one_of("none", "zoom", *(move + speed for move in _SPEEDY for speed in ("", "Slow", "Fast")))
_PLACES = _one_of(*["top", "topRight", "right", "bottomRight", "bottom", "bottomLeft", "left", "topLeft", "center"])
_CLIP = _object(
    {
        "asset": _asset,
        "start": _either(_number(0), _text(pattern=r"^(auto|alias://[A-Za-z0-9_-]+)$")),
        "length": _either(_number(0), _text(pattern=r"^(auto|end|alias://[A-Za-z0-9_-]+)$")),
    },
    {
        "id": _text(),
        "fit": _one_of("cover", "contain", "crop", "none"),
        "scale": _animated(_number()),
        "width": _number(1, 3840),
        "height": _number(1, 2160),
        "position": _PLACES,
        "offset": _object({}, {"x": _animated(_number(-10, 10)), "y": _animated(_number(-10, 10))}),
        "transition": _object({}, {"in": _TRANSITION, "out": _TRANSITION}),
        "filter": _one_of(*["none", "blur", "boost", "contrast", "darken", "greyscale", "lighten", "muted", "negative"]),
        "opacity": _animated(_number()),
        "alias": _text(pattern=r"^[A-Za-z0-9_-]+$"),
    },
)
_OUTPUT = _object(
    {"format": _one_of("mp4", "gif", "mp3", "jpg", "png", "bmp")},
    {
        "resolution": _one_of("preview", "mobile", "sd", "hd", "1080", "4k"),
        "aspectRatio": _one_of("16:9", "9:16", "1:1", "4:5", "4:3"),
        "size": _object({}, {"width": _number(1, 4096, whole=True), "height": _number(1, 4096, whole=True)}),
        "fps": _one_of(12, 15, 23.976, 24, 25, 29.97, 30, 48, 50, 59.94, 60),
        "quality": _one_of("verylow", "low", "medium", "high", "veryhigh"),
        "mute": _boolean,
        "destinations": _list(_anything),
    },
)
_EDIT = _object(
    {
        "timeline": _object(
            {"tracks": _list(_object({"clips": _list(_CLIP, shortest=1)}, {}), shortest=1)},
            {"background": _text(), "fonts": _list(_object({"src": _text()}, {})), "cache": _boolean},
        ),
        "output": _OUTPUT,
    },
    {
        "merge": _list(_object({"find": _text(), "replace": _anything}, {})),
        "callback": _text(),
        "instance": _one_of("s1", "s2", "a1"),
    },
)


def _sized(output: Mapping[str, Any]) -> str | None:
    """Check the rules about sizes that the schema states only in its descriptions."""
    size = output.get("size")
    if output["format"] != "mp4":
        return '"output.format" of this sandbox is mp4'
    if size is None:
        return None if "resolution" in output else '"output.resolution" or "output.size" is required'
    for side in ("width", "height"):
        if side not in size:
            return f'"output.size.{side}" is required'
        if size[side] % 2:
            return f'"output.size.{side}" must be a multiple of 2'
        if size[side] > MAX_VIDEO_PIXELS:
            return f'"output.size.{side}" must be less than or equal to {MAX_VIDEO_PIXELS}'
    return None
