"""The configurations of a sweep: asked for when a slot is free, known again after a kill, edited, pruned."""

import heapq
import json
import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cluster import confirm, prune, renewal, roster
from cluster.folds import Configuration
from cluster.roster import Roster, space_of
from cluster.sections import Sweep
from cluster.settings import Settings
from mtl.config import Train, fold_dict
from mtl.runfolder import KEPT
from mtl.version import code_hash
from sweeps import asked
from sweeps.space import Point
from tests.benchmarks.makespan import list_scheduling

SEARCH = Sweep(
    question="?",
    by="optuna",
    samples=14,
    space={"model.branch": ["up3", "up4"], "optim.lr": {"low": 1e-4, "high": 1e-2, "log": True}},
)


def made(folder: Path, sweep: Sweep = SEARCH, **settings: Any) -> Roster:
    wanted = Settings(sweep=sweep, train=Train(folds=3), **settings)
    make = partial(roster.configuration, wanted, "digest", folder)
    return Roster(wanted, folder, space_of(wanted, []), make, "On X:")


def finish(c: Configuration, dice: float | None = None) -> None:
    """As if its folds had been trained; better at up4 and at a learning rate of 0.001."""
    value = dice if dice is not None else (c.branch == "up4") - abs(float(c.config["optim"]["lr"]) - 0.001)
    for k, run in enumerate(c.runs):
        run.prepare(fold_dict(c.config, k))
        run.write_epochs([{"epoch": 1, "dice_val": value + 0.01 * k, "area_mad_mm2": 100.0}])
        for name in KEPT:
            (run.path / name).touch()
        run.finish("DONE", "all epochs trained", code=code_hash(), torch="1", device="cpu", precision="float32")


def tried(source: Roster, until: int = 100, finished: Callable[[Configuration], None] = finish) -> list[Point]:
    """Search with one slot, a configuration at a time."""
    source.open(slots=1, again=False)
    points: list[Point] = []
    while len(points) < until and (c := source.next()):
        if c.rules or source.coming == 14:  # of one that learns: its folds are not done, and no slot is free
            assert source.next() is None
        points.append(c.point)
        finished(c)
        source.ended(c, True)
    return points


def test_a_driver_that_was_killed_goes_on_with_the_same_proposals_and_repeats_nothing(tmp_path: Path) -> None:
    whole = tried(made(tmp_path / "whole"))
    assert len(whole) == 14
    for killed_after in (1, 6, 13):
        folder = tmp_path / f"killed-{killed_after}"
        first = tried(made(folder), killed_after)
        lost = made(folder)
        lost.open(slots=1, again=False)
        begun = lost.next()  # proposed, written down, and killed before any of its folds was done
        assert begun is not None
        rest = tried(made(folder))
        assert rest[0] == begun.point
        assert first + rest == whole


def test_of_the_same_results_the_same_follows_however_many_ran_at_once(tmp_path: Path) -> None:
    """Three at a time, killed in the middle: what had ended and what ran are known again as they were."""
    sources = [made(tmp_path / name) for name in "ab"]
    after: list[list[Point]] = []
    for source in sources:
        source.open(slots=7, again=False)
        running = [c for c in (source.next() for _ in range(3)) if c]
        assert len(running) == 3
        finish(running[1])
        source.ended(running[1], True)
        if source is sources[1]:
            source = made(tmp_path / "b")
            source.open(slots=7, again=False)
            again = [c for c in (source.next() for _ in range(2)) if c]
            assert [c.point for c in again] == [running[0].point, running[2].point]
        after.append([c.point for c in [source.next()] if c])
    assert after[0] == after[1] != []


def test_an_edited_grid_keeps_what_is_done_adds_what_is_new_and_prunes_what_no_longer_belongs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = Sweep(question="?", space={"model.branch": ["up1", "up2"]})
    after = Sweep(question="?", space={"model.branch": ["up2", "up3"]})
    assert [p["model.branch"] for p in tried(made(tmp_path, before))] == ["up1", "up2"]
    edited = made(tmp_path, after)
    edited.write()
    assert [one.point["model.branch"] for one in asked.read(tmp_path).configurations] == ["up2", "up3"]
    assert [p["model.branch"] for p in tried(edited)] == ["up3"]
    (stranger,) = roster.strangers(tmp_path, edited.configurations)
    assert stranger.name.startswith("branch-up1-")
    prune.remind(tmp_path, edited.configurations)
    assert "--prune shows and removes them" in capsys.readouterr().out
    with pytest.raises(confirm.Refused, match="give yes=true"):
        prune.prune(tmp_path, edited.configurations, yes=False)
    assert f"{stranger.name}: 3 of 3 folds done" in capsys.readouterr().out
    assert stranger.exists()
    prune.prune(tmp_path, edited.configurations, yes=True)
    assert not stranger.exists()
    assert len(list(tmp_path.glob("branch-*"))) == 2
    prune.prune(tmp_path, edited.configurations, yes=True)
    assert "every configuration in it belongs to the sweep" in capsys.readouterr().out


