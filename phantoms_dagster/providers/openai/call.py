"""The one billed call: sending it, once, and looking up what became of one whose answer was lost.

`openai_prompt` says what is asked, `openai_answer` what an answer means, `openai_errors` what a refusal means. The
answer is not streamed: the call's own deadline bounds the time to its first byte (docs/adr/0020).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, cast

import httpx
import openai

from phantoms_dagster.domain.errors import InvalidInput, NotYet, Permanent, PhantomsError, Transient, Unknown
from phantoms_dagster.domain.ports import Clock
from phantoms_dagster.domain.values import JsonObject
from phantoms_dagster.providers import http
from phantoms_dagster.providers.openai import errors as openai_errors
from phantoms_dagster.providers.openai import prompt as openai_prompt
from phantoms_dagster.providers.openai.errors import PROVIDER
from phantoms_dagster.providers.openai.servers import Server

Messages = Sequence[dict[str, str]]

# A look-up of a kept completion is no work for a model.
LOOK_UP_SECONDS = 60.0
# A server with a small context counts the room for the answer against it: it is asked for less, down to what a script needs.
LEAST_OUTPUT_TOKENS = 1_000
# Parameters that a server may not know, and what goes with each. The API takes metadata only with store.
_EXTRAS = {"store": frozenset({"store", "metadata"}), "metadata": frozenset({"store", "metadata"})}
_LIMITS = ("max_completion_tokens", "max_tokens")


class Completions:
    """Asks for completions. One request is sent per call; only one that was refused, and so not billed, is sent again.

    `read_back`: seconds before each look for a lost answer; a completion is listed a while after it was made. `store` asks the
    server to keep completions, marked, so that a lost one can be read back instead of being paid for again; a server that refuses
    that is asked again without, and from then on at once without.

    `api_key` is called for each request, so a key that is renewed is used at once. Raises InvalidInput, here and before a request,
    for a key that no header can carry.
    """

    def __init__(
        self,
        *,
        http_client: httpx.AsyncClient,
        api_key: Callable[[], str],
        base_url: str,
        model: str,
        clock: Clock,
        server: Server,
        store: bool,
        read_back: Sequence[float],
        secret: bool = True,
    ) -> None:
        self._api_key = api_key
        self._hides = secret
        self._key()
        self._client = openai.AsyncOpenAI(
            api_key=self._fresh_key,
            base_url=base_url,  # always given: an ambient OPENAI_BASE_URL would redirect us silently
            max_retries=0,  # the SDK would send a billed request again
            timeout=cast(Any, http_client.timeout),  # the SDK takes httpx and httpx2; its types name httpx2 alone
            http_client=cast(Any, http_client),
        )
        self._clock = clock
        self._model = model
        self._server = server
        self._read_back = read_back
        self._store = store
        self._limit_names = [server.limit_name, *(name for name in _LIMITS if name != server.limit_name)]
        self._most_tokens: int | None = None

    def _key(self) -> str:
        key = self._api_key().strip()
        if not key or not key.isascii() or not key.isprintable() or " " in key:
            # An HTTP library would quote such a header value, the key, in its error.
            raise InvalidInput("the OpenAI API key is empty or has characters that no key has")
        return key

    async def _fresh_key(self) -> str:
        return self._key()

    @property
    def _secret(self) -> str | None:
        """What no text may show: the key of the last request."""
        return (self._client.api_key or self._key()) if self._hides else None

    @property
    def keeps(self) -> bool:
        """Whether the server keeps what it made, so that a lost answer can be looked up."""
        return self._store

    async def ask(self, messages: Messages, marker: str, *, most_tokens: int) -> JsonObject:
        """The raw answer; a lost one is looked for before this gives up. `marker` is what it can be found by later.

        Raises Permanent, Rejected, Throttled or Transient, Unknown when a lost answer cannot be looked for now, and whatever the
        http client's transport raises of ours.
        """
        try:
            return self._body(await self._post(messages, marker, most_tokens))
        except openai.APIStatusError as error:
            # Not chained: the SDK's message and request show what the provider quoted of the key.
            raise openai_errors.refusal(_httpx(error.response), secret=self._secret, server=self._server) from None
        except openai.APIConnectionError as error:
            if (ours := _ours(error)) is not None:
                raise ours from None
            failure = openai_errors.lost(error, server=self._server)
            failure.__cause__ = error.__cause__
            if http.never_sent(error.__cause__ or error):
                raise failure from error.__cause__
        except _Unreadable as error:
            failure = error.failure
        for seconds in self._read_back if self._store else ():
            await self._clock.sleep(seconds)
            if (found := await self.found(marker)) is not None:
                return found
        raise failure

    async def found(self, marker: str) -> JsonObject | None:
        """The kept completion with that marker; None when there is none, or the server keeps none.

        Raises Unknown when it could not be asked now: until it was, nothing is ordered again.
        """
        if not self._store:
            return None
        retry_after: float | None = None
        try:
            raw = await self._client.chat.completions.with_raw_response.list(
                metadata={"attempt": marker}, limit=1, timeout=LOOK_UP_SECONDS
            )
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

    async def _post(self, messages: Messages, marker: str, most_tokens: int) -> httpx.Response:
        while True:
            limit = min(most_tokens, self._most_tokens or most_tokens)
            request: dict[str, Any] = {
                "model": self._model,
                "messages": messages,
                "response_format": openai_prompt.RESPONSE_FORMAT,
                **dict.fromkeys(self._limit_names[:1], limit),
                **({"store": True, "metadata": {"attempt": marker}} if self._store else {}),
            }
            try:
                # The SDK's way to an answer as it came. `completions.create` sends the same, and takes another 0.5 CPU-ms to walk
                # through the types of what is sent.
                answer = await self._client.post(
                    "/chat/completions",
                    body=request,
                    cast_to=cast(Any, httpx.Response),
                    options={"headers": {"X-Client-Request-Id": marker}},
                )
            except openai.APIStatusError as error:
                # Refused, so not billed: it is safe to ask again with less.
                if not self._asks_for_less(_httpx(error.response), limit):
                    raise
                continue
            return _httpx(answer)

    def _asks_for_less(self, response: httpx.Response, limit: int) -> bool:
        """Whether there is something that this refusal names and that can be left out. Each can be only so often, so this ends."""
        if response.status_code not in (400, 422):
            return False
        if openai_errors.context_exceeded(response):
            counts = openai_errors.context_counts(response)
            if limit <= LEAST_OUTPUT_TOKENS or (counts is not None and counts[0] >= counts[1]):
                return False  # the prompt alone is too long
            self._most_tokens = max(LEAST_OUTPUT_TOKENS, limit // 2)
            return True
        if self._limit_names and re.search(rf"\b{self._limit_names[0]}\b", response.text):
            # Their other name for it next; a server that knows neither is bounded by the call's deadline alone.
            del self._limit_names[0]
            return True
        if self._store and any(re.search(rf"\b{name}\b", response.text) for name in _EXTRAS):
            self._store = False
            return True
        return False

    def _body(self, response: httpx.Response) -> JsonObject:
        """The raw answer of a 200. Raises _Unreadable; the error in it when a compatible server says 200 to an error."""
        try:
            body = response.json()
        except ValueError:
            body = None
        if not isinstance(body, dict):
            seen = openai_errors.evidence(response, secret=self._secret)
            message = f"{self._server.name} answered no JSON object{openai_errors.billed(self._server)}"
            raise _Unreadable(Transient(message, provider=PROVIDER, code="malformed", evidence=seen))
        if body.get("error") and not body.get("choices"):
            said, code, kind = openai_errors.error_body(response)
            message = openai_errors.scrub(
                f"{self._server.name} answered an error as a success: {said[: openai_errors.MESSAGE_LIMIT]}", self._secret
            )
            seen = openai_errors.evidence(response, secret=self._secret)
            if "unexpected endpoint" in said.casefold():
                message += "; PHANTOMS_OPENAI_BASE_URL should end in /v1"
                raise Permanent(message, provider=PROVIDER, code="unexpected_endpoint", evidence=seen)
            raise Transient(message, provider=PROVIDER, code=code or kind or "malformed", evidence=seen)
        return body


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
