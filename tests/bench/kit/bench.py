"""One run: what takes part in every scenario, and how often it is measured."""

import os
import pathlib

from . import build
from .parts import Stage, start_upstream
from .processes import free_ports


class Bench:
    """The proxies under measurement share `proxy_core`, one busy at a time; load and upstream share `load_core`."""

    def __init__(self, directory, processes, cores, quick):
        self.directory, self.processes = pathlib.Path(directory), processes
        self.proxy_core, self.load_core = cores
        self.rounds = int(os.environ.get("ROUNDS", "1" if quick else "5"))
        self.seconds = int(os.environ.get("SECONDS", "1" if quick else "3"))
        self.connections = int(os.environ.get("CONNECTIONS", "64"))
        self.quick = quick
        self.binary, self.oauth2_proxy = build.vestibule(), build.oauth2_proxy()
        self.stage = Stage(processes, build.stage())
        self.upstream, = free_ports(1)
        start_upstream(self.directory, processes, self.load_core, self.upstream)

    def rounds_of(self, measurements):
        """Calls each of the named measurements once to warm up (with 1: one second), then in interleaved rounds, so that a
        slow minute of the machine hits all of them."""
        for measure in measurements.values():
            measure(1)
        runs = {name: [] for name in measurements}
        for _ in range(self.rounds):
            for name, measure in measurements.items():
                runs[name].append(measure(self.seconds))
        return runs
