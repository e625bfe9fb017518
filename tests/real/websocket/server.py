"""A WebSocket service on a free port of 127.0.0.1, which is the first line of its output: every message comes back as it
was, fragmented the same way; a text "close CODE REASON" makes it close so."""

import asyncio
import sys

from websockets.asyncio.server import serve


async def echo(socket):
    async for message in socket:
        if isinstance(message, str) and message.startswith("close "):
            _, code, reason = message.split(" ", 2)
            await socket.close(int(code), reason)
        else:
            await socket.send(message)


def choose(_, offered):
    return "second" if "second" in offered else None


async def main():
    async with serve(echo, "127.0.0.1", 0, select_subprotocol=choose, max_size=2**25) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        # Ends with whoever started it.
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


asyncio.run(main())
