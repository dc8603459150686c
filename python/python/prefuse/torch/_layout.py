"""Where the rows of logits lie."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

NAMES = {
    torch.float64: "f64",
    torch.float32: "f32",
    torch.float16: "f16",
    torch.bfloat16: "bf16",
    torch.int64: "i64",
}


class Layout(NamedTuple):
    """Rows of `vocab` elements, `stride` elements apart, from the first to the last that lies in memory.

    `steps` are the rows from an index of each leading dimension to the next; `None` where they number the rows
    in order. Otherwise rows may lie between those of the tensor, as those of `logits[:, :-1]` do: they are
    visited with labels that do not count.
    """

    rows: int
    vocab: int
    stride: int
    steps: tuple[int, ...] | None


def layout_of(logits: Tensor, what: str = "logits") -> Layout:
    """Raises `ValueError` where the rows are not at multiples of one distance from each other."""
    vocab = logits.shape[-1]
    if logits.is_contiguous():
        return Layout(logits.numel() // max(vocab, 1), vocab, vocab, None)
    dims = logits.shape[:-1]
    strides = logits.stride()
    leading = sorted((stride, dim) for dim, stride in zip(dims, strides) if dim != 1)
    stride = leading[0][0] if leading else vocab
    rows = 1
    fits = stride >= vocab and (strides[-1] == 1 or vocab == 1)
    for step, dim in leading:
        fits = fits and step % stride == 0 and step // stride >= rows
        if not fits:
            break
        rows += (dim - 1) * (step // stride)
    if not fits:
        shape = tuple(logits.shape)
        raise ValueError(
            f"{what}: expected adjacent elements in a row and rows at multiples of one distance, "
            f"got shape {shape} with strides {strides}; call .contiguous()"
        )
    steps = tuple(step // stride if dim != 1 else 0 for dim, step in zip(dims, strides))
    next_step, in_order = 1, True
    for dim, step in zip(reversed(dims), reversed(steps)):
        in_order = in_order and (dim == 1 or step == next_step)
        next_step *= dim
    return Layout(rows, vocab, stride, None if in_order else steps)


def memory(tensor: Tensor) -> tuple[int, str, int]:
    """Of a contiguous tensor, for `_core`; the tensor has to outlive the call."""
    if not tensor.is_contiguous():
        raise ValueError(f"tensor: expected a contiguous one, got strides {tensor.stride()}")
    return tensor.data_ptr(), NAMES[tensor.dtype], tensor.numel()


def rows_memory(logits: Tensor, layout: Layout) -> tuple[tuple[int, str, int], int, int, int]:
    """The rows of a tensor, those between them included."""
    rows, vocab, stride, _ = layout
    span = (rows - 1) * stride + vocab
    return (logits.data_ptr(), NAMES[logits.dtype], span), rows, vocab, stride


def grads_memory(grads: Tensor, layout: Layout) -> tuple[tuple[int, str, int], int, int, int]:
    """Of `empty_grads`: rows one after the other, those in between included."""
    return rows_memory(grads, layout._replace(stride=layout.vocab))


def spread(values: Tensor, layout: Layout, dims: torch.Size, fill: float) -> Tensor:
    """What tokens have, a number or `k` entries, by row, `fill` for rows in between."""
    if layout.steps is None:
        return values.contiguous()
    entries = values.shape[len(dims) :]
    width = entries.numel()
    rows = values.new_full((layout.rows, *entries), fill)
    steps = [*(step * width for step in layout.steps), *[1] * len(entries)]
    rows.as_strided(values.shape, steps).copy_(values)
    return rows


def gathered(rows: Tensor, layout: Layout, dims: torch.Size) -> Tensor:
    """The other way round, where `layout` has steps."""
    return rows.as_strided(dims, layout.steps).clone(memory_format=torch.contiguous_format)


def new_values(shape, dtype: torch.dtype, like: Tensor) -> Tensor:
    """Memory for numbers by token. On a device an error is known later: until then they are NaN."""
    if like.is_cuda and dtype.is_floating_point:
        return torch.full(shape, float("nan"), dtype=dtype, device=like.device)
    return torch.empty(shape, dtype=dtype, device=like.device)


def empty_grads(logits: Tensor, layout: Layout) -> Tensor:
    """Memory for the gradient, whose rows lie as those of the logits do."""
    rows, vocab, _, steps = layout
    if steps is None:
        return torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)
    whole = torch.empty((rows, vocab), dtype=logits.dtype, device=logits.device)
    return whole.as_strided(logits.shape, [*(step * vocab for step in steps), 1])
