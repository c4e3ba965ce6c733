"""The rules behind the content checks of scripts, masters and variants. Pure functions of outputs.

A rule never stops a video: the stage itself refuses unusable outputs. A failed check tells people what to look at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import dagster as dg

from phantoms_dagster.domain.models import Platform, RenderedVideoOutput, StageOutput, VariantOutput, VoiceoverOutput
from phantoms_dagster.domain.stages import Stage

LOUDNESS_LUFS, LOUDNESS_TOLERANCE = -14.0, 2.0
SHOWN_PROBLEMS = 50
# A video within these limits is accepted by every platform of a new installation. Masters are checked against them.
_USUAL = [platform.spec.media for platform in Platform.usual()]
SHORTEST_SECONDS = max(limits.seconds[0] for limits in _USUAL)
LONGEST_SECONDS = min(limits.seconds[1] for limits in _USUAL)
MOST_BYTES = min(limits.size for limits in _USUAL)


@dataclass(frozen=True)
class Rule:
    """A content check. `problem` returns what is wrong with an output, or None."""

    name: str
    description: str
    problem: Callable[[StageOutput], str | None]
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.WARN


def rules_of(stage: Stage) -> tuple[Rule, ...]:
    """Return the rules for the outputs of a stage."""
    return _RULES.get(stage.kind, ())


def evaluation(stage: Stage, rule: Rule, outputs: Mapping[str, StageOutput]) -> dg.AssetCheckEvaluation:
    """Evaluate a rule on outputs by video key."""
    problems = {key: problem for key, output in outputs.items() if (problem := rule.problem(output))}
    entries: dict[str, dg.IntMetadataValue | dg.TableMetadataValue] = {"looked_at": dg.MetadataValue.int(len(outputs))}
    if problems:
        records = [dg.TableRecord({"video": key, "problem": problem}) for key, problem in list(problems.items())[:SHOWN_PROBLEMS]]
        entries |= {"problems": dg.MetadataValue.int(len(problems)), "videos": dg.MetadataValue.table(records)}
    return dg.AssetCheckEvaluation(dg.AssetKey(stage.slug), rule.name, not problems, entries, severity=rule.severity)


def _length(output: StageOutput) -> str | None:
    if not isinstance(output, RenderedVideoOutput | VariantOutput):
        return None
    shortest, longest = (
        output.platform.spec.media.seconds if isinstance(output, VariantOutput) else (SHORTEST_SECONDS, LONGEST_SECONDS)
    )
    seconds = output.probe.seconds
    return None if shortest <= seconds <= longest else f"{seconds:.1f} s, not {shortest:g} to {longest:g} s"


def _size(output: StageOutput) -> str | None:
    if not isinstance(output, RenderedVideoOutput | VariantOutput):
        return None
    most = output.platform.spec.media.size if isinstance(output, VariantOutput) else MOST_BYTES
    size = output.probe.size
    return None if 0 < size <= most else f"{size / 1e6:.1f} MB, not up to {most / 1e6:.0f} MB"


def _loudness(output: StageOutput) -> str | None:
    if not isinstance(output, RenderedVideoOutput | VariantOutput) or (lufs := output.probe.loudness_lufs) is None:
        return None  # the renderer measures it; a video without sound has no loudness
    off = abs(lufs - LOUDNESS_LUFS) > LOUDNESS_TOLERANCE
    return f"{lufs:.1f} LUFS, not {LOUDNESS_LUFS:g} +/- {LOUDNESS_TOLERANCE:g}" if off else None


def _glyphs(output: StageOutput) -> str | None:
    missing = output.not_shown if isinstance(output, RenderedVideoOutput) else ()
    return f"no font shows: {' '.join(missing)}" if missing else None


def _spoken(output: StageOutput) -> str | None:
    silent = output.unspoken if isinstance(output, VoiceoverOutput) else ()
    return f"not spoken: {', '.join(silent)}" if silent else None


_ERROR = dg.AssetCheckSeverity.ERROR
_MASTER = f"{SHORTEST_SECONDS:g} to {LONGEST_SECONDS:g} s"
_RULES: Mapping[str, tuple[Rule, ...]] = {
    "voiceover": (Rule("every_word_is_spoken", "The voice has a sound for every word of the script.", _spoken),),
    "rendered_video": (
        Rule("length", f"Each video has a length that every platform takes: {_MASTER}.", _length, _ERROR),
        Rule("size", f"Each video is small enough for every platform: up to {MOST_BYTES / 1e6:.0f} MB.", _size, _ERROR),
        Rule("loudness", f"Each video is as loud as the platforms play it: {LOUDNESS_LUFS:g} LUFS.", _loudness),
        Rule("glyphs", "The fonts show every character of the script.", _glyphs),
    ),
    "variant": (
        Rule("length", "Each variant has a length that its platform takes.", _length, _ERROR),
        Rule("size", "Each variant is small enough for its platform.", _size, _ERROR),
    ),
}
