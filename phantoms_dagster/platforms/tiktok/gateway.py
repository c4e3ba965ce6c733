"""TikTok through a gateway: the form fields of a post, and what its answers mean.

The terms and the checks are those of a direct post.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from phantoms_dagster.domain.errors import ProviderError, Rejected
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import PublishJob
from phantoms_dagster.domain.values import JsonObject
from phantoms_dagster.platforms.tiktok.api import error_for
from phantoms_dagster.platforms.tiktok.chunks import is_public_id
from phantoms_dagster.platforms.tiktok.handover import waiting_for_creator
from phantoms_dagster.platforms.tiktok.requests import check_job, post_info
from phantoms_dagster.platforms.tools import Tools
from phantoms_dagster.providers.uploadpost.publisher import GatewayRules, UploadPostPublisher
from phantoms_dagster.providers.uploadpost.results import UploadPostLateIds, UploadPostMetricsReader, UploadPostReader

TIKTOK = Platform("tiktok")
_VIDEO = re.compile(r"/(?:video|watch)/(\d+)")


def fields(job: PublishJob, settings: JsonObject) -> Mapping[str, str]:
    """The fields of a direct post. Each is sent, because Upload-Post's defaults are not ours: it would post for everyone."""
    info = post_info(job, settings)
    sent = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in info.items()}
    return {**sent, "post_mode": "DIRECT_POST"}


def _error(code: str, said: str) -> ProviderError | None:
    if code == "tiktok_privacy_unavailable":
        return Rejected(f"TikTok: the account does not offer this privacy level ({code})", provider="uploadpost", code=code)
    return error_for(code, said)


def _public_id(text: str) -> str | None:
    """The public id of a video in its URL, or the text itself if it is one."""
    found = _VIDEO.search(text)
    return found[1] if found else text if is_public_id(text) else None


def _listed(fields: Mapping[str, str]) -> bool:
    return fields.get("privacy_level") == "PUBLIC_TO_EVERYONE"


def publisher(tools: Tools) -> UploadPostPublisher:
    """The publisher for posts whose route is the gateway."""
    rules = GatewayRules(
        check=check_job,
        fields=fields,
        error=_error,
        waiting=waiting_for_creator,
        public_id=_public_id,
        listed=_listed,
    )
    return UploadPostPublisher(TIKTOK, rules, tools.service("uploadpost"), max_wait=tools.max_wait)


def late_ids(tools: Tools) -> UploadPostLateIds:
    """The finder of public ids for such posts."""
    return UploadPostLateIds(TIKTOK, _public_id, tools.service("uploadpost"))


def metrics(tools: Tools) -> UploadPostMetricsReader:
    """The reader of their numbers."""
    return UploadPostMetricsReader(TIKTOK, _public_id, tools.service("uploadpost"))


def post_reader(tools: Tools) -> UploadPostReader:
    """The reader that tells whether TikTok still shows them."""
    return UploadPostReader(TIKTOK, tools.service("uploadpost"))
