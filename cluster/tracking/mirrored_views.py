"""How MLflow's UI is to show a sweep: what can be chosen under `Views` on the page of its runs, colours, order.

MLflow 3.17 keeps a view as a tag of the experiment, `mlflow.sharedViewState.<key>`: its name, and the page's state in
the page's own words. Nothing else depends on it: an MLflow with other words shows the page as it is by default.
"""

import colorsys
import json
from typing import Any

from sweeps.asked import Asked

VIEW = "mlflow.sharedViewState."
COLOR, ORDER = "mlflow.runColor", "order"
"""tags of a run: what it is drawn in (MLflow's own choice easily gives two of six runs the same), and where it stands
in its sweep: lists can be sorted by it"""
PALETTE = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377")
"""Paul Tol's bright colours, which the colour-blind tell apart, too"""
TREE, COMPARED, WEIGHTS = "tree", "compared", "weights"
"""keys of the views"""
SHADES = 6
NAME_WIDTH = 300
STATE: dict[str, Any] = {
    "searchFilter": "",
    "startTime": "ALL",
    "lifecycleFilter": "Active",
    "modelVersionFilter": "All Runs",
    "datasetsFilter": [],
    "runsHiddenMode": "SHOW_ALL",
    "hideEmptyCharts": True,
    "groupBy": None,
    "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
}
"""of the page, where a view says nothing else. By default it hides all but ten runs in its charts."""


def experiment_tags(asked: Asked) -> dict[str, str]:
    """Of a sweep's experiment: its question, and the views."""
    searched = [f"params.`{key}`" for key in asked.space]
    results = [f"metrics.`best_{key}_{what}`" for key in ("dice_val", "area_mad_mm2") for what in ("mean", "sd")]
    # Runs stand below each other only while they are sorted by their start.
    tree = {"orderByKey": "attributes.start_time", "orderByAsc": True}
    flat = {"orderByKey": f"tags.`{ORDER}`", "orderByAsc": True}
    made = {
        TREE: _view("1 All runs", tree | _columns(searched + results)),
        COMPARED: _view(
            "2 Configurations compared",
            flat
            | {"searchFilter": "tags.level = 'configuration'"}
            | {"chartsSearchFilter": "^(best_)?(dice_val|area_mad_mm2)_mean$"}
            | _columns(searched + results),
        ),
        WEIGHTS: _view(
            "3 Learned weights of all folds",
            flat
            | {"searchFilter": "tags.level = 'fold'", "chartsSearchFilter": "^(log_sigma|weight_)"}
            | _columns([*searched, "params.`fold`"]),
        ),
    }
    return {"mlflow.note.content": asked.question, **{VIEW + key: view for key, view in made.items()}}


def run_tags(number: int, fold: int | None = None) -> dict[str, str]:
    """Of the sweep's configuration of this number, or of one of its folds."""
    place = f"{number:04}" if fold is None else f"{number:04}.{fold:03}"
    return {ORDER: place, COLOR: _color(number, fold)}


def address(server: str, experiment: str, key: str) -> str:
    """Of a view: the tree as a list, the others as charts."""
    mode = "TABLE" if key == TREE else "CHART"
    query = f"workflowType=machine_learning&compareRunsMode={mode}&viewStateShareKey={key}"
    return f"{server}/#/experiments/{experiment}/runs?{query}"


def _view(name: str, state: dict[str, Any]) -> str:
    return json.dumps({"name": name, "createdAt": 0, "updatedAt": 0, "state": json.dumps(STATE | state)})


def _columns(keys: list[str]) -> dict[str, Any]:
    """Those that are shown, as wide as their heading."""
    widths = {"attributes.`Run Name`": NAME_WIDTH, **{key: max(90, 8 * len(key) - 60) for key in keys}}
    return {"selectedColumns": keys, "columnOrder": list(widths), "columnWidths": widths}


def _color(number: int, fold: int | None) -> str:
    """A hue for each configuration, its folds in shades of it."""
    red, green, blue = (int(PALETTE[number % len(PALETTE)][at : at + 2], 16) / 255 for at in (1, 3, 5))
    hue, lightness, saturation = colorsys.rgb_to_hls(red, green, blue)
    if number >= len(PALETTE):
        hue = number * 0.618 % 1  # of the golden section: far from those before
    if fold is not None:
        lightness = 0.25 + 0.5 * (fold % SHADES) / (SHADES - 1)
    return "#" + "".join(f"{round(255 * part):02x}" for part in colorsys.hls_to_rgb(hue, lightness, saturation))
