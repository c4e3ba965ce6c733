"""Secrets taken out of texts: of what providers answered, and of log lines."""

from __future__ import annotations

import re

# Query parameters, headers and JSON fields that are as good as a password.
_SECRETS = re.compile(
    r"""(?ix)
    ( (?:access_token|refresh_token|upload_token|upload_id|appsecret_proof|client_secret|x-amz-signature|signature|token
        |api_key|x-api-key)(?:"\s*:\s*"|=) ) [^&"\s]+
    | (Bearer\s+|OAuth\s+) [\w.~+/=-]+
    """
)


def redact(text: str) -> str:
    """The text without tokens, signatures and session identifiers."""
    return _SECRETS.sub(lambda m: (m.group(1) or m.group(2)) + "***", text)
