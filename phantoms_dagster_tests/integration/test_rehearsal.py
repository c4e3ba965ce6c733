"""What the workers' parent does once before it forks them, so that they share its memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys

# Two children do what a worker does when it begins: one before the parent has rehearsed it, one after.
CODE = """
import gc, json, os, sys, threading
from phantoms_dagster import settings as settings_module
from phantoms_dagster.execution import run_worker
from phantoms_dagster.resilience.redis.refusals import OutageAwareRedis

def private_bytes():
    lines = (line.split() for line in open("/proc/self/smaps_rollup"))
    return next(int(words[1]) for words in lines if words[0] == "Private_Dirty:") * 1024

def child():
    reading, writing = os.pipe()
    if os.fork() == 0:
        before = private_bytes()
        OutageAwareRedis.from_url(url).ping()
        run_worker.schema_problem()
        os.write(writing, json.dumps(private_bytes() - before).encode())
        os._exit(0)
    os.wait()
    return json.loads(os.read(reading, 100))

def sockets():
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink("/proc/self/fd/" + name))
        except FileNotFoundError:
            pass  # the descriptor that listed them
    return [name for name in found if name.startswith("socket:")]

url = sys.argv[1]
settings_module.pin(settings_module.load())
gc.collect()
gc.freeze()
unrehearsed = child()
run_worker.schema_version.CACHE_SECONDS = 0.0  # the second child asks as well
run_worker.warm_up(url)
gc.collect()
gc.freeze()
print(json.dumps([unrehearsed, child(), threading.active_count(), sockets()]))
"""


def test_workers_share_what_their_beginning_takes_and_inherit_no_connection_and_no_thread(
    database_url: str, redis_url: str
) -> None:
    environment = {**os.environ, "PHANTOMS_DATABASE_URL": database_url}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CODE, redis_url],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    alone, shared, threads, sockets = json.loads(done.stdout)
    assert shared < alone * 0.75
    assert threads == 1
    assert sockets == []


def test_a_rehearsal_without_stores_causes_no_trouble() -> None:
    code = "from phantoms_dagster.execution import run_worker; run_worker.warm_up('redis://127.0.0.1:1/0')"
    environment = {**os.environ, "PHANTOMS_DATABASE_URL": "postgresql://u:p@127.0.0.1:1/none"}
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], env=environment, check=True, timeout=120)


FIRST_USES = """
import sys
from phantoms_dagster.execution import worker
worker.load("phantoms_dagster.definitions")
before = set(sys.modules)
from phantoms_dagster.domain import markup
from phantoms_dagster.domain.languages import language_tag
assert language_tag("de_at") == "de-AT"
assert markup.posted("**Deep** [sea](https://x.example)").text == "Deep sea (https://x.example)"
assert markup.spoken("_Deep_ & sea <br> 3").text
print(sorted(set(sys.modules) - before))
"""


def test_what_a_run_uses_first_was_imported_before_the_fork() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FIRST_USES], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout == "[]\n"
