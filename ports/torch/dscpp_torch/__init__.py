# SPDX-License-Identifier: Apache-2.0
"""DSC++ and its family of losses for PyTorch, MONAI and nnU-Net.

```python
loss = dscpp_torch.by_name("DSC++", softmax=True, to_onehot_y=True)
loss(logits, labels)  # (N, C, *spatial), (N, 1, *spatial)
```
"""

from pathlib import Path
from typing import Any

from . import functional as functional
from . import losses
from .losses import *  # noqa: F403
from .losses import NAMES as NAMES

NNUNET = str(Path(__file__).with_name("nnunet"))
"""The folder that nnU-Net's variable `nnUNet_extTrainer` is to name."""


def by_name(name: str, **arguments: Any) -> losses.Loss:
    """Make a loss from the paper's name for it, in any case.

    Raises:
        ValueError: no such loss, or an argument out of its range.
        TypeError: an argument that it does not take.
    """
    classes = {each.casefold(): loss for each, loss in NAMES.items()}
    if name.casefold() not in classes:
        raise ValueError(f"loss: expected one of {', '.join(NAMES)}, found {name!r}")
    return classes[name.casefold()](**arguments)
