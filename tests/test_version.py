"""The code's hash covers what decides a training's numbers."""

import subprocess
import sys

from mtl import version

DECIDE_NOTHING = {"mtl", "mtl.cases", "mtl.checkpoint", "mtl.config", "mtl.runfolder", "mtl.usage", "mtl.version"}
"""what is kept and how; config's values are in config.yaml"""


def test_every_module_that_trains_is_covered() -> None:
    ask = "import sys, mtl.data, mtl.train; print(*(name for name in sys.modules if name.split('.')[0] == 'mtl'))"
    found = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True).stdout.split()
    covered = {f"mtl.{name}".replace("/", ".").removesuffix(".__init__") for name in version.DECIDE}
    assert {*found} - DECIDE_NOTHING == covered
    assert len(version.code_hash()) == 12
