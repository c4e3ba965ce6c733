"""The `voiceover` stage: from the script to its sound."""

from __future__ import annotations

from phantoms_dagster.domain.models import ScriptOutput
from phantoms_dagster.domain.ports import Voice
from phantoms_dagster.domain.work import Made, Work


class SpeakScript:
    """Lets the voice speak."""

    def __init__(self, voice: Voice) -> None:
        self._voice = voice

    async def __call__(self, work: Work) -> Made:
        """Raises the voice's errors."""
        script = work.claim.output("script", ScriptOutput).script
        return Made(await self._voice.speak(script, work.video.channel), provider=self._voice.provider)
