"""What takes part: the upstream, the proxies that are compared, and whoever is signed in."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import urllib.error
import urllib.request

from .processes import free_ports, line_from, wait_until

SECRET = "bench-Xq7mVt2Kd9zLr4wNc8YbHs1PfJg6Ue3Ra5TiOo0"
IDENTITY_HEADERS = ["user", "email", "preferred_username", "groups", "roles"]
BODY = ("x" * 63 + "\n") * 16
# By name of the file below the upstream's root, blanks left out.
LARGE = {"1 MB": 1_000_000, "100 MB": 100_000_000}


class Stage:
    """A provider, and people who sign in there."""

    def __init__(self, processes, binary):
        self.process = processes.start([binary], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.provider = json.loads(line_from(self.process))

    def sign_in(self, origin, roots=None, sizes=range(1300, 1801)):
        """The `Cookie` header of a fresh session at the proxy whose public origin this is; `roots` is a file of certificates
        to trust there; `sizes` are those in bytes that its largest cookie may have, and `None` any."""
        session = self.ask(f"{origin} {roots}" if roots else origin)
        if sizes and session["session_bytes"] not in sizes:
            sys.exit(f"bench: a session cookie of {session['session_bytes']} bytes is not what is to be measured")
        return session

    def sign_ins(self, origin, count):
        """So many people sign in there, one after another, at a provider that signs with ES256; `cookies` are their headers."""
        return self.ask(f"{origin} *{count}")

    def fill(self, location, count):
        """Writes as many more sessions into a store in which one lies already, which they are like."""
        return self.ask(f"{location} +{count}")

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return json.loads(line_from(self.process))


def start_upstream(directory, processes, core, port):
    place = directory / "upstream"
    (place / "root").mkdir(parents=True)
    (place / "root" / "index.html").write_text(BODY)
    for size, count in LARGE.items():
        with open(place / "root" / size.replace(" ", ""), "wb") as file:
            file.truncate(count)
    seen = "|".join(f"$http_x_forwarded_{name}" for name in IDENTITY_HEADERS)
    return start_nginx(processes, place, core, port, f"""
        keepalive_requests 100000000;
        open_file_cache max=10 inactive=1h;
        access_log off;
        server {{
            listen 127.0.0.1:{port};
            root {place}/root;
            location = /seen {{ default_type text/plain; return 200 "{seen}|$http_cookie"; }}
        }}""")


def certify(directory):
    """A certificate for localhost and its key, as files. It is nobody's issuer, so a client can trust it as it is."""
    certificate, key, request = (directory / f"localhost.{name}" for name in ("crt", "key", "cnf"))
    request.write_text("[req]\nprompt = no\ndistinguished_name = name\n[name]\nCN = localhost\n"
                       "[v3]\nsubjectAltName = DNS:localhost\nbasicConstraints = critical,CA:FALSE\n")
    subprocess.run(["openssl", "req", "-x509", "-config", request, "-extensions", "v3", "-newkey", "ec", "-pkeyopt",
                    "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out", certificate, "-days", "30"],
                   check=True, stderr=subprocess.DEVNULL)
    key.chmod(0o600)
    return certificate, key


def start_nginx(processes, place, core, port, http):
    master = processes.start(nginx_command(place, core, http))
    wait_for_nginx(master, port)
    return master


def wait_for_nginx(master, port):
    wait_until(lambda: status(f"http://127.0.0.1:{port}/") in (200, 502), f"nginx on port {port}", master)


def nginx_command(place, core, http):
    """One worker with these directives, and its files in the folder `place`."""
    for name in ("body", "proxy", "fastcgi", "uwsgi", "scgi"):
        (place / name).mkdir()
    (place / "nginx.conf").write_text(f"""
daemon off;
{"user root;" if os.geteuid() == 0 else ""}
worker_processes 1;
worker_rlimit_nofile 40000;
pid {place}/pid;
error_log {place}/error.log warn;
events {{ worker_connections 30000; }}
http {{
        client_body_temp_path {place}/body; proxy_temp_path {place}/proxy; fastcgi_temp_path {place}/fastcgi;
        uwsgi_temp_path {place}/uwsgi; scgi_temp_path {place}/scgi;{http}
}}
""")
    return ["taskset", "-c", str(core), "nginx", "-p", str(place), "-e", f"{place}/error.log", "-c", f"{place}/nginx.conf"]


def vestibule_command(directory, binary, core, port, origin, upstream, provider, logs=False, under=(), admin=None,
                      pair=None, extra=()):
    """One instance with one worker on one core, as a command and how to start it; `under` is what it runs under, such as
    valgrind; `pair` are the files of a certificate and its key; `extra` are further variables."""
    environment = {
        "PATH": os.environ["PATH"],
        "OIDC_ISSUER": provider["issuer"],
        "OIDC_CLIENT_ID": provider["client_id"],
        "OIDC_CLIENT_SECRET": provider["client_secret"],
        "OIDC_REDIRECT_URI": f"{origin}/auth/callback",
        "SESSION_SECRET": SECRET,
        "VESTIBULE_UPSTREAM": f"http://127.0.0.1:{upstream}",
        "VESTIBULE_LISTEN": f"127.0.0.1:{port}",
        "VESTIBULE_ADMIN_LISTEN": f"127.0.0.1:{admin or free_ports(1)[0]}",
        "VESTIBULE_WORKERS": "1",
        "VESTIBULE_NAME_CLAIM": "preferred_username",
        "VESTIBULE__LOG__ACCESS_LOG": "true" if logs else "false",
        "VESTIBULE__LIMITS__MAX_CONNECTIONS": "20000",
    }
    if pair:
        environment |= {"VESTIBULE__TLS__CERTIFICATE_FILE": str(pair[0]), "VESTIBULE__TLS__KEY_FILE": str(pair[1])}
    environment |= dict(extra)
    log = open(directory / f"vestibule-{port}.log", "w")
    # Killed at the end: nobody is left who would need its grace time.
    options = {"end_with": signal.SIGKILL, "env": environment, "stdout": log, "stderr": subprocess.STDOUT}
    return ["taskset", "-c", str(core), *under, str(binary)], options


def start_vestibule(directory, processes, binary, core, port, *settings, admin=None, **more):
    """One instance, ready with its provider."""
    admin = admin or free_ports(1)[0]
    command, options = vestibule_command(directory, binary, core, port, *settings, admin=admin, **more)
    process = processes.start(command, **options)

    def ready():
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{admin}/readyz", timeout=2) as answer:
                return b"unavailable" not in answer.read()
        except OSError:
            return False

    try:
        wait_until(ready, "Vestibule and its provider", process)
    except SystemExit:
        print(pathlib.Path(options["stdout"].name).read_text()[-4000:], file=sys.stderr)
        raise
    return process


def check_session(session, ports, origin):
    """That each proxy gives the upstream all identity headers and none of our cookies."""
    for port in ports:
        missing, cookie = unseen(session, port, origin)
        if missing or cookie != "own=1":
            sys.exit(f"bench: the upstream did not see {missing}, or saw our cookies: {cookie!r}")


def unseen(session, port, origin):
    """The identity headers that the upstream does not get with this session, and the cookies that it gets."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/seen", headers={
        "Cookie": session["cookie"] + "; own=1", "Host": origin.removeprefix("http://")})
    with urllib.request.urlopen(request, timeout=5) as answer:
        # A cookie may hold the separator.
        *headers, cookie = answer.read().decode().split("|", len(IDENTITY_HEADERS))
    return [name for name, value in zip(IDENTITY_HEADERS, headers, strict=True) if not value], cookie


def status(url):
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None
