"""A launch's task, checked: what is to be trained, on what, where, and within which limits."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cluster import costs
from cluster.canary import Answer
from cluster.folds import Configuration
from cluster.policy import Policy
from cluster.settings import Settings
from cluster.site import Site
from data_prep import store as cine


@dataclass(frozen=True)
class Task:
    settings: Settings
    """its site as the policy lets it be"""
    sweep: str
    folder: Path
    """of the sweep"""
    configurations: Sequence[Configuration]
    opened: cine.Store
    policy: Policy = field(default_factory=lambda: Policy({}))
    cuts: Sequence[str] = ()
    """what the policy has cut"""

    @property
    def site(self) -> Site:
        return self.settings.site

    @property
    def store(self) -> Path:
        return self.opened.path.resolve()

    @property
    def left(self) -> list[Configuration]:
        """What is not done."""
        return [c for c in self.configurations if not c.done()]

    def price(self, answer: Answer | None = None) -> costs.Price:
        """On Slurm; answer: of the canary, if it has been there."""
        return costs.price(self.configurations, self.site, costs.labelled_images(self.opened), answer)
