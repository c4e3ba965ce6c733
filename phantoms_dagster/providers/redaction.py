"""Removes secrets from providers' answers and from log lines."""

from __future__ import annotations

import re

# Query parameters, headers and JSON fields whose value is a secret.
_SECRETS = re.compile(
    r"""(?ix)
    ( (?:access_token|refresh_token|upload_token|upload_id|appsecret_proof|client_secret|x-amz-signature|signature|token
        |api_key|x-api-key|code_verifier|(?<=[?&])code)(?:"\s*:\s*"|=) ) [^&"\s]+
    | (Bearer\s+|OAuth\s+) [\w.~+/=-]+
    """
)

# Tokens by the form that Google, TikTok and Meta give them, wherever they are in a text.
_TOKENS = re.compile(r"(?<![\w.])(?:ya29\.|1//|act\.|rft\.|clt\.|IG(?=[A-Za-z0-9]{30})|EAA(?=[A-Za-z0-9]{30}))[\w.!*~+/=-]+")


def redact(text: str) -> str:
    """The text with tokens, signatures and session identifiers replaced by `***`."""
    return _TOKENS.sub("***", _SECRETS.sub(lambda m: (m.group(1) or m.group(2)) + "***", text))
