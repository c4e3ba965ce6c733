"""The cause of a dead letter, as a function of the database. Migrations make it, too; a test holds both together."""

from __future__ import annotations

# What differs between letters of one cause is left out: addresses, what is quoted, words with a digit, keys of videos
# (three or more words with hyphens), hexadecimal and other long words. No name of a character class has a colon here:
# SQLAlchemy would take it for a parameter.
DIFFERS = r"""https?://\S+|"[^"]*"|“[^”]*”|`[^`]*`|(?<!\w)''[^'']*''(?!\w)|\S*\d\S*|\w+(?:-\w+){2,}|\m[a-f]{8,}\M|\m[a-z]{24,}\M"""
CAUSE_OF = rf"""
        CREATE FUNCTION phantoms.cause_of(provider text, stage text, error_class text, code text, message text) RETURNS text
        LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
            SELECT "left"(md5(concat_ws('|', COALESCE(provider, ''), stage, error_class, COALESCE(code, ''),
                "left"(regexp_replace(regexp_replace("left"(lower(message), 2000), '{DIFFERS}', '#', 'g'),
                    '#(?:[\s,;.-]*#)+', '#', 'g'), 300))), 16)
        $$
        """
