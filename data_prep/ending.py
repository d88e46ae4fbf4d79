"""How every command ends: with its own status, or with one line on standard error and a status that says why."""

import signal
import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

WRONG, INTERRUPTED = 2, 128 + signal.SIGINT
"""exit status: something asked for cannot be done; Ctrl-C, as a shell has it"""

P = ParamSpec("P")


def command(
    name: str,
    interrupted: str,
    *,
    mistakes: tuple[type[Exception], ...] = (OSError, ValueError),
    said: Callable[[Exception], str] = str,
) -> Callable[[Callable[P, int]], Callable[P, int]]:
    """Decorates a command's main, which returns its exit status.

    interrupted: what is left after Ctrl-C, and what to do. mistakes: whose errors are the user's, or the machine's, and
    are told in one line as `said` has them; any other is ours and keeps its traceback.
    """

    def decorated(main: Callable[P, int]) -> Callable[P, int]:
        @wraps(main)
        def ended(*args: P.args, **kwargs: P.kwargs) -> int:
            try:
                return main(*args, **kwargs)
            except mistakes as error:
                print(f"{name}: {said(error)}", file=sys.stderr)
                return WRONG
            except KeyboardInterrupt:
                print(f"\n{name}: interrupted; {interrupted}", file=sys.stderr)
                return INTERRUPTED

        return ended

    return decorated


def interrupt(*_: object) -> None:
    """A signal's handler: it ends as Ctrl-C does."""
    raise KeyboardInterrupt
