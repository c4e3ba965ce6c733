"""Who may do what: one line for each route. A route that is not in the table keeps the desk from starting."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType


class Role(IntEnum):
    """What somebody may do; each role may do what those before it may. PUBLIC needs no session."""

    PUBLIC = 0
    VIEWER = 1
    REVIEWER = 2
    OPERATOR = 3


# Everything that changes something is a POST; looking is a GET.
ROLES: Mapping[tuple[str, str], Role] = MappingProxyType(
    {
        ("GET", "/health"): Role.PUBLIC,
        ("GET", "/static/{digest}/{name}"): Role.PUBLIC,
        ("GET", "/login"): Role.PUBLIC,
        ("POST", "/login"): Role.PUBLIC,
        ("POST", "/logout"): Role.PUBLIC,
        ("GET", "/media/{name}"): Role.PUBLIC,  # the address is signed, for minutes
        ("GET", "/"): Role.VIEWER,
        ("POST", "/theme"): Role.VIEWER,
        # Review
        ("GET", "/review"): Role.VIEWER,
        ("GET", "/review/{key}"): Role.VIEWER,
        ("POST", "/review/{key}/decide"): Role.REVIEWER,
        ("POST", "/review/{key}/release"): Role.REVIEWER,
        ("POST", "/decisions/{number}/undo"): Role.REVIEWER,
        ("GET", "/events"): Role.VIEWER,
        # Pipeline
        ("GET", "/pipeline"): Role.VIEWER,
        ("GET", "/pipeline/act"): Role.OPERATOR,
        ("POST", "/pipeline/act"): Role.OPERATOR,
        ("GET", "/videos/{key}"): Role.VIEWER,
        ("GET", "/videos/{key}/raw"): Role.OPERATOR,
        ("GET", "/bulk"): Role.VIEWER,
        ("GET", "/bulk/{number}"): Role.VIEWER,
        ("POST", "/bulk/{number}/stop"): Role.OPERATOR,
        ("POST", "/bulk/{number}/go-on"): Role.OPERATOR,
        # Calendar
        ("GET", "/calendar"): Role.VIEWER,
        ("GET", "/calendar/{key}"): Role.VIEWER,
        ("POST", "/calendar/{key}/move"): Role.REVIEWER,
        # Providers
        ("GET", "/providers"): Role.VIEWER,
        ("GET", "/providers/{provider}"): Role.VIEWER,
        ("POST", "/providers/{provider}/trip"): Role.OPERATOR,
        ("POST", "/providers/{provider}/reset"): Role.OPERATOR,
        # Audit
        ("GET", "/audit"): Role.VIEWER,
    }
)

# They ask nobody who they are, so that they answer while PostgreSQL does not.
WITHOUT_VISITOR = frozenset({"/health", "/static/{digest}/{name}"})
