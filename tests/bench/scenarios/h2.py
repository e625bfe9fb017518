"""A signed-in GET of 1 KB by HTTP/2 over TLS, a hundred streams at a time on each of a few connections.
oauth2-proxy offers only HTTP/1.1 there."""

from kit import load
from kit.parts import BODY, certify
from kit.proxies import Haproxy, Nginx, Vestibule
from kit.table import medians, table

STREAMS, CONNECTIONS = 100, 4


def run(bench):
    pair = certify(bench.directory)
    nginx, carrying = Nginx(bench, pair=pair), Nginx(bench, identity=True, pair=pair)
    haproxy, vestibule = Haproxy(bench, pair=pair), Vestibule(bench, pair=pair)
    cookie = {"cookie": vestibule.session["cookie"]}

    def asks(proxy, port, headers):
        return lambda seconds: load.measure_h2(proxy.pids(), bench.load_core, f"https://localhost:{port}/", headers,
                                               bench.directory / "h2load.tsv", streams=STREAMS, connections=CONNECTIONS,
                                               seconds=seconds) | proxy.resident()

    rows = {
        "nginx, no cookie": asks(nginx, nginx.secure, {}),
        "nginx, five headers written, cookie cut out": asks(carrying, carrying.secure, cookie),
        "HAProxy, five headers written, cookie cut out": asks(haproxy, haproxy.secure, cookie),
        "Vestibule, signed in": asks(vestibule, vestibule.port, cookie),
    }
    runs = bench.rounds_of(rows)
    print(f"GET of {len(BODY)} bytes by HTTP/2 over TLS, {STREAMS} streams on each of {CONNECTIONS} connections, one core for the "
          f"proxy; HTTP/1.1 to the upstream.\n")
    table("GET of 1 KB, HTTP/2", "CPU µs", {name: medians(runs[name]) for name in rows},
          ["req/s", "p50 ms", "p99 ms", "core used %", "MiB resident"])
