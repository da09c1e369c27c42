"""``aggregator`` and ``python -m aggregator``."""

from __future__ import annotations

import os

from aggregator.cli import aggregator


def main() -> None:
    """Run the command line with the process's environment."""
    aggregator(obj=dict(os.environ), prog_name="aggregator")


if __name__ == "__main__":
    main()
