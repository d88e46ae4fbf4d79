"""The report's tables: the paper's Tables 1 and 2, differences, areas, mass and weights, beside the paper's numbers."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mtl import paper, statistics
from mtl.function import VENTRICLES, PerPatient, ejection_fraction, volume
from mtl.function import mass as mass_of
from mtl.metrics import VOLUME_METRICS
from mtl.results import PHASE_SETS, REGIONS, Trained
from mtl.runfolder import best_epoch
from mtl.structures import each
from mtl.table import Table

NAMES = {
    "dice": "Dice",
    "jaccard": "Jaccard",
    "msd_mm": "mean surface distance, 3-D, mm",
    "msd_slice_mm": "mean surface distance, in plane, mm",
    "ahd_mm": "average Hausdorff distance, mm",
    "hd_mm": "Hausdorff distance, mm",
}
LEFT_OUT = "Left out: patients whose slice spacing or phases are unknown, or in whom nothing is drawn there."
PHASE_NAMES = {"ED": "end-diastole", "ES": "end-systole", "all": "all phases"}


def all_of(trained: Sequence[Trained], others: Sequence[Sequence[Trained]] = ()) -> list[Table]:
    """Every table, in the report's order. others: the same configurations as of the structures after the first."""
    measured = []
    for of_one in (trained, *others):
        structure = of_one[0].structure
        for table in (make(of_one) for make in (table1, table2, means, differences, agreement)):
            is_told = not others or structure in table.title
            measured.append(table if is_told else replace(table, title=f"{table.title}: {structure}"))
    measured += [mass(trained), *([ventricles(others)] if others else [])]
    selected = selection_note(trained)
    measured = [replace(table, notes=(*table.notes, selected)) for table in measured if table.rows]
    return [*measured, weights(trained), protocol(trained), of_others()]


def selection_note(trained: Sequence[Trained]) -> str:
    """What the best epochs were chosen on, which every table of test figures says."""
    ways = {one.config.protocol.selection for one in trained}
    if ways == {"validation"}:
        return "Best epoch chosen on validation patients; the test fold was used once."
    if ways == {"test"}:
        return "Selected on the test fold, as in the paper, which is optimistic."
    which = ", ".join(one.label for one in trained if one.config.protocol.selection == "test")
    return (
        f"Selected on the test fold, as in the paper, which is optimistic: {which}; the others on validation patients."
    )


def table1(trained: Sequence[Trained]) -> Table:
    """Table 1: mean and standard deviation over test volumes of each metric, at ED, ES and all phases."""
    rows = []
    for phases in PHASE_SETS:
        for metric in VOLUME_METRICS:
            row = [PHASE_NAMES[phases], NAMES[metric]]
            for one in trained:
                value_V = one.volumes.metric_V[metric][one.volumes.among(phases)]
                theirs = paper.TABLE1.get((paper.IN_PAPER[metric], phases, _of(one)))
                row += [_mean_sd(value_V, 3), *_papers(one, theirs, 3)]
            rows.append(tuple(row))
    head = ["phases", "metric", *(cell for one in trained for cell in (one.label, *_paper_column(one)))]
    counts = ", ".join(
        f"{one.label}: {len(one.volumes.patient_V)} volumes of {len(np.unique(one.volumes.patient_V))} patients"
        + (f", {one.volumes.missed} of which were missed" if one.volumes.missed else "")
        for one in trained
    )
    notes = (
        f"Mean \N{PLUS-MINUS SIGN} standard deviation over test volumes. {counts}.",
        "A missed volume (nothing predicted) counts with Dice and Jaccard 0 and has no distance; [n] says how many "
        "volumes a mean holds where it is not all of them.",
        "The paper does not define its surface distance: its figure stands beside all three; the average Hausdorff "
        "distance comes nearest at its Dice.",
    )
    return Table("Table 1. Segmentation against the gold standard", tuple(head), tuple(rows), notes)


