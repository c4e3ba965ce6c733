"""The typefaces of the picture: font files for libass, and the widths of texts in them.

`captions` and `cards` choose sizes and positions.
"""

from __future__ import annotations

import atexit
import functools
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fontTools import subset
from fontTools.ttLib import TTFont
from fontTools.varLib import instancer

from phantoms_dagster.domain.text import graphemes
from phantoms_dagster.media import ass
from phantoms_dagster.media.coverage import FontSource, fallbacks, source_of, styled

_UNKNOWN_GLYPH_EM = 1.1  # the width of an ideograph or emoji, so that an unknown character never overflows
_NAMED = re.compile(r"(?:\\fn|^Style: \w+,)([^\\,}]+)", re.MULTILINE)
_WIDE_EM = 1.0  # Chinese, Japanese and Korean letters all have this width


@dataclass(frozen=True)
class Typeface:
    """A font file and its metrics. `advances` are widths in ems; `line` is the ASS font size per em.

    libass scales a font so that its Windows ascent plus descent equals the ASS font size. `line` converts between the two.
    """

    family: str
    path: Path
    advances: dict[int, float] = field(hash=False, compare=False, repr=False)
    line: float

    def width(self, text: str, em: float) -> float:
        """The width of `text` in pixels at `em` pixels per em, without kerning, which would only make it narrower."""
        return em * sum(self.advances.get(ord(c), _UNKNOWN_GLYPH_EM) for c in text)

    def size(self, em: float) -> int:
        """The ASS font size that gives `em` pixels per em."""
        return max(1, round(em * self.line))

    def tag(self, em: float) -> str:
        """The ASS override that selects this face at `em` pixels per em."""
        return f"\\fn{self.family}\\fs{self.size(em)}"

    def has(self, text: str) -> bool:
        """Whether the font has every character of `text`."""
        return all(ord(c) in self.advances for c in text)


@dataclass(frozen=True)
class FontStack:
    """The faces for one text: its `main` face, and for the parts that it lacks the first other face that has them."""

    main: Typeface
    fonts: Fonts

    def runs(self, text: str) -> list[tuple[Typeface, str]]:
        """`text` divided into parts of one face each. A word stays whole if one face has all of it."""
        if self.main.has(text):
            return [(self.main, text)]
        found: list[tuple[Typeface, str]] = []
        for word in re.split("( )", text):
            for face, part in self._word(word):
                if found and found[-1][0] is face:
                    found[-1] = (face, found[-1][1] + part)
                else:
                    found.append((face, part))
        return found

    def width(self, text: str, em: float) -> float:
        """The width of `text` in pixels at `em` pixels per em."""
        return sum(face.width(part, em) for face, part in self.runs(text))

    def tag(self, em: float) -> str:
        """The ASS override that selects the main face at `em` pixels per em."""
        return self.main.tag(em)

    def set(self, text: str, em: float) -> str:
        """`text` as ASS, with font changes around the parts that the main face lacks. The main face must already be selected."""
        parts: list[str] = []
        current = self.main
        for face, part in [*self.runs(text), (self.main, "")]:
            if face is not current:
                parts.append(f"{{{face.tag(em)}}}")
                current = face
            parts.append(ass.escape_part(part))
        return "".join(parts)

    def _word(self, word: str) -> list[tuple[Typeface, str]]:
        whole = next((face for face in (self.main, *self.fonts.styled) if face.has(word)), None)
        if whole is not None:
            return [(whole, word)]
        return [(self._face(part), part) for part in graphemes(word)]

    def _face(self, grapheme: str) -> Typeface:
        face = next((face for face in (self.main, *self.fonts.styled) if face.has(grapheme)), None)
        return face or self.fonts.fallback(grapheme) or self.main


