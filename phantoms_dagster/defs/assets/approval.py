"""The asset `approval`: a person's decision on a video."""

from collections.abc import Iterator
from datetime import UTC, datetime
from enum import Enum

import dagster as dg
from pydantic import Field

from phantoms_dagster.defs.assets.stage_asset import spec
from phantoms_dagster.defs.checks import ChecksLeft
from phantoms_dagster.defs.checks import specs as checks_of
from phantoms_dagster.defs.stage_step import Ended, run_stage
from phantoms_dagster.domain.claims import ReviewDecision
from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.stages import STAGES
from phantoms_dagster.wiring import Services

STAGE = STAGES["approval"]


class Choice(Enum):
    """The possible decisions."""

    UNDECIDED = "undecided"
    APPROVE = "approve"
    REJECT = "reject"


class ApprovalConfig(dg.Config):
    """Run config. Decide on every video of this run, or leave `undecided` to apply decisions made elsewhere."""

    decision: Choice = Choice.UNDECIDED
    reviewer: str = Field(default="", description="Name of the reviewer; required with a decision.")
    note: str = ""
    content_sha256: str = Field(
        default="",
        description="Hash of the version that was reviewed, from `rendered_video` or `phantoms show`; for one video only. "
        "Empty: the version that was rendered.",
    )


@dg.multi_asset(
    name=STAGE.slug,
    specs=[spec(STAGE)],
    check_specs=checks_of(STAGE),
    can_subset=True,  # so that the asset can run without its checks, and the checks without it
    pool=STAGE.pool,
    backfill_policy=dg.BackfillPolicy.multi_run(50),
)
def approval(
    context: dg.AssetExecutionContext,
    config: ApprovalConfig,
    services: dg.ResourceParam[Services],
    checks_left: dg.ResourceParam[ChecksLeft],
) -> Iterator[Ended]:
    """Record the decision in the run config, or apply one that was recorded before."""
    decision: ReviewDecision | None = None
    if config.decision is not Choice.UNDECIDED and context.selected_asset_keys:
        if not config.reviewer.strip():
            raise dg.Failure("a decision needs a `reviewer` in the run config", allow_retries=False)
        approved, looked_at = config.decision is Choice.APPROVE, config.content_sha256.strip() or None
        if looked_at is not None and len(context.partition_keys) > 1:
            raise dg.Failure("`content_sha256` is for one video; decide on one video at a time", allow_retries=False)
        decision = ReviewDecision(approved, config.reviewer.strip(), config.note, decided_at=datetime.now(UTC))
        try:
            for key in context.partition_keys:
                warnings = services.record_decision(
                    key, approved=approved, reviewer=decision.reviewer, note=decision.note, content_sha256=looked_at
                )
                for warning in warnings:
                    context.log.warning("%s: %s", key, warning)
        except InvalidInput as error:
            raise dg.Failure(str(error), allow_retries=False) from error
    yield from run_stage(context, services, checks_left, STAGE, decision=decision)
