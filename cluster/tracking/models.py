"""The winner's networks, one a fold, as MLflow models; an earlier winner's are deleted.

    python -m cluster.tracking models runs/branch_location

mlflow.pytorch.load_model(URI of a model) gives a module (mtl/deploy.py: raw grey levels in, probabilities and areas
out, any number of slices); mlflow.pyfunc.load_model the same for arrays. Asked again it makes nothing twice.
"""

import hashlib
import json
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from mlflow.entities import LoggedModel, LoggedModelOutput
from mlflow.models import Model, ModelSignature
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.types import Schema, TensorSpec

from cluster.tracking.mirror import Mirror
from cluster.tracking.mirror_writer import told
from cluster.tracking.mirrored import PATH_TAG, RUNS_TAG
from data_prep.study import CLASSES
from mtl import deploy
from mtl.config import flat
from mtl.runfolder import RunFolder

with warnings.catch_warnings():
    warnings.simplefilter("ignore", UserWarning)  # about type hints of MLflow's own
    import mlflow.pyfunc
    import mlflow.pytorch

MADE_OF = "branchpoint.best"
"""tag of a model: the digest of the checkpoint that it is made of"""


@dataclass(frozen=True)
class Winner:
    """The best epoch of one fold of the winner."""

    run: RunFolder
    path: str
    """as in the tags of its run"""
    run_id: str

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.run.best.read_bytes()).hexdigest()[:16]


def log(sweep_folder: Path, uri: str) -> Iterator[tuple[str, str]]:
    """Let MLflow have the winner's models and no others of this sweep; each fold's path and its model's address.

    ValueError where the sweep has no winner yet or a network of it is lost; OSError where MLflow does not take them.
    """
    folder = sweep_folder.resolve()
    configuration = folder / winner(folder)
    runs = [RunFolder(path) for path in sorted(configuration.glob("fold_*"), key=lambda p: int(p.name[5:]))]
    modules = [
        deploy.deployed(run, of_slices=True) for run in runs
    ]  # what is wrong with one is found before anything is written
    mirror = Mirror(uri, folder)
    mirror.close()
    paths = [f"{folder.name}/{configuration.name}/{run.path.name}" for run in runs]
    with told(uri):
        wanted = [Winner(run, path, mirror.run_id(path)) for run, path in zip(runs, paths, strict=True)]
        there = _keep_only(mirror, uri, wanted)
    for one, module in zip(wanted, modules, strict=True):
        with told(uri):
            model = there.get(one.path) or _log(mirror, one, module)
        yield one.path, f"models:/{model}"


def winner(sweep_folder: Path) -> str:
    """The folder's name of the configuration that the verdict names; where it calls no winner, of the best."""
    path = sweep_folder / "verdict.json"
    try:
        verdict = json.loads(path.read_text())
        name = verdict["winner"] or verdict["best"]
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; the sweep's launch writes it at its end") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: damaged, or of another version ({error}); start the sweep again") from None
    if name is None:
        raise ValueError(f"{path}: no configuration is done yet; start the sweep again")
    if not (sweep_folder / str(name)).is_dir():
        raise ValueError(f"{path}: names {name!r}, and there is no such folder; start the sweep again")
    return str(name)


def _keep_only(mirror: Mirror, uri: str, wanted: list[Winner]) -> dict[str, str]:
    """Delete what models of the sweep there are beside these; path -> id of those that stay."""
    kept: dict[str, str] = {}
    makes = {(one.path, one.digest, one.run_id) for one in wanted}
    for model in _models(mirror):
        path = model.tags.get(PATH_TAG, "")
        made = (path, model.tags.get(MADE_OF, ""), model.source_run_id or "")
        if made in makes and path not in kept and model.status == "READY":
            kept[path] = model.model_id
        else:
            get_artifact_repository(model.artifact_location, tracking_uri=uri).delete_artifacts()
            mirror.client.delete_logged_model(model.model_id)
    return kept


def _models(mirror: Mirror) -> list[LoggedModel]:
    """All of the sweep."""
    page = mirror.client.search_logged_models([mirror.experiment])
    found = list(page)
    while page.token:
        page = mirror.client.search_logged_models([mirror.experiment], page_token=page.token)
        found += page
    return [model for model in found if model.tags.get(RUNS_TAG) == mirror.runs_id]


def _log(mirror: Mirror, one: Winner, module: deploy.Deployed) -> str:
    """A new model; its id."""
    config, number, facts = deploy.told(one.run)
    configuration = one.run.path.parent.name
    about = {"configuration": configuration, "fold": number, "classes": ", ".join((CLASSES[0], *module.structures))}
    about |= {
        key: facts[key]
        for key in ("pixel_spacing_mm", "size", "best_epoch", "dice_val", "area_mad_mm2")
        if key in facts
    }
    params = {**flat(asdict(config)), **about}
    model = mirror.client.create_logged_model(
        mirror.experiment,
        name=f"fold_{number}-{configuration}".replace(".", "_"),  # in a narrow column of the UI its end is not seen
        source_run_id=one.run_id,
        tags={PATH_TAG: one.path, RUNS_TAG: mirror.runs_id, MADE_OF: one.digest},
        params={key: str(value) for key, value in params.items()},
        model_type="pytorch",
    )
    with tempfile.TemporaryDirectory() as scratch:
        _save(Path(scratch) / "model", module, Model(run_id=one.run_id, model_id=model.model_id), about, facts["size"])
        mirror.client.log_model_artifacts(model.model_id, str(Path(scratch) / "model"))
    mirror.client.log_outputs(one.run_id, [LoggedModelOutput(model.model_id, step=int(facts["best_epoch"]))])
    mirror.client.finalize_logged_model(model.model_id, "READY")
    return str(model.model_id)


def _save(path: Path, module: deploy.Deployed, model: Model, about: dict[str, Any], size: Sequence[int]) -> None:
    """The folder of a model, as mlflow.pytorch writes it; arrays go through mtl/deploy.py's Predictor."""
    single, areas = np.dtype(np.float32), len(module.structures)
    shape, answered = (-1, 1, *size), (-1, areas, *size)
    mlflow.pytorch.save_model(
        module,
        str(path),
        mlflow_model=model,
        signature=ModelSignature(
            Schema([TensorSpec(single, shape)]),
            Schema([TensorSpec(single, answered, "probability"), TensorSpec(single, (-1, areas), "area_mm2")]),
        ),
        input_example=deploy.example(*size),
        metadata=about,
        pip_requirements=[f"{name}=={version(name).partition('+')[0]}" for name in ("mlflow", "torch", "numpy")],
        serialization_format="pickle",  # else a graph is exported, whose number of slices is that of the example
    )
    model.flavors["python_function"]["loader_module"] = deploy.__name__  # MLflow's own takes one tensor as an answer
    model.save(str(path / "MLmodel"))
