"""From the start of the process to the first answer of the upstream, and what it holds then.

Vestibule asks the provider meanwhile; oauth2-proxy listens once the provider has answered."""

import time

from kit.proxies import Haproxy, Nginx, Oauth2Proxy, Vestibule
from kit.table import interleaved, table

STARTS = 20


def run(bench):
    proxies = {"nginx": Nginx(bench), "HAProxy": Haproxy(bench), "Vestibule, signed in": Vestibule(bench)}
    if bench.oauth2_proxy:
        proxies["oauth2-proxy, signed in"] = Oauth2Proxy(bench)
    starts = 3 if bench.quick else STARTS
    figures = interleaved({name: starting(proxy) for name, proxy in proxies.items()}, starts)
    print(f"Medians of {starts} starts each, one worker or thread; memory of all processes that belong to one.\n")
    table("Start, to the first answer", "ms", figures)
    table("Idle after that answer", "MiB resident", figures, ["not file-backed"])


def starting(proxy):
    def measure():
        took = proxy.restart()
        time.sleep(0.3)  # the provider is asked meanwhile
        return took | proxy.resident()

    return measure
