"""Whether conflict between the tasks explains the order of branch points: ranks by hand, and what the verdict says."""

import json
from pathlib import Path
from typing import Any

import pytest

from mtl.runfolder import RunFolder
from sweeps import verdict
from sweeps.conflict import rank_correlation
from sweeps.verdict_parts import Verdict
from tests.reporting import write_sweep
from tests.test_verdict import BRANCHES, CLEAR

AS_DICE = {"bottleneck": 0.02, "up1": 0.03, "up2": 0.09, "up3": 0.01, "up4": 0.01}
"""in the order of CLEAR, whose last two are equal"""


def test_rank_correlation_by_hand() -> None:
    assert rank_correlation([1, 2, 3], [10, 20, 30]) == pytest.approx((1, 2 / 6))  # and its reverse is as far from 0
    assert rank_correlation([1, 2, 3, 4, 5], [5, 4, 3, 2, 1]) == pytest.approx((-1, 2 / 120))
    assert rank_correlation([1, 2, 3], [1, 3, 2]) == pytest.approx((0.5, 1))
    assert rank_correlation([1, 1, 2], [3, 3, 7]) == pytest.approx((1, 1 / 3))
    assert rank_correlation([1, 1, 1], [1, 2, 3]) == (0, 1)


def swept(folder: Path, cosines: dict[str, float], **how: Any) -> Verdict:
    write_sweep(folder, BRANCHES, CLEAR, **{"patients": 20, **how})
    for branch, cosine in cosines.items():
        for path in folder.glob(f"branch-{branch}-*/fold_*"):
            run = RunFolder(path)
            first, *_ = run.epochs()
            values = (cosine - 0.1, None, cosine + 0.1)
            run.write_epochs([{**first, "epoch": n, "grad_cosine": value} for n, value in enumerate(values, start=1)])
    return verdict.write(folder, plots=False)


def test_the_verdict_says_whether_conflict_explains_the_order(tmp_path: Path) -> None:
    told = swept(tmp_path / "sweep", AS_DICE)
    assert told.conflict is not None
    assert told.conflict.cosine == pytest.approx({f"branch-{name}-0": cosine for name, cosine in AS_DICE.items()})
    assert told.conflict.correlation == pytest.approx(1, abs=0.03)
    assert "up2 +0.09, up1 +0.03, bottleneck +0.02" in told.text.replace("\n", " ")
    assert "the less conflict, the better: conflict may explain the order" in told.text.replace("\n", " ")
    in_file = json.loads((tmp_path / "sweep" / "verdict.json").read_text())["conflict"]
    assert set(in_file) == {"cosine", "correlation", "chance"}


def test_where_ranks_do_not_follow_it_says_so(tmp_path: Path) -> None:
    told = swept(tmp_path / "sweep", {"bottleneck": 0.1, "up1": 0.0, "up2": 0.05, "up3": 0.2, "up4": -0.1})
    assert "so many points do not show that conflict explains the order" in told.text.replace("\n", " ")


def test_where_more_conflict_is_better_it_explains_nothing(tmp_path: Path) -> None:
    told = swept(tmp_path / "sweep", {name: -value for name, value in AS_DICE.items()})
    assert "conflict does not explain the order" in told.text.replace("\n", " ")


@pytest.mark.parametrize("cosines", [{}, {"up1": 0.1, "up2": 0.2}])
def test_of_few_or_no_diagnosed_branch_points_nothing_is_said(cosines: dict[str, float], tmp_path: Path) -> None:
    assert swept(tmp_path / "sweep", cosines).conflict is None
