"""The `voiceover` stage speaks the script."""

from __future__ import annotations

from phantoms_dagster.domain.claims import StageResult, StageTask
from phantoms_dagster.domain.models import ScriptOutput
from phantoms_dagster.domain.ports import Voice


class SpeakScript:
    """Lets the voice speak the script."""

    def __init__(self, voice: Voice) -> None:
        self._voice = voice

    async def __call__(self, task: StageTask) -> StageResult:
        """Raises the voice's errors."""
        script = task.claim.output("script", ScriptOutput).script
        return StageResult(await self._voice.speak(script, task.video.channel), provider=self._voice.provider)
