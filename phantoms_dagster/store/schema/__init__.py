"""The tables in SQLAlchemy. `migrations` creates them, and a test compares both."""

from __future__ import annotations

from phantoms_dagster.store.schema.calendar import bookings, calendar_feeds, missed_slots
from phantoms_dagster.store.schema.columns import SCHEMA, metadata
from phantoms_dagster.store.schema.desk import bulk_actions, bulk_items, guest_links, holds, issues, pending_decisions
from phantoms_dagster.store.schema.outside import (
    provider_events,
    review_destinations,
    review_notices,
    webhook_attempts,
    webhook_deliveries,
    webhook_endpoints,
    webhook_events,
)
from phantoms_dagster.store.schema.people import api_answers, api_tokens, audit_log, desk_sessions, oidc_states, users
from phantoms_dagster.store.schema.posts_and_accounts import (
    accounts,
    late_ids,
    notices,
    post_changes,
    post_extras,
    posts,
    preflight_accounts,
    preflight_posts,
)
from phantoms_dagster.store.schema.results import (
    account_reads,
    hook_performance,
    metric_snapshots,
    performance_sums,
    platform_performance,
    post_reads,
    video_performance,
)
from phantoms_dagster.store.schema.videos_and_stages import (
    approvals,
    attempts,
    channels,
    dead_letters,
    earlier_revisions,
    first_approvals,
    renders,
    stages,
    videos,
)

__all__ = [
    "SCHEMA",
    "account_reads",
    "accounts",
    "api_answers",
    "api_tokens",
    "approvals",
    "attempts",
    "audit_log",
    "bookings",
    "bulk_actions",
    "bulk_items",
    "calendar_feeds",
    "channels",
    "dead_letters",
    "desk_sessions",
    "earlier_revisions",
    "first_approvals",
    "guest_links",
    "holds",
    "hook_performance",
    "issues",
    "late_ids",
    "metadata",
    "metric_snapshots",
    "missed_slots",
    "notices",
    "oidc_states",
    "pending_decisions",
    "performance_sums",
    "platform_performance",
    "post_changes",
    "post_extras",
    "post_reads",
    "posts",
    "preflight_accounts",
    "preflight_posts",
    "provider_events",
    "renders",
    "review_destinations",
    "review_notices",
    "stages",
    "users",
    "video_performance",
    "videos",
    "webhook_attempts",
    "webhook_deliveries",
    "webhook_endpoints",
    "webhook_events",
]
