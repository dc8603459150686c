"""The backend of a tensor's device and stream."""

from __future__ import annotations

import threading

import torch
from torch import Tensor

from .. import _core

_CPU = _core.Backend.cpu()
_REFERENCE = _core.Backend.reference()
_cuda: dict[tuple[int, int], _core.Backend] = {}
_lock = threading.Lock()


def backend_of(tensor: Tensor) -> _core.Backend:
    """f64 on the CPU runs on the reference. Raises what an earlier call on the stream left."""
    if not tensor.is_cuda:
        return _REFERENCE if tensor.dtype == torch.float64 else _CPU
    index = tensor.device.index
    stream = torch.cuda.current_stream(index).cuda_stream
    backend = _cuda.get((index, stream))
    if backend is None:
        with _lock:
            if (index, stream) not in _cuda:
                _cuda[index, stream] = _core.Backend.cuda(index, stream)
            backend = _cuda[index, stream]
    backend.poll()
    return backend


def check() -> None:
    """Waits for every stream that prefuse was called on, and raises the first error that a kernel found.

    A label outside the vocabulary of logits on CUDA is one: without this call, the next call of prefuse on that
    stream raises it, or the next one that waits for a result.
    """
    errors = []
    for backend in list(_cuda.values()):
        try:
            backend.check()
        except Exception as error:
            errors.append(error)
    if errors:
        raise errors[0]
