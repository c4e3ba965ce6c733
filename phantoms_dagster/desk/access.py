"""The role that each route needs. The desk does not start when a route is missing here."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType


class Role(IntEnum):
    """A user's role. Each role includes the ones before it. PUBLIC needs no session."""

    PUBLIC = 0
    VIEWER = 1
    REVIEWER = 2
    OPERATOR = 3


# Reads are GETs, changes are POSTs. The exceptions are the returns from a log-in at the provider and from a platform's consent.
ROLES: Mapping[tuple[str, str], Role] = MappingProxyType(
    {
        ("GET", "/health"): Role.PUBLIC,
        ("GET", "/static/{digest}/{name}"): Role.PUBLIC,
        ("GET", "/login"): Role.PUBLIC,
        ("POST", "/login"): Role.PUBLIC,
        ("GET", "/login/oidc"): Role.PUBLIC,
        ("GET", "/login/oidc/back"): Role.PUBLIC,  # works once, and only in the browser that started the log-in
        ("POST", "/logout"): Role.PUBLIC,
        ("GET", "/media/{name}"): Role.PUBLIC,  # the URL is signed and expires within minutes
        ("GET", "/provider-events/{integration}"): Role.PUBLIC,  # each delivery is signed, and stored at most once
        ("POST", "/provider-events/{integration}"): Role.PUBLIC,
        ("POST", "/provider-events/{integration}/{secret}"): Role.PUBLIC,
        ("GET", "/"): Role.VIEWER,
        ("POST", "/theme"): Role.VIEWER,
        # Review
        ("GET", "/review"): Role.VIEWER,
        ("GET", "/review/{key}"): Role.VIEWER,
        ("POST", "/review/{key}/decide"): Role.REVIEWER,
        ("POST", "/review/{key}/release"): Role.REVIEWER,
        ("GET", "/review/{key}/edit"): Role.REVIEWER,
        ("POST", "/review/{key}/edit"): Role.REVIEWER,
        ("POST", "/decisions/{number}/undo"): Role.REVIEWER,
        ("GET", "/events"): Role.VIEWER,
        # Guest links
        ("GET", "/guest/{secret}"): Role.PUBLIC,  # the secret in the URL is the credential; a GET changes nothing
        ("POST", "/guest/{secret}"): Role.PUBLIC,
        ("GET", "/guest-links"): Role.VIEWER,
        ("POST", "/review/{key}/guest-links"): Role.REVIEWER,
        ("POST", "/guest-links/{number}/revoke"): Role.REVIEWER,
        # Pipeline
        ("GET", "/pipeline"): Role.VIEWER,
        ("GET", "/pipeline/act"): Role.OPERATOR,
        ("POST", "/pipeline/act"): Role.OPERATOR,
        ("GET", "/videos/{key}"): Role.VIEWER,
        ("GET", "/videos/{key}/raw"): Role.OPERATOR,
        ("POST", "/videos/{key}/settle/{platform}"): Role.OPERATOR,
        ("GET", "/videos/{key}/takedown/{platform}"): Role.OPERATOR,
        ("POST", "/videos/{key}/takedown/{platform}"): Role.OPERATOR,
        ("GET", "/bulk"): Role.VIEWER,
        ("GET", "/bulk/{number}"): Role.VIEWER,
        ("POST", "/bulk/{number}/stop"): Role.OPERATOR,
        ("POST", "/bulk/{number}/go-on"): Role.OPERATOR,
        # Dead letters
        ("GET", "/dead-letters"): Role.VIEWER,
        ("GET", "/dead-letters/{cause}"): Role.VIEWER,
        ("POST", "/dead-letters/{cause}/say"): Role.OPERATOR,
        ("GET", "/dead-letters/{cause}/act"): Role.OPERATOR,
        ("POST", "/dead-letters/{cause}/act"): Role.OPERATOR,
        # Calendar
        ("GET", "/calendar"): Role.VIEWER,
        ("GET", "/calendar/{secret}.ics"): Role.PUBLIC,  # the secret in the URL is the credential
        ("GET", "/calendar-feeds"): Role.VIEWER,
        ("POST", "/calendar-feeds"): Role.REVIEWER,
        ("POST", "/calendar-feeds/{number}/revoke"): Role.REVIEWER,
        ("GET", "/calendar/{key}"): Role.VIEWER,
        ("POST", "/calendar/{key}/move"): Role.REVIEWER,
        ("POST", "/calendar/{key}/post/{platform}"): Role.REVIEWER,
        # Providers
        ("GET", "/providers"): Role.VIEWER,
        ("GET", "/providers/{provider}"): Role.VIEWER,
        ("POST", "/providers/{provider}/trip"): Role.OPERATOR,
        ("POST", "/providers/{provider}/reset"): Role.OPERATOR,
        # Accounts
        ("GET", "/accounts"): Role.VIEWER,
        ("POST", "/accounts/connect"): Role.OPERATOR,
        ("GET", "/callback"): Role.OPERATOR,  # works once, and only in the session that began the attempt
        ("GET", "/callback/"): Role.OPERATOR,
        ("POST", "/accounts/check"): Role.OPERATOR,
        ("GET", "/accounts/disconnect"): Role.OPERATOR,
        ("POST", "/accounts/disconnect"): Role.OPERATOR,
        # The API
        ("GET", "/api/v1/openapi.json"): Role.VIEWER,
        ("GET", "/api/v1/me"): Role.VIEWER,
        ("GET", "/api/v1/audit"): Role.VIEWER,
        ("POST", "/api/v1/briefs"): Role.OPERATOR,
        ("POST", "/api/v1/briefs/check"): Role.OPERATOR,
        ("GET", "/api/v1/videos"): Role.VIEWER,
        ("GET", "/api/v1/videos/{key}"): Role.VIEWER,
        ("GET", "/api/v1/posts"): Role.VIEWER,
        ("GET", "/api/v1/videos/{key}/posts/{platform}"): Role.VIEWER,
        ("POST", "/api/v1/videos/{key}/posts/{platform}/settle"): Role.OPERATOR,
        ("POST", "/api/v1/videos/{key}/posts/{platform}/takedown"): Role.OPERATOR,
        ("GET", "/api/v1/review"): Role.VIEWER,
        ("GET", "/api/v1/videos/{key}/review"): Role.VIEWER,
        ("POST", "/api/v1/videos/{key}/decision"): Role.REVIEWER,
        ("POST", "/api/v1/videos/{key}/release"): Role.REVIEWER,
        ("GET", "/api/v1/decisions/{number}"): Role.VIEWER,
        ("POST", "/api/v1/decisions/{number}/undo"): Role.REVIEWER,
        ("GET", "/api/v1/guest-links"): Role.VIEWER,
        ("POST", "/api/v1/videos/{key}/guest-links"): Role.REVIEWER,
        ("POST", "/api/v1/guest-links/{number}/revoke"): Role.REVIEWER,
        ("GET", "/api/v1/dead-letters"): Role.VIEWER,
        ("GET", "/api/v1/dead-letters/{number}"): Role.VIEWER,
        ("POST", "/api/v1/dead-letters/{number}/replay"): Role.OPERATOR,
        ("POST", "/api/v1/dead-letters/{number}/discard"): Role.OPERATOR,
        ("GET", "/api/v1/videos/{key}/texts"): Role.VIEWER,
        ("POST", "/api/v1/videos/{key}/texts"): Role.REVIEWER,
        ("GET", "/api/v1/issues"): Role.VIEWER,
        ("GET", "/api/v1/issues/{cause}"): Role.VIEWER,
        ("POST", "/api/v1/issues/{cause}/say"): Role.OPERATOR,
        ("GET", "/api/v1/performance"): Role.VIEWER,
        ("GET", "/api/v1/bulk-actions"): Role.VIEWER,
        ("POST", "/api/v1/bulk-actions"): Role.OPERATOR,
        ("GET", "/api/v1/bulk-actions/{number}"): Role.VIEWER,
        ("GET", "/api/v1/bulk-actions/{number}/steps"): Role.VIEWER,
        ("POST", "/api/v1/bulk-actions/{number}/stop"): Role.OPERATOR,
        ("POST", "/api/v1/bulk-actions/{number}/go-on"): Role.OPERATOR,
        ("GET", "/api/v1/pools"): Role.VIEWER,
        ("GET", "/api/v1/breakers"): Role.VIEWER,
        ("POST", "/api/v1/breakers/trip"): Role.OPERATOR,
        ("POST", "/api/v1/breakers/reset"): Role.OPERATOR,
        ("GET", "/api/v1/calendar"): Role.VIEWER,
        ("POST", "/api/v1/calendar/{key}/move"): Role.REVIEWER,
        # Performance
        ("GET", "/performance"): Role.VIEWER,
        # Add
        ("GET", "/add"): Role.VIEWER,
        ("POST", "/add"): Role.OPERATOR,
        ("POST", "/add/check"): Role.OPERATOR,
        ("POST", "/add/take"): Role.OPERATOR,
        # Webhooks
        ("GET", "/webhooks"): Role.VIEWER,
        ("POST", "/webhooks/add"): Role.OPERATOR,
        ("POST", "/webhooks/resend"): Role.OPERATOR,
        ("POST", "/webhooks/{number}/rotate"): Role.OPERATOR,
        ("POST", "/webhooks/{number}/enable"): Role.OPERATOR,
        ("POST", "/webhooks/{number}/remove"): Role.OPERATOR,
        ("GET", "/webhooks/deliveries/{number}"): Role.VIEWER,
        ("POST", "/webhooks/deliveries/{number}/resend"): Role.OPERATOR,
        ("GET", "/api/v1/webhooks"): Role.VIEWER,
        ("POST", "/api/v1/webhooks"): Role.OPERATOR,
        ("POST", "/api/v1/webhooks/{number}/rotate"): Role.OPERATOR,
        ("POST", "/api/v1/webhooks/{number}/enable"): Role.OPERATOR,
        ("POST", "/api/v1/webhooks/{number}/remove"): Role.OPERATOR,
        ("GET", "/api/v1/webhook-deliveries"): Role.VIEWER,
        ("POST", "/api/v1/webhooks/resend"): Role.OPERATOR,
        ("GET", "/api/v1/webhook-deliveries/{number}"): Role.VIEWER,
        ("POST", "/api/v1/webhook-deliveries/{number}/resend"): Role.OPERATOR,
        # Audit
        ("GET", "/audit"): Role.VIEWER,
    }
)

# These routes do not look up the visitor and need no CSRF token. The first two answer even while PostgreSQL is down. The last two
# are for programs, which prove where their deliveries come from.
WITHOUT_VISITOR = frozenset(
    {"/health", "/static/{digest}/{name}", "/provider-events/{integration}", "/provider-events/{integration}/{secret}"}
)
