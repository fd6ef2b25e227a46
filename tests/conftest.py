"""Fixtures shared by all tests, and what a missing backend means."""

from __future__ import annotations

import importlib.util
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parents[1]
# One thread for each process, and for those that it starts: the tests are small and run
# side by side, and threads without work would spin (PyTorch's take five times as long).
# JAX compiles each operation for each shape, which is most of what its tests take: what
# one process has compiled is there for all.
SETTINGS = {
    "OMP_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "PJRT_NPROC": "1",
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".work" / "jax"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
for name, value in SETTINGS.items():
    os.environ.setdefault(name, value)
# A process under make ends with it (`processes.follow_make`): not the tests' own, whose
# thread for it would be there in all tests.
os.environ.pop("MAKELEVEL", None)
# The machine decides how long an example takes.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")
# The libraries that the recipes are for.
PEERS = ("monai", "nnunetv2")
# Where DRIVE may lie: as DSCPP_DRIVE says, or where the README says to put it.
DRIVE = [ROOT / "data" / "DRIVE", ROOT.parent / "shared" / "data" / "DRIVE"]


def pytest_configure(config: pytest.Config) -> None:
    """Fail at once where a backend or a library was asked for and is not there."""
    wanted = os.environ.get("DSCPP_REQUIRE_BACKEND")
    if wanted and importlib.util.find_spec(wanted) is None:
        raise pytest.UsageError(
            f"DSCPP_REQUIRE_BACKEND={wanted}, but {wanted} is not installed here"
        )
    if wanted and os.environ.get("KERAS_BACKEND", "tensorflow") != wanted:
        raise pytest.UsageError(
            f"DSCPP_REQUIRE_BACKEND={wanted}, but KERAS_BACKEND is "
            f"{os.environ.get('KERAS_BACKEND')!r}"
        )
    if os.environ.get("DSCPP_REQUIRE_PEERS"):
        missing = [p for p in PEERS if importlib.util.find_spec(p) is None]
        if missing:
            raise pytest.UsageError(f"DSCPP_REQUIRE_PEERS is set, without: {missing}")


# They train, build or damage for many seconds: what needs one of these is slow.
SLOW_FIXTURES = {"alone", "cut", "group", "phantoms", "scenes", "shifted", "tiny"}
SLOW_FIXTURES |= {"trained", "typed", "wheels"}


# The files that take minutes. They begin first, so that no process is left with one of
# them while the others have nothing to do.
LONGEST = ("slurm", "own", "workflow", "training", "damage", "own_volumes", "report")
LONGEST += ("regenerate", "port_nnunet", "port_torch", "recipes", "conformance")
LONGEST += ("losses", "illustrate", "true_posterior")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    """Mark the tests that need one of the slow fixtures; the longest files first."""
    for item in items:
        if SLOW_FIXTURES & set(item.fixturenames):
            item.add_marker(pytest.mark.slow)
    order = {f"test_{name}": number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))


LOOPBACK = ("127.0.0.1", "::1", "localhost", None, "")


@pytest.fixture(autouse=True, scope="session")
def no_network() -> Iterator[None]:
    """Fail any test that looks up or connects to another machine."""

    def guarded(original: Any, host_of: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            host = host_of(*arguments)
            if (host.decode() if isinstance(host, bytes) else host) not in LOOPBACK:
                pytest.fail(f"a test reached for the network: {host}")
            return original(*arguments, **options)

        return call

    def peer(_: socket.socket, address: Any) -> Any:
        return address[0] if isinstance(address, tuple) else None

    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            original = getattr(socket.socket, name)
            patch.setattr(socket.socket, name, guarded(original, peer))
        looked_up = guarded(socket.getaddrinfo, lambda host, *_: host)
        patch.setattr(socket, "getaddrinfo", looked_up)
        yield


@pytest.fixture(scope="session")
def drive_root() -> Path:
    """The real DRIVE; tests that need it are skipped where it is absent."""
    named = os.environ.get("DSCPP_DRIVE")
    for folder in [Path(named)] if named else DRIVE:
        if (folder / "training").is_dir() and (folder / "test").is_dir():
            return folder
    pytest.skip("DRIVE is not here: put it at data/DRIVE or set DSCPP_DRIVE")


@pytest.fixture
def project() -> Path:
    """The project's root."""
    return ROOT
