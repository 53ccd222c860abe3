"""A real SLURM of one node on this machine: Debian's munged, slurmctld and slurmd, with all their files in one folder.

    apt-get install slurm-wlm munge          and be root: slurmd starts jobs as their users

The node claims `CPUS` processors and `GPUS` cards, which nothing here touches, so that scripts ask for them as on a
real one. Jobs of the partition `urgent` take the node from those of `gpu`, which get SIGTERM and then `GRACE_S` seconds
before they go back into the queue. There is no accounting, no cgroups and no systemd.
"""

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue", "scancel", "sinfo")
CPUS = 32
GPUS = 8
MEMORY_MB = 512_000
GRACE_S = 120
KILL_WAIT_S = 60

CONFIG = """
ClusterName=orca2
SlurmctldHost=localhost(127.0.0.1)
SlurmUser=root
SlurmctldPort={controller_port}
SlurmdPort={node_port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=15
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=bf_interval=1,sched_interval=2,requeue_setup_env_fail
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait={kill_wait}
GresTypes=gpu
ReturnToService=2
SlurmdParameters=config_overrides
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName=localhost NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} Gres=gpu:{gpus}
PartitionName=gpu Nodes=localhost Default=YES PriorityTier=1 GraceTime={grace} MaxTime=INFINITE
PartitionName=urgent Nodes=localhost PriorityTier=10 PreemptMode=OFF MaxTime=INFINITE
"""


def missing() -> str:
    """Why there can be no cluster here; empty where there can."""
    programs = [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]
    if programs:
        return f"not installed: {', '.join(programs)} (apt-get install slurm-wlm munge)"
    return "" if os.geteuid() == 0 else "slurmd has to be started by root"


@dataclass(frozen=True)
class Cluster:
    """The running daemons, through SLURM's own commands."""

    folder: Path
    environment: dict[str, str]

    def call(self, *command: str, folder: Path | None = None) -> str:
        """Standard output of a command of the cluster."""
        done = subprocess.run(
            command, env=self.environment, cwd=folder or self.folder, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def submit(self, script: Path, *options: str) -> int:
        """The number of the job that runs `script`, in the script's folder."""
        return int(self.call("sbatch", "--parsable", *options, str(script), folder=script.parent))

    def job(self, number: int | str) -> dict[str, str]:
        """What `scontrol show job` says: `JobState`, `Restarts`, `ExitCode`, …"""
        shown = self.call("scontrol", "--oneliner", "show", "job", str(number))
        return dict(re.findall(r"(\w+)=(\S*)", shown))

    def wait_for(self, number: int | str, *states: str, seconds: float) -> dict[str, str]:
        """The job, once it is in one of `states`."""
        end = time.monotonic() + seconds
        while (job := self.job(number))["JobState"] not in states:
            assert time.monotonic() < end, f"waited in vain for {states}: {job}\n{self.logs()}"
            time.sleep(0.5)
        return job

    def logs(self) -> str:
        """The last lines of the daemons."""
        files = sorted(self.folder.glob("*.log"))
        return "\n".join(f"{file.name}:\n" + "\n".join(file.read_text().splitlines()[-15:]) for file in files)


@contextmanager
def running_cluster(folder: Path) -> Iterator[Cluster]:
    """Start the daemons with their files in `folder`, which must be short enough for a socket; stop them after."""
    for name in ("state", "spool"):
        (folder / name).mkdir()
    (folder / "slurm.conf").write_text(_config(folder))
    for card in range(GPUS):
        (folder / f"card{card}").touch()
    (folder / "gres.conf").write_text(f"NodeName=localhost Name=gpu File={folder}/card[0-{GPUS - 1}]\n")
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n")
    environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": _path()}
    cluster = Cluster(folder, {key: value for key, value in environment.items() if not key.startswith("SLURM_JOB")})
    with ExitStack() as stack:
        stack.enter_context(_munge(folder))
        for command in (["slurmctld", "-D", "-i"], ["slurmd", "-D", "-N", "localhost"]):
            stack.enter_context(_daemon(command, folder / f"{command[0]}.out", cluster.environment))
        _wait(lambda: cluster.call("sinfo", "--noheader", "--format=%T").split()[0] == "idle", cluster)
        yield cluster
        # What a failed test left; a job that ends at this moment is an error of scancel's.
        subprocess.run(["scancel", "--full", "--signal=KILL", "--user=root"], env=environment, check=False)
        _wait(lambda: cluster.call("squeue", "--noheader") == "", cluster)


def _config(folder: Path) -> str:
    with socket.socket() as first, socket.socket() as second:
        for free in (first, second):
            free.bind(("127.0.0.1", 0))
        ports = first.getsockname()[1], second.getsockname()[1]
    return CONFIG.format(
        folder=folder,
        controller_port=ports[0],
        node_port=ports[1],
        cpus=CPUS,
        gpus=GPUS,
        memory=MEMORY_MB,
        grace=GRACE_S,
        kill_wait=KILL_WAIT_S,
    )


@contextmanager
def _munge(folder: Path) -> Iterator[None]:
    """munged signs who asks; with a key of this cluster's own."""
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    files = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "log", "pid", "seed")]
    files[1] = f"--log-file={folder}/munged.log"
    command = ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *files]
    with _daemon(command, folder / "munged.out", os.environ | {"PATH": _path()}):
        end = time.monotonic() + 20
        while not (folder / "munge.socket").exists():
            assert time.monotonic() < end, (folder / "munged.out").read_text()
            time.sleep(0.1)
        yield


@contextmanager
def _daemon(command: list[str], out: Path, environment: dict[str, str]) -> Iterator[None]:
    with out.open("wb") as file:
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=file, start_new_session=True)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(true: Callable[[], bool], cluster: Cluster) -> None:
    end = time.monotonic() + 60
    while True:
        try:
            if true():
                return
        except (AssertionError, IndexError):  # the controller does not answer yet
            pass
        assert time.monotonic() < end, cluster.logs()
        time.sleep(0.5)


def _path() -> str:
    """Daemons are in /usr/sbin, which users do not search."""
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
