"""`python -m phantoms_dagster_tests.integration.forked_program WHAT`: what a preloaded parent forks in tests."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path


def main() -> None:
    """Do it."""
    match sys.argv[1:]:
        case ["tell"]:
            told = {
                "argv": sys.argv[1:],
                "name": __name__,
                "pid": os.getpid(),
                "session": os.getsid(0),
                "parent": os.getppid(),
                "marked": os.environ.get("MARK"),
                "home": os.environ.get("HOME"),
                "input": str(Path("/proc/self/fd/0").readlink()),
                "command": Path("/proc/self/cmdline").read_bytes().replace(b"\0", b" ").decode().strip(),
                "threads": threading.active_count(),
                "mask": [signal.Signals(number).name for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())],
                "dagster": "dagster" in sys.modules,
            }
            print(json.dumps(told), flush=True)
            signal.pause()
        case ["sleep"]:
            signal.pause()
        case ["end", code]:
            sys.exit(int(code))
        case ["say", words]:
            sys.exit(words)
        case ["tidy", path]:
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(Path(path).write_text("tidied") and 0))
            print("ready", flush=True)
            while True:  # a signal that arrives just before `signal.pause` blocks would not end it
                time.sleep(0.05)
        case _:
            raise SystemError("an unexpected thing")


if __name__ == "__main__":
    main()
