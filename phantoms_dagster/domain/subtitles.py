"""Subtitles in the SubRip format (SRT), made from the times of the spoken sentences. All functions are pure.

The words that are burnt into the picture are in `media.captions`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from phantoms_dagster.domain.models import Sentence
from phantoms_dagster.domain.phrases import cells

# The longest text that is shown at once, in columns: two lines of 42. Wide characters take two columns.
MOST_CELLS = 84


def srt(sentences: Sequence[Sentence]) -> str:
    """The subtitles, empty without sentences. A long sentence is shown in parts that share its time by their length."""
    cues = [cue for sentence in sentences for cue in _cues(sentence)]
    return "\n".join(
        f"{number}\n{_time(start)} --> {_time(end)}\n{text}\n" for number, (text, start, end) in enumerate(cues, start=1)
    )


def _cues(sentence: Sentence) -> Iterator[tuple[str, float, float]]:
    parts = _parts(" ".join(sentence.text.split()))
    total, start = sum(map(cells, parts)), sentence.start
    for part in parts:
        end = start + (sentence.end - sentence.start) * cells(part) / max(total, 1)
        yield part, start, end
        start = end


def _parts(text: str) -> list[str]:
    """The text in parts of about the same length, cut at spaces, or anywhere in a script without spaces."""
    count = -(-cells(text) // MOST_CELLS)
    if count <= 1:
        return [text] if text else []
    words, space = (text.split(" "), " ") if " " in text else (list(text), "")
    parts, most = [words[0]], cells(text) / count
    for word in words[1:]:
        longer = f"{parts[-1]}{space}{word}"
        if cells(longer) <= MOST_CELLS and (cells(longer) <= most or cells(parts[-1]) < most / 2):
            parts[-1] = longer
        else:
            parts.append(word)
    return parts


def _time(seconds: float) -> str:
    milliseconds = round(seconds * 1_000)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1_000:02},{rest % 1_000:03}"
