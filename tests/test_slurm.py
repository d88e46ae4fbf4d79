"""What is asked of Slurm, and what follows from its answers, without a cluster. tests/slurm has a real one."""

import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from cluster import broker, cancel, driver, settings, slurm, status, submission
from cluster.broker import Broker
from cluster.folds import Configuration
from cluster.settings import Site
from cluster.slurm import Job
from cluster.worker import FoldJob
from data_prep.files import make_private
from mtl.config import Config, Model, fold_dict
from mtl.runfolder import RunFolder

SITE = Site(kind="slurm", gpus_per_node=0, poll_s=60, requeues=2)


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
    script = submission.shape(site, "paper", tmp_path / "a b", tmp_path / "code", "branch-up4-0", ["n3", "n7"]).script(
        5
    )
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


def test_the_drivers_script_is_small_and_runs_the_same_command_in_the_foreground(tmp_path: Path) -> None:
    script = driver.script_text(["sweep=paper", "data.store=a b"], SITE, "paper", tmp_path, tmp_path / "code")
    told = options(script)
    assert (told["ntasks"], told["cpus-per-task"], told["mem"], told["time"]) == ("1", "2", "4096MB", "1440")
    assert not [key for key in told if "gpu" in key]
    last = script.splitlines()[-1]
    assert last.endswith("cluster/launch.py sweep=paper 'data.store=a b' driver=here yes=true")


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


class Killed(BaseException):
    """Stands for kill -9."""


