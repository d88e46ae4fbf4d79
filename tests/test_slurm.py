"""What is asked of Slurm, and what its answers mean, without a cluster. tests/slurm has a real one."""

import os
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from cluster import driver, failures, settings, slurm, submission, worker
from cluster.broker import Broker
from cluster.slurm import Job
from cluster.submission import SlurmTask
from cluster.worker import FoldJob
from data_prep.files import make_private
from mtl.config import Config
from tests.pretended import SITE, ask, run_of


@pytest.fixture(autouse=True)
def client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """submitit wants to find srun."""
    (tmp_path / "bin").mkdir()
    for name in ("srun", "sbatch", "squeue"):
        (tmp_path / "bin" / name).write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return tmp_path / "bin"


def options(script: str) -> dict[str, str]:
    lines = [line.removeprefix("#SBATCH --") for line in script.splitlines() if line.startswith("#SBATCH --")]
    return {key: value.strip("'") for key, _, value in (line.partition("=") for line in lines)}


def test_the_sbatch_text_says_what_was_asked_for_and_who_asks(tmp_path: Path) -> None:
    site = replace(
        SITE, partition="gpu", account="heart", qos="low", constraint="a100", nodes=2, gpus_per_node=4, mem_gb=0.5,
        time_min=90, at_a_time=2, setup=["module load cuda"], sbatch={"reservation": "r1"}, comment="grant 7",
    )  # fmt: skip
    shape = submission.shape(site, "paper", tmp_path / "a b", tmp_path / "code", "branch-up4-0", ["n3", "n7"])
    script = shape.script(5)
    told = options(script)
    wanted = {
        "array": "0-4%2", "partition": "gpu", "account": "heart", "qos": "low", "constraint": "a100", "nodes": "2",
        "ntasks-per-node": "4", "gpus-per-node": "4", "cpus-per-task": "4", "mem": "512MB", "time": "90",
        "reservation": "r1", "exclude": "n3,n7", "job-name": "bp-paper-branch-up4-0", "requeue": "",
        "open-mode": "append", "signal": "USR2@60",
    }  # fmt: skip
    assert {key: told[key] for key in wanted} == wanted
    assert told["comment"].startswith("branchpoint sweep=paper configuration=branch-up4-0 owner=")
    assert told["comment"].endswith("grant 7")
    assert "wckey" not in told
    lines = script.splitlines()
    assert (
        lines.index("umask 077") < lines.index("module load cuda") < lines.index(f"export PYTHONPATH={tmp_path}/code")
    )
    assert "--kill-on-bad-exit=1" in script
    assert not [line for line in lines if "TOKEN" in line.upper().replace("RAY_AUTH_MODE=TOKEN", "")]


def test_without_gpus_none_are_asked_for(tmp_path: Path) -> None:
    site = replace(SITE, ranks_per_node=3, cpus_per_rank=2)
    told = options(submission.shape(site, "s", tmp_path, tmp_path / "code", "c").script(1))
    assert (told["ntasks-per-node"], told["cpus-per-task"]) == ("3", "2")
    assert not [key for key in told if "gpu" in key or key in ("array", "partition", "exclude")]


