"""A real browser on MLflow's UI of a real sweep: trained by the launcher, shown by `cluster.tracking serve`."""

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.served import Served
from tests.browser.ui import Ui

if TYPE_CHECKING:
    from playwright.sync_api import Browser

REPOSITORY = Path(__file__).parents[2]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
TINY = (
    *("demo.patients=6", "demo.slices=2", "demo.phases=2", "demo.spacing_mm=6.25", "demo.size=32"),
    *("model.width=2", "train.folds=3", "train.epochs=4", "train.batch_size=8", "tracking.models=false"),
)


def obstacle() -> str | None:
    """Why nobody can look at a page here."""
    if CHROMIUM is None:
        return "no Chromium on this machine; Debian's package is chromium"
    if importlib.util.find_spec("playwright") is None:
        return "playwright is not installed; make test-browser installs it"
    return None


@pytest.fixture(scope="session", autouse=True)
def able() -> None:
    """BRANCHPOINT_BROWSER=required: to have no browser is a failure."""
    if reason := obstacle():
        (pytest.fail if os.environ.get("BRANCHPOINT_BROWSER") == "required" else pytest.skip)(reason)


@pytest.fixture(scope="session")
def sweep(able: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished branch_location: six configurations, three folds each."""
    home = tmp_path_factory.mktemp("home")
    command = [sys.executable, REPOSITORY / "cluster" / "launch.py", "sweep=branch_location", "runs=runs", *TINY]
    environment = os.environ | {"XDG_DATA_HOME": str(home)}
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    (home / "runs" / "mlflow.db").unlink()  # the launcher's own mirror: another one is made by those who look
    return home / "runs" / "branch_location"


@pytest.fixture(scope="session")
def served(sweep: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(sweep.parent, tmp_path_factory.mktemp("served")) as served:
        yield served


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where screenshots go: BRANCHPOINT_SCREENSHOTS, else a folder of pytest's."""
    named = os.environ.get("BRANCHPOINT_SCREENSHOTS")
    folder = Path(named) if named else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def browser(able: None) -> Iterator["Browser"]:
    """It finds 127.0.0.1 and nothing else: a page that needs the internet does not work in it."""
    from playwright.sync_api import sync_playwright

    alone = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    with sync_playwright() as playwright:
        # Chromium has no sandbox for root, who runs continuous integration.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", alone])
        try:
            yield browser
        finally:
            browser.close()


@pytest.fixture
def ui(browser: "Browser", served: Served, pictures: Path, request: pytest.FixtureRequest) -> Iterator[Ui]:
    """A newcomer's browser, without a past. Where the test fails, there is a picture of it; no page may have asked for
    anything outside this machine."""
    asked: list[str] = []
    failed = request.session.testsfailed
    with ExitStack() as stack:
        context = browser.new_context(viewport={"width": 1600, "height": 1000})
        stack.callback(context.close)
        context.on("request", lambda sent: asked.append(sent.url))
        # The panel of MLflow's assistant opens by itself the first time, over a quarter of the page.
        context.add_init_script("localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')")
        ui = Ui(context.new_page(), served.address, pictures)
        yield ui
        if request.session.testsfailed > failed:
            ui.picture(f"last_of_{request.node.name}")
    outside = [url for url in asked if not url.startswith((f"{served.address}/", "data:", "blob:"))]
    assert outside == []
