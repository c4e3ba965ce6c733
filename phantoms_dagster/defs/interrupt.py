"""Runs a coroutine inside a step so that terminating the run cancels it.

Dagster raises its interrupt in a signal handler. Inside an event loop callback, asyncio would only log it and continue.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from dagster import DagsterExecutionInterruptedError

Answer = TypeVar("Answer")


def run_interruptible(coroutine: Coroutine[Any, Any, Answer], loop: asyncio.Runner) -> Answer:
    """Run a coroutine like `loop.run`. SIGINT and SIGTERM cancel it and raise DagsterExecutionInterruptedError."""
    if threading.current_thread() is not threading.main_thread():
        return loop.run(coroutine)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    interrupted = False

    async def main() -> Answer:
        nonlocal interrupted
        task, running = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None

        def interrupt() -> None:
            nonlocal interrupted
            interrupted = True
            task.cancel()

        for number in before:
            running.add_signal_handler(number, interrupt)
        try:
            return await coroutine
        finally:
            for number in before:
                running.remove_signal_handler(number)

    try:
        return loop.run(main())
    except asyncio.CancelledError:
        if interrupted:
            raise DagsterExecutionInterruptedError from None
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
