"""The characters that our fonts have. Every text is checked before it is rendered; `fonts` prepares the fonts.

Three fonts set the style. The fallback fonts are tried in order for characters that those three lack.
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

# Characters without a visible shape of their own: joiners, variation selectors and spaces.
_INVISIBLE = regex.compile(r"[\p{Default_Ignorable_Code_Point}\p{White_Space}]")


@dataclass(frozen=True)
class FontSource:
    """A font file from a package. `axes` selects an instance of a variable font.

    `shaping`: its letters depend on their neighbours.
    """

    name: str
    path: Path
    axes: tuple[tuple[str, float], ...] = ()
    shaping: bool = True

    def has(self, grapheme: str) -> bool:
        """Whether the font has every visible character of a grapheme."""
        return all(ord(c) in _characters(self.path) or _INVISIBLE.match(c) for c in grapheme)


@functools.cache
def styled() -> tuple[FontSource, FontSource, FontSource]:
    """The fonts for titles, for captions, and for scripts that those two lack."""
    return (
        FontSource("Anton", fontpkg.path("Anton"), shaping=False),
        FontSource("Montserrat", fontpkg.path("Montserrat"), (("wght", 800),), shaping=False),
        FontSource("Inter", fontpkg.path("Inter"), (("wght", 800), ("opsz", 32)), shaping=False),
    )


@functools.cache
def fallbacks() -> tuple[FontSource, ...]:
    """The Noto fonts in the order they are tried: letters by script, symbols, emoji, then Chinese, Japanese and Korean."""
    folder = Path(str(files("manimgx_fonts")))
    scripts = sorted(folder.glob("NotoSans*[[]wght].ttf"), key=lambda path: ("Symbols" in path.name, path.name))
    names = [path for path in scripts if "Italic" not in path.name] + [folder / "NotoEmoji[wght].ttf"]
    heavy = (("wght", 700.0),)
    noto = tuple(FontSource(path.name.partition("[")[0], path, heavy) for path in names)
    cjk = Path(str(files("noto_cjk_sans_jp_bold"))) / "NotoSansCJKjp-Bold.otf"
    return (*noto, FontSource("NotoSansCJKjp-Bold", cjk))


def source_of(grapheme: str) -> FontSource | None:
    """The first fallback font that has the grapheme; None if none has it."""
    return next((source for source in fallbacks() if source.has(grapheme)), None)


def missing(texts: Iterable[str]) -> tuple[str, ...]:
    """The graphemes in `texts` that no font has, without duplicates. Blocks for up to two seconds: call it in a thread."""
    asked = dict.fromkeys(part for text in texts if not text.isascii() for part in graphemes(text) if not part.isascii())
    return tuple(part for part in asked if not (_has_meaning(part) and (any(f.has(part) for f in styled()) or source_of(part))))


def _has_meaning(grapheme: str) -> bool:
    """False for private-use and unassigned characters: whatever a font draws for them has no agreed meaning."""
    return not any(unicodedata.category(c) in ("Co", "Cn") for c in grapheme)


@functools.cache
def _characters(path: Path) -> frozenset[int]:
    with TTFont(path, lazy=True) as font:
        return frozenset(font.getBestCmap())
