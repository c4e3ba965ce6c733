"""Runs ffmpeg as a child process that never outlives this one, and measures loudness with it.

`graph` and `studio` build its arguments.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import functools
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import imageio_ffmpeg

from phantoms_dagster.domain.errors import Evidence, Permanent, Transient
from phantoms_dagster.media import graph
from phantoms_dagster.media.disk import FULL_CODE

PROVIDER = "media"
THREADS = 2
PROGRESS_SECONDS = 0.5
SILENCE_LUFS = -60.0
_STDERR_TAIL = 4_000
_PR_SET_PDEATHSIG = 1
_INTEGRATED = re.compile(r"I:\s+(-?[\d.]+|nan|-inf) LUFS")


@functools.cache
def executable() -> str:
    """The path of imageio-ffmpeg's ffmpeg, or of the one in `IMAGEIO_FFMPEG_EXE`."""
    return str(imageio_ffmpeg.get_ffmpeg_exe())


async def run(
    arguments: Sequence[str],
    *,
    cwd: Path | None = None,
    timeout: float = 900.0,
    verbose: bool = False,
    progress: Callable[[float], None] | None = None,
) -> str:
    """Run ffmpeg to its end. Returns the tail of its standard error.

    `progress` is called twice a second with the seconds of output written so far. On cancellation or time-out the child is killed
    and reaped before this returns. Raises Permanent when ffmpeg rejects its input, and Transient when the machine is at fault:
    killed from outside, disk full, or not finished within `timeout` seconds.
    """
    level = "info" if verbose else "error"
    told = () if progress is None else ("-progress", "pipe:1", "-stats_period", f"{PROGRESS_SECONDS:g}")
    command = [executable(), "-hide_banner", "-nostdin", "-nostats", "-loglevel", level, *told, "-y", *arguments]
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=cwd,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL if progress is None else asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        preexec_fn=_die_with_parent(),
    )
    try:
        async with asyncio.timeout(timeout):
            stderr = await (_followed(process, progress) if progress is not None else _ended(process))
    except TimeoutError:
        raise Transient(f"ffmpeg did not finish within {timeout:.0f} s", provider=PROVIDER, code="timeout") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    tail = stderr.decode(errors="replace")[-_STDERR_TAIL:]
    if process.returncode:
        raise _failure(process.returncode, tail, command)
    return tail


async def _ended(process: asyncio.subprocess.Process) -> bytes:
    _, stderr = await process.communicate()
    return stderr


async def _followed(process: asyncio.subprocess.Process, progress: Callable[[float], None]) -> bytes:
    """Read ffmpeg's progress lines (`name=value`) until it ends, and call `progress`. Returns its standard error."""

    async def follow(lines: asyncio.StreamReader) -> None:
        async for line in lines:
            name, _, value = line.decode("ascii", "replace").strip().partition("=")
            # Before the first frame the time is `N/A` or below zero.
            if name == "out_time_us" and value.isdigit():
                progress(int(value) / 1e6)

    assert process.stdout is not None
    assert process.stderr is not None
    stderr, _, _ = await asyncio.gather(process.stderr.read(), follow(process.stdout), process.wait())
    return stderr


async def loudness(source: Path, chain: str = "anull") -> float:
    """The integrated loudness of `source` after the filters in `chain`, in LUFS (ITU-R BS.1770). -70 means silence."""
    printed = await run(
        ["-i", str(source), "-vn", "-threads", str(THREADS), "-af", f"{chain},ebur128=framelog=quiet", "-f", "null", "-"],
        verbose=True,
    )
    found = _INTEGRATED.findall(printed)
    if not found:
        raise Permanent("ffmpeg measured no loudness", provider=PROVIDER, code="loudness", evidence=Evidence(body=printed))
    return float(found[-1]) if found[-1] not in ("nan", "-inf") else -70.0


async def voice_gain(source: Path) -> float:
    """The gain in dB for `graph.voice` that brings `source` to the target loudness. 0 for silence.

    It is measured after the whole chain, because compressor and limiter absorb part of any gain. Each round at least halves the
    remaining difference.
    """
    gain = 0.0
    for _ in range(4):
        measured = await loudness(source, graph.voice(gain))
        if measured <= SILENCE_LUFS:
            return 0.0  # silence cannot be made loud
        missing = graph.TARGET_LUFS - measured
        gain += missing
        if abs(missing) <= 0.25:
            break
    return gain


def _failure(code: int, tail: str, command: list[str]) -> Permanent | Transient:
    reason = tail.strip().splitlines()[-1] if tail.strip() else f"exit code {code}"
    evidence = Evidence(body=tail, request=" ".join(command)[:2_000])
    if any(os.strerror(number) in tail for number in (errno.ENOSPC, errno.EDQUOT)):
        return Transient(f"ffmpeg's output did not fit: {reason}", provider=PROVIDER, code=FULL_CODE, evidence=evidence)
    if code < 0 or "Cannot allocate memory" in tail:
        signalled = f"killed by {signal.Signals(-code).name}" if code < 0 else reason
        return Transient(f"ffmpeg was stopped: {signalled}", provider=PROVIDER, code="stopped", evidence=evidence)
    return Permanent(f"ffmpeg refused: {reason}", provider=PROVIDER, code="ffmpeg", evidence=evidence)


def _die_with_parent() -> Callable[[], None] | None:
    """The child's `preexec_fn`: asks Linux to send it SIGKILL when this process dies, even by kill -9. None elsewhere."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    parent = os.getpid()

    def ask() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the parent died before the request was in place
            os._exit(1)

    return ask
