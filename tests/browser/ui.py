"""MLflow's UI as somebody sees and uses it: rows, charts and their legends by the words on them."""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

Seen = TypeVar("Seen")
PATIENCE_S = 30.0
CARD = "experiment-view-compare-runs-card"
FROM_ABOVE = """(links) => {
    const top = (link) => link.getBoundingClientRect().top;
    return [...new Set(links.sort((one, other) => top(one) - top(other)).map((link) => link.innerText))];
}"""
CUT = """(links) => links.filter((link) => link.scrollWidth > link.clientWidth).map((link) => link.innerText)"""
COLORS = """(drawn) => drawn.map((one) => getComputedStyle(one).fill)"""
ON_SAME_HEIGHT = """(cells, name) => {
    const box = (element) => element.getBoundingClientRect();
    return cells.filter((cell) => !cell.contains(name) && Math.abs(box(cell).top - box(name.parentElement).top) < 5)
        .sort((one, other) => box(one).left - box(other).left).map((cell) => cell.innerText);
}"""


def eventually(look: Callable[[], Seen], wanted: Seen) -> Seen:
    """What is seen, once it is what is wanted, or as it is after a while: a page comes bit by bit."""
    deadline = time.monotonic() + PATIENCE_S
    while (seen := look()) != wanted and time.monotonic() < deadline:
        time.sleep(0.1)
    return seen


class Ui:
    """A page of MLflow 3.17 on `address`."""

    def __init__(self, page: "Page", address: str, pictures: Path) -> None:
        self.page, self.address, self._pictures = page, address, pictures
        self.main = page.get_by_role("main")
        self.grid = page.get_by_role("grid")

    def open_experiment(self, name: str) -> None:
        """From the home page, the way one finds it: training instead of language models, then the experiment."""
        self.page.goto(self.address)
        self.page.get_by_role("button", name="Model training").click()
        self.main.get_by_role("link", name=name, exact=True).click()
        self.page.get_by_role("heading", name="Runs").wait_for()

    def view(self, name: str) -> None:
        """One of those that the mirror offers. MLflow warns that it is shared."""
        self.page.get_by_role("button", name="Views").click()
        self.page.get_by_role("menuitem").filter(has_text=name).click()
        self.page.get_by_role("button", name=name).wait_for()

    # The list of runs.

    def row(self, name: str) -> "Locator":
        return self.grid.get_by_role("row").filter(has=self.page.get_by_role("link", name=name, exact=True))

    def expand(self, name: str, child: str) -> None:
        """Show what stands below a run."""
        self.row(name).get_by_role("button").first.click()
        self.row(child).wait_for()

    def tick(self, name: str) -> None:
        self.row(name).get_by_role("checkbox", name=re.compile("row selection")).check()

    def follow(self, name: str) -> None:
        """To a run's own page."""
        self.row(name).get_by_role("link", name=name, exact=True).click()
        self.page.get_by_role("heading", name=name, exact=True).wait_for()

    def names(self) -> list[str]:
        """Of the runs in the list, from above."""
        links = self.grid.get_by_role("gridcell").get_by_role("link")
        return list(links.evaluate_all(FROM_ABOVE))  # at once: the list may be about to change

    def cut_names(self) -> list[str]:
        """Those that do not fit into the list."""
        links = self.grid.get_by_role("gridcell").get_by_role("link")
        return links.evaluate_all(CUT)

    # The page that compares runs: what stands there of each.

    def compared(self, what: str) -> list[str]:
        named = self.page.get_by_role("rowheader", name=what, exact=True)
        return self.page.get_by_role("row").filter(has=named).get_by_role("cell").all_inner_texts()

    def compared_metric(self, metric: str) -> list[float]:
        """Numbers on the same height as the metric's name, from the left: their table has neither rows nor cells."""
        name = self.grid.get_by_role("link", name=metric, exact=True)
        name.scroll_into_view_if_needed()
        cells = self.grid.get_by_role("rowgroup").locator("> div")
        return [float(text) for text in cells.evaluate_all(ON_SAME_HEIGHT, name.element_handle())]

    def as_charts(self) -> None:
        """From the list to the charts."""
        self.page.locator("label").filter(has=self.page.locator('input[value="CHART"]')).click()

    # Charts.

    def find_charts(self, text: str) -> None:
        self.page.get_by_role("searchbox", name="Search metric charts").fill(text)

    def chart(self, metric: str) -> "Locator":
        """A metric's chart, drawn."""
        heading = self.page.get_by_role("heading", name=metric, exact=True)
        card = self.page.get_by_test_id(CARD).filter(has=heading)
        card.locator(".scatterlayer .trace, .barlayer .trace").first.wait_for(state="attached")
        return card

    def legend(self, metric: str) -> list[str]:
        """Whose colours they are, as it stands below the chart."""
        words = self.chart(metric).inner_text().splitlines()
        return [word.removesuffix(f" ({metric})") for word in words if word.endswith(f" ({metric})")]

    def bars(self, metric: str) -> list[str]:
        """Their colours."""
        return self.chart(metric).locator(".barlayer .point path").evaluate_all(COLORS)

    def lines(self, metric: str) -> list[str]:
        """The colours of their first points."""
        return self.chart(metric).locator(".scatterlayer .points path:first-child").evaluate_all(COLORS)

    def points(self, metric: str) -> int:
        """Drawn in a metric's chart, over all its lines."""
        return self.chart(metric).locator(".scatterlayer .points path").count()

    # A run's page.

    def description(self) -> str:
        """All of it: MLflow shows its beginning."""
        self.main.get_by_text("Show more", exact=True).click()
        self.main.get_by_text("Show less", exact=True).wait_for()
        return self.main.inner_text()

    def tab(self, name: str) -> None:
        self.page.get_by_role("tab", name=name, exact=True).click()

    def picture(self, name: str) -> None:
        self.page.screenshot(path=self._pictures / f"{name}.png")
