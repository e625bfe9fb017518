"""The proxies that are compared: each has a port, the processes that do its work, and one core."""

import os
import pathlib
import signal

from .parts import IDENTITY_HEADERS, start_nginx, start_vestibule, status
from .processes import children, free_ports, wait_until

FIXED = {name: f"some-{name}-of-usual-length" for name in IDENTITY_HEADERS}


class Nginx:
    """Plain proxying; with `identity` it also writes five headers and drops the cookie, as far as work goes the same; with a
    `pair` of certificate and key it speaks HTTP/2 at a second port."""

    def __init__(self, bench, identity=False, logs=False, upstream=None, pair=None):
        self.port, self.secure = free_ports(2)
        tls = pair and (f"listen 127.0.0.1:{self.secure} ssl http2; ssl_certificate {pair[0]}; ssl_certificate_key {pair[1]}; "
                        "ssl_protocols TLSv1.2 TLSv1.3;")
        place = bench.directory / f"nginx-{self.port}"
        place.mkdir()
        headers = [f'proxy_set_header X-Forwarded-{name.title().replace("_", "-")} "{value}";' for name, value in FIXED.items()]
        extra = " ".join(headers + ['proxy_set_header Cookie "";']) if identity else ""
        log = f"access_log {place}/access.log combined buffer=64k flush=1s;" if logs else "access_log off;"
        self.master = start_nginx(bench.processes, place, bench.proxy_core, self.port, f"""
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

    def pids(self):
        return children(self.master.pid)


class Haproxy:
    """One thread that writes five headers and drops the cookie."""

    def __init__(self, bench, upstream=None):
        self.port, = free_ports(1)
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
frontend front
    bind 127.0.0.1:{self.port}
    default_backend back
backend back
    option forwardfor
    http-request del-header Cookie
{headers}
    http-reuse always
    server upstream 127.0.0.1:{upstream or bench.upstream}
""")
        self.process = bench.processes.start(["taskset", "-c", str(bench.proxy_core), "haproxy", "-db", "-q", "-f", str(configuration)])
        wait_until(lambda: status(f"http://127.0.0.1:{self.port}/") == 200, "HAProxy", self.process)

    def pids(self):
        return [self.process.pid]


class Vestibule:
    """With somebody signed in."""

    def __init__(self, bench, origin=None, logs=False, upstream=None, pair=None):
        self.port, = free_ports(1)
        self.origin = origin or f"{'https' if pair else 'http'}://localhost:{self.port}"
        self.process = start_vestibule(bench.directory, bench.processes, bench.binary, bench.proxy_core, self.port, self.origin,
                                       upstream or bench.upstream, bench.stage.provider, logs=logs, pair=pair)
        self.session = bench.stage.sign_in(self.origin, pair and pair[0]) if origin is None else None

    def pids(self):
        return [self.process.pid]
