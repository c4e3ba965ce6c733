"""BCP 47 language tags. The library `langcodes` has their registry."""

from __future__ import annotations

from functools import lru_cache

# Languages written without spaces between words, so that words cannot be counted.
UNSPACED = frozenset({"zh", "ja", "th", "lo", "km", "my"})


@lru_cache(maxsize=256)
def language_tag(value: str) -> str:
    """The tag in its standard form: `en_us` becomes `en-US`. Raises ValueError when it is not a language tag."""
    import langcodes  # noqa: PLC0415  its tables cost 0.1 s, and most processes read no channel

    try:
        if langcodes.tag_is_valid(value):
            return langcodes.standardize_tag(value)
    except ValueError:  # langcodes raises this for a text that does not look like a tag
        pass
    raise ValueError(f"{value!r} is not a BCP 47 language code")


def primary(tag: str) -> str:
    """The language without script and region: `en` for `en-US`."""
    return tag.replace("_", "-").split("-", maxsplit=1)[0].lower()
