"""A signed-in GET of 1 KB: a session cookie of 1.5 KB opened, five identity headers added."""

from kit import load
from kit.parts import IDENTITY_HEADERS, BODY, check_session
from kit.proxies import Nginx, Haproxy, Oauth2Proxy, Vestibule
from kit.table import medians, table


def run(bench):
    nginx, haproxy = Nginx(bench, identity=False), Haproxy(bench)
    told, carrying = Nginx(bench, identity=False, logs=True), Nginx(bench, identity=True)
    quiet = Vestibule(bench)
    # The same secret and the same origin, so one sign-in serves both.
    logging = Vestibule(bench, origin=quiet.origin, logs=True)
    session = quiet.session
    check_session(session, [quiet.port, logging.port], quiet.origin)
    host = {"Host": quiet.origin.removeprefix("http://")}
    same = host | {"Cookie": session["cookie"]}

    def asks(proxy, headers):
        return lambda seconds: load.measure(proxy.pids(), bench.load_core, f"http://127.0.0.1:{proxy.port}/", headers,
                                            connections=bench.connections, seconds=seconds) | proxy.resident()

    rows = {
        "nginx, no cookie": asks(nginx, host),
        "nginx, same request": asks(nginx, same),
        "nginx, five headers written, cookie cut out": asks(carrying, same),
        "HAProxy, five headers written, cookie cut out": asks(haproxy, same),
        "Vestibule, signed in": asks(quiet, same),
        "nginx, no cookie, access log": asks(told, host),
        "Vestibule, signed in, access log": asks(logging, same),
    }
    beside = ""
    if bench.oauth2_proxy:
        other = Oauth2Proxy(bench)
        rows["oauth2-proxy, signed in"] = asks(other, {"Host": other.origin.removeprefix("http://"), "Cookie": other.session["cookie"]})
        beside = f" (oauth2-proxy: {len(other.session['cookie'])} in {other.session['cookies']})"
    runs = bench.rounds_of(rows)
    print(f"GET of {len(BODY)} bytes on {bench.connections} connections, one core for the proxy; session cookie of "
          f"{session['session_bytes']} bytes{beside}, {len(IDENTITY_HEADERS)} identity headers.\n")
    table("GET of 1 KB", "CPU µs", {name: medians(runs[name]) for name in rows},
          ["req/s", "p50 ms", "p99 ms", "core used %", "MiB resident"])
