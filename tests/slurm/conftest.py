"""A SLURM of two nodes on this machine, with stand-in GPUs, on loopback; the tests skip where it is not installed."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "sinfo", "scontrol")
START_SECONDS = 30
CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
MpiDefault=none
ReturnToService=2
SlurmctldPort={ports[0]}
GresTypes=gpu
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=16 RealMemory=64000 Gres=gpu:2
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=16 RealMemory=64000 Gres=gpu:2
PartitionName=gpu Nodes=ALL Default=YES State=UP OverSubscribe=YES
"""


@dataclass(frozen=True)
class Cluster:
    """A running SLURM; its commands find it by `environment`."""

    environment: dict[str, str]

    def run(self, *command: str, **options) -> subprocess.CompletedProcess[str]:
        """Run one of SLURM's commands and return what it says."""
        environment = self.environment | options.pop("env", {})
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, **options)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    """Two idle nodes of 16 processors, 64 GB and two GPUs, in name; everything started is ended by its process id."""
    missing = [program for program in PROGRAMS if _find(program) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"needs root and slurm-wlm, munge (missing: {', '.join(missing) or 'root'})")
    folder = tmp_path_factory.mktemp("slurm")
    _write_config(folder)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SLURM")}
    environment["SLURM_CONF"] = str(folder / "slurm.conf")
    with contextlib.ExitStack() as running:
        running.enter_context(_munge(folder))
        for command in (["slurmctld", "-D", "-c"], ["slurmd", "-D", "-N", "n1"], ["slurmd", "-D", "-N", "n2"]):
            running.enter_context(_process(command, folder, environment))
        cluster = Cluster(environment)
        _wait_for_nodes(cluster, folder)
        yield cluster


def _find(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


def _write_config(folder: Path) -> None:
    host = subprocess.run(["hostname", "-s"], capture_output=True, text=True, check=True).stdout.strip()
    (folder / "slurm.conf").write_text(CONFIG.format(host=host, folder=folder, ports=_free_ports(3)))
    (folder / "cgroup.conf").write_text("CgroupAutomount=no\n")
    (folder / "gres.conf").write_text(f"NodeName=n[1-2] Name=gpu File={folder}/gpu[0-1]\n")
    for index in range(2):
        os.mknod(folder / f"gpu{index}", 0o20666, os.makedev(1, 3))  # another /dev/null
    for name in ("state", "spool-n1", "spool-n2"):
        (folder / name).mkdir()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as open_sockets:
        sockets = [open_sockets.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextlib.contextmanager
def _munge(folder: Path) -> Iterator[None]:
    """An authentication daemon with a key and a socket of its own."""
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    files = {"socket": "socket", "key-file": "key", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    options = [f"--{option}={folder}/munge.{suffix}" for option, suffix in files.items()]
    with _process(["munged", "--foreground", "--force", *options], folder, dict(os.environ)):
        _wait(lambda: (folder / "munge.socket").exists(), "munged makes its socket", folder)
        yield


@contextlib.contextmanager
def _process(command: list[str], folder: Path, environment: dict[str, str]) -> Iterator[None]:
    """A daemon in the foreground of a session of its own, ended on leaving."""
    with (folder / f"{'_'.join(command[:4]).replace('/', '')}.out").open("wb") as output:
        process = subprocess.Popen(
            [_find(command[0]), *command[1:]], env=environment, cwd=folder,
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for_nodes(cluster: Cluster, folder: Path) -> None:
    def idle() -> bool:
        return cluster.run("sinfo", "--noheader", "-N", "-o", "%T").stdout.split() == ["idle", "idle"]

    _wait(idle, "both nodes are idle", folder)


def _wait(condition, what: str, folder: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            logs = "\n".join(
                f"{path.name}: {path.read_text()[-1500:]}" for path in sorted(folder.glob("*.[lo][ou][gt]"))
            )
            raise TimeoutError(f"not within {START_SECONDS} s: {what}\n{logs}")
        time.sleep(0.2)
