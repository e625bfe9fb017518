"""Binaries and tools."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[3]
OAUTH2_PROXY = ("github.com/oauth2-proxy/oauth2-proxy/v7", "v7.15.2")


def vestibule():
    """The binary to measure: VESTIBULE_BIN, or one built here the way the container image has it."""
    given = os.environ.get("VESTIBULE_BIN")
    if given:
        return pathlib.Path(given).resolve()
    host = next(line.removeprefix("host: ") for line in tool("rustc", "-vV").splitlines() if line.startswith("host: "))
    return cargo_build("--package", "vestibule", "--bin", "vestibule", "--release", "--no-default-features", "--features",
                       "redis,sql", "--target", host, RUSTFLAGS="-C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs")


def stage():
    """The provider and the sign-in that the proxy is measured with: STAGE_BIN, or built here."""
    return os.environ.get("STAGE_BIN") or cargo_build("--package", "vestibule-test-support", "--bin", "bench_stage")


def oauth2_proxy():
    """oauth2-proxy, built from its module the first time; `None`, with a line that says why, where that cannot be done here.

    Built inside the module and not by `go install`, which also asks for the list of the module's versions: not every module
    proxy tells that."""
    module, version = OAUTH2_PROXY
    binary = ROOT / "tests" / ".cache" / f"oauth2-proxy-{version}" / "oauth2-proxy"
    if binary.exists():
        return binary
    print(f"bench: building oauth2-proxy {version}", file=sys.stderr)
    try:
        told = subprocess.run(["go", "mod", "download", "-json", f"{module}@{version}"], check=True, stdout=subprocess.PIPE).stdout
        subprocess.run(["go", "build", "-C", json.loads(told)["Dir"], "-mod=readonly", "-o", binary, "."], check=True,
                       env=os.environ | {"GOTOOLCHAIN": "local"})
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"bench: no row of oauth2-proxy: {error}", file=sys.stderr)
        return None
    return binary


def cargo_build(*arguments, **environment):
    """Builds one binary and tells where cargo put it."""
    command = ["cargo", "build", "--locked", "--message-format=json-render-diagnostics", *arguments]
    output = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | environment).stdout
    found = [message["executable"] for message in map(json.loads, output.splitlines()) if message.get("executable")]
    return found[-1]


def install(**packages):
    """Installs the Debian package of each command that is missing."""
    if "/usr/sbin" not in os.environ["PATH"].split(":"):
        os.environ["PATH"] += ":/usr/sbin"
    missing = [package for command, package in packages.items() if not shutil.which(command)]
    if missing:
        sudo = [] if os.geteuid() == 0 else ["sudo"]
        print(f"bench: installing {' '.join(missing)}", file=sys.stderr)
        for arguments in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *missing]):
            subprocess.run(sudo + ["apt-get", "-o", "DPkg::Lock::Timeout=300", *arguments], check=True, stdout=sys.stderr)


def tool(*command):
    """What a command prints, on either of its outputs."""
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout.strip()
