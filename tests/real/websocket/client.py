"""The cases of the usual conformance suites against server.py, at the URL and as whoever the COOKIE names; prints the name
of each case with what was wrong, or null, as JSON.

    client.py URL [COOKIE]
"""

import asyncio
import json
import os
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidStatus
from websockets.frames import Frame, Opcode

CASES = {}
SECONDS = 30


def case(*arguments):
    def register(function):
        for argument in arguments or [None]:
            name = function.__name__ if argument is None else f"{function.__name__}({argument})"
            CASES[name] = (function, argument)
        return function

    return register


@case(0, 1, 125, 126, 127, 128, 65535, 65536, 1 << 20, 8 << 20)
async def text(open_socket, size):
    async with open_socket(compression=None) as socket:
        message = ("añ✓𝄞" * (size // 4 + 1))[:size]
        await socket.send(message)
        assert await socket.recv() == message


@case(0, 1, 125, 126, 65535, 65536, 1 << 20, 8 << 20)
async def binary(open_socket, size):
    async with open_socket(compression=None) as socket:
        message = os.urandom(size)
        await socket.send(message)
        assert await socket.recv() == message


@case(1, 7, 1024, 1 << 20)
async def fragments(open_socket, size):
    async with open_socket(compression=None) as socket:
        await socket.send(b"f" * size for _ in range(5))
        assert await socket.recv() == b"f" * size * 5


@case(0, 125)
async def ping(open_socket, size):
    async with open_socket() as socket:
        await asyncio.wait_for(await socket.ping(os.urandom(size)), SECONDS)


@case()
async def ping_between_fragments(open_socket, _):
    async with open_socket(compression=None) as socket:

        async def pieces():
            yield "one "
            await (await socket.ping())
            yield "two"

        await socket.send(pieces())
        assert await socket.recv() == "one two"


@case(1, 1000)
async def compressed(open_socket, repeat):
    async with open_socket() as socket:
        assert socket.protocol.extensions, "no compression was agreed on"
        message = "the same again " * repeat
        await socket.send(message)
        assert await socket.recv() == message


@case(1000, 1001, 1008, 1011, 3000, 4999)
async def server_closes(open_socket, code):
    async with open_socket() as socket:
        await socket.send(f"close {code} because of that")
        try:
            await socket.recv()
        except ConnectionClosed as closed:
            assert (closed.rcvd.code, closed.rcvd.reason) == (code, "because of that"), closed
        else:
            raise AssertionError("it stayed open")


@case(1000, 3999)
async def client_closes(open_socket, code):
    async with open_socket() as socket:
        await socket.close(code, "enough")
        assert socket.close_code == code, socket.close_code


@case()
async def broken_text_is_refused_by_the_server(open_socket, _):
    async with open_socket(compression=None) as socket:
        # The library has no public way to send a broken frame.
        socket.protocol.send_frame(Frame(Opcode.TEXT, b"\xff\xfe"))
        socket.transport.writelines(socket.protocol.data_to_send())
        try:
            await socket.recv()
        except ConnectionClosedError as closed:
            assert closed.rcvd.code == 1007, closed
        else:
            raise AssertionError("it was taken")


@case()
async def a_subprotocol_is_agreed_on(open_socket, _):
    async with open_socket(subprotocols=["first", "second"]) as socket:
        assert socket.subprotocol == "second", socket.subprotocol


@case()
async def many_messages_keep_their_order(open_socket, _):
    async with open_socket() as socket:

        async def talk():
            for number in range(2000):
                await socket.send(str(number))

        talking = asyncio.create_task(talk())
        for number in range(2000):
            assert await socket.recv() == str(number)
        await talking


@case()
async def one_hundred_at_once(open_socket, _):
    async def one(number):
        async with open_socket() as socket:
            await socket.send(str(number))
            assert await socket.recv() == str(number)

    await asyncio.gather(*(one(number) for number in range(100)))


async def main(url, cookie=None):
    headers = {"Cookie": cookie} if cookie else {}

    def open_socket(**options):
        return connect(url, additional_headers=headers, max_size=2**25, open_timeout=SECONDS, proxy=None, **options)

    results = {}
    for name, (function, argument) in CASES.items():
        try:
            await asyncio.wait_for(function(open_socket, argument), SECONDS)
            results[name] = None
        except InvalidStatus as refused:
            results[name] = f"refused with {refused.response.status_code}"
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told
            results[name] = f"{type(error).__name__}: {error}"
    print(json.dumps(results))


asyncio.run(main(*sys.argv[1:]))
