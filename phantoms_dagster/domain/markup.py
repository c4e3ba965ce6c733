"""Removes Markdown from texts that a model wrote, and reports what it removed.

Arithmetic, footnote numbers, times in brackets, snake_case and symbols are not markup and stay.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import regex

from phantoms_dagster.domain.text import nfc

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.rules_inline import StateInline
    from markdown_it.token import Token

# HTML tags that models write. `a<b and c>d` is not a tag.
_TAG_NAMES = (
    "a b big blockquote br center code del div em font h1 h2 h3 h4 h5 h6 hr i img ins kbd li mark ol p pre s small span "
    "strike strong sub sup u ul"
)
_TAGS = frozenset(_TAG_NAMES.split())
_TAG = regex.compile(r"</?(?P<name>[a-zA-Z][a-zA-Z0-9]*)(?:\s+[a-zA-Z-]+=(?:\"[^\"]*\"|'[^']*'|[^\s<>]+))*\s*/?>")
_FENCE = regex.compile(r"^[ \t]*(?:```|~~~).*$", regex.MULTILINE)
_RULE = regex.compile(r"^[ \t]*(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})$", regex.MULTILINE)
# A mark before a digit may be a minus or "more than".
_LINE_MARK = regex.compile(r"^[ \t]*(?P<mark>#{1,6}(?=[ \t])|[>*+\u2022-](?=[ \t]+[^\s\d]))[ \t]+", regex.MULTILINE)
_URL = regex.compile(r"<?(?:https?://|www\.)[^\s<>]+[^\s<>.,;:!?)\]'\"]>?", regex.IGNORECASE)
_DIRECTION = regex.compile(
    r"[\[(](?:(?:short|long|dramatic|brief|upbeat|soft|background|slight)\s+)*"
    r"(?:pause|beat|music|sfx|sound effects?|laughs?|laughing|sighs?|whispers?|applause|silence|intro|outro|cut to|"
    r"fade (?:in|out)|b-roll)(?:[\s:][^\])]*)?[\])]",
    regex.IGNORECASE,
)
# A Python name such as `__init__`, whose underscores are part of it. Models mark emphasis with asterisks.
_DUNDER = regex.compile(r"__[a-z][a-z0-9]*(?:_[a-z0-9]+)*__(?![\w_])")
_BREAKS = frozenset({"br", "p", "li", "div", "hr"})
_JOINERS = "\u200c\u200d"  # they shape letters (Persian, Hindi) and emoji
_CLOSED = frozenset(")]}%")  # `f(x)*g` is a product
_SHOWN_REMOVED = 60


@dataclass(frozen=True)
class Plain:
    """A text without markup, and what was removed from it, in order."""

    text: str
    removed: tuple[str, ...] = ()


def plain(text: str) -> Plain:
    """`text` for the screen, on one line. Emphasis, headings, bullets, links, code marks and HTML tags go; their words stay."""
    removed: list[str] = []
    text = _without_blocks(nfc(text), removed)
    words: list[str] = []
    for token in _inline(text):
        _read(token, words, removed)
    return Plain(one_line("".join(words)), tuple(_short(part) for part in removed))


def spoken(text: str) -> Plain:
    """`text` for the voice: the result of `plain` without URLs and stage directions."""
    shown = plain(text)
    removed = list(shown.removed)

    def gone(match: regex.Match[str]) -> str:
        removed.append(_short(match[0]))
        return " "

    words = _DIRECTION.sub(gone, _URL.sub(gone, shown.text))
    if len(removed) == len(shown.removed):
        return shown
    return Plain(regex.sub(r"\s+([.,;:!?])", r"\1", " ".join(words.split())), tuple(removed))


def posted(text: str) -> Plain:
    """`text` for a caption: lines, lists and URLs stay; emphasis, code marks and HTML tags go.

    No platform renders `[trailer](https://x.example/f)` as a link, so it becomes `trailer (https://x.example/f)`.
    """
    removed: list[str] = []
    lines: list[str] = []
    for line in _without_tags(nfc(text), removed, instead="\n").strip().splitlines():
        if _FENCE.fullmatch(line):
            removed.append(line)
            continue
        words: list[str] = []
        for token in _inline(line):
            _read(token, words, removed, with_address=True)
        lines.append(one_line("".join(words)))
    return Plain("\n".join(lines), tuple(_short(part) for part in removed))


def one_line(text: str) -> str:
    """`text` on one line, without control and other invisible characters. Emoji and combining marks keep their joiners."""
    if not text.isprintable():
        text = "".join(map(_shown, text))
    return " ".join(text.split())


def _shown(character: str) -> str:
    if character.isspace():
        return " "
    if character in _JOINERS:
        return character
    return "" if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn") else character


def _short(part: str) -> str:
    part = " ".join(part.split())
    return part if len(part) <= _SHOWN_REMOVED else part[: _SHOWN_REMOVED - 1] + "…"


def _without_blocks(text: str, removed: list[str]) -> str:
    """Remove marks at the beginning of lines. List numbers stay, because `1984. It was a cold day` is not a list."""

    def gone(match: regex.Match[str]) -> str:
        removed.append(match[0].strip())
        return ""

    text = _FENCE.sub(gone, text)
    text = _RULE.sub(gone, text)
    return _without_tags(_LINE_MARK.sub(gone, text), removed, instead=" ")


def _without_tags(text: str, removed: list[str], *, instead: str) -> str:
    """Remove the HTML tags that models write. Tags that end a line are replaced by `instead`."""

    def tag(match: regex.Match[str]) -> str:
        name = match["name"].lower()
        if name not in _TAGS:
            return match[0]
        removed.append(match[0])
        return instead if name in _BREAKS else ""

    return _TAG.sub(tag, text)


def _inline(text: str) -> Iterable[Token]:
    parsed = _parser().parseInline(text)
    return parsed[0].children or []


def _read(token: Token, words: list[str], removed: list[str], *, with_address: bool = False) -> None:
    match token.type:
        case "text" | "text_special":
            words.append(token.content)
        case "softbreak" | "hardbreak":
            words.append(" ")
        case "code_inline":
            removed.append(token.markup)
            words.append(token.content)
        case "image":
            removed.append(f"![]({token.attrs.get('src', '')})")
            words.append(token.content)
        case "link_open" if with_address:
            words.append(_Opened(str(token.attrs.get("href", ""))))
        case "link_close" if with_address:
            _put_address(words)
        case "link_open":
            removed.append(f"({token.attrs.get('href', '')})")
        case "em_open" | "strong_open" | "s_open":
            removed.append(token.markup)
        case _:
            pass  # the closing halves


class _Opened(str):
    """The start of a link among the words. Its text is the link's URL."""

    __slots__ = ()


