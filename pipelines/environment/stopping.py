"""What a process saves before it ends at a signal.

Ctrl-C raises KeyboardInterrupt in the main thread, once a step is over. SIGTERM (the
time limit of a cluster) and SIGHUP (a closed terminal) must not wait for that: a step
of a volume takes a minute, and a kill follows soon. So a thread of its own hears them.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator

_SIGNALS = [getattr(signal, n) for n in ("SIGTERM", "SIGHUP") if hasattr(signal, n)]
_ENOUGH = b"\0"  # the number of no signal
_savers: list[Callable[[], object]] = []
_ending = threading.Lock()  # held from the first order to end until the process is gone


def end(code: int) -> None:
    """Call what `saving` holds, and end this process now, from any thread.

    `code` is the exit code, 128 and the number of the signal that asks for it.
    """
    with _ending:
        try:
            if _savers:
                _save()
        finally:
            os._exit(code)


def _save() -> None:
    message = "stopped; the same command goes on from here"
    try:
        for save in _savers:
            save()
    except Exception as error:
        message = f"stopped; what was not saved yet is lost: {error}"
    print(f"\ndscpp: {message}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def saving(save: Callable[[], object]) -> Iterator[None]:
    """Call a function at the end, however it comes: an error, Ctrl-C, SIGTERM, SIGHUP.

    A signal that is ignored (nohup) or handled already is left alone, and so are all
    where this is not the main thread, which alone may handle them.

    `save` may be called from any thread, at any moment; a second time it does nothing.
    """
    _savers.append(save)
    try:
        with _listening():
            try:
                yield
            finally:  # still listening: a second signal waits for what is being saved
                save()
                with _ending:  # another thread ends the process, with its own code
                    pass
    finally:
        _savers.remove(save)


@contextlib.contextmanager
def _listening() -> Iterator[None]:
    """End the process at a signal, also while its main thread is not in Python."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signals = [
        number for number in _SIGNALS if signal.getsignal(number) is signal.SIG_DFL
    ]
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    thread = threading.Thread(target=_listen, args=(read_end, signals), daemon=True)
    thread.start()
    before = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    for number in signals:
        signal.signal(number, lambda *_: None)  # Python writes its number to the pipe.
    try:
        yield
    finally:
        for number in signals:
            signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(before)
        os.write(write_end, _ENOUGH)
        thread.join()
        os.close(read_end)
        os.close(write_end)


def _listen(pipe: int, signals: list[signal.Signals]) -> None:
    while (heard := os.read(pipe, 1)) != _ENOUGH:
        if heard[0] in signals:
            end(128 + heard[0])
