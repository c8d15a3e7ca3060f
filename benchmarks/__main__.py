"""`python -m benchmarks`: measures, prints the tables, and writes what it is told to."""

from __future__ import annotations

import sys

from benchmarks.cli import main

sys.exit(main(sys.argv[1:]))
