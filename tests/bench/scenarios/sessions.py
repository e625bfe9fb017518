"""A million live sessions in Redis, beside a Redis with a few: memory, what a request costs, the start, and lists.

Some people really sign in at each. The rest of the million is written through the proxy's own store (bench_stage of
tests/support): real keys, fields and indexes; the sealed bytes are random, of the length of a real record."""

import json
import os
import signal
import socket
import subprocess
import time

from kit import build
from kit.callgrind import ask
from kit.processes import cpu_nanoseconds, free_ports, resident_bytes, wait_until
from kit.proxies import Vestibule
from kit.table import interleaved, medians, table

RECORDS = 1_000_000
PEOPLE = 500
STARTS = 11
TOKEN = "bench-0aDm1n-Kq7_mVt2Kd9zLr4wNc8YbHs1Pf"
# Whom the stage signs in.
USER = "2f4b6d1c-6a86-4f43-9d0e-0c3f6d1e7a55"
# For so many seconds what was read of a session is used.
FRESH = 5


def run(bench):
    build.install(**{"redis-server": "redis-server", "valgrind": "valgrind"})
    records, people, starts = (20_000, 50, 3) if bench.quick else (RECORDS, PEOPLE, STARTS)
    few, many = Stored(bench, people), Stored(bench, people)
    before, begun = many.redis.memory(), time.monotonic()
    written = bench.stage.fill(many.redis.location, records)
    took, after = time.monotonic() - begun, many.redis.memory()
    each = (after["used_memory"] - before["used_memory"]) / records
    print(f"{people + 1:,} sign-ins at each of two Redis {many.redis.version()}, which write nothing to the disk; then {records:,} sessions more "
          f"in one of them, with sealed records of {written['bytes']} bytes, in {took:.0f} s: {each:,.0f} bytes each, "
          f"{after['used_memory'] / 2**20:,.0f} MiB in all ({after['used_memory_rss'] / 2**20:,.0f} resident).\n", flush=True)
    rows = {f"{few.count():,} sessions": few, f"{many.count():,} sessions": many}
    runs = bench.rounds_of({name: stored.asks for name, stored in rows.items()})
    table("GET of 1 KB, read within 5 s", "CPU µs", {name: medians(runs[name]) for name in rows}, ["req/s", "p50 ms", "p99 ms"])
    runs = bench.rounds_of({name: stored.asks_the_store for name, stored in rows.items()})
    table("GET of 1 KB that asks the store", "CPU µs", {name: medians(runs[name]) for name in rows}, ["ms"])
    figures = {name: {"MiB": resident_bytes(stored.pids()) / 2**20} for name, stored in rows.items()}
    begun = interleaved({name: stored.restart for name, stored in rows.items()}, starts)
    commands = interleaved({name: stored.commands for name, stored in rows.items()}, starts)
    for name in rows:
        figures[name] |= begun[name] | commands[name]
    table("Start, to the first signed-in answer", "ms", figures)
    table("Resident after that load", "MiB", figures)
    table("vestibule sessions", "show ms", figures, ["list --user ms"])
    if not bench.quick:
        began = time.monotonic()
        listed = many.command_line("list").count("\n")
        print(f"vestibule sessions list, all {listed:,}: {time.monotonic() - began:.0f} s.\n", flush=True)
    for name, stored in rows.items():
        figures[name] |= stored.instructions()
    table("GET of 1 KB, counted", "instructions", figures)


class Redis:
    def __init__(self, bench):
        self.port, = free_ports(1)
        self.location = f"redis://127.0.0.1:{self.port}"
        self.process = bench.processes.start(
            ["taskset", "-c", str(bench.load_core), "redis-server", "--port", str(self.port), "--bind", "127.0.0.1",
             "--save", "", "--appendonly", "no", "--dir", str(bench.directory)],
            end_with=signal.SIGKILL, stdout=subprocess.DEVNULL)
        wait_until(lambda: "PONG" in self.say("PING"), "Redis", self.process)

    def say(self, *command):
        return subprocess.run(["redis-cli", "-p", str(self.port), *command], capture_output=True, text=True).stdout

    def info(self, section):
        return dict(line.split(":", 1) for line in self.say("INFO", section).splitlines() if ":" in line)

    def memory(self):
        return {name: int(value) for name, value in self.info("memory").items() if name in ("used_memory", "used_memory_rss")}

    def version(self):
        return self.info("server")["redis_version"]


class Stored(Vestibule):
    """A proxy whose sessions lie in a Redis of its own, with somebody signed in, and others."""

    def __init__(self, bench, people):
        self.redis = Redis(bench)
        super().__init__(bench, sizes=None, extra={
            "VESTIBULE_SESSION_STORE": self.redis.location, "VESTIBULE_ADMIN_TOKEN": TOKEN,
            # Nothing is due while this lasts.
            "VESTIBULE_SESSION_IDLE": "24h", "VESTIBULE__SESSION__RENEW": "false"})
        self.people = [self.request(cookie) for cookie in bench.stage.sign_ins(self.origin, people)["cookies"]]
        self.asked = 0

    def count(self):
        """Counts the records, and not what else is there."""
        keys = int(self.redis.say("DBSIZE"))
        script = "local n = 0 for shard = 0, 63 do n = n + redis.call('ZCARD', 'vestibule:all:' .. string.char(shard)) end return n"
        records = int(self.redis.say("EVAL", script, "0"))
        if keys < records:
            raise SystemExit(f"bench: {records} sessions are listed, and there are {keys} keys")
        return records

    def asks_the_store(self, _):
        """Each of many people once, longer after the last time than what was read of their sessions is used."""
        time.sleep(max(0, self.asked + FRESH + 1 - time.monotonic()))
        before, begun = cpu_nanoseconds(self.process.pid), time.monotonic()
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            for request in self.people:
                ask(connection, request)
        self.asked = time.monotonic()
        return {"CPU µs": (cpu_nanoseconds(self.process.pid) - before) / len(self.people) / 1e3,
                "ms": (self.asked - begun) / len(self.people) * 1e3}

    def command_line(self, *arguments):
        return subprocess.run([self.bench.binary, "sessions", *arguments, "--json", "--url", f"http://127.0.0.1:{self.admin}"],
                              check=True, capture_output=True, text=True,
                              env={"PATH": os.environ["PATH"], "VESTIBULE_ADMIN_TOKEN": TOKEN}).stdout

    def commands(self):
        begun = time.monotonic()
        mine = self.command_line("list", "--user", USER)
        listed = time.monotonic()
        if not hasattr(self, "one"):
            self.one = json.loads(mine.splitlines()[0])["id"]
            return self.commands()
        self.command_line("show", self.one)
        return {"list --user ms": (listed - begun) * 1e3, "show ms": (time.monotonic() - listed) * 1e3}
