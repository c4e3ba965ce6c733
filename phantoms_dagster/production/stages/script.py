"""The `script` stage writes the words of a video from its brief."""

from __future__ import annotations

from phantoms_dagster.domain.claims import StageResult, StageTask
from phantoms_dagster.domain.models import ScriptOutput
from phantoms_dagster.domain.ports import ScriptWriter


class WriteScript:
    """Lets the model write. A billed answer from an earlier attempt that died is used instead of paying again."""

    def __init__(self, writer: ScriptWriter) -> None:
        self._writer = writer

    async def __call__(self, task: StageTask) -> StageResult:
        """Raises the writer's errors."""
        written = await self._writer.write(task.video.brief, task.video.channel, task.attempt)
        output = ScriptOutput(
            script=written.script,
            model=written.model,
            removed=written.removed,
            sandbox=written.sandbox,
            input_tokens=written.input_tokens,
            output_tokens=written.output_tokens,
        )
        return StageResult(output, written.cost, written.provider_ref, self._writer.provider)
