"""Writes scripts with the chat completions of OpenAI or a compatible server. Decides which calls to make and what to record.

A script takes one paid call. If the answer has a fault that cannot be repaired here, a second call tells the model about it. After
that the stage succeeds or fails. `call` makes the calls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import httpx

from phantoms_dagster.domain.errors import LOOK_UP_FAILED, NotYet, Throttled, Transient, Unknown
from phantoms_dagster.domain.models import Brief, Channel
from phantoms_dagster.domain.ports import Attempt, Clock, WrittenScript
from phantoms_dagster.domain.values import JsonObject
from phantoms_dagster.providers.openai import answer as openai_answer
from phantoms_dagster.providers.openai import prompt as openai_prompt
from phantoms_dagster.providers.openai.answer import FaultyAnswer
from phantoms_dagster.providers.openai.call import Completions
from phantoms_dagster.providers.openai.errors import PROVIDER
from phantoms_dagster.providers.openai.servers import server_at

# Limits the bill of one call. A script has about 500 tokens; the rest is for a model's reasoning.
MAX_OUTPUT_TOKENS = 8_000
# If the reasoning used up all of that, the second call gets this limit.
MORE_OUTPUT_TOKENS = 16_000
# Seconds before each look-up of a lost answer. A completion is listed within a minute, and usually sooner.
READ_BACK_SECONDS = (1.0, 9.0, 50.0)
# After this many lost answers, or this many reads, the cost is booked and the script is ordered again. Otherwise a server that
# never lists its completions would hold up a video forever.
DOUBTS_KEPT, READS_KEPT = 6, 12
# Our entry in the stored answer. `asked`: the marker of a second call that is about to be made. `first`: the first call's usage.
NOTE = "phantoms"
SANDBOX = "sandbox"


class OpenAIScriptWriter:
    """Implements `ports.ScriptWriter`.

    `http_client` brings time-outs, breakers and pools; the caller closes it. Prices are in US dollars per million tokens.
    `sandbox`: `base_url` is the sandbox. `api_key` is called for each request. `store`: see `Completions`; None decides by the
    kind of server.
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
        """Write the script of a brief with one or two calls, or with none if `attempt.stored_response` holds an answer.

        Raises what `Completions.ask` raises, Rejected when the model refuses, and Permanent when its answers cannot be used.
        """
        messages = openai_prompt.messages(brief, channel, with_shape=not self._server.openai)
        body, spent = self._stored(attempt), Decimal(0)
        if body is None:
            body = await self._find_lost(attempt)
            if body is None:
                body = await self._completions.ask(messages, attempt.id, most_tokens=MAX_OUTPUT_TOKENS)
            spent = self._cost(body)
            await attempt.received(self._marked(body), provider_ref=_reference(body), cost=spent)
        try:
            return self._result(channel, body, spent)
        except FaultyAnswer as fault:
            if "first" in _note(body):
                raise _final_error(fault) from None
            first, feedback = body, fault
        body = await self._ask_again(first, feedback, messages, attempt, spent)
        spent += self._cost(body) - self._cost(first)
        await attempt.received(self._marked(body), provider_ref=_reference(body), cost=spent)
        try:
            return self._result(channel, body, spent)
        except FaultyAnswer as fault:
            raise _final_error(fault) from None

    def _stored(self, attempt: Attempt) -> JsonObject | None:
        """The answer of an earlier attempt. None if it came from the sandbox and a real model writes now, or vice versa."""
        body = attempt.stored_response
        return body if body is not None and bool(_note(body).get(SANDBOX)) == self._sandbox else None

    def _marked(self, body: JsonObject) -> JsonObject:
        """The answer as it is stored: one from the sandbox is marked."""
        return {**body, NOTE: {**_note(body), SANDBOX: True}} if self._sandbox else body

    async def _find_lost(self, attempt: Attempt) -> JsonObject | None:
        """The answer that an earlier attempt was billed for but never received, or None. Raises Unknown."""
        if len(attempt.in_doubt) > DOUBTS_KEPT or attempt.reads > READS_KEPT:
            return None
        try:
            for marker in reversed(attempt.in_doubt):
                first = await self._completions.find(marker)
                if first is None:
                    continue
                second = await self._completions.find(_second_marker(marker))
                return first if second is None else self._with_first(first, second)
        except Unknown as error:
            # This attempt has sent nothing yet, so the next one need not ask about it, too.
            error.code = LOOK_UP_FAILED
            raise
        return None

    async def _ask_again(
        self, first: JsonObject, fault: FaultyAnswer, messages: Sequence[dict[str, str]], attempt: Attempt, spent: Decimal
    ) -> JsonObject:
        """Tell the model about the fault and return its second answer."""
        asked = _note(first).get("asked")
        found = await self._completions.find(asked) if isinstance(asked, str) else None
        if found is not None:
            return self._with_first(first, found)
        marker = _second_marker(attempt.id)
        # If this process crashes, the next attempt must know that the second call may have been made.
        await attempt.received(self._marked({**first, NOTE: {"asked": marker}}), provider_ref=_reference(first), cost=spent)
        feedback = openai_prompt.correction(openai_answer.text_of(first), fault.feedback)
        room = MORE_OUTPUT_TOKENS if fault.final.code == "length" else MAX_OUTPUT_TOKENS
        try:
            return self._with_first(first, await self._completions.ask([*messages, *feedback], marker, most_tokens=room))
        except (NotYet, Transient) as error:
            if self._completions.stores:
                # The next attempt finds the first answer and books its cost.
                await attempt.received(self._marked(first), provider_ref=_reference(first), cost=Decimal(0))
            raise self._error_of_second_call(error) from error

    def _error_of_second_call(self, error: NotYet | Transient) -> Exception:
        """The error to raise when the second call fails, so that the first, paid call is not lost.

        If the server stores completions it is Unknown: the next attempt finds the first answer by its marker and continues from
        there. Otherwise it is an error that costs an attempt, because the first call would be repeated without end.
        """
        wish = error.retry_after
        if self._completions.stores:
            message = f"the model's first answer has a fault, and the second call is not possible now: {error}"
            return Unknown(message, provider=PROVIDER, code="script_unknown", retry_after=wish)
        if isinstance(error, NotYet | Throttled):
            return Transient(str(error), provider=PROVIDER, code=getattr(error, "code", None), retry_after=wish)
        return error

    def _with_first(self, first: JsonObject, second: JsonObject) -> JsonObject:
        tokens_in, tokens_out = openai_answer.usage(first)
        return {**second, NOTE: {"first": {"id": _reference(first), "prompt_tokens": tokens_in, "completion_tokens": tokens_out}}}

    def _result(self, channel: Channel, body: JsonObject, spent: Decimal) -> WrittenScript:
        script, removed = openai_answer.parse_answer(body, channel)
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
        """The cost of this answer and the one before it in US dollars."""
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


def _final_error(fault: FaultyAnswer) -> Exception:
    """The stage's error when the model's second answer is faulty too."""
    final = fault.final
    return type(final)(
        f"{final}; the model already had a second try, so it is not asked again",
        provider=final.provider,
        code=final.code,
        evidence=final.evidence,
    )


def _reference(body: JsonObject) -> str | None:
    reference = body.get("id")
    return reference if isinstance(reference, str) and reference else None
