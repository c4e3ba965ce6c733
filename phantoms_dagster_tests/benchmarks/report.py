"""What a benchmark prints: one table for people, or one JSON object. The benchmarks do the measuring."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Line:
    """One measured figure. `target` describes the promise. It is None for a figure that is only reported."""

    name: str
    value: Any
    target: str | None = None
    ok: bool = True


@dataclass
class Report:
    """The figures of one benchmark. `notes` say what was left out or replaced, and `problems` what went wrong."""

    benchmark: str
    setting: dict[str, Any]
    lines: list[Line] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def tell(self, name: str, value: Any) -> None:
        """Add a figure."""
        self.lines.append(Line(name, value))

    def check(self, name: str, value: Any, target: str, *, ok: bool) -> None:
        """Add a figure that has a target."""
        self.lines.append(Line(name, value, target, ok))

    @property
    def ok(self) -> bool:
        """Whether every target was met and nothing went wrong."""
        return not self.problems and any(line.target for line in self.lines) and all(line.ok for line in self.lines)

    def as_json(self) -> dict[str, Any]:
        """Everything, with figures by name."""
        return {
            "benchmark": self.benchmark,
            "ok": self.ok,
            "setting": self.setting,
            "figures": {line.name: line.value for line in self.lines},
            "targets": {line.name: {"target": line.target, "ok": line.ok} for line in self.lines if line.target},
            "notes": self.notes,
            "problems": self.problems,
        }


def show(report: Report, *, as_json: bool) -> None:
    """Print it on standard output."""
    if as_json:
        sys.stdout.write(json.dumps(report.as_json(), ensure_ascii=False, default=str) + "\n")
        return
    console = Console(width=None if sys.stdout.isatty() else 132)
    said = ", ".join(f"{name} {_text(value)}" for name, value in report.setting.items())
    table = Table(title=f"{report.benchmark}: {said}", title_justify="left")
    for heading in ("figure", "measured", "target", ""):
        table.add_column(heading, overflow="fold", justify="right" if heading == "measured" else "left")
    for line in report.lines:
        verdict = "" if line.target is None else "ok" if line.ok else "MISSED"
        table.add_row(line.name, _text(line.value), line.target or "", verdict)
    console.print(table)
    for note in report.notes:
        console.print(f"  {note}", markup=False, style="dim")
    for problem in report.problems:
        console.print(f"  PROBLEM: {problem}", markup=False)
    console.print("ok" if report.ok else "NOT OK")


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 1 else f"{value:.1f}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(count)}" for name, count in value.items()) or "none"
    return str(value)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which that share of the values is; 0 without values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0
