"""``controller`` and ``python -m controller``."""

from __future__ import annotations

import os
import sys

from controller.cli import controller

DEEPEST = 20_000
"""Levels of calls. An API server takes JSON of 10000; one resource nested like that would keep us
from reading any list that it is in."""


def main() -> None:
    """Run the command line with the process's environment."""
    sys.setrecursionlimit(DEEPEST)
    controller(obj=dict(os.environ), prog_name="controller")


if __name__ == "__main__":
    main()