def test_another_setting_is_another_configuration_and_an_edited_search_keeps_what_fits(tmp_path: Path) -> None:
    first = tried(made(tmp_path), 6)
    assert [c.point for c in made(tmp_path).configurations] == first
    narrower = replace(SEARCH, space={**SEARCH.space, "model.branch": ["up4"]})
    kept = [c.point for c in made(tmp_path, narrower).configurations]
    assert kept == [point for point in first if point["model.branch"] == "up4"] != first
    assert made(tmp_path, predict=Settings().predict).configurations != []
    other = Settings(sweep=SEARCH, train=Train(folds=3, epochs=7))
    make = partial(roster.configuration, other, "digest", tmp_path)
    assert Roster(other, tmp_path, space_of(other, []), make, "").configurations == []


def test_a_sketch_says_how_many_there_will_be(tmp_path: Path) -> None:
    source = made(tmp_path)
    tried(source, 4)
    sketch = source.sketch()
    assert (source.coming, len(sketch), len(source.configurations)) == (14, 14, 4)
    assert sketch[:4] == source.configurations


def test_what_was_stopped_early_stays_stopped_while_the_rule_holds(tmp_path: Path) -> None:
    sweep = replace(SEARCH, by="grid", asha=True, space={"model.branch": ["up3", "up4"]})

    def stop(c: Configuration) -> None:
        for run in c.runs:
            run.finish("STOPPED", "others were better", by="asha")

    tried(made(tmp_path, sweep), finished=stop)
    assert tried(made(tmp_path, sweep)) == []
    assert len(tried(made(tmp_path, replace(sweep, asha=False)))) == 2
    again = made(tmp_path, sweep)
    again.open(slots=9, again=True)  # a scheduler's memory is made anew from what there is
    assert again.next() is not None


def test_folds_of_another_code_are_trained_again_where_that_is_asked_and_lost_ones_always(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(renewal, "version", lambda _: "1")
    source = made(tmp_path)
    tried(source, 2)
    first, second = source.configurations
    told = json.loads((first.runs[1].path / "DONE").read_text())
    (first.runs[1].path / "DONE").write_text(json.dumps({**told, "code": "older"}))
    (second.runs[0].path / "best.pt").unlink()
    renewal.name(source.configurations, same_code=False)
    shown = capsys.readouterr()
    assert shown.err == f"{second.name}/fold_0: lost best.pt (removed, or purged?): trained again\n"
    assert (first.done(), second.done()) == (True, False)
    renewal.name(source.configurations, same_code=True)
    assert capsys.readouterr().out == f"{first.name}/fold_1: trained with code older: trained again\n"
    assert [run.outcome() for run in first.runs] == ["DONE", None, "DONE"]
    assert first.runs[1].epochs() == []  # its price counts whole
    assert (first.folder / "fold_1" / "DONE").exists()  # until the user has agreed
    renewal.discard(source.configurations)
    assert [run.path.exists() for run in first.runs] == [True, False, True]


# How full the slots are.


def simulated(seconds: list[list[float]], slots: int, ahead: int) -> tuple[float, int]:
    """The makespan of configurations with folds of these lengths, and how many were under way at most; a slot takes the
    first fold that waits, and configurations come by search.room_for_another."""
    coming, waiting, ends = list(enumerate(seconds)), [], []
    unended: dict[int, int] = {}
    now, most = 0.0, 0
    while coming or waiting or ends:
        while coming and roster.search.room_for_another(list(unended.values()), slots, ahead):
            number, lengths = coming.pop(0)
            unended[number] = len(lengths)
            waiting += [(number, length) for length in lengths]
        most = max(most, len(unended))
        while waiting and len(ends) < slots:
            number, length = waiting.pop(0)
            heapq.heappush(ends, (now + length, number))
        now, number = heapq.heappop(ends)
        unended[number] -= 1
        if not unended[number]:
            del unended[number]
    return now, most


@pytest.mark.parametrize("ahead", [0, 5])
@pytest.mark.parametrize("slots", [2, 16, 200])
def test_no_slot_waits_for_a_slow_fold(slots: int, ahead: int) -> None:
    rng = random.Random(slots)
    seconds = [[rng.expovariate(1 / 60) + 5 for _ in range(5)] for _ in range(40 + 3 * slots)]
    makespan, most = simulated(seconds, slots, ahead)
    bound = list_scheduling([length for lengths in seconds for length in lengths], slots)
    assert makespan <= 1.05 * bound
    print(f"{slots} slots: makespan {makespan / bound:.3f} of list scheduling's, {most} configurations under way")
