"""An upstream that reads bodies of a known length and answers 200 with none."""

import asyncio
import signal
import subprocess
import sys


def start(bench):
    """In a process of its own; tells its port."""
    process = bench.processes.start(["taskset", "-c", str(bench.load_core), sys.executable, __file__], end_with=signal.SIGKILL,
                                    stdout=subprocess.PIPE, text=True)
    return int(process.stdout.readline())


class Sink(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.head, self.missing = transport, b"", 0

    def data_received(self, data):
        if not self.missing:
            self.head += data
            end = self.head.find(b"\r\n\r\n")
            if end < 0:
                return
            fields = dict(line.split(b": ", 1) for line in self.head[:end].lower().split(b"\r\n")[1:])
            self.missing, data, self.head = int(fields.get(b"content-length", 0)), self.head[end + 4:], b""
        self.missing -= len(data)
        if self.missing <= 0:
            self.missing = 0
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


async def serve():
    server = await asyncio.get_running_loop().create_server(Sink, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve())
