"""Runs work in a thread to its end: a cancelled caller waits for it, so that no transaction is abandoned."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

Given = ParamSpec("Given")
Answer = TypeVar("Answer")


async def in_thread(call: Callable[Given, Answer], *arguments: Given.args, **named: Given.kwargs) -> Answer:
    """`asyncio.to_thread`, but a cancellation is raised only after the thread has finished."""
    work = asyncio.create_task(asyncio.to_thread(call, *arguments, **named))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait({work})
        if not work.cancelled():
            work.exception()  # mark it as retrieved: no caller is left to raise it to
        raise
