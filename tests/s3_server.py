"""A real S3 server for tests: Ceph's gateway (RGW) with one monitor and one OSD, as our own processes on loopback, in a throw-away folder."""

import contextlib
import datetime
import ipaddress
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

PROGRAMS = ("ceph", "ceph-mon", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin")
INSTALL = "apt-get install --no-install-recommends ceph-common ceph-mon ceph-osd radosgw"

CONF = """
[global]
fsid = {fsid}
mon_host = v2:127.0.0.1:{mon_port}/0
mon_initial_members = a
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
ms_mon_client_mode = crc
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 1
osd_pool_default_pgp_num = 1
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
run_dir = {folder}
admin_socket =
crash_dir = {folder}
log_file = {folder}/$name.log
[mon.a]
mon_data = {folder}/mon
[osd.0]
osd_data = {folder}/osd
osd_class_dir = {classes}
bluestore_block_size = 4294967296
osd_memory_target = 939524096
[client.rgw]
rgw_frontends = beast endpoint=127.0.0.1:{port} ssl_endpoint=127.0.0.1:{tls_port} ssl_certificate={folder}/cert.pem ssl_private_key={folder}/key.pem
rgw_data = {folder}/rgw
keyring = /dev/null
"""


@dataclass(frozen=True)
class S3Server:
    """A running server. `user` owns the buckets; `guest` is known to the server and may do what a bucket's policy allows."""

    endpoint: str
    tls_endpoint: str = ""
    """The same over https; `certificate` is the file to trust."""
    certificate: str = ""
    user: tuple[str, str] = ("AKIAUSER", "secret-of-user")
    guest: tuple[str, str] = ("AKIAGUEST", "secret-of-guest")

    def env(self, key: tuple[str, str] | None = None, endpoint: str | None = None) -> dict[str, str]:
        """The usual AWS variables for the owner, or for another key or endpoint."""
        access, secret = key or self.user
        return {"AWS_ENDPOINT_URL": endpoint or self.endpoint, "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": access, "AWS_SECRET_ACCESS_KEY": secret}

    def client(self) -> Any:
        """boto3 as the owner."""
        import boto3

        return boto3.client("s3", endpoint_url=self.endpoint, region_name="us-east-1", aws_access_key_id=self.user[0], aws_secret_access_key=self.user[1])

    def new_bucket(self) -> str:
        """The name of a new, empty bucket."""
        name = f"b-{uuid.uuid4().hex}"
        self.client().create_bucket(Bucket=name)
        return name


def absent() -> list[str]:
    """Programs of Ceph that this machine lacks."""
    return [p for p in PROGRAMS if shutil.which(p) is None]


def start(folder: Path) -> S3Server:
    """Starts a server that keeps its data in `folder`. All its processes are one group, which `ceph.pid` names."""
    for name in ("mon", "osd", "rgw"):
        (folder / name).mkdir(parents=True)
    mon_port, port, tls_port = _free_ports()
    classes = next(Path("/usr/lib").glob("**/rados-classes"))
    fsid, osd = str(uuid.uuid4()), str(uuid.uuid4())
    server = S3Server(f"http://127.0.0.1:{port}", f"https://127.0.0.1:{tls_port}", str(_certificate(folder)))
    (folder / "ceph.conf").write_text(CONF.format(folder=folder, fsid=fsid, mon_port=mon_port, port=port, tls_port=tls_port, classes=classes))
    env = {**os.environ, "CEPH_CONF": str(folder / "ceph.conf")}
    group = 0  # the first one leads
    with (folder / "output").open("wb") as output:

        def run(*command: str) -> bool:
            return subprocess.run(command, cwd=folder, env=env, stdout=output, stderr=output, timeout=60, check=False).returncode == 0

        def leave_running(*command: str) -> int:
            return subprocess.Popen([*command, "-f"], cwd=folder, env=env, stdout=output, stderr=output, process_group=group).pid

        def until(ready: Callable[[], bool]) -> None:
            for _ in range(1200):
                if ready():
                    return
                time.sleep(0.05)
            raise AssertionError((folder / "output").read_text())

        run("monmaptool", "--create", "--addv", "a", f"[v2:127.0.0.1:{mon_port}]", "--fsid", fsid, "monmap")
        run("ceph-mon", "--mkfs", "-i", "a", "--monmap", "monmap")
        group = leave_running("ceph-mon", "-i", "a")
        (folder / "ceph.pid").write_text(str(group))
        until(lambda: run("ceph", "--connect-timeout", "5", "osd", "new", osd))
        run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        leave_running("ceph-osd", "-i", "0")
        leave_running("radosgw", "-n", "client.rgw")  # waits for the OSD, then makes its pools
        until(lambda: _answers(server.endpoint))
        for name, key in {"user": server.user, "guest": server.guest}.items():
            keys = ("--access-key", key[0], "--secret-key", key[1])
            until(partial(run, "radosgw-admin", "user", "create", "--uid", name, "--display-name", name, *keys))
    return server


@contextlib.contextmanager
def running(folder: Path) -> Iterator[S3Server]:
    """A server, while the context lasts."""
    try:
        yield start(folder)
    finally:
        os.killpg(int((folder / "ceph.pid").read_text(encoding="utf-8")), signal.SIGKILL)  # nothing of it is wanted: no time for a clean end


def _certificate(folder: Path) -> Path:
    """A self-signed certificate for 127.0.0.1, its key beside it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")]), datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + datetime.timedelta(days=1))
    made = made.add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
    (folder / "cert.pem").write_bytes(made.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return folder / "cert.pem"


def _free_ports() -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(3)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=2)
        return True
    except OSError:
        return False
