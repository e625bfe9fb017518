"""Processes that end with the benchmark, and what is read of them."""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

TICKS = os.sysconf("SC_CLK_TCK")


class Processes:
    """Ends whatever it started."""

    def __enter__(self):
        self.running = []
        return self

    def start(self, command, end_with=signal.SIGTERM, **options):
        process = subprocess.Popen(command, **{"stdin": subprocess.DEVNULL, **options})
        self.running.append((process, end_with))
        return process

    def end(self, process):
        """Ends one of them before the others."""
        _, end_with = next(entry for entry in self.running if entry[0] is process)
        self.running = [entry for entry in self.running if entry[0] is not process]
        finish([(process, end_with)])

    def __exit__(self, *_):
        finish(self.running)


def finish(running):
    for process, end_with in reversed(running):
        process.send_signal(end_with)
    for process, _ in running:
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()


def line_from(process):
    line = process.stdout.readline()
    if not line:
        sys.exit("bench: the helper that signs in has ended")
    return line


def children(pid):
    return [int(child) for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def cpu_seconds(pids):
    total = 0
    for pid in pids:
        # utime and stime of the whole process, all threads: fields 14 and 15, counted behind the name in brackets.
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def cpu_nanoseconds(pid):
    """What its threads that live have used, as exactly as the scheduler knows it: for what takes few ticks."""
    return sum(int(task.read_text().split()[0]) for task in pathlib.Path(f"/proc/{pid}/task").glob("*/schedstat"))


def resident_bytes(pids):
    """What the processes hold of memory, a page that several share counted in parts (PSS)."""
    return sum(rollup(pid)["Pss"] for pid in pids)


def alone_bytes(pids):
    """What the processes would hold if nothing else ran here, and what of it no file backs. A page of a file counts in full,
    though another proxy or the upstream may hold it too, but once for all of these: as many as the one holds that has most."""
    found = [rollup(pid) for pid in pids]
    anonymous = sum(fields["Pss_Anon"] for fields in found)
    return anonymous + max(fields["Rss"] - fields["Anonymous"] for fields in found), anonymous


def rollup(pid):
    """The kernel's sums over all mappings of a process, in bytes."""
    lines = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {name: int(value.split()[0]) * 1024 for name, value in (line.split(":") for line in lines)}


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def first_answer(port, request, wanted=b"HTTP/1.1 "):
    """Seconds until a request is answered as wanted, on one new connection after the other."""
    begun = time.monotonic()
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.sendall(request)
                if connection.recv(64).startswith(wanted):
                    return time.monotonic() - begun
        except OSError:
            pass
        if time.monotonic() - begun > 60:
            sys.exit("bench: no such answer within a minute")
        time.sleep(0.0005)


def wait_until(holds, what, process, seconds=20):
    end = time.monotonic() + seconds
    while not holds():
        if process.poll() is not None:
            sys.exit(f"bench: {what} ended with code {process.returncode}")
        if time.monotonic() > end:
            sys.exit(f"bench: {what} is not ready after {seconds} s")
        time.sleep(0.05)