def _put_address(words: list[str]) -> None:
    """Put the URL of the innermost open link after its words, in parentheses. A link that shows its own URL is written once."""
    at = max(n for n, word in enumerate(words) if isinstance(word, _Opened))
    address, shown = str(words[at]), "".join(words[at + 1 :])
    if not shown.strip() or shown.strip() == address:
        words[at:] = [address]
    else:
        words[at:] = [shown, f" ({address})" if address else ""]


# Building the parser's tables takes 3 ms, so each process does it once.
@functools.cache
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt  # noqa: PLC0415  30 ms that most processes do not need

    parser = MarkdownIt("zero").enable(["backticks", "emphasis", "strikethrough", "link", "image", "entity"])
    parser.inline.ruler.at("emphasis", _emphasis)
    # Links are removed, not followed, so any URL is valid and is kept as it was written.
    setattr(parser, "validateLink", lambda _address: True)  # noqa: B010  typed as a method
    setattr(parser, "normalizeLink", str)  # noqa: B010
    return parser


def _emphasis(state: StateInline, silent: bool) -> bool:
    """Find runs of `*` and `_`. The parser pairs them up.

    CommonMark lets `*` open and close inside a word, which turns `5*4*3` into `543`. Here a run needs a word border on its outer
    side, as CommonMark requires for `_`. Letters without case (Chinese, Thai) count as a border, because those scripts use no
    spaces.
    """
    from markdown_it.rules_inline.state_inline import Delimiter  # noqa: PLC0415  see `_parser`

    start, marker = state.pos, state.src[state.pos]
    if silent or marker not in "*_":
        return False
    name = None if _inside_a_word(state.src[start - 1 : start] if start else "") else _DUNDER.match(state.src, start, state.posMax)
    if name is not None:
        state.push("text", "", 0).content = name[0]
        state.pos = name.end()
        return True
    end = start
    while end < state.posMax and state.src[end] == marker:
        end += 1
    before, after = state.src[start - 1 : start] if start else "", state.src[end : end + 1]
    can_open = (
        bool(after)
        and not after.isspace()
        and _border(before)
        and before not in _CLOSED
        and (not _is_punctuation(after) or _loose(before))
    )
    can_close = bool(before) and not before.isspace() and _border(after)
    for _ in range(end - start):
        token = state.push("text", "", 0)
        token.content = marker
        delimiter = Delimiter(ord(marker), end - start, len(state.tokens) - 1, -1, open=can_open, close=can_close)
        state.delimiters.append(delimiter)
    state.pos = end
    return True


def _border(neighbour: str) -> bool:
    """Whether the character outside a run of marks is not part of a word or a formula."""
    if not neighbour or neighbour.isspace():
        return True
    category = unicodedata.category(neighbour)
    return category == "Lo" or not (category[0] in "LMN" or neighbour in "_^=+/\\")


def _inside_a_word(neighbour: str) -> bool:
    return neighbour == "_" or unicodedata.category(neighbour or " ")[0] in "LMN"


def _loose(neighbour: str) -> bool:
    opening = neighbour in "*_~([{\u201c\u2018\u00ab\u2014"
    return opening or neighbour.isspace() or unicodedata.category(neighbour) == "Lo"


def _is_punctuation(character: str) -> bool:
    return unicodedata.category(character)[0] in "PS"
