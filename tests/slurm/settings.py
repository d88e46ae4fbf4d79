"""The test cluster's configuration files."""

from dataclasses import dataclass
from pathlib import Path

NAME = "testcluster"

SLURM = """
ClusterName={name}
SlurmctldHost=ctl({network}.1)
SlurmUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd-%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd-%n.log
# Every daemon listens on its own address only, so that two clusters may use the same ports.
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
AuthType=auth/munge
# A requeued job waits until its old credential has expired: 2 minutes, if not for this. Below 5 it is ignored.
AuthInfo=socket={folder}/run/munge,cred_expire=5
MpiDefault=none
MailProg=/bin/true
# Without cgroups: processes are found by their parents.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
# Nodes have the cores and the memory that are written here, whatever the machine has.
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
# A lost node is noticed within half a minute and comes back by itself.
SlurmdTimeout=10
MessageTimeout=6
TCPTimeout=2
ReturnToService=2
JobRequeue=1
KillWait=3
MinJobAge=300
MaxArraySize=1001
# sbatch --test-only refuses what a partition does not allow.
EnforcePartLimits=ALL
SchedulerParameters=sched_interval=2,sched_min_interval=100000,bf_interval=2,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
# A preempted job gets the signal that it asked for by --signal.
SlurmctldParameters=preempt_send_user_signal
"""

PARTITIONS = """
PartitionName=main Nodes=ALL Default=YES MaxTime=1-0 PriorityTier=1 PreemptMode=REQUEUE GraceTime=10
PartitionName=high Nodes=ALL MaxTime=1-0 PriorityTier=10 PreemptMode=OFF
PartitionName=short Nodes=ALL MaxTime=2 PriorityTier=1 PreemptMode=REQUEUE GraceTime=10
# Preempted at once: no signal, no time to save anything.
PartitionName=gone Nodes=ALL MaxTime=1-0 PriorityTier=1 PreemptMode=REQUEUE GraceTime=0
# For no job that comes from a node: Slurm asks which munged vouches for it, and that of this machine says ctl.
PartitionName=closed Nodes=ALL MaxTime=1-0 PriorityTier=1 PreemptMode=REQUEUE GraceTime=10 AllocNodes=ctl
"""

ACCOUNTING = """
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost={network}.1
# The munge socket again: AuthInfo is not asked for it.
AccountingStoragePass={folder}/run/munge
AccountingStorageTRES=gres/gpu
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=2
"""

# A node asks an address set aside for documents for the names that are not in its hosts file, and is soon done with it.
RESOLV = """
nameserver 192.0.2.53
options timeout:1 attempts:1
"""

SLURMDBD = """
AuthType=auth/munge
AuthInfo=socket={folder}/run/munge
DbdHost=ctl
DbdAddr={network}.1
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm
LogFile={folder}/log/slurmdbd.log
PidFile={folder}/run/slurmdbd.pid
CommunicationParameters=NoInAddrAny
"""


@dataclass(frozen=True)
class Hardware:
    """What each node says it has."""

    gpus: int
    cpus: int
    memory_mb: int


def host_number(node: str) -> int:
    """The last number of its address: n1 has 11."""
    return 10 + int(node.removeprefix("n"))


def write(folder: Path, network: str, nodes: list[str], hardware: Hardware, accounting: bool) -> None:
    """slurm.conf, gres.conf, the nodes' hosts and resolv.conf, and slurmdbd.conf with accounting."""
    text = SLURM + (ACCOUNTING if accounting else "")
    gpus = f" Gres=gpu:{hardware.gpus}" if hardware.gpus else ""
    sizes = f"CPUs={hardware.cpus} RealMemory={hardware.memory_mb}{gpus}"
    lines = [f"NodeName={node} NodeAddr={network}.{host_number(node)} {sizes}\n" for node in nodes]
    values = {"name": NAME, "folder": folder, "network": network}
    (folder / "slurm.conf").write_text(text.format(**values) + "".join(lines) + PARTITIONS)
    files = f"{folder}/dev/gpu[0-{hardware.gpus - 1}]"
    (folder / "gres.conf").write_text(f"Name=gpu File={files}\n" if hardware.gpus else "")
    numbers = {"ctl": 1, **{node: host_number(node) for node in nodes}}
    addresses = {"localhost": "127.0.0.1", **{name: f"{network}.{number}" for name, number in numbers.items()}}
    # Twice: torch asks for the names of IPv4 addresses in their IPv6 form, which would be a question to the outside.
    hosts = [f"{address} {name}\n::ffff:{address} {name}\n" for name, address in addresses.items()]
    (folder / "hosts").write_text("".join(hosts))
    (folder / "resolv.conf").write_text(RESOLV)
    if accounting:
        dbd = folder / "slurmdbd.conf"
        dbd.touch(mode=0o600)
        dbd.write_text(SLURMDBD.format(**values))
