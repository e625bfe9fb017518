"""The proxies that are compared: each has a port, the processes that do its work, and one core."""

import signal
import subprocess
import sys
import time

from . import callgrind, load
from .parts import IDENTITY_HEADERS, SECRET, nginx_command, start_vestibule, status, unseen, vestibule_command, wait_for_nginx
from .processes import alone_bytes, children, first_answer, free_ports, wait_until

FIXED = {name: f"some-{name}-of-usual-length" for name in IDENTITY_HEADERS}


class Proxy:
    """`command()` is how it is started, as arguments and options; `process` is the one that runs; where somebody is signed in
    there is a `session`."""

    def start(self):
        command, options = self.command()
        self.process = self.bench.processes.start(command, **options)

    def restart(self):
        """Ends it and starts it anew: milliseconds until the upstream answers, to whoever is signed in where anybody is."""
        self.bench.processes.end(self.process)
        begun = time.monotonic()
        self.start()
        first_answer(self.port, self.request(), b"HTTP/1.1 200")
        return {"ms": (time.monotonic() - begun) * 1e3}

    def request(self, cookie=None):
        """A GET of whoever is signed in, where anybody is."""
        host = getattr(self, "origin", f"http://localhost:{self.port}").removeprefix("http://")
        if hasattr(self, "session"):
            cookie = cookie or self.session["cookie"]
        fields = f"Cookie: {cookie}\r\n" if cookie else ""
        return f"GET / HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n".encode()

    def pids(self):
        """The processes that do its work."""
        return [self.process.pid]

    def all_pids(self):
        """Those and whatever it needs beside them."""
        return self.pids()

    def resident(self):
        """MiB that all its processes hold, and those of them that no file backs."""
        held, anonymous = alone_bytes(self.all_pids())
        return {"MiB resident": held / 2**20, "not file-backed": anonymous / 2**20}


class Nginx(Proxy):
    """Plain proxying; with `identity` it also writes five headers and drops the cookie, as far as work goes the same; with a
    `pair` of certificate and key it speaks HTTP/2 at a second port."""

    def __init__(self, bench, identity=False, logs=False, upstream=None, pair=None):
        self.bench = bench
        self.port, self.secure = free_ports(2)
        tls = pair and (f"listen 127.0.0.1:{self.secure} ssl http2; ssl_certificate {pair[0]}; ssl_certificate_key {pair[1]}; "
                        "ssl_protocols TLSv1.2 TLSv1.3;")
        place = bench.directory / f"nginx-{self.port}"
        place.mkdir()
        headers = [f'proxy_set_header X-Forwarded-{name.title().replace("_", "-")} "{value}";' for name, value in FIXED.items()]
        extra = " ".join(headers + ['proxy_set_header Cookie "";']) if identity else ""
        log = f"access_log {place}/access.log combined buffer=64k flush=1s;" if logs else "access_log off;"
        command = nginx_command(place, bench.proxy_core, f"""
        keepalive_requests 100000000; client_max_body_size 0; proxy_request_buffering off; proxy_max_temp_file_size 0;
        map $http_upgrade $onwards {{ default upgrade; "" ""; }}
        upstream upstream {{ server 127.0.0.1:{upstream or bench.upstream}; keepalive 64; keepalive_requests 100000000; }}
        server {{
            listen 127.0.0.1:{self.port}; {log} {tls or ""}
            location / {{
                proxy_pass http://upstream; proxy_http_version 1.1; proxy_set_header Connection $onwards;
                proxy_set_header Upgrade $http_upgrade; proxy_read_timeout 1h; {extra}
            }}
        }}""")
        self.command = lambda: (command, {})
        self.start()
        wait_for_nginx(self.process, self.port)

    def pids(self):
        return children(self.process.pid)

    def all_pids(self):
        return [self.process.pid, *self.pids()]


