"""The backend of a tensor's device and stream."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor

from .. import _core

_CPU = _core.Backend.cpu()
_REFERENCE = _core.Backend.reference()
_cuda: dict[tuple[int, int], _core.Backend] = {}
_NO_GUARD = contextlib.nullcontext()


def backend_of(tensor: Tensor) -> _core.Backend:
    """f64 on the CPU runs on the reference. Raises what an earlier call on the device left."""
    if not tensor.is_cuda:
        return _REFERENCE if tensor.dtype == torch.float64 else _CPU
    index = tensor.device.index
    stream = torch.cuda.current_stream(index).cuda_stream
    backend = _cuda.get((index, stream))
    if backend is None:
        backend = _cuda[index, stream] = _core.Backend.cuda(index, stream)
    backend.poll()
    return backend


def guard(tensor: Tensor):
    """The tensor's device as the current one, which the core changes."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else _NO_GUARD


def check() -> None:
    """Waits for every stream that prefuse was called on, and raises the first error that a kernel found.

    A label outside the vocabulary of logits on CUDA is one: without this call, the next call of prefuse on that
    device raises it, or the next one that waits for a result.
    """
    for (index, _), backend in list(_cuda.items()):
        with torch.cuda.device(index):
            backend.check()
