"""What the mirror asks MLflow's page to show. How it looks there: tests/browser."""

import json

from cluster.tracking import mirrored_views
from sweeps.asked import Asked

ASKED = Asked("branch_location", "Where?", {"model.branch": ["up1", "up4"], "optim.lr": [0.1]})


def states() -> dict[str, dict[str, object]]:
    tags = mirrored_views.experiment_tags(ASKED)
    views = {key: json.loads(tags[mirrored_views.VIEW + key]) for key in ("tree", "compared", "weights")}
    assert [view["name"][0] for view in views.values()] == ["1", "2", "3"]
    return {key: json.loads(view["state"]) for key, view in views.items()}


def test_searched_fields_and_results_are_columns() -> None:
    shown = states()["compared"]["selectedColumns"]
    assert shown[:2] == ["params.`model.branch`", "params.`optim.lr`"]
    assert "metrics.`best_dice_val_mean`" in shown


def test_tags_fit_into_mlflow_even_of_a_large_space() -> None:
    asked = Asked("all", "Which?", {f"section.field_of_a_long_name_{n}": [1, 2] for n in range(10)})
    assert max(map(len, mirrored_views.experiment_tags(asked).values())) < 5000


def test_the_tree_is_sorted_by_start_and_lists_by_place() -> None:
    assert {key: state["orderByKey"] for key, state in states().items()} == {
        "tree": "attributes.start_time",
        "compared": "tags.`order`",
        "weights": "tags.`order`",
    }


def test_places_sort_as_text() -> None:
    tags = [mirrored_views.run_tags(n, k) for n in range(12) for k in (None, *range(11))]
    places = [one["order"] for one in tags]
    assert places == sorted(places)
    assert len(set(places)) == len(places)


def test_every_configuration_and_each_of_its_folds_has_a_colour_of_its_own() -> None:
    configurations = [mirrored_views.run_tags(n)["mlflow.runColor"] for n in range(40)]
    folds = [mirrored_views.run_tags(n, k)["mlflow.runColor"] for n in range(6) for k in range(6)]
    assert len(set(configurations)) == 40
    assert len(set(folds)) == 36
    assert configurations[0] == mirrored_views.PALETTE[0]


def test_an_address_opens_a_view() -> None:
    told = mirrored_views.address("http://127.0.0.1:5000", "7", mirrored_views.COMPARED)
    assert told.startswith("http://127.0.0.1:5000/#/experiments/7/runs?workflowType=machine_learning")
    assert told.endswith("compareRunsMode=CHART&viewStateShareKey=compared")
