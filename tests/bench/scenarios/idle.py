"""What an idle connection holds: of a client that keeps its connection after a request, and of a proxied WebSocket."""

import asyncio

from kit import websocket
from kit.processes import resident_bytes
from kit.proxies import Haproxy, Nginx, Oauth2Proxy, Vestibule
from kit.table import table

KEPT = 5000
SOCKETS = 9000


def run(bench):
    kept, sockets = (500, 500) if bench.quick else (KEPT, SOCKETS)
    upstream = websocket.start(bench)
    rows, kinds = {}, {"nginx": Nginx, "HAProxy": Haproxy, "Vestibule, signed in": Vestibule}
    if bench.oauth2_proxy:
        kinds["oauth2-proxy, signed in"] = Oauth2Proxy
    for name, make in kinds.items():
        plain, tunnels = make(bench), make(bench, upstream=upstream)
        rows[name] = {
            "KiB per kept connection": held(plain, kept, request(plain, "")),
            "KiB per WebSocket": held(tunnels, sockets, request(tunnels, websocket.HEAD)),
        }
    table(f"{kept:,} idle", "KiB per kept connection", rows)
    table(f"{sockets:,} idle", "KiB per WebSocket", rows)


def request(proxy, extra):
    origin = getattr(proxy, "origin", f"http://localhost:{proxy.port}")
    cookie = f"Cookie: {proxy.session['cookie']}\r\n" if hasattr(proxy, "session") else ""
    return f"GET / HTTP/1.1\r\nHost: {origin.removeprefix('http://')}\r\nOrigin: {origin}\r\n{cookie}{extra}\r\n".encode()


def held(proxy, count, request):
    """KiB of memory that each of `count` connections adds once it is idle."""
    return asyncio.run(_held(proxy, count, request))


async def _held(proxy, count, request):
    await open_all(proxy.port, 50, request)  # what the first ones bring is not theirs
    before = resident_bytes(proxy.pids())
    connections = await open_all(proxy.port, count, request, keep=True)
    await asyncio.sleep(2)
    after = resident_bytes(proxy.pids())
    for _, writer in connections:
        writer.close()
    return (after - before) / count / 1024


async def open_all(port, count, request, keep=False):
    connections = []
    for _ in range(count):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith((b"HTTP/1.1 200", b"HTTP/1.1 101")):
            raise SystemExit(f"bench: not answered as wanted: {head!r}")
        if head.startswith(b"HTTP/1.1 200"):
            await reader.readexactly(length(head))
        if keep:
            connections.append((reader, writer))
        else:
            writer.close()
    return connections


def length(head):
    fields = dict(line.split(": ", 1) for line in head.decode().lower().split("\r\n")[1:] if line)
    return int(fields["content-length"])
