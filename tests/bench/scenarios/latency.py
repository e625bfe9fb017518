"""The same GET at the same rate for all, far below what any of them could do: what a person waits for. Without
oauth2-proxy, for which it would not be far below."""

from kit import load
from kit.proxies import Haproxy, Nginx, Vestibule
from kit.table import medians, table

RATE = 6400


def run(bench):
    nginx, haproxy, vestibule = Nginx(bench, identity=True), Haproxy(bench), Vestibule(bench)
    cookie = {"cookie": vestibule.session["cookie"]}

    def asks(proxy):
        return lambda seconds: load.measure_at_rate(proxy.pids(), bench.load_core, f"http://localhost:{proxy.port}/", cookie,
                                                    bench.directory / "h2load.tsv", rate=RATE, connections=bench.connections,
                                                    seconds=seconds)

    rows = {
        "nginx, five headers written, cookie cut out": nginx,
        "HAProxy, five headers written, cookie cut out": haproxy,
        "Vestibule, signed in": vestibule,
    }
    runs = bench.rounds_of({name: asks(proxy) for name, proxy in rows.items()})
    print(f"GET of 1 KB at {RATE:,} requests a second for each, on {bench.connections} connections.\n")
    table("At the same rate", "p99 ms", {name: medians(runs[name]) for name in rows}, ["p50 ms", "CPU µs", "req/s", "core used %"])
