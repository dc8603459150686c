"""Fused preference losses for language models.

The functions on tensors are in `prefuse.torch`, which alone needs torch; the losses, as classes with their
parameters, are here and in `prefuse.objectives`.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

from . import divergences, objectives, statistics
from ._core import CUDA_BUILT_FOR, CudaUnavailable, DeviceError, __version__
from ._objective import Objective, Term
from .objectives import *  # noqa: F403
from .objectives import __all__ as _objectives

if TYPE_CHECKING:
    from . import torch, trl

__all__ = [
    "CUDA_BUILT_FOR",
    "CudaUnavailable",
    "DeviceError",
    "Objective",
    "Term",
    "__version__",
    "divergences",
    "objectives",
    "statistics",
    "torch",
    "trl",
    *_objectives,
]


def __getattr__(name: str):
    if name in ("torch", "trl"):
        return importlib.import_module(f".{name}", __name__)
    message = f"module {__name__!r} has no attribute {name!r}"
    # Both are for Python's "Did you mean: 'Dpo'?".
    raise AttributeError(message, name=name, obj=sys.modules[__name__])
