"""What became of every input file, and of the conversion as a whole.

STORE.report.csv    file (relative to RAW), study, outcome, reason; mode 0600: file names may name people
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from data_prep import files
from data_prep.inventory import Inventory
from data_prep.jobs import Outcome
from data_prep.readers.found import Found
from data_prep.study import Case

COLUMNS = ("file", "study", "outcome", "reason")
LINES_A_STUDY = 5
"""How many of a study's warnings are printed; the report has them all."""


def beside(store: Path) -> Path:
    """Where the report of a store lies."""
    return store.with_name(store.name + ".report.csv")


@dataclass
class Summary:
    """What a conversion did, or with `dry_run` would do."""

    outcomes: list[Outcome] = field(default_factory=list)
    unreadable: Mapping[Path, str] = field(default_factory=dict)
    """Folders that could not be looked into."""
    root_size: int = 0
    """Bytes of the store's root, which is one file."""

    @property
    def used(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.result != "set_aside"]

    @property
    def set_aside(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.result == "set_aside"]

    @property
    def complete(self) -> bool:
        """Everything went in."""
        return not self.set_aside and not self.unreadable

    def lines(self) -> Iterator[str]:
        """What the user is told of single studies: no path and no name, unless names are kept."""
        for outcome in self.used:
            for label, reason in [*outcome.warnings.items()][:LINES_A_STUDY]:
                yield f"warning: {outcome.key}: {label}: {reason}"
            if len(outcome.warnings) > LINES_A_STUDY:
                yield f"warning: {outcome.key}: {len(outcome.warnings)} such warnings; the report has them all"
            for reason, labels in _by_reason(outcome.mended).items():
                more = f" and {len(labels) - 1} more" if len(labels) > 1 else ""
                yield f"mended: {outcome.key}: {labels[0]}{more}: {reason}"
        for outcome in self.set_aside:
            where = f"{outcome.file}: " if outcome.file else ""
            yield f"set aside: {outcome.key}: {where}{outcome.reason}"
        if self.unreadable:
            first = next(iter(self.unreadable.values()))
            yield f"set aside: {len(self.unreadable)} folders that cannot be read: {first}"

    def totals(self) -> str:
        """The counts, in one line."""
        used = self.used
        volumes, slices, labelled = (sum(getattr(o, name) for o in used) for name in ("volumes", "slices", "labelled"))
        again = sum(o.result == "unchanged" for o in used)
        mended = sum(bool(o.mended) for o in used)
        return (
            f"{len(used)} studies{f' ({again} unchanged)' if again else ''}, {volumes} volumes, {slices} slices "
            f"({labelled} labelled), {mended} studies mended, {len(self.set_aside)} set aside"
        )

    def written(self) -> str:
        """Files and bytes."""
        count, size = sum(o.files for o in self.outcomes), sum(o.size for o in self.outcomes)
        if count:
            count, size = count + 1, size + self.root_size
        return f"{count} files, {size / 1e6:.1f} MB ({size} bytes)"


def _by_reason(mended: Mapping[str, str]) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for label, reason in mended.items():
        grouped.setdefault(reason, []).append(label)
    return grouped


def write(store: Path, inventory: Inventory, found: Found, cases: Mapping[str, Case], summary: Summary) -> None:
    """The report beside `store`: a row per file below RAW. cases: key -> case."""
    rows = {str(path): ("", "ignored", reason) for path, reason in (inventory.ignored | found.ignored).items()}
    rows |= {str(path): ("", "used", "") for path in found.used}
    rows |= {str(p): ("", "set_aside", f"folder cannot be read: {why}") for p, why in inventory.unreadable.items()}
    root = os.path.abspath(inventory.root) + os.sep
    for outcome in summary.outcomes:
        for label, path in cases[outcome.key].files.items():
            name = str(path)
            name = name if name.startswith(root) and ".." not in name else os.path.abspath(name)
            rows[name.removeprefix(root)] = (outcome.key, *_fate(outcome, label))
    for path in inventory.files:
        rows.setdefault(str(path), ("", "ignored", "no file of the layout that was read"))
    listed = [dict(zip(COLUMNS, (name, *row), strict=True)) for name, row in sorted(rows.items())]
    files.write_csv(beside(store), listed, COLUMNS, private=True)


def _fate(outcome: Outcome, label: str) -> tuple[str, str]:
    if outcome.result == "set_aside":
        if label == outcome.file:
            return "set_aside", outcome.reason
        return "set_aside", f"its study is set aside: {outcome.file + ': ' if outcome.file else ''}{outcome.reason}"
    for name, noted in (("ignored", outcome.ignored), ("mended", outcome.mended), ("used", outcome.warnings)):
        if label in noted:
            return name, noted[label]
    return "used", ""
