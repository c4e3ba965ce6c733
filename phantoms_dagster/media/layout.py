"""Breaking a text into lines and finding the size at which it fits a box. No drawing."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from phantoms_dagster.media.fonts import Typeface

LINE_HEIGHT = 1.22  # of an em, from line to line


@dataclass(frozen=True)
class Block:
    """A text set in lines: `lines` are words; `em` is pixels per em."""

    face: Typeface
    lines: tuple[tuple[str, ...], ...]
    em: float

    @property
    def width(self) -> float:
        """The width of the longest line in pixels."""
        return max(self.face.width(" ".join(line), self.em) for line in self.lines)


def fit(
    words: Sequence[str],
    face: Typeface,
    *,
    width: float,
    largest: float,
    smallest: float,
    most_lines: int,
    height: float = float("inf"),
) -> Block:
    """`words` as large as they fit into `width` x `height` pixels in at most `most_lines`.

    From `largest` down to `smallest` em the first size that fits is taken. Below that the text shrinks as far as it must: it never
    sticks out.
    """
    em = largest
    while em > smallest:
        lines = _broken(words, face, em, width)
        tall = len(lines) * em * LINE_HEIGHT
        if len(lines) <= most_lines and tall <= height and _widest(lines, face, em) <= width:
            return Block(face, _balanced(words, face, em, width, len(lines)), em)
        em -= 2
    lines = _broken(words, face, smallest, width)
    while len(lines) > most_lines:  # long words on a few lines: join the shortest neighbours and shrink
        pairs = [face.width(" ".join(a + b), 1) for a, b in itertools.pairwise(lines)]
        at = pairs.index(min(pairs))
        lines[at : at + 2] = [lines[at] + lines[at + 1]]
    narrower = smallest * width / max(_widest(lines, face, smallest), 1)
    em = min(smallest, narrower, height / (len(lines) * LINE_HEIGHT))
    return Block(face, tuple(lines), em)


def _broken(words: Sequence[str], face: Typeface, em: float, width: float) -> list[tuple[str, ...]]:
    """Greedy lines. A word that is too long stands alone."""
    lines: list[tuple[str, ...]] = []
    for word in words:
        if lines and face.width(" ".join((*lines[-1], word)), em) <= width:
            lines[-1] = (*lines[-1], word)
        else:
            lines.append((word,))
    return lines


def _balanced(words: Sequence[str], face: Typeface, em: float, width: float, count: int) -> tuple[tuple[str, ...], ...]:
    """The words in exactly `count` lines, as even as they get: least squared space at the line ends, found from the end."""
    total = len(words)
    impossible = (float("inf"), total)
    best = {(total, 0): (0.0, total)}
    for left in range(1, count + 1):
        for start in range(total - 1, -1, -1):
            options = [
                (best.get((end, left - 1), impossible)[0] + (width - length) ** 2, end)
                for end in range(start + 1, total + 1)
                if (length := face.width(" ".join(words[start:end]), em)) <= width
            ]
            best[start, left] = min(options, default=impossible)
    lines, at = [], 0
    for left in range(count, 0, -1):
        end = best[at, left][1]
        lines.append(tuple(words[at:end]))
        at = end
    return tuple(lines)


def _widest(lines: Sequence[tuple[str, ...]], face: Typeface, em: float) -> float:
    return max(face.width(" ".join(line), em) for line in lines)
