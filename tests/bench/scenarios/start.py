"""From the start of the process to its first answer, and what it holds then."""

import pathlib
import time

from kit.parts import vestibule_command
from kit.processes import first_answer, free_ports, resident_bytes
from kit.proxies import Nginx
from kit.table import medians

STARTS = 20


def run(bench):
    nginx = Nginx(bench)
    runs = [start(bench) for _ in range(3 if bench.quick else STARTS)]
    figures = medians(runs)
    print(f"Start, median of {len(runs)}: first answer after {figures['ms']:.0f} ms; then {figures['resident'] / 2**20:.1f} MiB resident "
          f"with one worker ({figures['private'] / 2**20:.1f} MiB of it not file-backed); nginx, master and worker: "
          f"{resident_bytes([nginx.master.pid, *nginx.pids()]) / 2**20:.1f} MiB.\n", flush=True)


def start(bench):
    port, = free_ports(1)
    command, options = vestibule_command(bench.directory, bench.binary, bench.proxy_core, port, f"http://localhost:{port}",
                                         bench.upstream, bench.stage.provider)
    started = time.monotonic()
    process = bench.processes.start(command, **options)
    first_answer(port, f"GET / HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n".encode())
    took = time.monotonic() - started
    time.sleep(0.3)  # the provider is asked meanwhile
    resident, private = memory(process.pid)
    bench.processes.end(process)
    return {"ms": took * 1e3, "resident": resident, "private": private}


def memory(pid):
    """Resident bytes, and those of them that no file backs."""
    fields = dict(line.split(":", 1) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines())
    kib = {name: int(value.split()[0]) * 1024 for name, value in fields.items() if name in ("VmRSS", "RssAnon")}
    return kib["VmRSS"], kib["RssAnon"]
