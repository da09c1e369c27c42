"""``controller`` and ``python -m controller``."""

from __future__ import annotations

import os

from controller.cli import controller


def main() -> None:
    """Run the command line with the process's environment."""
    controller(obj=dict(os.environ), prog_name="controller")


if __name__ == "__main__":
    main()
