"""From the raw body of a chat completion to a script of ours: what was refused, cut short, malformed, banned or marked up.

An answer is judged here only after it was committed to the attempt. Errors of the call belong in `openai_errors`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any

from pydantic import ValidationError

from phantoms_dagster.domain import markup
from phantoms_dagster.domain.errors import Evidence, Rejected, Transient
from phantoms_dagster.domain.hashtags import Hashtag, repaired, unique
from phantoms_dagster.domain.models import Channel, Script
from phantoms_dagster.domain.text import speakable
from phantoms_dagster.domain.values import JsonObject
from phantoms_dagster.providers import http
from phantoms_dagster.providers.openai_errors import PROVIDER
from phantoms_dagster.providers.openai_prompt import target_words

MAX_HASHTAGS = 15
# Beyond these shares of the wanted words the video would be another one than was asked for.
SHORTEST, LONGEST = 0.5, 1.6
# Written without spaces: words cannot be counted.
_UNSPACED = frozenset({"zh", "ja", "th", "lo", "km", "my"})

_FENCE = re.compile(r"^\s*```(?:json)?\s*(.*?)\s*```\s*$", re.DOTALL)


def read(body: JsonObject, channel: Channel) -> Script:
    """The script in a raw answer; see `examined`."""
    return examined(body, channel)[0]


def examined(body: JsonObject, channel: Channel) -> tuple[Script, tuple[str, ...]]:
    """The script in a raw answer, and what was taken out of it as markup, each with its place.

    Raises Rejected (refusal, content filter, banned words: a person must look) or Transient (cut short, no choice, no
    JSON, not a script: another try may do better; it costs an attempt).
    """
    content = _content(body)
    fenced = _FENCE.match(content)
    try:
        raw = json.loads(fenced[1] if fenced else content)
    except ValueError as error:
        raise _malformed("no JSON", content) from error
    if not isinstance(raw, dict):
        raise _malformed("no JSON object", content)
    removed: list[str] = []
    try:
        script = Script.model_validate(_cleaned(raw, channel, removed))
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:5])
        raise _malformed(wrong, content) from error
    _check_length(script, channel, content)
    for place, text in [
        ("hook", script.hook),
        *((f"scene {n}", scene.narration) for n, scene in enumerate(script.scenes, start=1)),
    ]:
        if not speakable(text):
            raise _malformed(f"{place}: {text!r} has no word that can be spoken", content)
    words = [*(part for scene in script.scenes for part in (scene.narration, scene.on_screen_text)), script.title, script.caption]
    banned = channel.banned_in(" \n ".join([script.hook, *words, *script.hashtags]))
    if banned:
        message = f"the script uses words that {channel.name} bans: {', '.join(banned)}"
        raise Rejected(message, provider=PROVIDER, code="banned_words", evidence=_evidence(content))
    return script, tuple(removed)


def usage(body: JsonObject) -> tuple[int, int]:
    """Input and output tokens as billed; 0 where the server does not say."""
    counts = body.get("usage")
    values = [counts.get(name) for name in ("prompt_tokens", "completion_tokens")] if isinstance(counts, dict) else [0, 0]
    billed = [value if isinstance(value, int) and value > 0 else 0 for value in values]
    return billed[0], billed[1]


def cost(body: JsonObject, *, input_usd_per_million: float, output_usd_per_million: float) -> Decimal:
    """US dollars at list price: cached input is billed lower, so this is never less than the bill."""
    tokens_in, tokens_out = usage(body)
    # By way of str, so that a price of 0.1 is a tenth.
    prices = Decimal(str(input_usd_per_million)), Decimal(str(output_usd_per_million))
    return (tokens_in * prices[0] + tokens_out * prices[1]) / 1_000_000


def normalised(hashtags: Iterable[str]) -> tuple[Hashtag, ...]:
    """What the model meant as hashtags, each once whatever its case, at most 15."""
    return unique(tag for written in hashtags for tag in repaired(written))[:MAX_HASHTAGS]


def _content(body: JsonObject) -> str:
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise Transient("OpenAI answered without a choice", provider=PROVIDER, code="empty", evidence=_evidence(json.dumps(body)))
    choice: dict[str, Any] = choices[0]
    message = choice.get("message")
    message = message if isinstance(message, dict) else {}
    content, refusal, reason = message.get("content"), message.get("refusal"), choice.get("finish_reason")
    if reason == "content_filter":
        text = "OpenAI's content filter withheld the script"
        raise Rejected(text, provider=PROVIDER, code="content_filter", evidence=_evidence(str(content or "")))
    if refusal:
        text = f"the model refused to write the script: {str(refusal)[:300]}"
        raise Rejected(text, provider=PROVIDER, code="refusal", evidence=_evidence(str(refusal)))
    if reason == "length":
        text = "the script was cut off at the token limit"
        raise Transient(text, provider=PROVIDER, code="length", evidence=_evidence(str(content or "")))
    if not isinstance(content, str):
        raise _malformed("no text", json.dumps(choice))
    return content


def _cleaned(raw: dict[str, Any], channel: Channel, removed: list[str]) -> dict[str, Any]:
    """The answer with its texts cleaned; whatever has the wrong shape is left for the model's validation to name."""
    clean = dict(raw)

    def cleaned(place: str, value: Any, how: Callable[[str], markup.Plain]) -> Any:
        if not isinstance(value, str):
            return value
        left = how(value)
        removed.extend(f"{place}: {part}" for part in left.removed)
        return left.text

    for name, how in (("hook", markup.spoken), ("title", markup.plain), ("caption", markup.posted)):
        if name in raw:
            clean[name] = cleaned(name, raw[name], how)
    if isinstance(raw.get("scenes"), list):
        clean["scenes"] = [
            {
                key: cleaned(f"scene {number}", value, markup.spoken if key == "narration" else markup.plain)
                for key, value in scene.items()
            }
            if isinstance(scene, dict)
            else scene
            for number, scene in enumerate(raw["scenes"], start=1)
        ]
    tags = raw.get("hashtags")
    if isinstance(tags, list) and all(isinstance(tag, str) for tag in tags):
        clean["hashtags"] = normalised([*channel.hashtags, *tags])
        removed.extend(f"hashtags: {markup.one_line(tag)[:60]!r} has no word" for tag in tags if not repaired(tag))
    return clean


def _check_length(script: Script, channel: Channel, content: str) -> None:
    if channel.language.split("-")[0].casefold() in _UNSPACED:
        return
    said, wanted = len(script.text.split()), target_words(channel)
    if not SHORTEST * wanted <= said <= LONGEST * wanted:
        raise _malformed(f"{said} words where about {wanted} were asked for", content)


def _malformed(what: str, content: str) -> Transient:
    return Transient(
        f"the model's answer is not a script: {what}", provider=PROVIDER, code="malformed", evidence=_evidence(content)
    )


def _evidence(text: str) -> Evidence:
    return Evidence(status=200, body=http.redact(text[: http.BODY_LIMIT]))
