"""Breaks a text into lines and finds the size at which it fits a box. It draws nothing."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import regex

from phantoms_dagster.domain.text import graphemes
from phantoms_dagster.media.fonts import FontStack

if TYPE_CHECKING:
    from budoux import Parser

# Ends a piece that continues without a space in the next one, such as where a line may break in Chinese or Thai. `markup.one_line`
# has removed this character from the texts themselves.
GLUE = "\u200b"
LINE_HEIGHT = 1.22  # of an em, from line to line


LONGEST_WORD, LONGEST_UNSPACED, LONGEST_IDEOGRAPHS = 24, 12, 4
_IDEOGRAPH = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}]")
_THAI = regex.compile(r"\p{Thai}")
_UNSPACED = regex.compile(r"[\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]")
# Characters that never begin a line (closing marks, small kana, Thai and Lao vowels after their letter), and those that never end
# one.
_ENDS = regex.compile(
    r"^[\p{Pe}\p{Pf}、。，．！？：；・ー々ぁぃぅぇぉっゃゅょゎァィゥェォッャュョヮ.,!?:;%"  # noqa: RUF001
    r"\u0e30-\u0e3a\u0e45-\u0e4e\u0eb0-\u0ebd\u0ec6-\u0ece]"
)
_OPENS = regex.compile(r"^[\p{Ps}\p{Pi}\u0e40-\u0e44\u0ec0-\u0ec4]")


@dataclass(frozen=True)
class Block:
    """A text broken into `lines` of words, in size `em` (pixels per em)."""

    face: FontStack
    lines: tuple[tuple[str, ...], ...]
    em: float

    @property
    def width(self) -> float:
        """The width of the longest line in pixels."""
        return max(self.face.width(joined(line), self.em) for line in self.lines)


def joined(words: Sequence[str]) -> str:
    """Join words into a line with spaces, except after pieces that end with `GLUE`."""
    return " ".join(words).replace(f"{GLUE} ", "").removesuffix(GLUE)


def breakable(text: str) -> list[str]:
    """The words of `text`. Long words, and words in scripts without spaces, are split where a line may break."""
    return [piece for word in text.split() for piece in _pieces(word)]


def _pieces(word: str) -> list[str]:
    """Pieces of a few letters. Thai, which has no spaces between words, is cut between words, other scripts between graphemes."""
    parts = _thai_words(word) if _THAI.search(word) else [word]
    pieces = [piece for part in parts for piece in _letters(part)]
    return [*(piece + GLUE for piece in pieces[:-1]), pieces[-1]]


def _thai_words(text: str) -> list[str]:
    """Pieces of whole Thai words: short neighbours are joined, long words stay whole."""
    found: list[str] = []
    length = done = 0
    borders = set(itertools.accumulate(map(len, graphemes(text))))
    for word in _thai_parser().parse(text):
        letters = len(graphemes(word))
        # The parser ignores marks. One that it cut off its letter, or a closing one, is joined to the word before it.
        bound = found and (done not in borders or _ENDS.search(word) or _OPENS.search(graphemes(found[-1])[-1]))
        done += len(word)
        if found and (bound or length + letters <= LONGEST_UNSPACED):
            found[-1] += word
            length += letters
        else:
            found.append(word)
            length = letters
    return found or [text]


@functools.cache
def _thai_parser() -> Parser:
    from budoux import load_default_thai_parser  # noqa: PLC0415 - 40 ms that most videos do not need

    return load_default_thai_parser()


def _letters(word: str) -> list[str]:
    """Pieces of a few letters, cut between graphemes, never before a closing mark or after an opening one."""
    most = LONGEST_IDEOGRAPHS if _IDEOGRAPH.search(word) else LONGEST_UNSPACED if _UNSPACED.search(word) else LONGEST_WORD
    found: list[list[str]] = [[]]
    for part in graphemes(word):
        piece = found[-1]
        full = len(piece) >= most or (most == LONGEST_IDEOGRAPHS and piece and bool(_ENDS.search(piece[-1])))
        if full and not _ENDS.search(part) and not _OPENS.search(piece[-1]):
            found.append([part])
        else:
            piece.append(part)
    return ["".join(piece) for piece in found]


def fit(
    words: Sequence[str],
    face: FontStack,
    *,
    width: float,
    largest: float,
    smallest: float,
    most_lines: int,
    height: float = float("inf"),
) -> Block:
    """`words` in the largest size that fits into `width` x `height` pixels and at most `most_lines` lines.

    The sizes from `largest` down to `smallest` em are tried in turn. If none fits, the text shrinks further until it does; it never
    overflows.
    """
    em = largest
    while em > smallest:
        lines = _break_lines(words, face, em, width)
        tall = len(lines) * em * LINE_HEIGHT
        if len(lines) <= most_lines and tall <= height and _widest(lines, face, em) <= width:
            return Block(face, _balance_lines(words, face, em, width, len(lines)), em)
        em -= 2
    lines = _break_lines(words, face, smallest, width)
    while len(lines) > most_lines:  # long words on a few lines: join the shortest neighbours and shrink
        pairs = [face.width(joined(a + b), 1) for a, b in itertools.pairwise(lines)]
        at = pairs.index(min(pairs))
        lines[at : at + 2] = [lines[at] + lines[at + 1]]
    narrower = smallest * width / max(_widest(lines, face, smallest), 1)
    em = min(smallest, narrower, height / (len(lines) * LINE_HEIGHT))
    return Block(face, tuple(lines), em)


def _break_lines(words: Sequence[str], face: FontStack, em: float, width: float) -> list[tuple[str, ...]]:
    """Lines filled greedily. A word that is too long gets its own line."""
    lines: list[tuple[str, ...]] = []
    for word in words:
        if lines and face.width(joined((*lines[-1], word)), em) <= width:
            lines[-1] = (*lines[-1], word)
        else:
            lines.append((word,))
    return lines


def _balance_lines(words: Sequence[str], face: FontStack, em: float, width: float, count: int) -> tuple[tuple[str, ...], ...]:
    """The words in exactly `count` lines of even length: minimises the squared space at the line ends, by dynamic programming."""
    total = len(words)
    impossible = (float("inf"), total)
    best = {(total, 0): (0.0, total)}
    for left in range(1, count + 1):
        for start in range(total - 1, -1, -1):
            options = [
                (best.get((end, left - 1), impossible)[0] + (width - length) ** 2, end)
                for end in range(start + 1, total + 1)
                if (length := face.width(joined(words[start:end]), em)) <= width
            ]
            best[start, left] = min(options, default=impossible)
    lines, at = [], 0
    for left in range(count, 0, -1):
        end = best[at, left][1]
        lines.append(tuple(words[at:end]))
        at = end
    return tuple(lines)


def _widest(lines: Sequence[tuple[str, ...]], face: FontStack, em: float) -> float:
    return max(face.width(joined(line), em) for line in lines)
