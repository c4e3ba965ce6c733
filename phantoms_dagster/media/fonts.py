"""The typefaces of the picture: files that libass can use and the widths of texts set in them.

What is set in which size and where belongs in `captions` and `cards`.
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import fontpkg
from fontTools import subset
from fontTools.ttLib import TTFont
from fontTools.varLib import instancer

_UNKNOWN_GLYPH_EM = 1.1  # a glyph of a fallback font: as wide as an ideograph or an emoji, so that nothing ever sticks out


@dataclass(frozen=True)
class Typeface:
    """A font file and its metrics. `advances` are in units of an em; `line` is ASS font size per em.

    libass scales a font so that its Windows ascent plus descent is the ASS font size; hence `line`.
    """

    family: str
    path: Path
    advances: dict[int, float]
    line: float

    def width(self, text: str, em: float) -> float:
        """The width of `text` in pixels at `em` pixels per em. Kerning is left out: it could only narrow the text."""
        return em * sum(self.advances.get(ord(c), _UNKNOWN_GLYPH_EM) for c in text)

    def size(self, em: float) -> int:
        """The ASS font size that gives `em` pixels per em."""
        return max(1, round(em * self.line))

    def covers(self, text: str) -> bool:
        """Whether the font has every letter and digit of `text`."""
        return all(ord(c) in self.advances for c in text if c.isalnum())


@dataclass(frozen=True)
class Fonts:
    """`display` for titles, `text` for captions, `world` for scripts that those two lack; all lie in `folder`."""

    folder: Path
    display: Typeface
    text: Typeface
    world: Typeface

    def for_display(self, text: str) -> Typeface:
        """The face for a title."""
        return next((face for face in (self.display, self.text) if face.covers(text)), self.world)

    def for_text(self, text: str) -> Typeface:
        """The face for a caption."""
        return self.text if self.text.covers(text) else self.world


# A folder's fonts never change: made once a process. The files are kept between processes.
@functools.lru_cache(maxsize=8)
def load_fonts(folder: Path) -> Fonts:
    """The fonts in `folder`, which is filled on first use (about 2 CPU seconds). Blocks: call it in a thread."""
    folder.mkdir(parents=True, exist_ok=True)
    return Fonts(
        folder,
        display=_typeface(folder, "Anton", {}),
        text=_typeface(folder, "Montserrat", {"wght": 800}),
        world=_typeface(folder, "Inter", {"wght": 800, "opsz": 32}),
    )


@functools.cache
def private_folder() -> Path:
    """A folder for fonts that lives as long as this process."""
    folder = Path(tempfile.mkdtemp(prefix="phantoms-fonts-"))
    owner = os.getpid()

    def clean() -> None:
        if os.getpid() == owner:  # a forked child runs the parent's exit handlers too
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(clean)
    return folder


def _typeface(folder: Path, name: str, axes: dict[str, float]) -> Typeface:
    source = fontpkg.path(name)
    family = f"Phantoms {name}"
    weight = "-".join(f"{tag}{value:g}" for tag, value in axes.items()) or "static"
    path = folder / f"{name}-{weight}-{source.stat().st_size}.ttf"
    if not path.exists():
        _make_static(source, path, family, axes)
    with TTFont(path, lazy=True) as font:
        units = font["head"].unitsPerEm
        widths = font["hmtx"].metrics
        advances = {code: widths[glyph][0] / units for code, glyph in font.getBestCmap().items()}
        os2 = font["OS/2"]
        return Typeface(family, path, advances, (os2.usWinAscent + os2.usWinDescent) / units)


def _make_static(source: Path, path: Path, family: str, axes: dict[str, float]) -> None:
    """Write one weight of a variable font under a name of its own.

    libass takes the default instance of a variable font, which for Montserrat is Thin. Layout features are dropped first:
    instancing them costs four seconds.
    """
    with TTFont(source) as font:
        options = subset.Options(layout_features=[], hinting=False, notdef_outline=True, name_IDs=["*"])
        subsetter = subset.Subsetter(options)
        subsetter.populate(unicodes=font.getBestCmap())
        subsetter.subset(font)
        if axes:
            instancer.instantiateVariableFont(font, axes, inplace=True)
        names = font["name"]
        names.names = []
        for name_id, value in {1: family, 2: "Regular", 4: family, 6: family.replace(" ", "")}.items():
            names.setName(value, name_id, 3, 1, 0x409)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            font.save(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
