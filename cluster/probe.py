"""The canary, as the one who sends it sees it: one short job on the wanted kind of node, before all others.

What it looks at stands in cluster/canary.py. Its answer is believed as long as code, data, network and site are the
same.
"""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from cluster import script, slurm
from cluster.canary import Answer, Asked
from cluster.folds import Configuration
from cluster.site import Site
from data_prep.files import make_private, write_text

TIME_MIN = 2
PLACE = (
    "partition",
    "account",
    "qos",
    "constraint",
    "gpus_per_node",
    "folds_per_gpu",
    "cpus_per_rank",
    "mem_gb",
    "setup",
)
"""settings of a site that decide what a canary finds"""


def costliest(configurations: Sequence[Configuration]) -> Configuration:
    """The one whose steps take most."""
    return max(configurations, key=lambda c: (c.config["model"]["width"], c.config["train"]["batch_size"]))


def key(configuration: Configuration, site: Site, code: Path) -> str:
    """Of all that its answer depends on."""
    config = {name: configuration.config[name] for name in ("data_digest", "model", "train")}
    told = [code.name, config, {name: getattr(site, name) for name in PLACE}]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]


def known(sweep_folder: Path, wanted: str) -> Answer | None:
    """The answer to the same question, if there is one."""
    answer = last(sweep_folder)
    return answer if answer and answer.key == wanted else None


def text(site: Site, sweep: str, sweep_folder: Path, code: Path) -> str:
    """Its batch script."""
    folder = _folder(sweep_folder)
    options: dict[str, object] = {
        "cpus-per-task": site.cpus_per_rank,
        "mem": f"{round(site.mem_gb * 1024)}MB",
        "time": TIME_MIN,
        **({"gpus-per-node": 1} if site.gpus_per_node else {}),
        **({"constraint": site.constraint} if site.constraint else {}),
        **site.sbatch,
    }
    call = ["-m", "cluster.canary", str(folder / "asked.json"), str(folder / "answer.json")]
    return script.text(site, sweep, "canary", code, folder / "canary.log", options, call)


def queue(configuration: Configuration, site: Site, sweep: str, sweep_folder: Path, code: Path, store: Path) -> str:
    """Send it; its job. The one of a driver before this that is still on its way is taken."""
    folder = make_private(_folder(sweep_folder))
    asked = Asked(
        config=configuration.config,
        store=str(store),
        sweep_folder=str(sweep_folder),
        gpus=min(site.gpus_per_node, 1),
        gpu_share_folds=site.folds_per_gpu,
        mem_gb=site.mem_gb,
        cpus=site.cpus_per_rank,
        code=str(code),
        key=key(configuration, site, code),
    )
    question, job = folder / "asked.json", folder / "job.json"
    if job.exists() and question.exists() and Asked.read(question) == asked:
        before = str(job_of(sweep_folder))
        if (there := slurm.jobs().get(before)) and there.alive:
            return before
    (folder / "answer.json").unlink(missing_ok=True)
    asked.write(question)
    path = folder / "canary.sh"
    write_text(path, text(site, sweep, sweep_folder, code), private=True)
    queued = slurm.queue(path)
    write_text(job, json.dumps({"job": queued}) + "\n")
    return queued


def wait(job: str, wanted: str, site: Site, sweep_folder: Path, tell: Callable[[str], None]) -> Answer:
    """Its answer. ValueError where its job ended without one."""
    asked, told = -1e9, ""
    while True:
        if answer := known(sweep_folder, wanted):
            return answer
        if time.monotonic() - asked >= site.poll_s:
            asked = time.monotonic()
            state = _state(job)
            if state.startswith("ended") and not known(sweep_folder, wanted):
                raise ValueError(f"canary: job {job} {state} without an answer; see {log_of(sweep_folder)}")
            if state != told:
                told = state
                tell(f"canary: job {job} {state}")
        time.sleep(0.5)


def _state(job: str) -> str:
    try:
        there = slurm.jobs().get(job)
    except slurm.Silent:
        return "is somewhere: Slurm does not answer now"
    if there is None or not there.alive:
        return f"ended{f' as {there.state}' if there else ''}"
    return f"waits ({there.reason})" if there.waits else f"runs on {there.nodes}"


def believe(answer: Answer, sweep_folder: Path) -> None:
    """ValueError, in one line, where folds could not run there."""
    if answer.problems:
        log = log_of(sweep_folder)
        raise ValueError(f"canary on {answer.node}: {'; '.join(answer.problems)} (nothing was queued; log: {log})")


def job_of(sweep_folder: Path) -> str | None:
    """The last canary's job; None where none was sent."""
    job = _folder(sweep_folder) / "job.json"
    return str(json.loads(job.read_text())["job"]) if job.exists() else None


def last(sweep_folder: Path) -> Answer | None:
    """The last canary's answer, whatever it was asked."""
    path = _folder(sweep_folder) / "answer.json"
    return Answer.read(path) if path.exists() else None


def log_of(sweep_folder: Path) -> Path:
    """Where it writes."""
    return _folder(sweep_folder) / "canary.log"


def _folder(sweep_folder: Path) -> Path:
    return sweep_folder / "canary"
