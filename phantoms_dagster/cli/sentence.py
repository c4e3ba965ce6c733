"""Wraps text for a terminal of any width. A command in backticks is never broken, so that it can be copied."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.text import Text

# A word with the white space around it. A command in backticks counts as one word, with the punctuation that touches it.
_WORD = re.compile(r"\s*(?:`[^`\n]*`|\S)+\s*")
# A word when a column is narrower than a command: then commands are broken, too.
_PART = re.compile(r"\s*\S+\s*")


class WrappedText:
    """Text with markup that wraps only between words. A command that is wider than the terminal gets its own line.

    With `folded`, for table columns, a command that is wider than the column is broken after all.
    """

    def __init__(self, markup: str, *, folded: bool = False) -> None:
        self._text = Text.from_markup(markup, emoji=False)
        self._folded = folded

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """See Rich's protocol."""
        for line in self._text.split("\n", allow_blank=True):
            for part in _broken(line, options.max_width, folded=self._folded):
                part.no_wrap, part.overflow = True, "ignore"
                yield part

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """See Rich's protocol. A table makes its column as wide as the longest command."""
        words = [cell_len(found[0].strip()) for found in _WORD.finditer(self._text.plain)]
        lines = [cell_len(line) for line in self._text.plain.splitlines()]
        return Measurement(max(words, default=0), max(lines, default=0)).with_maximum(options.max_width)


def _broken(line: Text, width: int, *, folded: bool) -> Iterator[Text]:
    """Yield the parts of the line. Each fits, unless a single word is too wide."""
    offsets: list[int] = []
    used = 0
    for start, word in _words(line.plain, width, folded=folded):
        if used and used + cell_len(word.rstrip()) > width:
            offsets.append(start)
            used = 0
        used += cell_len(word)
    for part in line.divide(offsets):
        part.rstrip()
        yield part


def _words(text: str, width: int, *, folded: bool) -> Iterator[tuple[int, str]]:
    """Yield the offset and the text of each word."""
    for found in _WORD.finditer(text):
        word, start = found[0], found.start()
        if not folded or cell_len(word.rstrip()) <= width:
            yield start, word
            continue
        for part in _PART.finditer(word):
            for at in range(0, len(part[0]), max(1, width)):
                yield start + part.start() + at, part[0][at : at + max(1, width)]
