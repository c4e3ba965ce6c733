"""The billed call: sends it once, and looks up a completion whose answer was lost.

`prompt` builds the messages, `answer` parses answers, `errors` classifies refusals. The answer is not streamed: the call's own
deadline limits the time to its first byte (docs/adr/0020).
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

# The time-out for looking up a stored completion: no model runs for that.
LOOK_UP_SECONDS = 60.0
# A server with a small context counts the answer's token limit against it. The limit is lowered, but not below what a script needs.
LEAST_OUTPUT_TOKENS = 1_000
# Parameters that a server may not know, and the parameters to drop with each. The API accepts metadata only with store.
_EXTRAS = {"store": frozenset({"store", "metadata"}), "metadata": frozenset({"store", "metadata"})}
_LIMITS = ("max_completion_tokens", "max_tokens")


class Completions:
    """Requests completions. Each call is sent once; only a refused request, which is not billed, is sent again.

    `store` asks the server to store completions under a marker, so that a lost answer can be read back instead of paid for again.
    If a server refuses that, the request is repeated without it, and later requests omit it. `read_back`: the seconds to wait
    before each look-up of a lost answer, because a completion is listed only some time after it was made. `api_key` is called for
    each request, so a renewed key is used at once. Raises InvalidInput, here and before a request, for a key that no header can
    carry.
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
            # An HTTP library would quote the invalid header value, which is the key, in its error.
            raise InvalidInput("the OpenAI API key is empty or contains characters that no key has")
        return key

    async def _fresh_key(self) -> str:
        return self._key()

    @property
    def _secret(self) -> str | None:
        """The last request's key, which no text may show."""
        return (self._client.api_key or self._key()) if self._hides else None

    @property
    def stores(self) -> bool:
        """Whether the server stores completions, so that a lost answer can be looked up."""
        return self._store

    async def ask(self, messages: Messages, marker: str, *, most_tokens: int) -> JsonObject:
        """The raw answer. A lost answer is looked up before this gives up. `marker` is stored with it for the look-up.

        Raises Permanent, Rejected, Throttled or Transient; Unknown when a lost answer cannot be looked up now; and the domain
        errors of the client's transport (NotYet).
        """
        try:
            return self._body(await self._post(messages, marker, most_tokens))
        except openai.APIStatusError as error:
            # Not chained: the SDK's error shows what the provider quoted of the key.
            raise openai_errors.refusal(_httpx(error.response), secret=self._secret, server=self._server) from None
        except openai.APIConnectionError as error:
            if (domain_error := _domain_error_in(error)) is not None:
                raise domain_error from None
            failure = openai_errors.lost(error, server=self._server)
            failure.__cause__ = error.__cause__
            if http.never_sent(error.__cause__ or error):
                raise failure from error.__cause__
        except _Unreadable as error:
            failure = error.failure
        for seconds in self._read_back if self._store else ():
            await self._clock.sleep(seconds)
            if (found := await self.find(marker)) is not None:
                return found
        raise failure

    async def find(self, marker: str) -> JsonObject | None:
        """The stored completion with that marker. None when there is none or the server stores none.

        Raises Unknown when the look-up is not possible now; nothing must be ordered again until it succeeded.
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
            domain_error = _domain_error_in(error)
            why = str(domain_error) if domain_error is not None else http.describe(error.__cause__ or error)
            retry_after = domain_error.retry_after if isinstance(domain_error, NotYet) else None
        else:
            data = page.get("data") if isinstance(page, dict) else None
            found = data[0] if isinstance(data, list) and data else None
            marked = isinstance(found, dict) and (found.get("metadata") or {}).get("attempt") == marker
            return found if marked else None
        message = f"OpenAI's answer was lost and cannot be looked up now ({openai_errors.scrub(why, self._secret)})"
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
                # The SDK's call for a raw response. `completions.create` sends the same request, but spends another 0.5 CPU-ms on
                # checking the types of its parameters.
                answer = await self._client.post(
                    "/chat/completions",
                    body=request,
                    cast_to=cast(Any, httpx.Response),
                    options={"headers": {"X-Client-Request-Id": marker}},
                )
            except openai.APIStatusError as error:
                # A refused request is not billed, so it is safe to send a reduced one.
                if not self._reduce_request(_httpx(error.response), limit):
                    raise
                continue
            return _httpx(answer)

    def _reduce_request(self, response: httpx.Response, limit: int) -> bool:
        """Drop or lower the parameter that this refusal names. False when none is left, so the loop ends."""
        if response.status_code not in (400, 422):
            return False
        if openai_errors.context_exceeded(response):
            counts = openai_errors.context_counts(response)
            if limit <= LEAST_OUTPUT_TOKENS or (counts is not None and counts[0] >= counts[1]):
                return False  # the prompt alone is too long
            self._most_tokens = max(LEAST_OUTPUT_TOKENS, limit // 2)
            return True
        if self._limit_names and re.search(rf"\b{self._limit_names[0]}\b", response.text):
            # Try the limit's other name next. For a server that knows neither, only the call's deadline limits the answer.
            del self._limit_names[0]
            return True
        if self._store and any(re.search(rf"\b{name}\b", response.text) for name in _EXTRAS):
            self._store = False
            return True
        return False

    def _body(self, response: httpx.Response) -> JsonObject:
        """The raw answer of a 200.

        Raises _Unreadable, or the provider's error when a compatible server sends one with status 200.
        """
        try:
            body = response.json()
        except ValueError:
            body = None
        if not isinstance(body, dict):
            seen = openai_errors.evidence(response, secret=self._secret)
            message = f"{self._server.name} did not answer with a JSON object{openai_errors.billed(self._server)}"
            raise _Unreadable(Transient(message, provider=PROVIDER, code="malformed", evidence=seen))
        if body.get("error") and not body.get("choices"):
            said, code, kind = openai_errors.error_body(response)
            message = openai_errors.scrub(
                f"{self._server.name} sent an error with status 200: {said[: openai_errors.MESSAGE_LIMIT]}", self._secret
            )
            seen = openai_errors.evidence(response, secret=self._secret)
            if "unexpected endpoint" in said.casefold():
                message += "; PHANTOMS_OPENAI_BASE_URL should end in /v1"
                raise Permanent(message, provider=PROVIDER, code="unexpected_endpoint", evidence=seen)
            raise Transient(message, provider=PROVIDER, code=code or kind or "malformed", evidence=seen)
        return body


class _Unreadable(Exception):
    """A billed answer that cannot be read. It carries the error to raise unless the look-up finds the answer."""

    def __init__(self, failure: Transient) -> None:
        super().__init__(str(failure))
        self.failure = failure


def _httpx(response: Any) -> httpx.Response:
    """The response under its real type: with an httpx client the SDK returns httpx responses, though its types say httpx2."""
    return cast(httpx.Response, response)


def _domain_error_in(error: BaseException) -> PhantomsError | None:
    """The domain error among an SDK error's causes, such as the NotYet of the transport's breakers and pools."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, PhantomsError):
            return cause
        cause = cause.__cause__
    return None
