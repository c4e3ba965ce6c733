"""Word-by-word captions: when each word is spoken, which words are shown together, and how they look.

`cards` draws titles, header and progress bar.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from phantoms_dagster.domain import caption_marks
from phantoms_dagster.domain.markup import one_line
from phantoms_dagster.domain.models import Palette, Sentence
from phantoms_dagster.domain.phrases import binds_to_next
from phantoms_dagster.domain.text import capitals, speakable
from phantoms_dagster.media import ass, layout
from phantoms_dagster.media.fonts import Fonts

CENTRE_Y = 1100
STYLE = "Caption"
LARGEST_EM, SMALLEST_EM, MOST_LINES = 94.0, 52.0, 2
MOST_WORDS = 4
OUTLINE = 7
HOLD_SECONDS = 0.6

_VOWELS = re.compile(r"[aeiouyàáâãäåæèéêëìíîïòóôõöøùúûüý]+", re.IGNORECASE)
_PAUSE_AFTER = re.compile(r"[,;:)…\u2014\u2013-]$")  # dashes of all lengths
# The cost of a caption that continues past a comma, or past a semicolon, colon or dash. The latter is worse than a single word.
_RUN_ON, _RUN_ON_PART = 2.0, 5.0
_LEANING = 1.5
_TEXT_WIDTH = ass.SAFE_WIDTH - 2 * OUTLINE


@dataclass(frozen=True)
class TimedWord:
    """A word and when it is spoken, in seconds from the start of the voiceover.

    `quoted`: its single quotes are quotation marks. `text` is the word as written; `shown` gives what is displayed of it.
    """

    text: str
    start: float
    end: float
    quoted: bool = False


def timed_words(sentence: Sentence) -> tuple[TimedWord, ...]:
    """The words of a sentence. Each gets a share of the sentence's time by how long it takes to say."""
    words = _words(sentence.text)
    quoted = caption_marks.quotes(words)
    weights = [_weight(word, last=i == len(words) - 1) for i, word in enumerate(words)]
    total, done = sum(weights), 0.0
    borders = [sentence.start]
    for weight in weights[:-1]:
        done += weight
        borders.append(sentence.start + (sentence.end - sentence.start) * done / total)
    borders.append(sentence.end)
    return tuple(TimedWord(word, borders[i], borders[i + 1], quoted[i]) for i, word in enumerate(words))


def _words(text: str) -> list[str]:
    """The words of a sentence, none of them punctuation only. Words in scripts without spaces are split into pieces."""
    found: list[str] = []
    for word in caption_marks.attached(one_line(text).split()):
        parts = word.split(" ")
        at = next((n for n, part in enumerate(parts) if speakable(part)), 0)
        pieces = [piece for part in _glued(caption_marks.pieces(parts[at])) for piece in layout.breakable(part)]
        pieces[0] = " ".join([*parts[:at], pieces[0]])
        pieces[-1] = " ".join([pieces[-1], *parts[at + 1 :]])
        found += pieces
    return found


def _glued(parts: Sequence[str]) -> list[str]:
    return [*(part + layout.GLUE for part in parts[:-1]), parts[-1]]


def shown(group: Sequence[TimedWord]) -> list[str]:
    """The displayed text of words that are shown together, without stray punctuation at the ends."""
    glue = [layout.GLUE if word.text.endswith(layout.GLUE) else "" for word in group]
    seen = caption_marks.shown([word.text.removesuffix(layout.GLUE) for word in group], [word.quoted for word in group])
    return [word + end for word, end in zip(seen, glue, strict=True)]


def chunks(words: Sequence[TimedWord], fonts: Fonts, language: str = "") -> list[tuple[TimedWord, ...]]:
    """Divide words into chunks that are shown together: of two to four words if possible, ending at a comma if possible.

    The chunks are the cheapest partition, found from the end. Chunks across a pause, small type and single words cost most.
    """
    count = len(words)
    best: list[tuple[float, int]] = [(0.0, count)] * (count + 1)
    for start in range(count - 1, -1, -1):
        options = []
        for size in range(1, min(MOST_WORDS, count - start) + 1):
            group = words[start : start + size]
            options.append((_badness(group, fonts, language) + best[start + size][0], start + size))
        best[start] = min(options)
    found, at = [], 0
    while at < count:
        end = best[at][1]
        found.append(tuple(words[at:end]))
        at = end
    return found


