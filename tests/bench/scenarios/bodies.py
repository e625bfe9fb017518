"""Large bodies, down and up."""

from kit import load, sink
from kit.parts import LARGE
from kit.proxies import Haproxy, Nginx, Oauth2Proxy, Vestibule
from kit.table import medians, table

CONNECTIONS = 4
# In less than so many seconds none of the largest may come to its end on each of these, where others use the machine too.
SECONDS = {"1 MB": 1, "100 MB": 5}


def run(bench):
    kinds = {"nginx": Nginx, "HAProxy": Haproxy, "Vestibule, signed in": Vestibule}
    if bench.oauth2_proxy:
        kinds["oauth2-proxy, signed in"] = Oauth2Proxy
    port = sink.start(bench)
    for size, count in LARGE.items():
        # All of it takes longer than a session is fresh whose cookies wrk does not take back, so each size begins anew.
        files = {name: make(bench) for name, make in kinds.items()}
        table_of(bench, files, f"GET of {size}", f"/{size.replace(' ', '')}", None, SECONDS[size])
        sinks = {name: make(bench, upstream=port) for name, make in kinds.items()}
        body = bench.directory / f"post-{count}.lua"
        body.write_text(f'wrk.method = "POST"\nwrk.body = string.rep("x", {count})\n')
        table_of(bench, sinks, f"POST of {size}", "/", body, SECONDS[size])


def table_of(bench, proxies, title, path, script, least):
    def asks(proxy):
        headers = {"Host": f"localhost:{proxy.port}", "Origin": f"http://localhost:{proxy.port}"}
        if hasattr(proxy, "session"):
            headers["Cookie"] = proxy.session["cookie"]
        return lambda seconds: load.measure(proxy.pids(), bench.load_core, f"http://127.0.0.1:{proxy.port}{path}", headers,
                                            connections=CONNECTIONS, seconds=max(seconds, least), script=script) | proxy.resident()

    runs = bench.rounds_of({name: asks(proxy) for name, proxy in proxies.items()})
    table(title, "CPU ms", {name: medians(runs[name]) for name in proxies}, ["req/s", "core used %", "MiB resident"])
