"""The glossary names what is in the code, and nothing is written in the words that it rules out.

`python -m phantoms_dagster_tests.unit.test_glossary` removes from `test_glossary.json` what has been rewritten.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "phantoms_dagster"
GLOSSARY = ROOT / "docs" / "glossary.md"
# How often a file still uses each word. No number may grow and no file may be added.
ALLOWED = Path(__file__).with_suffix(".json")

BANNED = {
    "anew": r"\banew\b",
    "whoever": r"\bwhoever\b",
    "so long as": r"\bso long\b",
    "so few": r"\bso few\b",
    "belongs in, belong in": r"\bbelongs? in\b",
    "stands for": r"\b(stands?|stood) for\b",
    "stands in (a file, a row)": r"\b(stands?|stood) in\b",
    "in so many words": r"\bin so many words\b",
    "in vain": r"\bin vain\b",
    "of another moment": r"\bof another moment\b",
    "Workshop": r"\bworkshops?\b",
    "Shelf": r"\bshel(f|ves)\b",
    "Nudge": r"\bnudges?\b",
    "fuse": r"\bfuses?\b",
    "patience": r"\bpatience\b",
    "film": r"film(?!ed|ing)",  # in names, too
}
PATTERNS = {word: re.compile(pattern, re.IGNORECASE) for word, pattern in BANNED.items()}

SUFFIXES = {".css", ".html", ".js", ".lua", ".md", ".py", ".sql", ".toml", ".txt", ".yaml", ".yml"}
FOLDERS = ("phantoms_dagster", "phantoms_dagster_tests", "docs", ".ci", ".github")
SINGLE_FILES = (
    ".pre-commit-config.yaml",
    ".zensical.toml",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Dockerfile",
    "README.md",
    "dagster.yaml",
    "docker-compose.yml",
    "justfile",
    "pyproject.toml",
)


def written_files() -> list[Path]:
    """Everything that a person wrote for people or programs, but the two files whose subject is these words."""
    found = [ROOT / name for name in SINGLE_FILES if (ROOT / name).is_file()]
    for folder in FOLDERS:
        found += [path for path in sorted((ROOT / folder).rglob("*")) if path.suffix in SUFFIXES or path.parent.name == ".ci"]
    return [path for path in found if path.is_file() and path not in {GLOSSARY, Path(__file__)}]


def uses(text: str) -> dict[str, int]:
    """How often each word that is not used occurs in `text`."""
    counts = {word: len(pattern.findall(text)) for word, pattern in PATTERNS.items()}
    return {word: count for word, count in counts.items() if count}


def all_uses() -> dict[str, dict[str, int]]:
    """The same for every file that has any, by its path."""
    found = {str(path.relative_to(ROOT)): uses(path.read_text(encoding="utf-8")) for path in written_files()}
    return {path: counts for path, counts in found.items() if counts}


def test_no_file_uses_a_word_that_the_glossary_rules_out() -> None:
    allowed = json.loads(ALLOWED.read_text(encoding="utf-8"))

    more = [
        f"{path}: {word!r} {count} times, {allowed.get(path, {}).get(word, 0)} allowed"
        for path, counts in all_uses().items()
        for word, count in counts.items()
        if count > allowed.get(path, {}).get(word, 0)
    ]

    assert not more, "say it in plain words (docs/glossary.md):\n" + "\n".join(more)


def test_the_glossary_lists_the_words_that_this_test_finds() -> None:
    _, _, table = GLOSSARY.read_text(encoding="utf-8").partition("## Words that are not used")
    listed = [row.split("|")[1].strip() for row in table.splitlines() if row.startswith("| ")][1:]

    assert [word for word in listed if not word.startswith("---")] == list(BANNED)


def _names_in_the_code() -> list[str]:
    """What the third column of the glossary names in backticks."""
    cells = [row.split("|")[3] for row in GLOSSARY.read_text(encoding="utf-8").splitlines() if row.count("|") == 5]
    return sorted({name for cell in cells for name in re.findall(r"`([^`]+)`", cell)})


@cache
def _sources() -> str:
    return "\n".join(path.read_text(encoding="utf-8") for path in (*PACKAGE.rglob("*.py"), ROOT / "pyproject.toml"))


@pytest.mark.parametrize("name", _names_in_the_code())
def test_what_the_glossary_names_is_in_the_code(name: str) -> None:
    if name.endswith(("/", ".py")) and "<" not in name:
        assert (PACKAGE / name).exists()
        return
    if name.startswith("PHANTOMS_"):
        name = name.removeprefix("PHANTOMS_").lower()
    elif name.startswith("phantoms "):
        name = f"def {name.split()[-1]}("
    elif "<platform>/" in name:
        name = name.replace("<platform>", "{platform}")
    elif "<" in name:
        name = name.split("<")[0].rstrip("/")
    assert name.rpartition(".")[2].strip("[]") in _sources()


if __name__ == "__main__":
    before = json.loads(ALLOWED.read_text(encoding="utf-8")) if ALLOWED.exists() else all_uses()
    now = all_uses()
    kept = {
        path: {word: min(count, now[path][word]) for word, count in sorted(counts.items()) if word in now[path]}
        for path, counts in sorted(before.items())
        if path in now
    }
    lines = [f"  {json.dumps(path)}: {json.dumps(counts)}" for path, counts in kept.items() if counts]
    ALLOWED.write_text("{\n" + ",\n".join(lines) + "\n}\n" if lines else "{}\n", encoding="utf-8")
