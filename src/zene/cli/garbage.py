"""When Python looks for garbage: not while a server starts, and afterwards only in what came since.

A start makes objects by the hundred thousand, and all of them stay. Looking through them again and again
takes a task of ten tool turns some 5 ms, and stops everything for 20 ms each time.
"""

import gc

_YOUNG = 5000  # objects between two looks at the youngest ones


def starting() -> None:
    """Look for none until `started`."""
    gc.disable()


def started() -> None:
    """What there is now stays for as long as the process."""
    gc.freeze()
    gc.set_threshold(_YOUNG)
    gc.enable()
