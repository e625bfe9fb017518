"""How late server-sent events arrive: as they leave the upstream, none waiting for another."""

import asyncio

from kit import events
from kit.processes import cpu_seconds
from kit.proxies import Haproxy, Nginx, Oauth2Proxy, Vestibule
from kit.table import medians, table

STREAMS = 20


class Nobody:
    """No proxy at all."""

    def __init__(self, port):
        self.port = port

    def pids(self):
        return []


def run(bench):
    port = events.start(bench)
    proxies = {"no proxy": Nobody(port), "nginx": Nginx(bench, upstream=port),
               "HAProxy": Haproxy(bench, upstream=port, prompt=True), "Vestibule, signed in": Vestibule(bench, upstream=port)}
    if bench.oauth2_proxy:
        proxies["oauth2-proxy, signed in"] = Oauth2Proxy(bench, upstream=port)
    runs = bench.rounds_of({name: asks(proxy) for name, proxy in proxies.items()})
    print(f"{STREAMS} event streams, an event every {events.EVERY * 1000:.0f} ms on each; delay from the upstream's write to the "
          f"client's read, both in Python on the other core.\n")
    table("Server-sent events", "p50 ms", {name: medians(runs[name]) for name in proxies}, ["p99 ms", "CPU µs"])


def asks(proxy):
    headers = {"Host": f"localhost:{proxy.port}"}
    if hasattr(proxy, "session"):
        headers["Cookie"] = proxy.session["cookie"]

    def measure(seconds):
        before = cpu_seconds(proxy.pids())
        found = sorted(asyncio.run(events.delays(proxy.port, headers, STREAMS, seconds)))
        figures = {f"p{percent} ms": found[len(found) * percent // 100] / 1e6 for percent in (50, 99)}
        # Of each event.
        return figures | ({"CPU µs": (cpu_seconds(proxy.pids()) - before) / len(found) * 1e6} if proxy.pids() else {})

    return measure