def table2(trained: Sequence[Trained]) -> Table:
    """Table 2: mean and standard deviation over test slices of the area's absolute difference, mm2."""
    rows = []
    for phases in PHASE_SETS:
        for region in REGIONS:
            row = [PHASE_NAMES[phases], region]
            for one in trained:
                where = one.areas.among(phases, region)
                for source, mm2_S in one.sources.items():
                    difference = np.abs(mm2_S - one.areas.true_mm2_S)[where]
                    theirs = paper.TABLE2.get((region, phases, _of(one), source))
                    row += [_mean_sd(difference, 0), *_papers(one, theirs, 0)]
            rows.append(tuple(row))
    columns = [(one, source) for one in trained for source in one.sources]
    head = ["phases", "region", *(c for one, s in columns for c in (f"{s}, {one.label}", *_paper_column(one)))]
    notes = (
        "Mean \N{PLUS-MINUS SIGN} standard deviation over test slices, mm\N{SUPERSCRIPT TWO}. Reg: from the regression "
        "path; Seg: from the segmentation. Two slices at each end of those with myocardium are basal and apical; the "
        "labelled slices without myocardium are in no region, and in `all`.",
    )
    what = trained[0].structure
    return Table(f"Table 2. Absolute difference of the {what}'s area", tuple(head), tuple(rows), notes)


def means(trained: Sequence[Trained]) -> Table:
    """Figure 2 in numbers: the mean over test volumes of all phases with its 99 % interval, both ways."""
    rows = []
    for one in trained:
        for metric in VOLUME_METRICS:
            value_V = one.volumes.metric_V[metric]
            known = np.isfinite(value_V)
            told = ["-", "-", "-"]
            if len(np.unique(one.volumes.patient_V[known])) > 1:
                by_volume = statistics.mean_interval_by_volume(value_V[known])
                by_patient = statistics.mean_interval_by_patient(value_V[known], one.volumes.patient_V[known])
                told = [f"{by_volume.mean:.4f}", _interval(by_volume), _interval(by_patient)]
            rows.append((one.label, NAMES[metric], *told, str(known.sum())))
    head = ("configuration", "metric", "mean", "99 %, by volume (the paper's)", "99 %, by patient", "n")
    notes = (
        "By volume every volume is resampled on its own, as in the paper; the volumes of one patient are alike, so "
        "that this interval is far too narrow. By patient whole patients are resampled.",
    )
    return Table("Means with 99 % intervals, all phases", head, tuple(rows), notes)


def _interval(interval: statistics.Interval) -> str:
    low, high = (f"{bound:.4f}" if math.isfinite(bound) else "unbounded" for bound in (interval.low, interval.high))
    return f"{low} to {high}"


def differences(trained: Sequence[Trained]) -> Table:
    """Each configuration against the baseline (without one against the first): paired by patient, and as the paper."""
    reference, *others = trained
    rows = []
    for one in others:
        for metric in VOLUME_METRICS:
            a_V, b_V = one.volumes.metric_V[metric], reference.volumes.metric_V[metric]
            a = {key: v for key, v in zip(one.volumes.keys, a_V.tolist(), strict=True) if math.isfinite(v)}
            b = {key: v for key, v in zip(reference.volumes.keys, b_V.tolist(), strict=True) if math.isfinite(v)}
            shared = sorted(a.keys() & b.keys())
            p = paper.KS_P.get(paper.IN_PAPER[metric]) if {_of(one), _of(reference)} == {"MTN", "UNet"} else None
            rows.append((one.label, NAMES[metric], *_compared(shared, a, b), f"{p:.3e}" if p else "-"))
    head = ("configuration", "metric", "difference [99 % interval by patient]", "apart", "n", "KS distance", "KS p")
    notes = (
        f"Each volume's figure minus that of {reference.label}, patients resampled whole (studentised bootstrap, "
        f"{statistics.RESAMPLES} resamples). Apart: the interval leaves out 0; it does not hold the "
        "chance of another training run.",
        "KS: the paper's Kolmogorov-Smirnov test, which takes all volumes for independent and calls slight differences "
        "significant, as the paper says itself.",
    )
    return Table("Differences between configurations", (*head, "KS p, paper"), tuple(rows), notes)


