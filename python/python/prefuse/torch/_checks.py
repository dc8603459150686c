"""What callers get wrong: both sides named, before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .._objective import indices, kind

LOGITS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def check_logits(logits: Tensor, what: str = "logits") -> None:
    if not isinstance(logits, Tensor):
        raise TypeError(f"{what}: expected a tensor, got {type(logits).__name__}")
    if logits.layout != torch.strided:
        raise TypeError(f"{what}: expected a dense tensor, got one of layout {logits.layout}")
    if logits.dtype not in LOGITS:
        raise TypeError(
            f"{what}: expected float32, float16, bfloat16 or float64, got {logits.dtype}"
        )
    if logits.dtype == torch.float64 and logits.is_cuda:
        raise TypeError(f"{what}: expected float32, float16 or bfloat16 on CUDA, got float64")
    if logits.device.type not in ("cpu", "cuda"):
        raise ValueError(f"{what}: expected a tensor on the CPU or on CUDA, got {logits.device}")
    if logits.dim() < 1 or logits.shape[-1] == 0:
        raise ValueError(f"{what}: expected shape [.., vocab], got {list(logits.shape)}")


def checked_labels(labels: Tensor, logits: Tensor) -> Tensor:
    """As int64."""
    if not isinstance(labels, Tensor):
        raise TypeError(f"labels: expected a tensor, got {type(labels).__name__}")
    if labels.shape != logits.shape[:-1]:
        expected, got = list(logits.shape[:-1]), list(labels.shape)
        raise ValueError(f"labels: expected shape {expected}, that of the logits, got {got}")
    same_device("labels", labels, logits)
    if labels.dtype == torch.int64:
        return labels
    if labels.dtype not in (torch.int32, torch.int16, torch.uint8, torch.int8):
        raise TypeError(f"labels: expected int64, got {labels.dtype}")
    return labels.to(torch.int64)


def same_device(what: str, of: Tensor, logits: Tensor) -> None:
    if of.device != logits.device:
        raise ValueError(
            f"{what}: expected on {logits.device}, where the logits are, got {of.device}"
        )


def by_token(what: str, values, logits: Tensor, dtype: torch.dtype) -> Tensor | None:
    """`[tokens]` numbers beside the logits, without a graph of their own."""
    if values is None:
        return None
    if not isinstance(values, Tensor):
        raise TypeError(f"{what}: expected a tensor, got {type(values).__name__}")
    if values.shape != logits.shape[:-1]:
        expected, got = list(logits.shape[:-1]), list(values.shape)
        raise ValueError(f"{what}: expected shape {expected}, that of the tokens, got {got}")
    same_device(what, values, logits)
    without_grad(what, values)
    return values.detach().to(dtype).contiguous()


def without_grad(what: str, values: Tensor) -> None:
    """Nothing is silently taken for a constant."""
    if values.requires_grad and torch.is_grad_enabled():
        raise ValueError(f"{what}: expected a tensor without gradient, call .detach()")


def numbers(what: str, values, count: int | None, unit: str) -> Tensor | None:
    """A list or tensor of numbers as f64 on the host."""
    if values is None:
        return None
    if isinstance(values, Tensor):
        without_grad(what, values)
        values = values.detach().to("cpu", torch.float64)
    else:
        try:
            values = torch.as_tensor(values, dtype=torch.float64, device="cpu")
        except (RuntimeError, TypeError, ValueError) as error:
            expected, got = "a list or tensor of numbers", f"{kind(values)} ({error})"
            raise TypeError(f"{what}: expected {expected}, got {got}") from None
    values = values.contiguous()
    if values.dim() != 1 or (count is not None and values.shape[0] != count):
        expected = f"[{count}]" if count is not None else "[..]"
        got = list(values.shape)
        raise ValueError(
            f"{what}: expected shape {expected}, one number for each {unit}, got {got}"
        )
    return values


def offsets_of(cu_seqlens, tokens: int) -> Tensor:
    """cu_seqlens as int64 on the host; within a compiled graph the core checks them."""
    if isinstance(cu_seqlens, Tensor):
        if cu_seqlens.dtype.is_floating_point or cu_seqlens.dtype not in (torch.int32, torch.int64):
            raise TypeError(f"cu_seqlens: expected int32 or int64, got {cu_seqlens.dtype}")
        offsets = cu_seqlens.detach().to("cpu", torch.int64).contiguous()
    else:
        cu_seqlens = indices("cu_seqlens", cu_seqlens)
        offsets = torch.tensor(cu_seqlens, dtype=torch.int64, device="cpu")
    if offsets.dim() != 1 or offsets.shape[0] < 2:
        raise ValueError(f"cu_seqlens: expected shape [sequences + 1], got {list(offsets.shape)}")
    if torch.compiler.is_compiling():
        return offsets
    first, last = int(offsets[0]), int(offsets[-1])
    if first != 0:
        raise ValueError(f"cu_seqlens: expected to start at 0, got {first}")
    if last != tokens:
        raise ValueError(f"cu_seqlens: expected to end at the {tokens} tokens, got {last}")
    falls = (offsets[1:] < offsets[:-1]).nonzero()
    if len(falls):
        at = int(falls[0]) + 1
        least, got = int(offsets[at - 1]), int(offsets[at])
        raise ValueError(f"cu_seqlens[{at}]: expected at least {least}, got {got}")
    return offsets


def pair_list(what: str, pairs) -> list[tuple[int, int]]:
    if isinstance(pairs, Tensor):
        pairs = pairs.tolist()
    if not isinstance(pairs, Sequence) or isinstance(pairs, str):
        raise TypeError(
            f"{what}: expected a list of pairs of sequences, got {type(pairs).__name__}"
        )
    found = []
    for pair in pairs:
        if not isinstance(pair, Sequence) or len(pair) != 2:
            raise ValueError(f"{what}: expected two sequences in each pair, got {pair!r}")
        found.append(tuple(indices(what, pair)))
    return found


def checked_pairs(pairs, sequences: int) -> str | list[tuple[int, int]]:
    """A way to pair the sequences, by name, or the pairs."""
    if not isinstance(pairs, str):
        return pair_list("pairs", pairs)
    if pairs not in ("halves", "interleaved"):
        raise ValueError(f"pairs: expected 'halves', 'interleaved' or a list, got {pairs!r}")
    if sequences % 2:
        raise ValueError(f"pairs: expected an even number of sequences, got {sequences}")
    return pairs
