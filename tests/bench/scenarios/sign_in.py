"""A whole sign-in at a provider that signs with ES256: authorization request, callback with token call, verification and
userinfo, and the page that was asked for."""

import statistics

from kit.processes import cpu_seconds
from kit.proxies import Vestibule

SIGN_INS = 300


def run(bench):
    proxy = Vestibule(bench)
    bench.stage.sign_ins(proxy.origin, 20)
    rounds = []
    for _ in range(bench.rounds):
        before = cpu_seconds(proxy.pids())
        done = bench.stage.sign_ins(proxy.origin, SIGN_INS)
        rounds.append((cpu_seconds(proxy.pids()) - before) / SIGN_INS * 1e3)
    print(f"Sign-in with ES256, medians of {bench.rounds} rounds of {SIGN_INS}: {statistics.median(rounds):.2f} ms of CPU, all "
          f"three requests and both calls of the provider; {done['connections']} new connections of the proxy's to the provider in "
          f"the last round.\n", flush=True)
