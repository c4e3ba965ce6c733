"""What a fork copies of its parent's memory when the parent's memory is full of holes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from phantoms_dagster.execution import fork_memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

# Makes holes all over its memory, as imports do. Then a fork makes objects of the same sizes. Prints how many bytes it had to copy.
PROGRAM = """
import os, sys
from phantoms_dagster.execution.fork_memory import prepare_for_forks

def shared():
    with open("/proc/self/smaps_rollup") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith("Shared_Dirty")) * 1024

def objects(count):
    return [[bytes(15 + 16 * (number % 29)) for number in range(count)], [float(number) for number in range(count)]]

kept = objects(200_000)
kept = [[one for number, one in enumerate(some) if number // 29 % 40] for some in kept]
if sys.argv[1] == "prepared":
    prepare_for_forks()
if not os.fork():
    before = shared()
    made = objects(5_000)
    print(before - shared(), flush=True)
    os._exit(0)
os.wait()
"""


def _copied(how: str) -> int:
    program = [sys.executable, "-c", PROGRAM, how]
    return int(subprocess.run(program, capture_output=True, text=True, check=True, timeout=60).stdout)


def test_a_fork_puts_its_objects_on_pages_of_its_own() -> None:
    plain, prepared = _copied("as it is"), _copied("prepared")
    assert plain > 4_000_000
    assert prepared < plain / 5


def test_filling_takes_little_memory() -> None:
    program = (
        "from pathlib import Path\n"
        "from phantoms_dagster.execution import fork_memory\n"
        "taken = lambda: int(Path('/proc/self/statm').read_text().split()[1])\n"
        "fork_memory.fill_free_places(); before = taken(); fork_memory.fill_free_places(); print(taken() - before)"
    )
    pages = int(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60).stdout)
    assert pages * os.sysconf("SC_PAGE_SIZE") < 4_000_000


@pytest.mark.parametrize("size", range(fork_memory.STEP, fork_memory.LARGEST + 1, fork_memory.STEP))
def test_each_size_of_objects_is_filled(size: int) -> None:
    filling = fork_memory._fill_pools(size)
    assert len(filling) >= fork_memory.POOL_BYTES // size - 1
    assert size - fork_memory.STEP < sys.getsizeof(filling[0]) <= size


def test_where_the_allocator_works_in_another_way_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fork_memory, "POOL_BYTES", 1 << 20)  # no run of objects is as long as that
    assert fork_memory._fill_pools(64) == []
