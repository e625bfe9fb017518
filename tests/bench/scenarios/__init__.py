"""What can be measured; each module has `run(bench)` and prints its table. The order is that of a full run."""

ALL = ["get", "latency", "h2", "bodies", "events", "idle", "start", "sign_in", "sessions", "revocations"]
