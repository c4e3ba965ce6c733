"""The TikTok stand-in's webhooks, signed as TikTok signs them. They are sent when `tiktok.webhook_url` is set.

`tiktok.webhook_secret`: the client secret of the app; by default, the one of the sandbox's own app. `tiktok.webhook_skew` (0): how
many seconds TikTok's clock is ahead of ours.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import TYPE_CHECKING

from phantoms_dagster.sandbox.tiktok.app import CLIENT_KEY, CLIENT_SECRET, open_id

if TYPE_CHECKING:
    from collections.abc import Mapping

    from phantoms_dagster.sandbox.core import Sandbox
    from phantoms_dagster.sandbox.tiktok.state import TikTokUpload


def send_event(sandbox: Sandbox, upload: TikTokUpload, kind: str, facts: Mapping[str, str], *, at: float) -> None:
    """Send the event `post.publish.<kind>` about an upload."""
    url = sandbox.setting("tiktok.webhook_url", None)
    if url is None:
        return
    content = {"publish_id": upload.publish_id, "publish_type": "INBOX_SHARE" if upload.inbox else "DIRECT_PUBLISH", **facts}
    event = {
        "client_key": CLIENT_KEY,
        "event": f"post.publish.{kind}",
        "create_time": int(at),
        "user_openid": open_id(upload.account),
        "content": json.dumps(content),
    }
    body = json.dumps(event).encode()

    def headers() -> Mapping[str, str]:
        secret = str(sandbox.setting("tiktok.webhook_secret", CLIENT_SECRET))
        stamp = str(int(sandbox.now() + float(sandbox.setting("tiktok.webhook_skew", 0.0))))
        made = hmac.new(secret.encode(), stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
        return {"TikTok-Signature": f"t={stamp},s={made}"}

    sandbox.webhooks.send(str(url), body, headers, at=at)