@dataclass(frozen=True)
class Fonts:
    """The prepared fonts in `folder`: `display` for titles, `text` for captions, `world` for scripts that those two lack.

    Fonts for other scripts, symbols and emoji are prepared when a text first needs them.
    """

    folder: Path
    display: Typeface
    text: Typeface
    world: Typeface

    @property
    def styled(self) -> tuple[Typeface, ...]:
        """The three faces that are always prepared."""
        return (self.display, self.text, self.world)

    def for_display(self, text: str) -> FontStack:
        """The faces for a title."""
        return FontStack(_best(text, (self.display, self.text, self.world)), self)

    def for_text(self, text: str) -> FontStack:
        """The faces for a caption."""
        return FontStack(_best(text, (self.text, self.world)), self)

    def fallback(self, grapheme: str) -> Typeface | None:
        """The fallback face that has the grapheme; None when no font has it."""
        source = source_of(grapheme)
        return None if source is None else _prepared(self.folder, source)

    def named_in(self, document: str) -> list[Typeface]:
        """The faces that an ASS document names."""
        named = set(_NAMED.findall(document))
        faces = [*self.styled, *(_prepared(self.folder, source) for source in fallbacks() if _family(source) in named)]
        return [face for face in faces if face.family in named]


def _best(text: str, faces: Sequence[Typeface]) -> Typeface:
    """The face that has the most letters and digits of `text`; the first one on a tie."""
    letters = [ord(c) for c in text if c.isalnum()]
    return max(faces, key=lambda face: sum(letter in face.advances for letter in letters))


# A folder's fonts never change, so they are loaded once per process. The files stay for later processes.
@functools.lru_cache(maxsize=8)
def load_fonts(folder: Path) -> Fonts:
    """The fonts in `folder`. Creates the files on first use (about 2 CPU seconds). Blocks: call it in a thread."""
    folder.mkdir(parents=True, exist_ok=True)
    return Fonts(
        folder,
        **dict(zip(("display", "text", "world"), (_prepared(folder, source) for source in styled()), strict=True)),
    )


@functools.cache
def private_folder() -> Path:
    """A folder for fonts that is deleted when this process exits."""
    folder = Path(tempfile.mkdtemp(prefix="phantoms-fonts-"))
    owner = os.getpid()

    def clean() -> None:
        if os.getpid() == owner:  # a forked child runs the parent's exit handlers too
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(clean)
    return folder


@functools.lru_cache(maxsize=256)
def _prepared(folder: Path, source: FontSource) -> Typeface:
    family, path = _family(source), source.path
    if source.axes or not source.shaping:
        weight = "-".join(f"{tag}{value:g}" for tag, value in source.axes) or "static"
        path = folder / f"{source.name}-{weight}-{source.path.stat().st_size}.ttf"
        if not path.exists():
            _make_static(source, path, family)
    with TTFont(path, lazy=True) as font:
        units = font["head"].unitsPerEm
        os2 = font["OS/2"]
        line = (os2.usWinAscent + os2.usWinDescent) / units
        if path == source.path:  # 65,535 glyphs of one width: reading each takes a second
            return Typeface(family, path, dict.fromkeys(font.getBestCmap(), _WIDE_EM), line)
        widths = font["hmtx"].metrics
        advances = {code: widths[glyph][0] / units for code, glyph in font.getBestCmap().items()}
        return Typeface(family, path, advances, line)


def _family(source: FontSource) -> str:
    return f"Phantoms {source.name}" if source.axes or not source.shaping else "Noto Sans CJK JP"


def _make_static(source: FontSource, path: Path, family: str) -> None:
    """Write one instance of a variable font under its own family name.

    libass uses a variable font's default instance, which for Montserrat is Thin. Layout features are dropped first if the letters
    do not need them, because instancing them takes four seconds.
    """
    with TTFont(source.path) as font:
        features = ["*"] if source.shaping else []
        options = subset.Options(layout_features=features, hinting=False, notdef_outline=True, name_IDs=["*"])
        subsetter = subset.Subsetter(options)
        subsetter.populate(unicodes=font.getBestCmap())
        subsetter.subset(font)
        if source.axes:
            instancer.instantiateVariableFont(font, dict(source.axes), inplace=True)
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
