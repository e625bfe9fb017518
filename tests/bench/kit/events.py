"""An upstream that sends server-sent events, each of which tells when it left."""

import asyncio
import signal
import subprocess
import sys
import time

EVERY = 0.01
HEAD = (b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\nX-Accel-Buffering: no\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n")


def start(bench):
    """In a process of its own; tells its port."""
    process = bench.processes.start(["taskset", "-c", str(bench.load_core), sys.executable, __file__], end_with=signal.SIGKILL,
                                    stdout=subprocess.PIPE, text=True)
    return int(process.stdout.readline())


async def delays(port, headers, streams, seconds):
    """Nanoseconds from leaving the upstream to arriving here, of each event of that many streams."""
    found = []
    until = time.monotonic() + seconds
    await asyncio.gather(*(follow(port, headers, until, found) for _ in range(streams)))
    return found


async def follow(port, headers, until, found):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    writer.write(f"GET /events HTTP/1.1\r\n{fields}\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise SystemExit(f"bench: no events but {head!r}")
    while time.monotonic() < until:
        line = await reader.readuntil(b"\n")
        if line.startswith(b"data: "):
            found.append(time.monotonic_ns() - int(line[6:]))
    writer.close()


async def serve():
    server = await asyncio.start_server(accept, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def accept(reader, writer):
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            if not head.startswith(b"GET /events"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                continue
            writer.write(HEAD)
            while not writer.is_closing():
                event = b"data: %d\n\n" % time.monotonic_ns()
                writer.write(b"%x\r\n%s\r\n" % (len(event), event))
                await writer.drain()
                await asyncio.sleep(EVERY)
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


if __name__ == "__main__":
    asyncio.run(serve())
