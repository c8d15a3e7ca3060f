"""The build, behind a look at the Python: pip itself would complain of some dependency."""

import sys

if sys.version_info < (3, 11):
    # In the syntax of any Python 3.
    found = "%d.%d" % sys.version_info[:2]
    sys.exit(
        "\ndownloader needs Python 3.11 or newer, and this is " + found + ": make the environment "
        "with a newer one, such as python3.12 -m venv .venv\n"
    )

from hatchling.build import *  # noqa: F403 - the real one
