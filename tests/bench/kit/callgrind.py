"""Instructions per request or of a start, counted by callgrind: the same on a busy machine and on an idle one. One connection, one
request after the other; only the program's own instructions count, not the kernel's."""

import socket
import subprocess
import sys

from .parts import BODY

WARM_UP = 100
REQUESTS = 1000


def command(counts, from_start=False):
    """What a proxy runs under, so that its requests can be counted, or its start; `counts` is a file."""
    return ["valgrind", "--tool=callgrind", f"--instr-atstart={'yes' if from_start else 'no'}", f"--callgrind-out-file={counts}"]


def per_request(process, counts, port, request):
    """Of requests that are answered by 200 and [`BODY`]."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        for _ in range(WARM_UP):
            ask(connection, request)
        control("--instr=on", process)
        for _ in range(REQUESTS):
            ask(connection, request)
        control("--instr=off", process)
    return round(so_far(process, counts) / REQUESTS)


def so_far(process, counts):
    """All that were counted until now; the data are in `counts` then."""
    control("--dump", process)
    # A dump is told apart by a number behind the name.
    dumped = max(counts.parent.glob(counts.name + ".*"), key=lambda path: path.stat().st_mtime)
    dumped.rename(counts)
    totals = [line for line in counts.read_text().splitlines() if line.startswith(("totals:", "summary:"))]
    return int(totals[-1].split()[1])


def control(action, process):
    subprocess.run(["callgrind_control", action, str(process.pid)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def ask(connection, request):
    connection.sendall(request)
    answer = b""
    while not ((end := answer.find(b"\r\n\r\n")) >= 0 and len(answer) >= end + 4 + len(BODY)):
        piece = connection.recv(65536)
        if not piece:
            sys.exit(f"bench: the answer broke off: {answer!r}")
        answer += piece
    if not answer.startswith(b"HTTP/1.1 200"):
        sys.exit(f"bench: not answered as wanted: {answer!r}")
