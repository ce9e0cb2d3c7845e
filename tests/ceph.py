"""A Ceph RADOS Gateway from Debian's packages: the one server of the tests that checks signatures and MD5, compares
atomically and knows rights.

One monitor, one OSD on a bluestore file, one gateway, no manager, one key ring; everything below one folder and on
loopback. After docs.ceph.com "Manual deployment", less what a lone node does not need.
"""

from __future__ import annotations

import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from certificates import Certificates

PROGRAMS = ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "ceph", "ceph-authtool", "monmaptool")
PACKAGES = "ceph-mon ceph-osd radosgw"
SECONDS = 90.0

CONFIG = """
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{mon}]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
keyring = {base}/keyring
run dir = {base}
admin socket =
crash dir = {base}/crash
log file = {base}/$type.log
log to stderr = false
debug none = 0
pid file =
mon data = {base}/mon
osd data = {base}/osd
rgw data = {base}/rgw
paxos propose interval = 0.02
paxos min wait = 0.01
mon allow pool size one = true
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 2
osd pool default pgp num = 2
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
osd max object name len = 1024
osd memory target = 939524096
bluestore block size = 4294967296
bluestore block wal create = false
mon data avail crit = 1
mon data avail warn = 1
mon osd full ratio = 0.99
mon osd nearfull ratio = 0.98
rgw frontends = beast {ports} ssl_certificate={certificate} ssl_private_key={key} tcp_nodelay=1
rgw thread pool size = 64
rgw enable usage log = false
rgw enable ops log = false
rgw enable gc threads = false
rgw enable lc threads = false
rgw run sync thread = false
"""


def missing() -> list[str]:
    """The programs that are not installed."""
    return [program for program in PROGRAMS if shutil.which(program) is None]


@contextmanager
def gateway(
    base: Path, ports: dict[str, int], mon_port: int, users: dict[str, tuple[str, str]], certificates: Certificates
) -> Iterator[None]:
    """Runs a gateway for the body, below the empty folder `base`.

    `ports`: of `endpoint` (plain) and of `ssl_endpoint`; `users`: name -> access key, secret key.
    """
    fsid, osd_id = str(uuid.uuid4()), str(uuid.uuid4())
    conf = base / "ceph.conf"
    listens = " ".join(f"{name}=127.0.0.1:{port}" for name, port in ports.items())
    tls = {"certificate": certificates.certificate, "key": certificates.key}
    conf.write_text(CONFIG.format(fsid=fsid, base=base, mon=mon_port, ports=listens, **tls))
    for folder in ("mon", "osd", "rgw", "crash"):
        (base / folder).mkdir()
    _make_keys(base / "keyring")
    _run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", f"[v2:127.0.0.1:{mon_port}]", base / "map")
    mon = ("ceph-mon", "-c", conf, "-i", "a")
    osd = ("ceph-osd", "-c", conf, "-i", "0")
    admin = ("radosgw-admin", "-c", conf, "-n", "client.rgw")
    _run(*mon, "--mkfs", "--monmap", base / "map", "--keyring", base / "keyring")
    with ExitStack() as running:
        running.enter_context(_daemon(base, *mon, "-f"))
        _run(*osd, "--mkfs", "--osd-uuid", osd_id)
        _run("ceph", "-c", conf, "--connect-timeout", "30", "osd", "new", osd_id, "0")
        running.enter_context(_daemon(base, *osd, "-f"))
        running.enter_context(_daemon(base, "radosgw", "-c", conf, "-n", "client.rgw", "-f"))
        for name, (key, secret) in users.items():
            who = ("--uid", name, "--display-name", name, "--access-key", key, "--secret", secret)
            _run(*admin, "user", "create", *who)
        yield


def _make_keys(keyring: Path) -> None:
    create: tuple[str, ...] = ("--create-keyring",)
    for name, mon in {"mon.": "*", "client.admin": "*", "client.rgw": "*", "osd.0": "profile osd"}.items():
        rights = ("--cap", "mon", f"allow {mon}", "--cap", "osd", "allow *")
        _run("ceph-authtool", *create, keyring, "--gen-key", "-n", name, *rights)
        create = ()


def _run(*command: str | Path) -> None:
    arguments = [str(part) for part in command]
    done = subprocess.run(
        arguments, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} ended with {done.returncode}: {done.stdout}{done.stderr}")


@contextmanager
def _daemon(base: Path, *command: str | Path) -> Iterator[None]:
    guard = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []  # it ends when the tests are killed
    arguments = [*guard, *map(str, command)]
    with (
        (base / f"{command[0]}.out").open("wb") as output,
        subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=output, stderr=output) as process,
    ):
        try:
            yield
        finally:
            process.kill()  # nothing here outlives the session