def _compared(
    shared: Sequence[tuple[str, int]], a: dict[tuple[str, int], float], b: dict[tuple[str, int], float]
) -> list[str]:
    """Difference, whether 0 is left out, number of pairs, and the KS test's two."""
    values_a, values_b = [a[key] for key in shared], [b[key] for key in shared]
    if len({patient for patient, _ in shared}) < 2:
        return ["-", "-", str(len(shared)), "-", "-"]
    interval = statistics.paired_difference(shared, values_a, shared, values_b)
    ks = statistics.kolmogorov_smirnov(values_a, values_b)
    apart = "no" if interval.low <= 0 <= interval.high else "yes"
    told = f"{interval.mean:+.4f} [{_bound(interval.low)}, {_bound(interval.high)}]"
    return [told, apart, str(len(shared)), f"{ks.statistic:.3f}", f"{ks.p_value:.3e}"]


def _bound(value: float) -> str:
    return f"{value:+.4f}" if math.isfinite(value) else "unbounded"


def agreement(trained: Sequence[Trained]) -> Table:
    """Figure 3 in numbers: correlation and best-fit line of the areas of all phases."""
    rows = []
    for one in trained:
        for source, mm2_S in one.sources.items():
            true_mm2_S = one.areas.true_mm2_S
            theirs = paper.CORRELATION.get((_of(one), source))
            told = ["-", "-"]
            if len(np.unique(true_mm2_S)) > 1 and len(np.unique(mm2_S)) > 1:
                line = statistics.best_fit_line(true_mm2_S, mm2_S)
                told = [f"{statistics.pearson(true_mm2_S, mm2_S):.4f}", f"{line.slope:.3f} x {line.intercept:+.0f}"]
            rows.append((f"{source}, {one.label}", *told, str(len(mm2_S)), f"{theirs}" if theirs else "-"))
    head = ("source", "correlation", "best fit, mm\N{SUPERSCRIPT TWO}", "slices", "correlation, paper")
    return Table("Areas against the gold standard, all phases", head, tuple(rows))


def mass(trained: Sequence[Trained]) -> Table:
    """Left-ventricular myocardial mass at end-diastole: bias and 95 % limits of agreement (Bland-Altman), g."""
    rows = [row for one in trained for row in _agreements(one, mass_of(one))]
    notes = ("Area times slice spacing over the labelled slices, times 1.05 g/ml. Not in the paper.", LEFT_OUT)
    head = ("source", *_agreement_head("g"))
    return Table("Mass of the left ventricle at end-diastole", head, tuple(rows), notes)


def ventricles(others: Sequence[Sequence[Trained]]) -> Table:
    """Volumes at end-diastole and end-systole and ejection fraction of each ventricle: bias and limits as of mass."""
    rows = []
    for of_one in others:
        if of_one[0].structure not in VENTRICLES:
            continue
        for one in of_one:
            for name, found in (
                ("EDV, ml", volume(one, "ED")),
                ("ESV, ml", volume(one, "ES")),
                ("EF, %", ejection_fraction(one)),
            ):
                rows += [(one.structure, name, *row) for row in _agreements(one, found)]
    notes = (
        "Area times slice spacing over the labelled slices; EF: (EDV - ESV) / EDV, of the patients with both phases. "
        "Bias and 95 % limits of agreement (Bland-Altman) of measured minus true. Not in the paper.",
        LEFT_OUT,
    )
    head = ("ventricle", "what", "source", *_agreement_head(""))
    return Table("Volumes and ejection fractions of the ventricles", head, tuple(rows), notes)


def _agreement_head(unit: str) -> tuple[str, ...]:
    comma = f", {unit}" if unit else ""
    return f"true mean{comma}", f"bias{comma}", f"95 % limits{comma}", "patients"


