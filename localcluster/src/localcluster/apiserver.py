"""Only an API server and its etcd, on loopback, for integration tests: up in seconds, several at a time, without root.

    from localcluster.apiserver import ApiServer

    with ApiServer() as api:
        subprocess.run([api.kubectl, f"--kubeconfig={api.kubeconfig}", "get", "namespaces"])

Custom resources, RBAC, Pod Security and all of admission work, but for ServiceAccount: with no controllers there are no
default service accounts, and every pod would be refused. For the same reason nothing is garbage-collected, a deleted
namespace stays ``Terminating``, a pod stays ``Pending`` (tests write status themselves), and the aggregated roles
``view``, ``edit`` and ``admin`` are empty.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from urllib.error import URLError

from localcluster import gobuild, kubeconfig, pki, processes
from localcluster.errors import LocalClusterError
from localcluster.processes import ProcessId

START_SECONDS = 60.0  # generous: a test machine may be busy
_ATTEMPTS = 3  # a port that was free may be taken before the program listens on it
_LEAVES = (
    pki.Leaf(
        "apiserver",
        "kube-apiserver",
        hosts=("localhost", "127.0.0.1", "kubernetes.default.svc", "10.0.0.1"),
        server=True,
        client=False,
    ),
    pki.Leaf("etcd", "etcd", hosts=("localhost", "127.0.0.1"), server=True, authority="etcd-ca"),
    pki.Leaf("apiserver-etcd-client", "kube-apiserver-etcd-client", authority="etcd-ca"),
    pki.Leaf("admin", "kubernetes-admin", ("system:masters",)),
)


def etcd_command(binaries: Path, certificates: Path, data: Path, port: int) -> list[str]:
    """etcd on a loopback port, for those with a certificate of its CA only."""
    url = f"https://127.0.0.1:{port}"
    return [
        str(binaries / "etcd"),
        "--name=test",
        f"--data-dir={data}",
        f"--listen-client-urls={url}",
        f"--advertise-client-urls={url}",
        "--listen-peer-urls=http://127.0.0.1:0",
        "--client-cert-auth",
        f"--trusted-ca-file={certificates}/etcd-ca.crt",
        f"--cert-file={certificates}/etcd.crt",
        f"--key-file={certificates}/etcd.key",
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]


def apiserver_command(binaries: Path, certificates: Path, folder: Path, port: int, etcd_port: int) -> list[str]:
    """kube-apiserver on a loopback port."""
    return [
        str(binaries / "kube-apiserver"),
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        f"--secure-port={port}",
        f"--cert-dir={folder}",
        f"--etcd-servers=https://127.0.0.1:{etcd_port}",
        f"--etcd-cafile={certificates}/etcd-ca.crt",
        f"--etcd-certfile={certificates}/apiserver-etcd-client.crt",
        f"--etcd-keyfile={certificates}/apiserver-etcd-client.key",
        f"--tls-cert-file={certificates}/apiserver.crt",
        f"--tls-private-key-file={certificates}/apiserver.key",
        f"--client-ca-file={certificates}/ca.crt",
        "--authorization-mode=RBAC",
        "--disable-admission-plugins=ServiceAccount",
        "--allow-privileged=true",
        "--service-cluster-ip-range=10.0.0.0/24",
        # The `kubernetes` Service may not point at loopback, and nobody here asks for it.
        "--endpoint-reconciler-type=none",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={certificates}/sa.pub",
        f"--service-account-signing-key-file={certificates}/sa.key",
        "--profiling=false",
    ]


def certificates_dir() -> Path:
    """The certificates that all API servers of this user share; made once. They are good on loopback only."""
    folder = gobuild.cache_root() / "api-pki"
    if not (folder / "admin.crt").is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".api-pki-", dir=folder.parent))
        pki.ensure(scratch, _LEAVES)
        try:
            scratch.rename(folder)
        except OSError:  # another one was quicker
            shutil.rmtree(scratch)
    return folder


def free_port() -> int:
    """A TCP port of loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ApiServer:
    """A kube-apiserver with its etcd. As a context manager it lives in a temporary folder and is gone at the end.

    ``folder``: keep the state there instead, and find what runs there already (``localcluster api`` does).
    Raises LocalClusterError from ``start`` when it does not come up; the logs' ends are in the message.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._temporary = folder is None
        self._folder = folder
        self._port = 0
        self._etcd_port = 0
        self._started: list[subprocess.Popen[bytes]] = []
        self.binaries = Path()

    @property
    def folder(self) -> Path:
        """Where data, logs and kubeconfigs are."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="lakeloop-api-"))
        return self._folder

    @property
    def url(self) -> str:
        """``https://127.0.0.1:<port>``."""
        return f"https://127.0.0.1:{self._port}"

    @property
    def kubeconfig(self) -> Path:
        """A cluster admin's kubeconfig (mode 0600)."""
        return self.folder / "kubeconfig"

    @property
    def kubectl(self) -> Path:
        """The kubectl of the same version."""
        return self.binaries / "kubectl"

    def __enter__(self) -> ApiServer:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> ApiServer:
        """Start what does not run, and wait until the API server is ready."""
        self.binaries = gobuild.ensure_binaries(gobuild.API_SERVER_NAMES)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        self._recall()
        for attempt in range(1, _ATTEMPTS + 1):
            if not self._running("etcd"):
                self._etcd_port = free_port()
                self._stop_one("kube-apiserver")
            if not self._running("kube-apiserver"):
                self._port = free_port()
            self._remember()
            self.start_etcd()
            self._start_one(
                "kube-apiserver",
                apiserver_command(self.binaries, certificates_dir(), self.folder, self._port, self._etcd_port),
            )
            if self._wait_until_ready():
                return self
            if attempt == _ATTEMPTS or not self._lost_port():
                break
        raise LocalClusterError(
            f"the API server did not come up in {self.folder}:\n"
            f"etcd:\n{self._tail('etcd')}\nkube-apiserver:\n{self._tail('kube-apiserver')}"
        )

    def stop(self) -> None:
        """Stop both, and remove the folder."""
        self._stop_one("kube-apiserver")
        self._stop_one("etcd")
        for process in self._started:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=10)
        shutil.rmtree(self.folder, ignore_errors=True)

    def stop_etcd(self) -> None:
        """Stop etcd alone: the API server goes on and fails every request, as in an outage."""
        self._stop_one("etcd")

    def start_etcd(self) -> None:
        """Start etcd again where it was, with the data that it had."""
        self._start_one("etcd", etcd_command(self.binaries, certificates_dir(), self.folder / "etcd", self._etcd_port))

    def kubeconfig_for(self, user: str, groups: Sequence[str] = ()) -> Path:
        """A kubeconfig of a user who may do what RBAC gives to ``user`` and ``groups``, and nothing else."""
        authority = pki.read_authority(certificates_dir(), "ca")
        certificate, key = pki.pem(*pki.issue(authority, pki.Leaf("user", user, tuple(groups))))
        path = self.folder / f"{user.replace(':', '-').replace('/', '-')}.kubeconfig"
        kubeconfig.write(path, kubeconfig.render("test", self.url, self._ca(), certificate, key))
        return path

    def ready(self) -> bool:
        """Whether ``/readyz`` answers 200."""
        context = ssl.create_default_context(cadata=self._ca().decode())
        context.load_cert_chain(certificates_dir() / "admin.crt", certificates_dir() / "admin.key")
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        try:
            with opener.open(f"{self.url}/readyz", timeout=2) as answer:
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False

    def _ca(self) -> bytes:
        return (certificates_dir() / "ca.crt").read_bytes()

    def _wait_until_ready(self) -> bool:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.ready() and self._running("kube-apiserver"):
                return True
            if not (self._running("etcd") and self._running("kube-apiserver")):
                return False
            time.sleep(0.05)
        return False

    def _lost_port(self) -> bool:
        return "address already in use" in self._tail("etcd") + self._tail("kube-apiserver")

    def _remember(self) -> None:
        (self.folder / "ports.json").write_text(json.dumps({"api": self._port, "etcd": self._etcd_port}))
        certificate, key = ((certificates_dir() / f"admin.{kind}").read_bytes() for kind in ("crt", "key"))
        kubeconfig.write(self.kubeconfig, kubeconfig.render("test", self.url, self._ca(), certificate, key))

    def _recall(self) -> None:
        with contextlib.suppress(FileNotFoundError, ValueError):
            ports = json.loads((self.folder / "ports.json").read_text())
            self._port, self._etcd_port = ports["api"], ports["etcd"]

    def _running(self, name: str) -> ProcessId | None:
        return processes.load(self.folder / f"{name}.pid")

    def _start_one(self, name: str, command: list[str]) -> None:
        if self._running(name):
            return
        if self._temporary and shutil.which("setpriv") and threading.current_thread() is threading.main_thread():
            # A test run that is killed must not leave servers. The signal goes by the thread that started them, so
            # only where that is the main one.
            command = ["setpriv", "--pdeathsig=KILL", "--", *command]
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                # GOGC: four times the memory before garbage is collected, for a tenth less CPU
                env={"PATH": os.environ.get("PATH", ""), "HOME": str(self.folder), "GOGC": "400"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._started.append(process)
        if born := processes.identify(process.pid):
            born.save(self.folder / f"{name}.pid")

    def _stop_one(self, name: str) -> None:
        if process := self._running(name):
            # Nothing here is worth an orderly end: the data is a test's.
            processes.stop(process, grace=0.0)
        (self.folder / f"{name}.pid").unlink(missing_ok=True)

    def _tail(self, name: str, lines: int = 8) -> str:
        path = self.folder / f"{name}.log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else "(no log)"
