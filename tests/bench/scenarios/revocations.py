"""Ended sessions that a proxy with cookie sessions remembers: none, ten thousand, a hundred thousand. What a request costs, by
time and by instructions, the file that keeps them over restarts, memory, and the start.

They are ended as an operator ends them, by the admin listener: half of them by id, half by person."""

import asyncio
import os

from kit import build
from kit.processes import resident_bytes
from kit.proxies import Vestibule
from kit.table import interleaved, medians, table

COUNTS = [0, 1, 10_000, 100_000]
STARTS = 11
AT_ONCE = 64
TOKEN = "bench-0aDm1n-Kq7_mVt2Kd9zLr4wNc8YbHs1Pf"


def run(bench):
    build.install(valgrind="valgrind")
    counts = [count // 50 if bench.quick and count > 50 else count for count in COUNTS]
    rows = {f"{count:,} ended sessions": Remembering(bench, count) for count in counts}
    runs = bench.rounds_of({name: one.asks for name, one in rows.items()})
    figures = {name: medians(runs[name]) for name in rows}
    for name, one in rows.items():
        figures[name] |= {"MiB": resident_bytes(one.pids()) / 2**20, "KiB of file": one.file_bytes() / 1024}
    starts = interleaved({name: one.restart for name, one in rows.items()}, 3 if bench.quick else STARTS)
    for name, one in rows.items():
        figures[name] |= starts[name] | {"MiB anew": resident_bytes(one.pids()) / 2**20} | one.instructions()
    table("GET of 1 KB with a session cookie", "instructions", figures, ["CPU µs", "req/s", "p99 ms"])
    table("Start, to the first signed-in answer", "ms", figures)
    table("Resident", "MiB", figures, ["MiB anew", "KiB of file"])


class Remembering(Vestibule):
    """A proxy that has ended so many sessions, none of them that of whoever is signed in."""

    def __init__(self, bench, count):
        self.folder = bench.directory / f"state-{count}"
        super().__init__(bench, extra={
            "VESTIBULE_STATE_DIR": str(self.folder), "VESTIBULE_ADMIN_TOKEN": TOKEN,
            # Nothing is due while this lasts.
            "VESTIBULE_SESSION_IDLE": "24h", "VESTIBULE__SESSION__RENEW": "false"})
        asyncio.run(self.end(count))

    async def end(self, count):
        paths = (f"/sessions/{os.urandom(16).hex()}" if number % 2 else f"/sessions?user=somebody-{number}" for number in range(count))
        await asyncio.gather(*(self.end_some(paths) for _ in range(min(AT_ONCE, count))))

    async def end_some(self, paths):
        fields = f"Host: 127.0.0.1:{self.admin}\r\nAuthorization: Bearer {TOKEN}\r\n"
        for path in paths:
            # That listener keeps no connection.
            reader, writer = await asyncio.open_connection("127.0.0.1", self.admin)
            writer.write(f"DELETE {path} HTTP/1.1\r\n{fields}\r\n".encode())
            answer = await reader.read()
            if not answer.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"bench: not ended: {answer!r}")
            writer.close()

    def file_bytes(self):
        return sum(path.stat().st_size for path in self.folder.glob("*.log"))
