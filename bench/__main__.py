"""Every benchmark, one after the other; prints tables.

    .venv/bin/python -m bench [--quick]

The parts take options of their own: ``python -m bench.daemon --help``, ``bench.bls``,
``bench.journal``.
"""

from __future__ import annotations

import subprocess
import sys

PARTS = ("bench.bls", "bench.journal", "bench.daemon")


def main() -> int:
    """Run them in processes of their own, so that none disturbs the next."""
    options = ["--runs", "1"] if "--quick" in sys.argv[1:] else []
    for part in PARTS:
        print(f"\n## {part}", flush=True)
        done = subprocess.run([sys.executable, "-m", part, *options], check=False)  # noqa: S603
        if done.returncode:
            return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
