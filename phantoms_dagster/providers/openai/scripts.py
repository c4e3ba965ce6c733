"""Scripts by the chat completions of OpenAI, or of a server that speaks the same: what is asked how often, and its bookkeeping.

A script takes one paid call. An answer with a fault that cannot be repaired here is told to the model once, which takes a second
one; then the stage ends, one way or the other. How a call is made: see `openai_call`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import httpx

from phantoms_dagster.domain.errors import NotYet, Throttled, Transient, Unknown
from phantoms_dagster.domain.models import Brief, Channel
from phantoms_dagster.domain.ports import Attempt, Clock, WrittenScript
from phantoms_dagster.domain.values import JsonObject
from phantoms_dagster.providers.openai import answer as openai_answer
from phantoms_dagster.providers.openai import prompt as openai_prompt
from phantoms_dagster.providers.openai.answer import FaultyAnswer
from phantoms_dagster.providers.openai.call import Completions
from phantoms_dagster.providers.openai.errors import PROVIDER
from phantoms_dagster.providers.openai.servers import server_at

# A bound on the bill of one call; a script has some 500 tokens, the rest is room for a reasoning model's thoughts.
MAX_OUTPUT_TOKENS = 8_000
# A model whose thoughts took all of that gets more room once.
MORE_OUTPUT_TOKENS = 16_000
# Seconds before each look for a lost answer: a completion is listed a moment after it was made, at the latest after a minute.
READ_BACK_SECONDS = (1.0, 9.0, 50.0)
# A server that never lists what it made must not keep a video waiting for ever: then it is booked as spent and ordered again.
DOUBTS_KEPT = 6
# Our own entry in the kept answer: `asked` is the marker of a second call that is about to be made, `first` is what the first cost.
NOTE = "phantoms"
SANDBOX = "sandbox"


class OpenAIScriptWriter:
    """A `ScriptWriter`.

    `http_client` carries time-outs, breaker and pools, and is closed by whoever made it. Prices are US dollars per million
    tokens. `sandbox` says that `base_url` is the sandbox's. `api_key` is called for each request.
    `store`: see `Completions`; None leaves it to the kind of server.
    """

    provider = PROVIDER

    def __init__(
        self,
        *,
        http_client: httpx.AsyncClient,
        api_key: Callable[[], str],
        base_url: str,
        model: str,
        clock: Clock,
        input_usd_per_million: float,
        output_usd_per_million: float,
        sandbox: bool = False,
        store: bool | None = None,
        read_back: Sequence[float] = READ_BACK_SECONDS,
    ) -> None:
        self._server = server_at(base_url, sandbox=sandbox)
        self._completions = Completions(
            http_client=http_client,
            api_key=api_key,
            base_url=base_url,
            model=model,
            clock=clock,
            server=self._server,
            store=self._server.openai if store is None else store,
            read_back=read_back,
            secret=not sandbox,
        )
        self._model = model
        self._input_price = 0.0 if self._server.free else input_usd_per_million
        self._output_price = 0.0 if self._server.free else output_usd_per_million
        self._sandbox = sandbox

    async def write(self, brief: Brief, channel: Channel, attempt: Attempt) -> WrittenScript:
        """The script of a brief: by one call of the model, by two, or by none when `attempt.stored_response` holds its answer.

        Raises what `Completions.ask` raises; Rejected and Permanent when the model would not or could not write it.
        """
        messages = openai_prompt.messages(brief, channel, with_shape=not self._server.openai)
        body, spent = self._stored(attempt), Decimal(0)
        if body is None:
            body = await self._found_again(attempt)
            if body is None:
                body = await self._completions.ask(messages, attempt.id, most_tokens=MAX_OUTPUT_TOKENS)
            spent = self._cost(body)
            await attempt.received(self._marked(body), provider_ref=_reference(body), cost=spent)
        try:
            return self._written(channel, body, spent)
        except FaultyAnswer as fault:
            if "first" in _note(body):
                raise _ended(fault) from None
            first, told = body, fault
        body = await self._second(first, told, messages, attempt, spent)
        spent += self._cost(body) - self._cost(first)
        await attempt.received(self._marked(body), provider_ref=_reference(body), cost=spent)
        try:
            return self._written(channel, body, spent)
        except FaultyAnswer as fault:
            raise _ended(fault) from None

    def _stored(self, attempt: Attempt) -> JsonObject | None:
        """The answer that an earlier attempt got, unless it is the sandbox's and a real model writes now, or vice versa."""
        body = attempt.stored_response
        return body if body is not None and bool(_note(body).get(SANDBOX)) == self._sandbox else None

    def _marked(self, body: JsonObject) -> JsonObject:
        """The answer as it is kept: one of the sandbox says so."""
        return {**body, NOTE: {**_note(body), SANDBOX: True}} if self._sandbox else body

    async def _found_again(self, attempt: Attempt) -> JsonObject | None:
        """What an earlier attempt was billed for, whose answer never arrived. Raises Unknown."""
        if len(attempt.in_doubt) > DOUBTS_KEPT:
            return None
        for marker in reversed(attempt.in_doubt):
            first = await self._completions.found(marker)
            if first is None:
                continue
            second = await self._completions.found(_second_marker(marker))
            return first if second is None else self._after(first, second)
        return None

    async def _second(
        self, first: JsonObject, fault: FaultyAnswer, messages: Sequence[dict[str, str]], attempt: Attempt, spent: Decimal
    ) -> JsonObject:
        """The answer to being told the fault."""
        asked = _note(first).get("asked")
        found = await self._completions.found(asked) if isinstance(asked, str) else None
        if found is not None:
            return self._after(first, found)
        marker = _second_marker(attempt.id)
        # After a crash the next attempt must know that this call may have been made.
        await attempt.received(self._marked({**first, NOTE: {"asked": marker}}), provider_ref=_reference(first), cost=spent)
        told = openai_prompt.correction(openai_answer.text_of(first), fault.told)
        room = MORE_OUTPUT_TOKENS if fault.final.code == "length" else MAX_OUTPUT_TOKENS
        try:
            return self._after(first, await self._completions.ask([*messages, *told], marker, most_tokens=room))
        except (NotYet, Transient) as error:
            if self._completions.keeps:
                # The next attempt finds the first answer, and books it.
                await attempt.received(self._marked(first), provider_ref=_reference(first), cost=Decimal(0))
            raise self._kept_waiting(error) from error

    def _kept_waiting(self, error: NotYet | Transient) -> Exception:
        """The error of a second call that must not let the first, paid one be forgotten.

        Where completions are kept, the outcome is in doubt: the next attempt finds the first one by its marker and goes on from
        there. Elsewhere a wait that costs no attempt would have the first call made again without end.
        """
        wish = error.retry_after
        if self._completions.keeps:
            message = f"the model's first answer has a fault, and it cannot be told now: {error}"
            return Unknown(message, provider=PROVIDER, code="script_unknown", retry_after=wish)
        if isinstance(error, NotYet | Throttled):
            return Transient(str(error), provider=PROVIDER, code=getattr(error, "code", None), retry_after=wish)
        return error

    def _after(self, first: JsonObject, second: JsonObject) -> JsonObject:
        tokens_in, tokens_out = openai_answer.usage(first)
        return {**second, NOTE: {"first": {"id": _reference(first), "prompt_tokens": tokens_in, "completion_tokens": tokens_out}}}

    def _written(self, channel: Channel, body: JsonObject, spent: Decimal) -> WrittenScript:
        script, removed = openai_answer.examined(body, channel)
        tokens_in, tokens_out = _usage(body)
        model = body.get("model")
        return WrittenScript(
            script=script,
            removed=removed,
            model=model if isinstance(model, str) and model else self._model,
            provider_ref=_reference(body),
            input_tokens=tokens_in,
            output_tokens=tokens_out,
            cost=spent,
            sandbox=self._sandbox,
        )

    def _cost(self, body: JsonObject) -> Decimal:
        """What this answer and the one before it cost."""
        return openai_answer.cost(_usage(body), input_usd_per_million=self._input_price, output_usd_per_million=self._output_price)


def _usage(body: JsonObject) -> tuple[int, int]:
    """Input and output tokens of this answer and of the one before it."""
    first: Any = _note(body).get("first")
    before = openai_answer.usage({"usage": first}) if isinstance(first, dict) else (0, 0)
    now = openai_answer.usage(body)
    return before[0] + now[0], before[1] + now[1]


def _note(body: JsonObject) -> JsonObject:
    note = body.get(NOTE)
    return note if isinstance(note, dict) else {}


def _second_marker(marker: str) -> str:
    return f"{marker}-second"


def _ended(fault: FaultyAnswer) -> Exception:
    """The end of a stage whose model was told its fault and made one again."""
    final = fault.final
    return type(final)(
        f"{final}; the model was told what was wrong with its first answer and answered again, so it is asked no more",
        provider=final.provider,
        code=final.code,
        evidence=final.evidence,
    )


def _reference(body: JsonObject) -> str | None:
    reference = body.get("id")
    return reference if isinstance(reference, str) and reference else None
