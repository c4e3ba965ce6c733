"""Classifies refusals of the chat completions API, by one table of statuses and codes, and reads how long they ask us to wait.

`answer` finds faults in answers with status 200.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import httpx

from phantoms_dagster.domain.errors import Evidence, Permanent, ProviderError, Rejected, Throttled, Transient
from phantoms_dagster.providers import http
from phantoms_dagster.providers.openai.servers import Server
from phantoms_dagster.providers.redaction import redact

PROVIDER = "openai"
OPENAI = Server(openai=True, free=False, name="OpenAI")
# The wait after a 503. The provider asks for a longer back-off when all its servers are busy, often without a header.
OVERLOADED_SECONDS = 30.0
MESSAGE_LIMIT = 300

# By (status, code or type of the error body). A row with a code takes precedence over the row of its status alone.
ERRORS: Mapping[tuple[int, str | None], type[ProviderError]] = {
    (400, None): Permanent,  # invalid_request_error: bad schema, context too long
    (400, "content_filter"): Rejected,  # the prompt itself was filtered (Azure)
    (400, "content_policy_violation"): Rejected,
    (400, "invalid_prompt"): Rejected,
    (401, None): Permanent,
    (403, None): Permanent,  # region, project or model not permitted
    (404, None): Permanent,  # model_not_found, also after a model's shutdown date
    (408, None): Transient,
    (409, None): Transient,
    (422, None): Permanent,
    (429, None): Throttled,  # rate_limit_exceeded
    (429, "slow_down"): Throttled,
    (429, "insufficient_quota"): Permanent,  # the type of every code that means "out of credit"
    (429, "credit_balance_exhausted"): Permanent,
    (429, "billing_hard_limit_reached"): Permanent,
    (429, "billing_not_active"): Permanent,
    (500, None): Transient,
    (503, None): Transient,
}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_CONTEXT_CODES = frozenset({"context_length_exceeded", "exceed_context_size_error"})
_CONTEXT_WORDS = re.compile(r"maximum context length|context (?:size|window|length)|max_model_len", re.IGNORECASE)
# A key that a server quotes back, in full or half masked.
_KEY = re.compile(r"\b(?:sk|pk|rk)-[\w*.-]{4,}")


def refusal(response: httpx.Response, *, secret: str | None, server: Server = OPENAI) -> ProviderError:
    """The domain error for an error answer. The body must have been read. No text of the error contains `secret`."""
    said, code, kind = error_body(response)
    status = response.status_code
    which = _class_of(status, code, kind)
    name = code or kind
    message = f"{server.name} refused ({status}{f' {name}' if name else ''})"
    # The text of a 401 quotes the key.
    if status != 401 and said:
        message += f": {said[:MESSAGE_LIMIT]}"
    if status >= 500 and not server.free:
        message += " (the request may have been billed)"
    if context_exceeded(response):
        message += "; use a model or a server with a larger context (llama.cpp: -c, Ollama: num_ctx), or give fewer facts"
    elif status == 404 and name in ("model_not_found", "not_found_error"):
        message += "; `phantoms doctor` lists the models to set PHANTOMS_OPENAI_MODEL to"
    message = scrub(message, secret)
    seen = evidence(response, secret=secret)
    if issubclass(which, Transient):
        return which(message, provider=PROVIDER, code=name or str(status), evidence=seen, retry_after=wait(response))
    return which(message, provider=PROVIDER, code=name or str(status), evidence=seen)


def lost(error: BaseException, *, server: Server = OPENAI) -> Transient:
    """The domain error for a request without an answer. Its chain of causes tells whether the request was ever sent."""
    cause = error.__cause__ or error
    what = http.describe(cause)
    if http.never_sent(cause):
        return Transient(f"{server.name} cannot be reached: {what}", provider=PROVIDER, code=type(cause).__name__)
    seen = http.evidence_of(cause)
    message = f"{server.name} gave no {'answer' if seen.status is None else 'usable answer'}{billed(server)}: {what}"
    if isinstance(cause, httpx.ReadTimeout):
        message += "; a slow model may need a larger PHANTOMS_OPENAI_SECONDS"
    return Transient(message, provider=PROVIDER, code=type(cause).__name__, evidence=seen)


def billed(server: Server) -> str:
    """The note on billing for the message about a lost answer."""
    return "" if server.free else ", the request may have been billed"


def context_exceeded(response: httpx.Response) -> bool:
    """Whether a refusal means that prompt and answer together exceed the model's context."""
    if response.status_code not in (400, 413, 422):
        return False
    _, code, kind = error_body(response)
    return bool({code, kind} & _CONTEXT_CODES) or _CONTEXT_WORDS.search(response.text) is not None


def context_counts(response: httpx.Response) -> tuple[int, int] | None:
    """The tokens of the prompt and of the context, if the server reports them (llama.cpp does)."""
    error = http.lenient_json(response).get("error")
    counts = [error.get("n_prompt_tokens"), error.get("n_ctx")] if isinstance(error, dict) else []
    whole = [count for count in counts if isinstance(count, int)]
    return (whole[0], whole[1]) if len(whole) == 2 else None


def error_body(response: httpx.Response) -> tuple[str, str | None, str | None]:
    """Message, code and type of the error body. Any other body is the message, without code and type."""
    try:
        body = response.json()
    except ValueError:
        return response.text.strip(), None, None
    error = body.get("error", body) if isinstance(body, dict) else None
    if isinstance(error, dict):
        code, kind = error.get("code"), error.get("type")
        return str(error.get("message") or ""), str(code) if code else None, str(kind) if kind else None
    return response.text.strip() if error is None else str(error), None, None


def wait(response: httpx.Response) -> float | None:
    """Seconds to wait, from retry-after-ms, Retry-After or (429 only) x-ratelimit-reset-*, in this order; 30 for a bare 503."""
    milliseconds = response.headers.get("retry-after-ms", "")
    if re.fullmatch(r"\d+(\.\d+)?", milliseconds):
        return float(milliseconds) / 1_000
    seconds = http.retry_after(response)
    if seconds is not None:
        return seconds
    if response.status_code == 429:
        resets = dict(_resets(response))
        used_up = [
            s for name, s in resets.items() if response.headers.get(f"x-ratelimit-remaining-{name}", "").startswith(("0", "-"))
        ]
        return max(used_up or resets.values(), default=None)
    return OVERLOADED_SECONDS if response.status_code == 503 else None


def evidence(response: httpx.Response, *, secret: str | None) -> Evidence:
    """The evidence of the answer, without the key."""
    seen = http.evidence(response)
    return seen.model_copy(update={"body": scrub(seen.body, secret)})


def scrub(text: str, secret: str | None) -> str:
    """The text without the key and without other secrets."""
    if secret:
        text = text.replace(secret, "***")
    return redact(_KEY.sub("***", text))


def _class_of(status: int, code: str | None, kind: str | None) -> type[ProviderError]:
    for name in (code, kind, None):
        if (status, name) in ERRORS:
            return ERRORS[status, name]
    # Other 5xx come from gateways in front of the same servers. For any other status another try would change nothing.
    return ERRORS[500, None] if status >= 500 else Permanent


def _resets(response: httpx.Response) -> Iterator[tuple[str, float]]:
    for name in ("requests", "tokens"):
        parts = _DURATION.findall(response.headers.get(f"x-ratelimit-reset-{name}", ""))
        if parts:
            yield name, sum(float(number) * _SECONDS[unit] for number, unit in parts)