def test_the_drivers_script_is_small_and_shows_nothing_of_the_command(
    tmp_path: Path, client: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An address may hold a password, and Slurm shows scripts to others."""
    from cluster import launch

    (client / "sbatch").write_text("#!/bin/sh\necho 77\n")
    site, mine = replace(SITE, mail="me@there"), tmp_path / "my-site.yaml"
    mine.write_text("kind: slurm\n")
    folder = make_private(tmp_path / "sweep")
    argv = ["sweep=paper", f"site={mine}", "tracking.uri=http://me:secret@there"]
    assert driver.submit(argv, site, "paper", folder) == ("77", False)
    script = (folder / "driver.sh").read_text()
    told = options(script)
    assert (told["ntasks"], told["cpus-per-task"], told["mem"], told["time"]) == ("1", "2", "4096MB", "1440")
    assert (told["mail-user"], told["mail-type"]) == ("me@there", "END,FAIL")
    assert not [key for key in told if "gpu" in key]
    assert "secret" not in script
    words = launch._words([script.splitlines()[-1].split()[-1]])
    copy = folder / "given" / "my-site.yaml"
    assert words == ["sweep=paper", f"site={copy}", argv[2], "driver=here", "yes=true"]
    assert copy.read_text() == mine.read_text()
    assert (folder / "driver.args").stat().st_mode & 0o777 == 0o600
    mine.unlink()  # the job may start after it is gone


def test_folds_send_no_mail(tmp_path: Path) -> None:
    script = submission.shape(replace(SITE, mail="me@there"), "s", tmp_path, tmp_path / "code", "c").script(5)
    assert not [key for key in options(script) if key.startswith("mail")]
    with pytest.raises(ValueError, match=r"^site.sbatch gives mail_type, wanted site.mail"):
        replace(SITE, sbatch={"mail_type": "ALL"})


def test_a_whole_nodes_script(tmp_path: Path) -> None:
    site = replace(SITE, kind="node", gpus_per_node=4, time_min=60, constraint="a100")
    told = options(driver.node_text(site, "s", tmp_path, tmp_path / "code"))
    wanted = {"exclusive": "", "nodes": "1", "mem": "0", "gpus-per-node": "4", "time": "60", "constraint": "a100"}
    assert {key: told[key] for key in wanted} == wanted


def test_folds_that_share_a_gpu_are_ranks_of_one_task_and_die_alone(tmp_path: Path) -> None:
    site = replace(SITE, gpus_per_node=1, folds_per_gpu=2)
    script = submission.shape(site, "s", tmp_path, tmp_path / "code", "c").script(5)
    told = options(script)
    assert (told["array"], told["ntasks-per-node"], told["gpus-per-node"]) == ("0-2%3", "2", "1")
    assert "--kill-on-bad-exit=0" in script


def test_the_umask_of_the_site_is_that_of_its_jobs(tmp_path: Path) -> None:
    script = submission.shape(replace(SITE, umask="027"), "s", tmp_path, tmp_path / "code", "c").script(5)
    assert "umask 027" in script.splitlines()


def test_a_job_hands_nothing_of_its_own_on(monkeypatch: pytest.MonkeyPatch) -> None:
    inherited = {"SLURM_JOB_ID": "7", "SLURM_CPU_BIND": "quiet", "SBATCH_TIMELIMIT": "1", "SLURM_CONF": "/etc/s.conf"}
    kept = slurm.scrubbed({**inherited, "PATH": "/bin", "OMP_NUM_THREADS": "1"})
    assert kept == {"SLURM_CONF": "/etc/s.conf", "PATH": "/bin", "OMP_NUM_THREADS": "1"}
    for key, value in inherited.items():
        monkeypatch.setenv(key, value)
    assert slurm.leave_job() == "7"
    assert {key for key in os.environ if key.startswith(("SLURM", "SBATCH"))} == {"SLURM_CONF"}


@pytest.mark.parametrize(
    ("line", "job"),
    [
        ("12_3|RUNNING|None|n1|a|b", Job("12_3", "RUNNING", "None", "n1", "a|b")),
        ("12|CANCELLED by 0|None||", Job("12", "CANCELLED", "None")),
        ("9_0|PENDING|Resources||", Job("9_0", "PENDING", "Resources")),
        ("nonsense", None),
    ],
)
def test_squeues_lines_are_read(line: str, job: Job | None) -> None:
    assert slurm._read(line) == job


def test_a_client_that_does_not_answer_is_silent_and_one_that_refuses_says_why(client: Path) -> None:
    (client / "squeue").write_text(
        "#!/bin/sh\necho 'slurm_load_jobs error: Unable to contact slurm controller' >&2\nexit 1\n"
    )
    with pytest.raises(slurm.Silent, match="Unable to contact"):
        slurm.jobs()
    (client / "squeue").write_text("#!/bin/sh\necho 'squeue: error: Invalid user: x' >&2\nexit 1\n")
    with pytest.raises(ValueError, match=r"^squeue: Invalid user: x$"):
        slurm.jobs()
    (client / "squeue").write_text("#!/bin/sh\necho '5_0|RUNNING|None|n1|x'\n")
    assert slurm.jobs() == {"5_0": Job("5_0", "RUNNING", "None", "n1", "x")}


@pytest.mark.parametrize(
    ("recorded", "hours"),
    [("7200|cpu=4,gres/gpu=2,mem=16G\n1800|cpu=4,gres/gpu=2\n", 5.0), ("60|cpu=1\n", 0.0), ("", 0.0)],
)
def test_gpu_hours_are_those_of_every_incarnation(client: Path, recorded: str, hours: float) -> None:
    (client / "sacct").write_text(f"#!/bin/sh\nprintf '%s' '{recorded}'\n")
    (client / "sacct").chmod(0o755)
    assert slurm.gpu_hours(["3_0", "3_1"]) == hours


@pytest.fixture
def fold(tmp_path: Path, config: Config) -> FoldJob:
    return FoldJob(asdict(config), "store", str(make_private(tmp_path / "sweep" / "c") / "fold_0"), 0)


def as_job(monkeypatch: pytest.MonkeyPatch, restarts: int = 0, rank: int = 0, ranks: int = 1) -> None:
    """The environment of a rank of a Slurm job."""
    told = {
        "SUBMITIT_EXECUTOR": "slurm", "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n1",
        "SLURM_RESTART_COUNT": str(restarts), "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank),
        "SLURM_NTASKS": str(ranks), "SLURM_NODEID": "0", "SLURM_JOB_NUM_NODES": "1", "MASTER_PORT": "29501",
    }  # fmt: skip
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "LOCAL_WORLD_SIZE")
    for key, value in {**told, **dict.fromkeys(names, "")}.items():
        monkeypatch.setenv(key, value)


def test_a_fold_that_was_queued_again_too_often_fails_and_says_so(
    fold: FoldJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_job(monkeypatch, restarts=3)
    monkeypatch.setattr(worker, "_ending", False)  # as it was, after the test
    task = SlurmTask((fold,), requeues=2)
    with pytest.raises(RuntimeError, match=r"queued again 3 times, more than site.requeues=2: give more site.time_min"):
        task()
    assert run_of(fold).facts()["failure"] == failures.TIME
    assert task.checkpoint().function == task


def test_folds_that_share_a_job_know_nothing_of_one_another(
    fold: FoldJob, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Three ranks, two folds: the third has nothing to do."""
    other = replace(fold, folder=str(tmp_path / "sweep" / "c" / "fold_1"), number=1)
    task = SlurmTask((fold, other), requeues=2, shared=True)
    for rank, wanted in enumerate([fold, other, None]):
        as_job(monkeypatch, rank=rank, ranks=3)
        assert task._mine() == wanted
        assert (os.environ["RANK"], os.environ["WORLD_SIZE"], os.environ["LOCAL_RANK"]) == ("0", "1", "0")


def test_ranks_of_one_fold_are_told_their_places(fold: FoldJob, monkeypatch: pytest.MonkeyPatch) -> None:
    as_job(monkeypatch, rank=1, ranks=2)
    assert SlurmTask((fold,), requeues=2)._mine() == fold
    assert (os.environ["RANK"], os.environ["WORLD_SIZE"]) == ("1", "2")


def test_out_of_memory_is_known_by_the_accountings_line_and_answered_by_halves(
    fold: FoldJob, client: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """squeue has forgotten the job; the line is one that sacct printed for a job over its memory."""
    queued: list[FoldJob] = []

    def submit(shape: submission.Shape, folds: list[FoldJob]) -> dict[int, submission.Ticket]:
        queued.extend(folds)
        return {0: submission.Ticket(f"1234{len(queued)}_0")}

    monkeypatch.setattr(submission, "submit", submit)
    for name, says in {"squeue": "", "sacct": "12341_0|OUT_OF_MEMORY|gpu07\n"}.items():
        (client / name).write_text(f"#!/bin/sh\nprintf '{says}'\n")
        (client / name).chmod(0o755)
    one = Broker(SITE, "s", tmp_path / "sweep", tmp_path / "code", now=lambda: 0.0)
    ask(tmp_path / "sweep", "c", [fold])
    one.step()
    assert [(job.number, job.micro_batches) for job in queued] == [(0, 1), (0, 2)]


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("site.kind=pbs", "site.kind is 'pbs'"),
        ("site.nodes=0", "site.nodes is 0"),
        ("driver=there", "driver is 'there'"),
        ("site.umask=77", "site.umask is '77', wanted three octal digits"),
        ("site.sbatch={time:5}", "site.sbatch gives time, wanted site.time_min instead"),
        ("ray.address=a:1", "ray.address is a:1 with site.kind=slurm"),
        ("+site.nodes=1", "can be given, not added"),
    ],
)
def test_a_wrong_site_setting_is_named(setting: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from cluster import launch

    monkeypatch.setattr("sys.argv", ["launch.py"])
    with pytest.raises(ValueError, match=re.escape(told)):
        launch.compose(["sweep=paper", "site=slurm", "site.folds_per_gpu=1", setting])
    assert settings.choices("site") == ["local", "node", "ray", "slurm"]


def test_options_of_the_users_own_reach_sbatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cluster import launch

    monkeypatch.setattr("sys.argv", ["launch.py"])
    given = ["sweep=paper", "site=slurm", "site.sbatch={reservation:r1,signal:CONT@1}", "site.setup=[module load a/1]"]
    request = launch.compose(given)
    assert request is not None
    assert request.settings.site.sbatch == {"reservation": "r1", "signal": "CONT@1"}
    script = submission.shape(request.settings.site, "paper", tmp_path, tmp_path / "code", "c").script(2)
    assert options(script)["reservation"] == "r1"
    assert options(script)["signal"] == "CONT@1"
    assert "module load a/1" in script.splitlines()
