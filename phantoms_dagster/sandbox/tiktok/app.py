"""The app that TikTok's stand-in knows from the start."""

from __future__ import annotations

import hashlib

CLIENT_KEY = "sandbox-client-key"
CLIENT_SECRET = "sandbox-secret"  # noqa: S105 - of the sandbox's own app


def open_id(account: str) -> str:
    """The id by which TikTok identifies an account to this app. Other apps get other ids."""
    return f"-000{hashlib.sha256(f'tiktok {account}'.encode()).hexdigest()[:32]}"
