"""Work in a thread that is seen through: who is cancelled waits for its end, so that no transaction is left to nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

Given = ParamSpec("Given")
Answer = TypeVar("Answer")


async def in_thread(call: Callable[Given, Answer], *arguments: Given.args, **named: Given.kwargs) -> Answer:
    """`asyncio.to_thread`, except that a cancellation is raised only when the thread is done."""
    work = asyncio.create_task(asyncio.to_thread(call, *arguments, **named))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait({work})
        if not work.cancelled():
            work.exception()  # nobody is left to be told
        raise