class Haproxy(Proxy):
    """One thread that writes five headers and drops the cookie; with a `pair` of certificate and key it speaks HTTP/2 at a
    second port; `prompt` has it send what it has of an answer at once, where it otherwise waits for more: an event would be a
    tenth of a second late."""

    def __init__(self, bench, upstream=None, pair=None, prompt=False):
        self.bench = bench
        self.port, self.secure = free_ports(2)
        tls = ""
        if pair:
            # It wants both in one file.
            both = bench.directory / f"haproxy-{self.port}.pem"
            both.touch(0o600)
            both.write_text("".join(path.read_text() for path in pair))
            tls = f"bind 127.0.0.1:{self.secure} ssl crt {both} alpn h2,http/1.1 ssl-min-ver TLSv1.2"
        configuration = bench.directory / f"haproxy-{self.port}.cfg"
        headers = "\n".join(f'    http-request set-header X-Forwarded-{name.title().replace("_", "-")} "{value}"'
                            for name, value in FIXED.items())
        configuration.write_text(f"""
global
    nbthread 1
    maxconn 9900
defaults
    mode http
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    timeout tunnel 1h
    {"option http-no-delay" if prompt else ""}
frontend front
    bind 127.0.0.1:{self.port}
    {tls}
    default_backend back
backend back
    option forwardfor
    http-request del-header Cookie
{headers}
    http-reuse always
    server upstream 127.0.0.1:{upstream or bench.upstream}
""")
        command = ["taskset", "-c", str(bench.proxy_core), "haproxy", "-db", "-q", "-f", str(configuration)]
        self.command = lambda: (command, {})
        self.start()
        wait_until(lambda: status(f"http://127.0.0.1:{self.port}/") == 200, "HAProxy", self.process)


class Vestibule(Proxy):
    """With somebody signed in, whose cookie has one of the `sizes`; `extra` are further variables."""

    def __init__(self, bench, origin=None, logs=False, upstream=None, pair=None, extra=(), sizes=range(1300, 1801)):
        self.bench = bench
        self.port, self.admin = free_ports(2)
        self.origin = origin or f"{'https' if pair else 'http'}://localhost:{self.port}"
        place = [bench.binary, bench.proxy_core, self.port, self.origin, upstream or bench.upstream, bench.stage.provider]
        options = {"logs": logs, "pair": pair, "admin": self.admin, "extra": extra}
        self.command = lambda: vestibule_command(bench.directory, *place, **options)
        self.ready = lambda **more: start_vestibule(bench.directory, bench.processes, *place, **options, **more)
        self.process = self.ready()
        self.session = bench.stage.sign_in(self.origin, pair and pair[0], sizes) if origin is None else None

    def asks(self, seconds):
        """As many of these as it answers."""
        headers = {"Host": self.origin.removeprefix("http://"), "Cookie": self.session["cookie"]}
        return load.measure(self.pids(), self.bench.load_core, f"http://127.0.0.1:{self.port}/", headers,
                            connections=self.bench.connections, seconds=seconds)

    def instructions(self):
        """Of one such GET, counted in a process that takes the place of this one."""
        self.bench.processes.end(self.process)
        counts = self.bench.directory / f"callgrind-{self.port}.out"
        self.process = self.ready(under=callgrind.command(counts))
        return {"instructions": callgrind.per_request(self.process, counts, self.port, self.request())}


class Oauth2Proxy(Proxy):
    """With somebody signed in at the same provider: its session in its cookie, the identity headers that it has, no log of
    requests. One core, so one thread that runs Go."""

    def __init__(self, bench, upstream=None):
        self.bench = bench
        self.port, = free_ports(1)
        self.origin, provider = f"http://localhost:{self.port}", bench.stage.provider
        log = open(bench.directory / f"oauth2-proxy-{self.port}.log", "w")
        command = [
            "taskset", "-c", str(bench.proxy_core), bench.oauth2_proxy, f"--http-address=127.0.0.1:{self.port}",
            "--provider=oidc", f"--oidc-issuer-url={provider['issuer']}", f"--client-id={provider['client_id']}",
            f"--client-secret={provider['client_secret']}", f"--redirect-url={self.origin}/oauth2/callback",
            "--code-challenge-method=S256", "--email-domain=*", f"--cookie-secret={SECRET[:32]}", "--cookie-secure=false",
            "--skip-provider-button=true", f"--upstream=http://127.0.0.1:{upstream or bench.upstream}/",
            "--request-logging=false", "--auth-logging=false", "--standard-logging=false",
        ]
        # Killed at the end, as ours is.
        self.command = lambda: (command, {"end_with": signal.SIGKILL, "stdout": log, "stderr": subprocess.STDOUT})
        self.start()
        wait_until(lambda: status(f"http://127.0.0.1:{self.port}/ping") == 200, "oauth2-proxy", self.process)
        self.session = bench.stage.sign_in(self.origin, sizes=None)
        if upstream is None:
            # It knows no roles, and its cookies go on to the upstream. Another upstream does not tell what it sees.
            missing, _ = unseen(self.session, self.port, self.origin)
            if missing not in ([], ["roles"]):
                sys.exit(f"bench: behind oauth2-proxy the upstream did not see {missing}")
