"""A decoder that crashes, for other processes to import."""

import os


def square(number: int) -> int:
    """Squares a number; 3 ends the process, as a fault in a C library does."""
    if number == 3:
        os._exit(11)
    return number**2
