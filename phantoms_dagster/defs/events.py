"""Materializations and observations of many partitions, written in batches: one by one they cost 4 ms each, in a batch 0.3."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
from dagster._core.events import (
    AssetObservationData,
    DagsterEvent,
    DagsterEventBatchMetadata,
    StepMaterializationData,
    generate_event_batch_id,
)
from dagster._core.instance.utils import RUNLESS_JOB_NAME, RUNLESS_RUN_ID

Told = dg.AssetMaterialization | dg.AssetObservation


class Stamps:
    """Times of events, in seconds, no two of them in the same millisecond.

    Dagster's pages tell the events of a run apart by the millisecond: of two with the same one they show the first.
    """

    def __init__(self) -> None:
        self._last = 0

    def next(self, at: float | None = None) -> float:
        """The given time (default: now), or the first free millisecond after it."""
        self._last = max(int((time.time() if at is None else at) * 1000), self._last + 1)
        return (self._last + 0.5) / 1000  # half way, so that no rounding reaches a neighbour


def log_materializations(
    context: dg.AssetExecutionContext,
    asset_key: dg.AssetKey,
    metadata: Mapping[str, Mapping[str, Any]],
    *,
    stamps: Stamps | None = None,
    at: Mapping[str, float] | None = None,
) -> None:
    """Log one materialization for each partition key in `metadata`. `at`: when each was made, in seconds; default: now.

    They reach the instance as Dagster's log manager would hand them over, but not through its loggers: a third of what an event
    costs is a line in the step's output that does not even say which video.
    """
    events = [dg.AssetMaterialization(asset_key, partition=key, metadata=dict(entries)) for key, entries in metadata.items()]
    log_events(context, events, stamps=stamps or Stamps(), at=[(at or {}).get(key) for key in metadata])


def log_events(
    context: dg.AssetExecutionContext, events: Sequence[Told], *, stamps: Stamps, at: Sequence[float | None] | None = None
) -> None:
    """Log materializations, or observations, of partitions as this step's, all in one batch."""
    of_step = context.get_step_execution_context()
    step = of_step.step
    common = {
        "job_name": of_step.job_name,
        "step_handle": step.handle,
        "node_handle": step.node_handle,
        "step_kind_value": step.kind.value,
        "logging_tags": of_step.event_tags,
    }
    times = [stamps.next(each) for each in at or [None] * len(events)]
    _write(context.instance, events, times, run_id=context.run.run_id, step_key=step.key, common=common)


def log_checks(context: dg.AssetExecutionContext, evaluations: Sequence[dg.AssetCheckEvaluation]) -> None:
    """Log evaluations of checks as this step's, though the run did not plan them, all in one batch."""
    of_step, stamps, batch = context.get_step_execution_context(), Stamps(), generate_event_batch_id()
    step = of_step.step
    for number, evaluation in enumerate(evaluations, start=1):
        message = f"Asset check {evaluation.check_name!r} on {evaluation.asset_key.to_user_string()!r} "
        message += "passed." if evaluation.passed else "did not pass."
        event = DagsterEvent(
            event_type_value=dg.DagsterEventType.ASSET_CHECK_EVALUATION.value,
            job_name=of_step.job_name,
            step_handle=step.handle,
            node_handle=step.node_handle,
            step_kind_value=step.kind.value,
            logging_tags=of_step.event_tags,
            event_specific_data=evaluation,
            message=message,
            pid=os.getpid(),
        )
        entry = dg.EventLogEntry(
            error_info=None,
            level=logging.DEBUG,
            user_message=message,
            run_id=context.run.run_id,
            timestamp=stamps.next(),
            step_key=step.key,
            job_name=of_step.job_name,
            dagster_event=event,
        )
        context.instance.handle_new_event(entry, batch_metadata=DagsterEventBatchMetadata(batch, number == len(evaluations)))


def report_events(instance: dg.DagsterInstance, events: Sequence[Told], *, stamps: Stamps) -> None:
    """Report events without a run, all in one batch."""
    times = [stamps.next() for _ in events]
    _write(instance, events, times, run_id=RUNLESS_RUN_ID, step_key=None, common={"job_name": RUNLESS_JOB_NAME})


def _write(
    instance: dg.DagsterInstance,
    events: Sequence[Told],
    times: Sequence[float],
    *,
    run_id: str,
    step_key: str | None,
    common: Mapping[str, Any],
) -> None:
    batch, last = generate_event_batch_id(), len(events) - 1
    for number, (told, timestamp) in enumerate(zip(events, times, strict=True)):
        made = isinstance(told, dg.AssetMaterialization)
        message = f"Materialized value {told.label}." if made else "DagsterEventType.ASSET_OBSERVATION for step"
        kind = dg.DagsterEventType.ASSET_MATERIALIZATION if made else dg.DagsterEventType.ASSET_OBSERVATION
        event = DagsterEvent(
            event_type_value=kind.value,
            event_specific_data=StepMaterializationData(told) if made else AssetObservationData(told),
            message=message,
            pid=os.getpid(),
            **common,
        )
        entry = dg.EventLogEntry(
            error_info=None,
            level=logging.DEBUG,
            user_message=message,
            run_id=run_id,
            timestamp=timestamp,
            step_key=step_key,
            job_name=common["job_name"],
            dagster_event=event,
        )
        instance.handle_new_event(entry, batch_metadata=DagsterEventBatchMetadata(batch, number == last))
