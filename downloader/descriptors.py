"""The standard descriptors, 0 to 2: they belong to the streams, whether these are open or not."""

from __future__ import annotations

import os


def fill() -> set[int]:
    """Open the null device in the place of each that is closed; return which these were.

    A file that is opened later would get the lowest free number, such as that of standard error,
    and whatever a library writes there: log lines in the midst of a database.
    """
    closed = set()
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            closed.add(descriptor)
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest that is free
            if opened != descriptor:  # another thread has closed one below
                os.dup2(opened, descriptor)
                os.close(opened)
            os.set_inheritable(descriptor, True)  # noqa: FBT003 - has no name
    return closed
