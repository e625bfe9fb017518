"""An upstream that accepts WebSockets and then says nothing."""

import asyncio
import base64
import hashlib
import signal
import subprocess
import sys

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
HEAD = f"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n"
# RFC 6455 §4.2.2.
ACCEPT = base64.b64encode(hashlib.sha1(f"{KEY}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()).decode()


def start(bench):
    """In a process of its own; tells its port."""
    process = bench.processes.start(["taskset", "-c", str(bench.load_core), sys.executable, __file__], end_with=signal.SIGKILL,
                                    stdout=subprocess.PIPE, text=True)
    return int(process.stdout.readline())


async def serve():
    server = await asyncio.start_server(accept, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def accept(reader, writer):
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            if b"upgrade: websocket" not in head.lower():
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                continue
            writer.write(f"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                         f"Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n".encode())
            await reader.read()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


if __name__ == "__main__":
    asyncio.run(serve())