def _agreements(one: Trained, found: PerPatient) -> list[tuple[str, ...]]:
    """A row a source, without the names before it."""
    rows: list[tuple[str, ...]] = []
    for source in found.measured_P:
        true_P, measured_P = found.known(source)
        missed = len(found.true_P) - len(true_P)
        count = str(len(true_P)) + (f" ({found.unknown} left out)" if found.unknown else "")
        count += f" ({missed} without a measured one)" if missed else ""
        told = ("-", "-", "-")
        if len(true_P) >= 2:
            limits = statistics.bland_altman(true_P, measured_P)
            told = (f"{true_P.mean():.1f}", f"{limits.bias:+.1f}", f"{limits.low:+.1f} to {limits.high:+.1f}")
        rows.append((f"{source}, {one.label}", *told, count))
    return rows


def weights(trained: Sequence[Trained]) -> Table:
    """What was learned by the last epoch, per fold, and what it took."""
    rows = []
    for one in trained:
        for k, records in enumerate(one.epochs):
            last = records[-1]
            seconds = float(np.median([record["seconds"] for record in records]))
            sigmas = [_or_dash(s, 2) for s in each(last, "log_sigma_reg", one.structures)]
            of_areas = each(last, "weight_reg", one.structures)
            ratios = [f"{last['weight_seg'] / weight:.0f}" if weight else "-" for weight in of_areas]
            told = (_or_dash(last["log_sigma2_seg"], 2), " / ".join(sigmas), " / ".join(ratios))
            best = best_epoch(records)["epoch"]
            rows.append((one.label, str(k), *told, str(best), f"{seconds:.3g}"))
    note = (
        f"The paper: {paper.LOG_SIGMA2_SEG}, {paper.LOG_SIGMA_REG} and {paper.RATIO:.0f}:1; {paper.MINUTES_AN_EPOCH:g} "
        f"minutes an epoch and {paper.MS_A_SLICE} ms a slice in testing on an {paper.CARD}. The two logarithms give "
        "its ratio as exp(-s_seg + s_reg)."
    )
    several = f"; {' / '.join(trained[0].structures)}" if len(trained[0].structures) > 1 else ""
    head = ("configuration", "fold", "log sigma2, seg", f"log sigma, reg (mm\N{SUPERSCRIPT TWO}{several})")
    return Table("Weights at the last epoch", (*head, "ratio", "best epoch", "s an epoch"), tuple(rows), (note,))


def protocol(trained: Sequence[Trained]) -> Table:
    """Every point in which these runs differ from the paper, and what it leaves open."""
    items = [item for item in paper.protocol(trained) if item.differs]
    same = ", ".join(item.what for item in paper.protocol(trained) if not item.differs)
    rows = tuple((item.what, item.paper, item.here) for item in items)
    return Table(
        "Protocol: what differs from the paper", ("what", "paper", "here"), rows, (f"As in the paper: {same}.",)
    )


def of_others() -> Table:
    """Others' figures."""
    return Table("Figures of others, for orientation", ("system and data", "figures"), paper.OTHERS)


def _of(one: Trained) -> str:
    return one.paper_name or ""


def _paper_column(one: Trained) -> list[str]:
    return [f"paper, {one.paper_name}"] if one.paper_name else []


def _papers(one: Trained, value: tuple[float, float] | None, digits: int) -> list[str]:
    if one.paper_name is None:
        return []
    return [f"{value[0]:.{digits}f} \N{PLUS-MINUS SIGN} {value[1]:.{digits}f}" if value else "-"]


def _mean_sd(values: np.ndarray, digits: int) -> str:
    """Over the finite ones; how many these are where some are not."""
    kept = values[np.isfinite(values)]
    if not len(kept):
        return "-" if not len(values) else "- [0]"
    sd = f" \N{PLUS-MINUS SIGN} {kept.std(ddof=1):.{digits}f}" if len(kept) > 1 else ""
    return f"{kept.mean():.{digits}f}{sd}" + (f" [{len(kept)}]" if len(kept) < len(values) else "")


def _or_dash(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
