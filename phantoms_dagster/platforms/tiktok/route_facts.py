"""What each route onto TikTok needs and gives, in words."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from phantoms_dagster.platforms.route_facts import RouteFact
from phantoms_dagster.platforms.tiktok.grants import PUBLISH, UPLOAD
from phantoms_dagster.platforms.tiktok.routes import GATEWAY_ROUTE, INBOX

UNAUDITED = (
    "TikTok does not say whether it has audited the app. Until it has, nobody but the creator sees the posts (SELF_ONLY), the "
    "account must be private, and at most five users a day can post"
)
WAYS_OUT = "if the app is not audited, use `tiktok: {route: inbox}` or `tiktok: {route: gateway}` in channels.yaml (docs/tiktok.md)"
CONNECT = "connect the account again after `tiktok: {{route: {}}}` is in channels.yaml"


def route_facts(missing: Collection[str], route: str, *, gateway: bool) -> Sequence[RouteFact]:
    """All routes of an account. `missing`: permissions that its token lacks for `route`. `gateway`: its key is set."""
    direct = RouteFact("", "direct post", "perhaps", UNAUDITED, WAYS_OUT)
    if PUBLISH.name in missing:
        direct = RouteFact("", "direct post", "no", f"the token lacks {PUBLISH.name}", CONNECT.format("direct"))
    elif route == INBOX:
        direct = RouteFact("", "direct post", "perhaps", f"it needs {PUBLISH.name}. {UNAUDITED}")
    inbox = RouteFact(INBOX, "inbox", "yes", "a draft, which the creator finishes in the TikTok app; no audit is needed")
    if UPLOAD.name in missing:
        inbox = RouteFact(INBOX, "inbox", "no", f"the token lacks {UPLOAD.name}", CONNECT.format("inbox"))
    elif route != INBOX:
        why = f"it needs {UPLOAD.name}; the creator finishes a draft in the TikTok app, and no audit is needed"
        inbox = RouteFact(INBOX, "inbox", "perhaps", why, CONNECT.format("inbox"))
    by_gateway = RouteFact(GATEWAY_ROUTE, "gateway", "yes", "Upload-Post publishes, with an app that TikTok has audited")
    if not gateway:
        key = "PHANTOMS_UPLOADPOST_API_KEY"
        by_gateway = RouteFact(GATEWAY_ROUTE, "gateway", "no", f"{key} is not set; Upload-Post's app is audited", f"set {key}")
    return (direct, inbox, by_gateway)
