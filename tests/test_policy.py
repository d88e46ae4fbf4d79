"""An admin's limits, and a user's, which may only tighten them."""

from dataclasses import replace
from pathlib import Path

import pytest

from cluster import policy
from cluster.policy import Limit, Policy
from tests.pretended import SITE


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def of(**limits: object) -> Policy:
    return Policy({name: Limit(value, "p.yaml") for name, value in limits.items()})


def test_the_tighter_line_counts_and_the_plan_says_whose_it_is(tmp_path: Path) -> None:
    admins = written(tmp_path / "a.yaml", "max_gpus: 16\nmax_time_min: 60\npartitions: [gpu, short]\n")
    users = written(tmp_path / "u.yaml", "max_gpus: 64\nmax_time_min: 30\nmax_jobs: 20\npartitions: [short, long]\n")
    found = policy.read(str(users), admins)
    assert {name: (limit.value, Path(limit.source).name) for name, limit in found.limits.items()} == {
        "max_gpus": (16, "a.yaml"),
        "max_time_min": (30, "u.yaml"),
        "max_jobs": (20, "u.yaml"),
        "partitions": (["short"], "u.yaml"),
    }
    site, cuts = policy.applied(found, replace(SITE, time_min=240), folds=5)
    assert (site.time_min, site.driver_time_min, site.partition) == (30, 30, "short")
    table = "\n".join(policy.table(found, cuts))
    assert f"max_gpus: 16 ({admins})" in table
    assert f"max_time_min: 30 ({users})" in table
    assert f"max_gpus=64 of {users} does not count: 16 ({admins}) is tighter" in table
    assert f"cut: site.time_min: 30 instead of 240 (max_time_min=30 of {users})" in table


def test_without_a_policy_nothing_is_cut(tmp_path: Path) -> None:
    found = policy.read(None, tmp_path / "none.yaml")
    assert policy.applied(found, SITE, folds=5) == (SITE, [])
    assert policy.table(found, []) == []


def test_an_arrays_width_is_cut_only_where_it_would_be_wider() -> None:
    assert policy.applied(of(max_array_width=3), SITE, folds=5)[0].at_a_time == 3
    assert policy.applied(of(max_array_width=3), replace(SITE, at_a_time=2), folds=5)[0].at_a_time == 2
    assert policy.applied(of(max_array_width=3), replace(SITE, folds_per_gpu=2), folds=5)[0].at_a_time is None


@pytest.mark.parametrize(
    ("limits", "changes", "told"),
    [
        (
            {"partitions": ["gpu"]},
            {"partition": "long"},
            "site.partition is long, wanted one of partitions=['gpu']",
        ),
        (
            {"max_gpus": 3},
            {"gpus_per_node": 2, "nodes": 2},
            "a fold asks for 4 GPUs (nodes x gpus_per_node), over max",
        ),
        ({"max_jobs": 5}, {}, "a configuration's folds and the driver are 6 jobs, over max_jobs=5 of p.yaml"),
    ],
)
def test_what_cannot_be_cut_is_refused(limits: dict[str, object], changes: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError) as caught:
        policy.applied(of(**limits), replace(SITE, **changes), folds=5)  # type: ignore[arg-type]
    assert str(caught.value).startswith(told)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("max_gpu: 3", "unknown key 'max_gpu', wanted one of: max_jobs, max_gpus"),
        ("max_gpus: many", "max_gpus is 'many', wanted a whole number: GPUs of one sweep"),
        ("max_jobs: 0", "max_jobs is 0, wanted 1 to"),
        ("partitions: gpu", "partitions is 'gpu', wanted a list of names"),
        ("[1]", "wanted lines of key: value"),
        ("a: b: c", "cannot be read"),
    ],
)
def test_a_wrong_line_is_named_with_its_file(text: str, told: str, tmp_path: Path) -> None:
    path = written(tmp_path / "p.yaml", text)
    with pytest.raises(ValueError) as caught:
        policy.read(str(path), tmp_path / "none")
    assert str(caught.value).startswith(f"policy {path}: ")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_file_to_start_from_is_one() -> None:
    example = Path(policy.__file__).parent / "policy.yaml"
    assert set(policy.read(None, example).limits) == {*policy.CAPS, "partitions"}
