"""Load by wrk and h2load, and what a proxy spends on it."""

import math
import re
import subprocess
import sys
import time

from .processes import cpu_seconds


def measure(pids, core, url, headers, *, connections, seconds, script=None):
    """CPU microseconds of `pids` per request, with rate and latency as wrk on `core` sees them."""
    command = ["taskset", "-c", str(core), "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "--timeout", "60s"]
    for name, value in headers.items():
        command += ["-H", f"{name}: {value}"]
    if script:
        command += ["-s", str(script)]
    before, started = cpu_seconds(pids), time.monotonic()
    output = subprocess.run([*command, url], capture_output=True, text=True, check=True).stdout
    used, took = cpu_seconds(pids) - before, time.monotonic() - started
    requests = int(re.search(r"(\d+) requests in", output).group(1))
    if "Non-2xx" in output or "Socket errors" in output or not requests:
        sys.exit(f"bench: {url}: not every request was answered:\n{output}")
    return {
        "CPU µs": used / requests * 1e6,
        "CPU ms": used / requests * 1e3,
        "req/s": float(re.search(r"Requests/sec:\s+([\d.]+)", output).group(1)),
        "p50 ms": percentile(output, 50),
        "p99 ms": percentile(output, 99),
        "core used %": used / took * 100,
    }


def measure_at_rate(pids, core, url, headers, log, *, rate, connections, seconds):
    """As [`measure`], by HTTP/1.1 with so many requests a second in all, whatever the answers take."""
    return h2load(pids, core, url, headers, log, [f"-c{connections}", "--h1", f"--rps={rate // connections}"], seconds)


def measure_h2(pids, core, url, headers, log, *, streams, connections, seconds):
    """As [`measure`], by HTTP/2."""
    return h2load(pids, core, url, headers, log, [f"-c{connections}", f"-m{streams}"], seconds)


def h2load(pids, core, url, headers, log, options, seconds):
    """A measurement by h2load; `log` is a file for the time of each request."""
    command = ["taskset", "-c", str(core), "h2load", "-t1", *options, f"-D{seconds}", f"--log-file={log}"]
    for name, value in headers.items():
        command += ["-H", f"{name}: {value}"]
    log.unlink(missing_ok=True)
    before, started = cpu_seconds(pids), time.monotonic()
    output = subprocess.run([*command, url], capture_output=True, text=True, check=True).stdout
    used, took = cpu_seconds(pids) - before, time.monotonic() - started
    # When it began, its status, and its microseconds; what the end of the time cut off has the status -1 or none.
    lines = [line.split("\t") for line in log.read_text().splitlines()]
    times = sorted(int(micros) for _, status, micros in lines if status == "200")
    refused = re.search(r"status codes: \d+ 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", output)
    if not times or not refused or any(int(count) for count in refused.groups()):
        sys.exit(f"bench: {url}: not every request was answered:\n{output}")
    return {
        "CPU µs": used / len(times) * 1e6,
        "req/s": len(times) / seconds,
        "p50 ms": times[len(times) // 2] / 1e3,
        "p99 ms": times[len(times) * 99 // 100] / 1e3,
        "core used %": used / took * 100,
    }


def percentile(output, percent):
    """Milliseconds, from wrk's table of latencies, which it leaves out where no request began and ended while it looked; its
    summary may hold `97.99%` too, so only whole lines count."""
    found = re.search(rf"^\s*{percent}%\s+([\d.]+)(us|ms|s|m)$", output, re.MULTILINE)
    if not found:
        return math.nan
    value, unit = found.groups()
    return float(value) * {"us": 0.001, "ms": 1, "s": 1000, "m": 60000}[unit]
