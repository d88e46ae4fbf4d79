"""Mirror run folders into MLflow, one way: sweep > configuration > fold.

The run folders are the truth. The mirror can be deleted and made again; when the tracking server is down,
slow or absent, training does not notice. Each (run, metric, step) is written once: a run's last `epoch`
metric says how far it has come, and an epoch's metrics go in one batch.
"""

import logging
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from mlflow.entities import Metric, Param
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from cluster.folds import Configuration, mean_over_folds
from data_prep.files import atomic, write_text
from mtl.config import flat

PATH_TAG, RUNS_TAG = "branchpoint.path", "branchpoint.runs"
"""Where a run's folder lies below runs/, and which runs/ that is: by these the mirror knows it again."""
STATUS = {"DONE": "FINISHED", "STOPPED": "FINISHED", "FAILED": "FAILED"}


class Mirror:
    """The runs of one sweep folder in one MLflow experiment of the same name."""

    def __init__(self, uri: str, sweep: str, question: str, runs: Path) -> None:
        logging.getLogger("alembic").setLevel(logging.WARNING)
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        _create_database(uri)
        self._client = MlflowClient(tracking_uri=uri)
        found = self._client.get_experiment_by_name(sweep)
        local = uri.startswith("sqlite")
        artifacts = (runs.resolve() / "mlartifacts").as_uri() if local else None
        if found and found.lifecycle_stage != "active":
            self._client.restore_experiment(found.experiment_id)
        self._experiment = found.experiment_id if found else self._client.create_experiment(sweep, artifacts)
        self._runs_id = _identity(runs)
        self._ids: dict[str, str] = {}
        self._epochs: dict[str, int] = {}
        self._statuses: dict[str, str] = {}
        self._bare: set[str] = set()  # made, and killed before their params were written
        self._find_runs()
        self._sweep = self._run(sweep, sweep, None, {"question": question})

    def _find_runs(self) -> None:
        token: str | None = ""
        while token is not None:
            mine = f"tags.`{RUNS_TAG}` = '{self._runs_id}'"
            page = self._client.search_runs([self._experiment], mine, max_results=1000, page_token=token or None)
            for run in page:
                if path := run.data.tags.get(PATH_TAG):
                    self._ids[path] = run.info.run_id
                    self._epochs[path] = int(run.data.metrics.get("epoch", 0))
                    self._statuses[path] = run.info.status
                    if not run.data.params:
                        self._bare.add(path)
            token = page.token or None

    def _run(self, path: str, name: str, parent: str | None, params: Mapping[str, Any]) -> str:
        """The id of the run that mirrors `path`; made if it is not there."""
        if path not in self._ids:
            tags = {PATH_TAG: path, RUNS_TAG: self._runs_id, **({MLFLOW_PARENT_RUN_ID: parent} if parent else {})}
            run = self._client.create_run(self._experiment, run_name=name, tags=tags)
            self._ids[path], self._epochs[path], self._statuses[path] = run.info.run_id, 0, "RUNNING"
            self._bare.add(path)
        if path in self._bare:
            entries = [Param(key, str(value)) for key, value in params.items()]
            self._client.log_batch(self._ids[path], params=entries)
            self._bare.discard(path)
        return self._ids[path]

    def sync(self, configurations: Sequence[Configuration]) -> None:
        """Write what is new in the run folders."""
        self._set_status(configurations[0].folder.parent.name, "RUNNING")
        for c in configurations:
            path = f"{c.folder.parent.name}/{c.name}"
            params = {**flat(c.config), **{f"searched.{key}": value for key, value in c.point.items()}}
            parent = self._run(path, c.name, self._sweep, params)
            for number, run in enumerate(c.runs):
                if (run.path / "config.yaml").exists():
                    fold = f"{path}/{run.path.name}"
                    self._run(fold, run.path.name, parent, {**flat(c.config), "fold": number})
                    self._log(fold, run.epochs())
                    self._set_status(fold, STATUS.get(run.outcome() or "", "RUNNING"))
            # As far as every fold has come.
            by_epoch = zip(*(run.epochs() for run in c.runs), strict=False)
            self._log(path, [_mean(records) for records in by_epoch])
            outcomes = [run.outcome() for run in c.runs]
            ended = all(outcomes)
            self._set_status(path, "RUNNING" if not ended else "FAILED" if "FAILED" in outcomes else "FINISHED")

    def _log(self, path: str, records: Sequence[Mapping[str, Any]]) -> None:
        for record in records[self._epochs[path] :]:
            step, time_ms = record["epoch"], _milliseconds(record["time_utc"])
            numbers = {key: value for key, value in record.items() if isinstance(value, int | float)}
            metrics = [Metric(key, float(value), time_ms, step) for key, value in numbers.items()]
            self._client.log_batch(self._ids[path], metrics=metrics)
            self._epochs[path] = step

    def _set_status(self, path: str, status: str) -> None:
        if self._statuses[path] == status:
            return
        if status == "RUNNING":
            self._client.update_run(self._ids[path], status=status)
        else:
            self._client.set_terminated(self._ids[path], status=status)
        self._statuses[path] = status

    def close(self, configurations: Sequence[Configuration]) -> None:
        """The last look before the launcher ends: what it leaves unfinished is not shown as running."""
        self.sync(configurations)
        sweep = configurations[0].folder.parent.name
        for c in configurations:
            for path in (f"{sweep}/{c.name}", *(f"{sweep}/{c.name}/{run.path.name}" for run in c.runs)):
                if self._statuses.get(path) == "RUNNING":
                    self._set_status(path, "KILLED")
        done = all(c.done() for c in configurations)
        failed = any(run.outcome() == "FAILED" for c in configurations for run in c.runs)
        self._set_status(sweep, "FINISHED" if done else "FAILED" if failed else "KILLED")

    def finish(self, configurations: Sequence[Configuration], table: Path, answer: str) -> None:
        """As close(), with the table as the sweep's artifact and the answer as its description."""
        self.close(configurations)
        self._client.log_artifact(self._sweep, str(table))
        self._client.set_tag(self._sweep, "mlflow.note.content", answer)


def _create_database(uri: str) -> None:
    """A new sqlite database appears when all its tables are in it: killed in between, MLflow could not mend it."""
    path = Path(uri.removeprefix("sqlite:///"))
    if uri.startswith("sqlite:///") and "?" not in uri and not path.exists():
        with atomic(path) as temporary:
            MlflowClient(tracking_uri=f"sqlite:///{temporary}").search_experiments()


def _identity(runs: Path) -> str:
    """A runs folder's own name in a database that several may share; kept in it."""
    path = runs / ".mirror-id"
    if not path.exists():
        write_text(path, secrets.token_hex(8) + "\n")
    return path.read_text().strip()


def _mean(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {**mean_over_folds(records), "time_utc": max(record["time_utc"] for record in records)}


def _milliseconds(time_utc: str) -> int:
    return int(datetime.fromisoformat(time_utc).timestamp() * 1000)