def block(group: Sequence[TimedWord], fonts: Fonts, language: str = "") -> layout.Block:
    """A chunk's typesetting: upper case, at most two lines, inside the safe width."""
    words = [capitals(word, language) for word in shown(group)]
    return layout.fit(
        words,
        fonts.for_text(layout.joined(words)),
        width=_TEXT_WIDTH,
        largest=LARGEST_EM,
        smallest=SMALLEST_EM,
        most_lines=MOST_LINES,
    )


def caption_events(sentences: Sequence[Sentence], palette: Palette, fonts: Fonts, language: str = "") -> list[ass.SubtitleEvent]:
    """One event per word: shows the word's whole chunk, with the word in the accent colour.

    A sentence's last chunk stays on screen during a short pause, so that the picture does not flicker.
    """
    events: list[ass.SubtitleEvent] = []
    for index, sentence in enumerate(sentences):
        following = sentences[index + 1].start if index + 1 < len(sentences) else sentence.end + HOLD_SECONDS
        held = min(following, sentence.end + HOLD_SECONDS)
        words = timed_words(sentence)
        for group in chunks(words, fonts, language):
            set_in = block(group, fonts, language)
            if not any(word.strip(layout.GLUE) for line in set_in.lines for word in line):
                continue  # the chunk was punctuation only
            for position, word in enumerate(group):
                end = held if word is words[-1] else word.end
                text = _text(set_in, position, palette, appears=position == 0)
                events.append(ass.SubtitleEvent(5, word.start, end, STYLE, text))
    return events


def _text(set_in: layout.Block, spoken: int, palette: Palette, *, appears: bool) -> str:
    tags = f"\\an5\\pos({ass.WIDTH // 2},{CENTRE_Y}){set_in.face.tag(set_in.em)}"
    if appears:
        tags += "\\fscx88\\fscy88\\t(0,90,\\fscx100\\fscy100)"
    lines, at = [], 0
    for line in set_in.lines:
        shown = []
        for word in line:
            escaped = set_in.face.set(word.removesuffix(layout.GLUE), set_in.em)
            accent, back = ass.colour(palette.accent), ass.colour(palette.text)
            space = "" if word.endswith(layout.GLUE) else " "
            shown.append((f"{{{accent}}}{escaped}{{{back}}}" if at == spoken else escaped) + space)
            at += 1
        lines.append("".join(shown).removesuffix(" "))
    return f"{{{tags}}}" + "\\N".join(lines)


def _badness(group: Sequence[TimedWord], fonts: Fonts, language: str) -> float:
    set_in = block(group, fonts, language)
    lonely = 3.0 if len(group) == 1 else 0.0
    crowded = 0.4 if len(group) == MOST_WORDS else 0.0
    small = (LARGEST_EM - set_in.em) / 6
    tall = 0.5 * (len(set_in.lines) - 1)
    # A chunk that ends with "AND THE" reads badly: such words go with the next one.
    leaning = _LEANING * binds_to_next(group[-1].text, language) if not _closes(group[-1].text) else 0.0
    run_on = sum(
        _RUN_ON_PART if caption_marks.ends_a_part(word.text) else _RUN_ON for word in group[:-1] if _pause_after(word.text)
    )
    return 1.0 + lonely + crowded + small + tall + run_on + leaning


def _weight(word: str, *, last: bool) -> float:
    """How long a word takes to say, in syllables: vowel groups, digits (each spoken as a word or more), a pause after it."""
    if not speakable(word):
        return 0.4  # an emoji is seen and not heard
    digits = sum(c.isdigit() for c in word)
    syllables = len(_VOWELS.findall(word)) + 1.3 * digits
    if word.isupper() and 1 < len(word) <= 4:
        syllables = max(syllables, float(len(word)))  # an acronym is spelled out
    pause = 1.2 if _pause_after(word) and not last else 0.0
    return max(syllables, 0.8) + 0.12 * len(word) + pause


def _closes(word: str) -> bool:
    return _pause_after(word) or word.endswith((".", "!", "?"))


def _pause_after(word: str) -> bool:
    return bool(_PAUSE_AFTER.search(word)) or caption_marks.ends_a_part(word)