class Machine:
    """Slurm as the broker sees it: ids that it gives, states that a test sets; and a clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.states: dict[str, Job] = {}
        self.arrays: list[tuple[list[int], tuple[str, ...]]] = []
        self.time, self.silent, self.dies, self.questions = 0.0, False, False, 0
        monkeypatch.setattr(submission, "submit", self.submit)
        monkeypatch.setattr(slurm, "jobs", self.jobs)
        monkeypatch.setattr(slurm, "ended", lambda ids: {})

    def submit(self, shape: submission.Shape, folds: list[FoldJob]) -> dict[int, str]:
        self.arrays.append(([fold.number for fold in folds], shape.exclude))
        ids = {fold.number: f"{len(self.arrays)}_{place}" for place, fold in enumerate(folds)}
        self.states |= {i: Job(i, "PENDING", "Priority", name=shape.name) for i in ids.values()}
        if self.dies:
            raise Killed
        return ids

    def jobs(self) -> dict[str, Job]:
        self.questions += 1
        if self.silent:
            raise slurm.Silent("squeue: no answer")
        return dict(self.states)

    def set(self, i: str, state: str, node: str = "n1") -> None:
        self.states[i] = Job(i, state, "", node)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


@pytest.fixture
def folds(tmp_path: Path, config: Config) -> list[FoldJob]:
    folder = make_private(tmp_path / "sweep" / "c")
    return [FoldJob(asdict(config), "store", str(folder / f"fold_{k}"), k) for k in range(3)]


@pytest.fixture
def made(machine: Machine, tmp_path: Path, folds: list[FoldJob]) -> Broker:
    """A broker that was asked for three folds and has queued them."""
    one = Broker(SITE, "s", tmp_path / "sweep", tmp_path / "code", now=lambda: machine.time)
    broker.Place(str(tmp_path / "sweep")).start("c", folds)
    one.step()
    assert machine.arrays == [([0, 1, 2], ())]
    return one


def run_of(fold: FoldJob) -> RunFolder:
    return RunFolder(make_private(Path(fold.folder)))


def later(made: Broker, machine: Machine, seconds: float = 200) -> None:
    machine.time += seconds
    made.step()


@pytest.mark.parametrize("state", ["TIMEOUT", "PREEMPTED", "NODE_FAIL"])
def test_what_slurm_ended_is_queued_again_alone_and_at_most_so_often(
    state: str, made: Broker, machine: Machine, folds: list[FoldJob]
) -> None:
    for attempt, job in enumerate(("1_1", "2_0", "3_0"), start=1):
        machine.set(job, state, node=f"n{attempt}")
        later(made, machine)
        bad = tuple(f"n{n}" for n in range(1, attempt + 1)) if state == "NODE_FAIL" else ()
        if attempt <= SITE.requeues:
            assert machine.arrays[attempt] == ([1], bad)
    assert len(machine.arrays) == 1 + SITE.requeues
    assert run_of(folds[1]).outcome() == "FAILED"
    assert run_of(folds[1]).reason().startswith(f"job 3_0 ended as {state} after being queued 3 times; see ")
    assert run_of(folds[0]).outcome() is None


@pytest.mark.parametrize("state", ["FAILED", "CANCELLED", "OUT_OF_MEMORY", "COMPLETED"])
def test_what_ended_of_itself_without_an_outcome_fails_with_its_log(
    state: str, made: Broker, machine: Machine, folds: list[FoldJob]
) -> None:
    machine.set("1_2", state)
    later(made, machine)
    assert run_of(folds[2]).outcome() == "FAILED"
    assert f"job 1_2 ended as {state}; see " in run_of(folds[2]).reason()
    assert run_of(folds[2]).reason().endswith("jobs/1_2_0_log.out")
    assert len(machine.arrays) == 1


def test_an_outcome_counts_whatever_slurm_says(made: Broker, machine: Machine, folds: list[FoldJob]) -> None:
    run_of(folds[0]).finish("DONE", "all epochs trained")
    machine.set("1_0", "FAILED")
    later(made, machine)
    assert run_of(folds[0]).outcome() == "DONE"


def test_a_job_that_squeue_forgot_is_queued_again_but_not_at_once(made: Broker, machine: Machine) -> None:
    machine.states.clear()
    made._asked = -1e9
    later(made, machine, seconds=5)  # squeue may not know it yet
    assert len(machine.arrays) == 1
    later(made, machine)
    assert machine.arrays[1:] == [([0, 1, 2], ())]


def test_while_the_controller_is_away_nothing_is_done(made: Broker, machine: Machine) -> None:
    machine.silent = True
    machine.states.clear()
    for _ in range(5):
        later(made, machine)
    assert len(machine.arrays) == 1


def test_one_question_for_all_jobs_ever_less_often_while_nothing_happens(made: Broker, machine: Machine) -> None:
    machine.questions = 0
    for _ in range(3600):
        machine.time += 1
        made.step()
    assert 3600 / 180 <= machine.questions <= 3600 / 180 + 3  # an hour: backs off to one in three minutes


def test_a_new_broker_knows_the_jobs_of_the_one_before(
    made: Broker, machine: Machine, folds: list[FoldJob], tmp_path: Path
) -> None:
    later(made, machine)
    other = Broker(SITE, "s", tmp_path / "sweep", tmp_path / "code", now=lambda: machine.time)
    broker.Place(str(tmp_path / "sweep")).start("c", folds)
    other.step()
    assert len(machine.arrays) == 1
    assert not list((tmp_path / "sweep" / "requests").iterdir())


def test_killed_right_after_sbatch_its_successor_finds_the_jobs(
    machine: Machine, folds: list[FoldJob], tmp_path: Path
) -> None:
    machine.dies = True
    one = Broker(SITE, "s", tmp_path / "sweep", tmp_path / "code", now=lambda: machine.time)
    broker.Place(str(tmp_path / "sweep")).start("c", folds)
    with pytest.raises(Killed):
        one.step()
    machine.dies = False
    other = Broker(SITE, "s", tmp_path / "sweep", tmp_path / "code", now=lambda: machine.time)
    other.step()
    assert len(machine.arrays) == 1
    assert {Path(w.fold["folder"]).name: w.id for w in other.watched.values()} == {
        "fold_0": "1_0", "fold_1": "1_1", "fold_2": "1_2"
    }  # fmt: skip


def test_killed_right_before_sbatch_its_successor_queues_them(
    machine: Machine, folds: list[FoldJob], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(*_: object) -> None:
        raise Killed

    one = Broker(SITE, "s", tmp_path / "sweep", tmp_path / "code", now=lambda: machine.time)
    broker.Place(str(tmp_path / "sweep")).start("c", folds)
    with monkeypatch.context() as patch:
        patch.setattr(submission, "submit", kill)
        with pytest.raises(Killed):
            one.step()
    Broker(SITE, "s", tmp_path / "sweep", tmp_path / "code", now=lambda: machine.time).step()
    assert [numbers for numbers, _ in machine.arrays] == [[0, 1, 2]]


def test_a_refused_submission_fails_the_folds_in_slurms_words(
    machine: Machine, folds: list[FoldJob], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise ValueError("sbatch: Invalid account")

    monkeypatch.setattr(submission, "submit", refuse)
    one = Broker(SITE, "s", tmp_path / "sweep", tmp_path / "code", now=lambda: 0.0)
    broker.Place(str(tmp_path / "sweep")).start("c", folds)
    one.step()
    assert {run_of(fold).reason() for fold in folds} == {"sbatch: Invalid account"}


def test_a_fold_that_was_queued_again_too_often_fails_and_says_so(
    folds: list[FoldJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {
        "SUBMITIT_EXECUTOR": "slurm",
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NODELIST": "n1",
        "SLURM_RESTART_COUNT": "3",
    }
    for key, value in {**environment, "RANK": "", "WORLD_SIZE": "", "LOCAL_RANK": "", "MASTER_PORT": "29501"}.items():
        monkeypatch.setenv(key, value)
    for key in ("MASTER_ADDR", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(key, "")
    with pytest.raises(RuntimeError, match=r"queued again 3 times, more than site.requeues=2: give more time"):
        submission.SlurmFold(folds[0], requeues=2)()
    assert run_of(folds[0]).outcome() == "FAILED"
    assert submission.SlurmFold(folds[0], requeues=2).checkpoint().function == submission.SlurmFold(
        folds[0], requeues=2
    )


def test_while_the_controller_is_away_nothing_fails_and_what_was_asked_for_is_queued_later(
    machine: Machine, folds: list[FoldJob], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, client: Path
) -> None:
    one = Broker(SITE, "s", tmp_path / "sweep", tmp_path / "code", now=lambda: machine.time)
    broker.Place(str(tmp_path / "sweep")).start("c", folds)

    def away(*_: object) -> None:
        raise slurm.failure("sbatch", "error: Batch job submission failed: Unable to contact slurm controller")

    with monkeypatch.context() as patch:
        patch.setattr(submission, "submit", away)
        with pytest.raises(slurm.Silent):
            one.step()
    assert [run_of(fold).outcome() for fold in folds] == [None] * 3
    one.step()
    assert [numbers for numbers, _ in machine.arrays] == [[0, 1, 2]]


def test_the_snapshot_is_this_code_once_per_content(tmp_path: Path) -> None:
    code = submission.snapshot(make_private(tmp_path / "sweep"))
    assert code == submission.snapshot(tmp_path / "sweep")
    root = Path(submission.__file__).parent.parent
    for package in submission.PACKAGES:
        theirs = sorted(p.relative_to(root / package) for p in (root / package).rglob("*.py"))
        assert sorted(p.relative_to(code / package) for p in (code / package).rglob("*.py")) == theirs
    assert (code / "sweeps" / "paper.yaml").is_file()
    assert (code / "cluster" / "sites" / "slurm.yaml").is_file()


def test_status_tells_every_fold_and_the_queue(made: Broker, machine: Machine, folds: list[FoldJob]) -> None:
    later(made, machine)
    run_of(folds[0]).prepare({"fold": 0})
    run_of(folds[0]).write_epochs([{"epoch": 1, "seconds": 60.0}])
    run_of(folds[2]).finish("FAILED", "Diverged: epoch 2\nmore")
    machine.set("1_0", "RUNNING", "n2")
    made_lines = status.folds(made.folder, broker.read(made.folder)[0], machine.jobs())
    assert [(fold.number, fold.state, fold.told) for fold in made_lines] == [
        (0, "runs", "job 1_0 on n2; epoch 1 of 3, 60 s each, 2 min left"),
        (1, "waits", "job 1_1 (Priority); epoch 0 of 3"),
        (2, "failed", "Diverged: epoch 2"),
    ]
    text = status.report(made.folder)
    assert "3 folds: 1 failed, 1 runs, 1 waits" in text
    (made.folder / "driver.json").write_text(json.dumps({"job": "99"}))
    assert "driver: job 99 has ended; log: " in status.report(made.folder)
    machine.set("99", "RUNNING", "n3")
    assert "driver: job 99 RUNNING n3; log: " in status.report(made.folder)
    machine.silent = True
    assert "Slurm does not answer (squeue: no answer)" in status.report(made.folder)


def test_status_of_no_sweep_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_private(tmp_path / "runs" / "paper" / "c" / "fold_0")
    for folder, told in (
        (tmp_path / "none", "no such folder"),
        (tmp_path / "runs", "name one of the sweeps in it: paper"),
    ):
        assert status.main([str(folder)]) == 2
        error = capsys.readouterr().err
        assert told in error
        assert error.count("\n") == 1


def test_cancel_ends_the_driver_first_and_what_is_alive(
    made: Broker, machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ended: list[str] = []
    monkeypatch.setattr(slurm, "cancel", ended.extend)
    later(made, machine)
    (made.folder / "driver.json").write_text(json.dumps({"job": "99"}))
    machine.set("99", "RUNNING")
    machine.set("1_1", "COMPLETED")
    assert cancel.main([str(made.folder)]) == 0
    assert ended == ["99", "1_0", "1_2"]
    assert "3 jobs ended: 99, 1_0, 1_2" in capsys.readouterr().out
    assert cancel.main([str(made.folder.parent)]) == 2


def test_the_price_is_the_time_limit_until_there_are_epochs_to_go_by(tmp_path: Path, config: Config) -> None:
    folder = make_private(tmp_path / "runs" / "sweep" / "c")
    one = Configuration("c", {}, asdict(config), folder)
    site = replace(SITE, gpus_per_node=2, nodes=2, time_min=90)
    first = driver.price([one], site)
    assert first.gpu_hours == 5 * 4 * 1.5
    assert str(first) == "5 folds to train, at most 30.0 GPU hours (the time limit of 90 minutes for each of them)"
    one.runs[0].prepare(fold_dict(one.config, 0))
    one.runs[0].write_epochs([{"epoch": 1, "seconds": 36.0}, {"epoch": 2, "seconds": 72.0}])
    later = driver.price([one], site)  # 4 folds of 3 epochs and one of 1 left: 13 epochs
    assert (later.low_h, later.high_h) == pytest.approx((13 * 36 / 3600, 13 * 72 / 3600))
    assert str(later).startswith("5 folds to train, 0.52 to 1.04 GPU hours (from the epochs of earlier runs in ")
    other = Configuration("d", {}, asdict(replace(config, model=Model(width=4))), make_private(folder.parent / "d"))
    assert "the time limit" in str(driver.price([one, other], site))
    one.runs[0].finish("DONE", "all epochs trained")
    assert driver.price([one], site).folds == 4
    (make_private(folder.parent / "old" / "fold_0") / "config.yaml").write_text("model: {width: 2}\nfold: 0\n")
    assert driver.price([one], site).folds == 4  # of another version: it is of no help, and no error


def test_no_slurm_here_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Config) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    one = Configuration("c", {}, asdict(config), tmp_path / "c")
    with pytest.raises(ValueError, match=r"^site=slurm: no Slurm on this machine"):
        driver.check([one], SITE, "s", tmp_path)


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("site.kind=pbs", "site.kind is 'pbs'"),
        ("site.nodes=0", "site.nodes is 0"),
        ("driver=there", "driver is 'there'"),
    ],
)
def test_a_wrong_site_setting_is_named(setting: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from cluster import launch

    monkeypatch.setattr("sys.argv", ["launch.py"])
    with pytest.raises(ValueError, match=told):
        launch.compose(["sweep=paper", "site=slurm", setting])
    assert settings.choices("site") == ["local", "slurm"]


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
