"""Numbers of processors and threads; work on many files in processes that may crash."""

import contextlib
import ctypes
import multiprocessing
import os
import platform
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import Any, TypeVar

import threadpoolctl

# Of one kind of work. Each keeps an item, a patch of a volume some 30 MB; and in an
# evaluation one brings the slabs, and does not keep more busy.
_MOST_THREADS = 8

# Of glibc's malloc.h: M_TRIM_THRESHOLD, never, and M_MMAP_MAX, no array by itself.
_KEEP = ((-1, -1), (-4, 0))

_Item = TypeVar("_Item")


class Crash(Exception):
    """The process that worked on an item crashed, as by a fault in a C library."""


def processors() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def threads() -> int:
    """Return how many threads of this process should work at a time.

    One for each processor that it may use, or the value of OMP_NUM_THREADS, which runs
    that share a machine are given. At most 8.
    """
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    most = min(processors(), _MOST_THREADS)
    return min(max(int(wanted), 1), most) if wanted.isdecimal() else most


def still_blas() -> None:
    """Make OpenBLAS compute in one thread, in this process and from now on.

    The products here are small, and our own threads already use all cores. Threads of
    OpenBLAS would spin between two calls on these cores.
    """
    controller = threadpoolctl.ThreadpoolController()
    controller.select(internal_api="openblas").limit(limits=1)


def keep_memory() -> None:
    """Make the C library keep memory that this process frees; only on Linux.

    By default glibc returns the arrays of a step to the system and requests them again
    in the next step: millions of pages, each of which the system clears. Without glibc
    nothing happens.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        for option, value in _KEEP:
            library.mallopt(option, value)


def each(
    function: Callable[[_Item], Any], items: Sequence[_Item], jobs: int
) -> Iterator[tuple[int, Any]]:
    """Call a function on each item.

    Args:
        function: found by its name in a module; what it takes and gives can be pickled.
            It must not raise.
        items: what it is called on.
        jobs: number of processes; 0 to stay in this one, where a crash is a crash.

    Yields:
        index of an item and what the function gave, or `Crash`, as they come: in no
        order.
    """
    if jobs == 0:
        yield from ((index, function(item)) for index, item in enumerate(items))
        return
    left = list(range(len(items)))
    while left:
        done = set()
        for index, result in _together(function, items, left, jobs):
            done.add(index)
            yield index, result
        left = [index for index in left if index not in done]
        # A pool begins items in order: what brought it down is among the first.
        suspects, left = left[: 2 * jobs + 1], left[2 * jobs + 1 :]
        for index in suspects:
            alone = list(_together(function, items, [index], 1))
            yield index, alone[0][1] if alone else Crash()


def _together(
    function: Callable[[_Item], Any],
    items: Sequence[_Item],
    indices: Sequence[int],
    jobs: int,
) -> Iterator[tuple[int, Any]]:
    """Yield results until all are complete, or until a process crashes."""
    jobs = min(jobs, len(indices))
    with ProcessPoolExecutor(jobs, _context(), _end_with_parent) as pool:
        futures = {}
        with contextlib.suppress(BrokenProcessPool):
            for index in indices:
                futures[pool.submit(function, items[index])] = index
        try:
            for future in as_completed(futures):
                with contextlib.suppress(BrokenProcessPool):
                    yield futures[future], future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _context() -> Any:
    """Return processes that start clean, without our threads and backends."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["data_io.verification.verify"])
    return context


def _end_with_parent() -> None:
    """End this process when its parent is killed."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            wait([parent.sentinel])
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
