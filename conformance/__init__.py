# SPDX-License-Identifier: Apache-2.0
"""A conformance suite for the DSC++ family of losses, for any implementation.

>>> from conformance import TorchAdapter, run
>>> report = run(TorchAdapter(my_loss, axis=1), "DSC++", gamma=2)
>>> report.ok
True
>>> print(report.text())  # check by check: pass, fail with the reason, skip

Installed by itself it is the distribution dscpp-conformance, and its import name is
`dscpp_conformance`.

On the command line: `python -m conformance my_module:my_loss --loss "DSC++"
--framework torch --axis 1`. Needs NumPy, and the framework of the implementation once
it is run. Nothing of this project's own losses is in it.
"""

from .adapters import (
    FRAMEWORKS,
    Adapter,
    JaxAdapter,
    KerasAdapter,
    NumpyAdapter,
    TorchAdapter,
)
from .checks import CHECKS, Check
from .reference import FAMILY, MEMBERS, Member, Terms, reference
from .suite import PRECISIONS, Report, Result, run

__all__ = [
    "CHECKS",
    "FAMILY",
    "FRAMEWORKS",
    "MEMBERS",
    "PRECISIONS",
    "Adapter",
    "Check",
    "JaxAdapter",
    "KerasAdapter",
    "Member",
    "NumpyAdapter",
    "Report",
    "Result",
    "Terms",
    "TorchAdapter",
    "reference",
    "run",
]
