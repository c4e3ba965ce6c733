"""Scripts by the chat completions of OpenAI, or of a server that speaks the same: the one billed call and its bookkeeping.

What is asked stands in `openai_prompt`, what an answer means in `openai_answer`, what a refusal means in `openai_errors`.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any, cast

import httpx
import openai

from phantoms_dagster.domain.errors import InvalidInput, NotYet, PhantomsError, Transient, Unknown
from phantoms_dagster.domain.models import Brief, Channel
from phantoms_dagster.domain.ports import Attempt, Clock, WrittenScript
from phantoms_dagster.domain.values import JsonObject
from phantoms_dagster.providers import http, openai_answer, openai_errors, openai_prompt
from phantoms_dagster.providers.openai_errors import PROVIDER

# A bound on the bill of one call; a script has some 500 tokens, the rest is room for a reasoning model's thoughts.
MAX_OUTPUT_TOKENS = 8_000
# Before a lost answer is looked for: a completion is listed a moment after it was made.
READ_BACK_SECONDS = 1.0
# A server that never lists what it made must not keep a video waiting for ever: then it is booked as spent and ordered again.
DOUBTS_KEPT = 6
# Parameters that a compatible server may not know, and what goes with each. The API takes metadata only with store.
_EXTRAS = {
    "store": frozenset({"store", "metadata"}),
    "metadata": frozenset({"store", "metadata"}),
    "max_completion_tokens": frozenset({"max_completion_tokens"}),
}


class OpenAIScriptWriter:
    """A `ScriptWriter`. One call of the model per attempt, never repeated here: each may cost money.

    `http_client` carries time-outs, breaker and pools, and is closed by whoever made it. Prices are US dollars per million
    tokens. `sandbox` says that `base_url` is the sandbox's. `store` asks the server to keep completions, marked with the
    attempt, so that an answer lost on its way can be read back instead of being paid for again; a server that refuses
    that is asked again without, and from then on at once without.
    """

    provider = PROVIDER

    def __init__(
        self,
        *,
        http_client: httpx.AsyncClient,
        api_key: str,
        base_url: str,
        model: str,
        clock: Clock,
        input_usd_per_million: float,
        output_usd_per_million: float,
        sandbox: bool = False,
        store: bool = True,
    ) -> None:
        key = api_key.strip()
        if not key or not key.isascii() or not key.isprintable() or " " in key:
            # An HTTP library would quote such a header value, the key, in its error.
            raise InvalidInput("the OpenAI API key is empty or has characters that no key has")
        self._client = openai.AsyncOpenAI(
            api_key=key,
            base_url=base_url,  # always given: an ambient OPENAI_BASE_URL would redirect us silently
            max_retries=0,  # the SDK would send a billed request again
            timeout=cast(Any, http_client.timeout),  # the SDK takes httpx and httpx2; its types name httpx2 alone
            http_client=cast(Any, http_client),
        )
        self._clock = clock
        self._secret = None if sandbox else key
        self._model = model
        self._input_price = input_usd_per_million
        self._output_price = output_usd_per_million
        self._sandbox = sandbox
        self._left_out: frozenset[str] = frozenset() if store else _EXTRAS["store"]

    async def write(self, brief: Brief, channel: Channel, attempt: Attempt) -> WrittenScript:
        """One call of the model, or none when `attempt.stored_response` holds its answer.

        Raises Permanent, Rejected, Throttled or Transient, Unknown when a lost answer cannot be looked for now, and whatever the
        http client's transport raises of ours.
        """
        body = attempt.stored_response
        if body is None:
            body = await self._found_again(attempt) or await self._answer(brief, channel, attempt)
            await attempt.received(body, provider_ref=_reference(body), cost=self._cost(body))
        script, removed = openai_answer.examined(body, channel)
        tokens_in, tokens_out = openai_answer.usage(body)
        model = body.get("model")
        return WrittenScript(
            script=script,
            removed=removed,
            model=model if isinstance(model, str) and model else self._model,
            provider_ref=_reference(body),
            input_tokens=tokens_in,
            output_tokens=tokens_out,
            cost=self._cost(body),
            sandbox=self._sandbox,
        )

    async def _answer(self, brief: Brief, channel: Channel, attempt: Attempt) -> JsonObject:
        try:
            response = await self._ask(brief, channel, attempt)
            return self._body(response)
        except openai.APIStatusError as error:
            # Not chained: the SDK's message and request show what the provider quoted of the key.
            raise openai_errors.refusal(_httpx(error.response), secret=self._secret) from None
        except openai.APIConnectionError as error:
            if (ours := _ours(error)) is not None:
                raise ours from None
            failure = openai_errors.lost(error)
            failure.__cause__ = error.__cause__
            if http.never_sent(error.__cause__ or error):
                raise failure from error.__cause__
        except _Unreadable as error:
            failure = error.failure
        await self._clock.sleep(READ_BACK_SECONDS)
        found = await self._found(attempt.id)
        if found is None:
            raise failure
        return found

    async def _found_again(self, attempt: Attempt) -> JsonObject | None:
        """What an earlier attempt was billed for, whose answer never arrived. Raises Unknown."""
        if len(attempt.in_doubt) > DOUBTS_KEPT:
            return None
        for marker in attempt.in_doubt:
            if (found := await self._found(marker)) is not None:
                return found
        return None

    async def _ask(self, brief: Brief, channel: Channel, attempt: Attempt) -> httpx.Response:
        request: dict[str, Any] = {
            "model": self._model,
            "messages": openai_prompt.messages(brief, channel),
            "response_format": openai_prompt.RESPONSE_FORMAT,
            "max_completion_tokens": MAX_OUTPUT_TOKENS,
            "store": True,
            "metadata": {"attempt": attempt.id},
        }
        while True:
            sent = {name: value for name, value in request.items() if name not in self._left_out}
            try:
                # The SDK's way to an answer as it came. `completions.create` sends the same, and takes another 0.5 CPU-ms to walk
                # through the types of what is sent.
                answer = await self._client.post(
                    "/chat/completions",
                    body=sent,
                    cast_to=cast(Any, httpx.Response),
                    options={"headers": {"X-Client-Request-Id": attempt.id}},
                )
            except openai.APIStatusError as error:
                # Refused, so not billed: it is safe to ask again with less. The set only grows, so this ends.
                refused = _refused_extras(_httpx(error.response)) - self._left_out
                if not refused:
                    raise
                self._left_out |= refused
                continue
            return _httpx(answer)

    def _body(self, response: httpx.Response) -> JsonObject:
        """The raw answer of a 200. Raises _Unreadable; the error in it when a compatible server says 200 to an error."""
        try:
            body = response.json()
        except ValueError:
            body = None
        if not isinstance(body, dict):
            seen = openai_errors.evidence(response, secret=self._secret)
            message = "OpenAI answered no JSON object, the request may have been billed"
            raise _Unreadable(Transient(message, provider=PROVIDER, code="malformed", evidence=seen))
        if body.get("error") and not body.get("choices"):
            said, code, kind = openai_errors.error_body(response)
            message = openai_errors.scrub(
                f"OpenAI answered an error as a success: {said[: openai_errors.MESSAGE_LIMIT]}", self._secret
            )
            seen = openai_errors.evidence(response, secret=self._secret)
            raise Transient(message, provider=PROVIDER, code=code or kind or "malformed", evidence=seen)
        return body

    async def _found(self, marker: str) -> JsonObject | None:
        """The stored completion of the attempt with that id; None when there is none, or the server cannot tell.

        Raises Unknown when it could not be asked now: until it was, nothing is ordered again.
        """
        if "store" in self._left_out:
            return None
        retry_after: float | None = None
        try:
            raw = await self._client.chat.completions.with_raw_response.list(metadata={"attempt": marker}, limit=1)
            page = _httpx(raw.http_response).json()
        except openai.APIStatusError as error:
            if error.status_code < 500 and error.status_code != 429:
                return None
            why, retry_after = f"{error.status_code}", openai_errors.wait(_httpx(error.response))
        except (openai.OpenAIError, PhantomsError, ValueError) as error:
            ours = _ours(error)
            why = str(ours) if ours is not None else http.describe(error.__cause__ or error)
            retry_after = ours.retry_after if isinstance(ours, NotYet) else None
        else:
            data = page.get("data") if isinstance(page, dict) else None
            found = data[0] if isinstance(data, list) and data else None
            marked = isinstance(found, dict) and (found.get("metadata") or {}).get("attempt") == marker
            return found if marked else None
        message = f"OpenAI's answer was lost and cannot be looked for now ({openai_errors.scrub(why, self._secret)})"
        raise Unknown(message, provider=PROVIDER, code="script_unknown", retry_after=retry_after)

    def _cost(self, body: JsonObject) -> Decimal:
        return openai_answer.cost(body, input_usd_per_million=self._input_price, output_usd_per_million=self._output_price)


class _Unreadable(Exception):
    """A billed answer that cannot be read; it carries the error to raise unless the answer is found again."""

    def __init__(self, failure: Transient) -> None:
        super().__init__(str(failure))
        self.failure = failure


def _httpx(response: Any) -> httpx.Response:
    """The response as what it is: with an httpx client the SDK hands out httpx responses, though its types say httpx2."""
    return cast(httpx.Response, response)


def _ours(error: BaseException) -> PhantomsError | None:
    """The domain error among the causes of an SDK error: the transport's breaker and pools speak for themselves."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, PhantomsError):
            return cause
        cause = cause.__cause__
    return None


def _refused_extras(response: httpx.Response) -> frozenset[str]:
    """The optional parameters that a 400 or 422 names."""
    if response.status_code not in (400, 422):
        return frozenset()
    return frozenset().union(*(goes for name, goes in _EXTRAS.items() if re.search(rf"\b{name}\b", response.text)))


def _reference(body: JsonObject) -> str | None:
    reference = body.get("id")
    return reference if isinstance(reference, str) and reference else None
