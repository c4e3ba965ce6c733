"""The cause of a dead letter, as a database function. Migrations also create it, and a test compares both."""

from __future__ import annotations

# Removes what differs between letters with the same cause: URLs, quoted text, words with a digit, keys of videos (three or more
# words with hyphens), hexadecimal and other long words. It uses no character class with a colon, which SQLAlchemy would take for a
# parameter.
DIFFERS = r"""https?://\S+|"[^"]*"|“[^”]*”|`[^`]*`|(?<!\w)''[^'']*''(?!\w)|\S*\d\S*|\w+(?:-\w+){2,}|\m[a-f]{8,}\M|\m[a-z]{24,}\M"""
CAUSE_OF = rf"""
        CREATE FUNCTION phantoms.cause_of(provider text, stage text, error_class text, code text, message text) RETURNS text
        LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
            SELECT "left"(md5(concat_ws('|', COALESCE(provider, ''), stage, error_class, COALESCE(code, ''),
                "left"(regexp_replace(regexp_replace("left"(lower(message), 2000), '{DIFFERS}', '#', 'g'),
                    '#(?:[\s,;.-]*#)+', '#', 'g'), 300))), 16)
        $$
        """
