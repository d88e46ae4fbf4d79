"""What would be submitted to Slurm, what it costs, when it would start. Submits nothing."""

import os
import pwd
from pathlib import Path

from cluster import driver, policy, probe, slurm, snapshot, submission
from cluster.canary import Answer
from cluster.task import Task
from data_prep.files import write_text


def text(task: Task, answer: Answer | None = None) -> str:
    """What would be queued, in Slurm's own words where it answers. ValueError says why it never could run.

    answer: of the canary, if it has been there.
    """
    price = task.price(answer)
    lines = [str(price), f"will be written: {price.written}, in {task.folder}"]
    for c in task.left:
        folds = [k for k, run in enumerate(c.runs) if run.outcome() != "DONE"]
        lines.append(f"  {c.name}: folds {', '.join(map(str, folds))}")
    lines += policy.table(task.policy, task.cuts)
    lines += [f"advice: {line}" for line in advice(task, answer)]
    for what, script in scripts(task).items():
        lines += ["", f"sbatch text of {what}:", "", script, f"Slurm says: {_tested(script, task)}"]
    return "\n".join(lines)


def code(task: Task) -> Path:
    """Where the copy of the code will lie in the sweep's folder."""
    return task.folder / "code" / snapshot.code_hash()


def scripts(task: Task) -> dict[str, str]:
    """The batch script of each shape of job."""
    if not task.left:
        return {}
    site, folder, copy = task.site, task.folder, code(task)
    if site.kind == "node":
        return {"the node's job": driver.node_text(site, task.sweep, folder, copy)}
    made = {f"the folds of {task.left[0].name} (the others differ in its name)": _folds_script(task)}
    if site.canary:
        made["the canary, which goes first"] = probe.text(site, task.sweep, folder, copy)
    if task.settings.driver == "job":
        made["the driver"] = driver.text(site, task.sweep, folder, copy)
    return made


def _folds_script(task: Task) -> str:
    shape = submission.shape(task.site, task.sweep, task.folder, code(task), task.left[0].name)
    return shape.script(len(task.left[0].runs))


def advice(task: Task, answer: Answer | None) -> list[str]:
    """What the canary, or earlier epochs, let us say about what was asked for."""
    lines = list(answer.advice) if answer else []
    price, site = task.price(answer), task.site
    if price.folds and price.low_h:
        longest_min = 60 * price.high_h / price.folds
        if longest_min < site.time_min / 4:
            lines.append(
                f"site.time_min={max(5, round(2 * longest_min))}: a fold takes {longest_min:.1f} minutes at most"
            )
        if longest_min > site.time_min:
            times = longest_min / site.time_min
            lines.append(
                f"a fold takes up to {longest_min:.0f} minutes, {times:.1f} times site.time_min: it is requeued"
            )
        if site.ranks > 1 and longest_min < 60:
            lines.append(
                f"site.nodes=1 site.gpus_per_node=1: {longest_min:.0f} minutes a fold need no {site.ranks} ranks"
            )
    return lines


def check(task: Task) -> None:
    """ValueError, before anything is queued, where there is no Slurm or it would never run the jobs."""
    if not slurm.there():
        kind = task.site.kind
        raise ValueError(
            f"site={kind}: no Slurm on this machine (sbatch is not found); use site=local, or a login node"
        )
    check_owner(task.folder)
    if task.left:
        script = _folds_script(task) if task.site.kind == "slurm" else next(iter(scripts(task).values()))
        _tested(script, task)


def check_owner(sweep_folder: Path) -> None:
    """ValueError where somebody else owns the folder: jobs could write there, and we not."""
    owner = sweep_folder.stat().st_uid
    if owner != os.getuid():
        try:
            name = pwd.getpwuid(owner).pw_name
        except KeyError:
            name = str(owner)
        raise ValueError(f"{sweep_folder} belongs to {name}: give runs= with a folder of your own")


def _tested(script: str, task: Task) -> str:
    path = task.folder / ".plan.sh"
    write_text(path, script)
    try:
        return slurm.test_only(path)
    except ValueError as error:
        names = ("partition", "account", "nodes", "gpus_per_node", "cpus_per_rank", "mem_gb", "time_min")
        asked = ", ".join(f"{name}={getattr(task.site, name)}" for name in names)
        raise ValueError(f"Slurm would never run the folds' jobs: {error} ({asked})") from None
    finally:
        path.unlink(missing_ok=True)
