"""The routes onto TikTok: the direct post, the draft in the creator's inbox, and the post by a gateway.

A channel chooses one under its key `tiktok`. A person approves a post together with its route, and the ledger keeps both.
"""

from __future__ import annotations

from typing import Literal

Route = Literal["direct", "inbox", "gateway"]
DIRECT: Route = "direct"
INBOX: Route = "inbox"
GATEWAY_ROUTE: Route = "gateway"
# What the ledger keeps as the audience of a draft. TikTok does not say which one the creator chose.
CREATORS_CHOICE = "CHOSEN_BY_CREATOR"
