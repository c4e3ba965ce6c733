"""Language tags by BCP 47. `langcodes` knows the registry."""

from __future__ import annotations

from functools import lru_cache

# Written without spaces between words, which therefore cannot be counted.
UNSPACED = frozenset({"zh", "ja", "th", "lo", "km", "my"})


@lru_cache(maxsize=256)
def language_tag(value: str) -> str:
    """The tag in its usual form: `en_us` is `en-US`. Raises ValueError when it is none."""
    import langcodes  # noqa: PLC0415  its tables cost 0.1 s, and most processes read no channel

    try:
        if langcodes.tag_is_valid(value):
            return langcodes.standardize_tag(value)
    except ValueError:  # what langcodes raises for a text that does not look like a tag
        pass
    raise ValueError(f"{value!r} is no language code of BCP 47")


def primary(tag: str) -> str:
    """The language itself, without script and region: `en` of `en-US`."""
    return tag.replace("_", "-").split("-", maxsplit=1)[0].lower()
