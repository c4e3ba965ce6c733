"""Sends notices of videos that wait for approval to the alert URLs. Runs in `phantoms metrics`, in any number of processes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from phantoms_dagster.domain.errors import StoreAway
from phantoms_dagster.production.alerts import Message, Undelivered
from phantoms_dagster.production.review_notices import WaitingVideo, due, message
from phantoms_dagster.settings import Settings
from phantoms_dagster.store.away import in_words, is_away
from phantoms_dagster.store.review.notices import ReviewNotices
from phantoms_dagster.wiring.addresses import desk_url
from phantoms_dagster.wiring.alerts import destinations
from phantoms_dagster.wiring.threads import in_thread

LOOK_SECONDS = 10.0

_log = logging.getLogger(__name__)


def tell(settings: Settings, store: ReviewNotices, name: str, send: Callable[[Message], None]) -> str:
    """Send one destination the notice that is due. Returns the message's title, or why nothing was sent."""
    group_for, remind = timedelta(minutes=settings.review.notice_minutes), timedelta(hours=settings.review.reminder_hours)
    with store.turn(name) as turn:
        if turn is None:
            return "another process is sending, or it is not time yet"
        videos = [WaitingVideo(**vars(video)) for video in turn.videos()]
        found = due(videos, turn.now, group_for=group_for, remind=remind)
        if found is None:
            return "nothing is due"
        told = message(found, desk_url(settings))
        try:
            send(told)
        except Undelivered as error:
            turn.failed()
            _log.warning("a destination did not accept the notice of %d videos (%s); it is sent again", len(found.videos), error)
            return f"not accepted: {error}"
        turn.told([(video.id, video.ready_at) for video in found.videos])
        return told.title


async def notify(settings: Settings, engine: Engine, *, every_seconds: float = LOOK_SECONDS) -> None:
    """Send due notices to all destinations until cancelled. Returns at once if there is no destination."""
    targets, store, away = destinations(settings), ReviewNotices(engine), False
    while targets:
        try:
            for name, send in targets.items():
                await in_thread(tell, settings, store, name, send)
            away = False
        except Exception as error:  # noqa: BLE001 - no error may end the loop
            if not _is_away(error):
                _log.exception("review notices could not be read; trying again")
            elif not away:
                _log.warning("review notices: PostgreSQL does not answer (%s)", in_words(error))
                away = True
        await asyncio.sleep(every_seconds)


def _is_away(error: Exception) -> bool:
    return isinstance(error, StoreAway) or (isinstance(error, SQLAlchemyError) and is_away(error))
