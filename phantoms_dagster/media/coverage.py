"""Which characters our fonts have: asked of every text before anything is rendered. No font is prepared here.

The first three fonts set the style; the others are asked in order for what those lack.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import fontpkg
import regex
from fontTools.ttLib import TTFont

from phantoms_dagster.domain.text import graphemes

# They are invisible by themselves: they choose forms (joiners, variation selectors) or are spaces.
_INVISIBLE = regex.compile(r"[\p{Default_Ignorable_Code_Point}\p{White_Space}]")


@dataclass(frozen=True)
class FontSource:
    """A font file of a wheel. `axes` choose one weight of a variable font; `shaping`: letters change with their neighbours."""

    name: str
    path: Path
    axes: tuple[tuple[str, float], ...] = ()
    shaping: bool = True

    def has(self, grapheme: str) -> bool:
        """Whether the font has all that is visible of a grapheme."""
        return all(ord(c) in _characters(self.path) or _INVISIBLE.match(c) for c in grapheme)


@functools.cache
def styled() -> tuple[FontSource, FontSource, FontSource]:
    """The fonts of titles, of captions, and of the scripts that those two lack."""
    return (
        FontSource("Anton", fontpkg.path("Anton"), shaping=False),
        FontSource("Montserrat", fontpkg.path("Montserrat"), (("wght", 800),), shaping=False),
        FontSource("Inter", fontpkg.path("Inter"), (("wght", 800), ("opsz", 32)), shaping=False),
    )


@functools.cache
def fallbacks() -> tuple[FontSource, ...]:
    """Noto, smallest questions first: letters by script, then symbols and emoji, Chinese, Japanese and Korean last."""
    folder = Path(str(files("manimgx_fonts")))
    scripts = sorted(folder.glob("NotoSans*[[]wght].ttf"), key=lambda path: ("Symbols" in path.name, path.name))
    names = [path for path in scripts if "Italic" not in path.name] + [folder / "NotoEmoji[wght].ttf"]
    heavy = (("wght", 700.0),)
    noto = tuple(FontSource(path.name.partition("[")[0], path, heavy) for path in names)
    cjk = Path(str(files("noto_cjk_sans_jp_bold"))) / "NotoSansCJKjp-Bold.otf"
    return (*noto, FontSource("NotoSansCJKjp-Bold", cjk))


def source_of(grapheme: str) -> FontSource | None:
    """The first of the fallback fonts that has it."""
    return next((source for source in fallbacks() if source.has(grapheme)), None)


def missing(texts: Iterable[str]) -> tuple[str, ...]:
    """The graphemes of `texts` that no font has, each once. Blocks for up to two seconds: call it in a thread."""
    asked = dict.fromkeys(part for text in texts if not text.isascii() for part in graphemes(text) if not part.isascii())
    return tuple(part for part in asked if not (_has_meaning(part) and (any(f.has(part) for f in styled()) or source_of(part))))


def _has_meaning(grapheme: str) -> bool:
    """Private and unassigned characters have none that people share, whatever a font draws for them."""
    return not any(unicodedata.category(c) in ("Co", "Cn") for c in grapheme)


@functools.cache
def _characters(path: Path) -> frozenset[int]:
    with TTFont(path, lazy=True) as font:
        return frozenset(font.getBestCmap())
