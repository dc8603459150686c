"""Log-probs of labels, by token and by sequence."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd import forward_ad

from .. import _core
from .._objective import finite, indices, integer
from . import _ops
from ._autograd import SequenceSums, TokenLogProbs
from ._checks import by_token, check_logits, checked_labels, checked_pairs, offsets_of

IGNORE = -100


def token_log_probs(
    logits: Tensor,
    labels: Tensor,
    *,
    ignore_index: int = IGNORE,
    temperature: float = 1.0,
    return_entropy: bool = False,
    return_log_sum_squares: bool = False,
    return_argmax: bool = False,
    inplace: bool = False,
) -> Tensor | tuple[Tensor, ...]:
    """Natural log-probs of the labels under `softmax(logits / temperature)`, in one read of the logits.

    Shapes: logits `[.., vocab]`, labels `[..]`, results `[..]`, 0 at tokens that do not count. Differentiable by
    any gradient of the log-probs and of the entropies; the gradient by the logits has their shape and type.

    Args:
        ignore_index: The label of tokens that do not count.
        temperature: 1e-30 to 1e30.
        return_entropy: Also the entropies in nats, from the same visit.
        return_log_sum_squares: Also the logarithms of the sums of squared probabilities, without gradient: WPO's
            weights come from them (`prefuse.statistics.wpo_weights`).
        return_argmax: Also the most probable entries, int64, -1 at tokens that do not count.
        inplace: The backward writes the gradient over the logits, whose values are lost, in place of allocating
            as much again; another backward that needs them raises.

    Raises:
        ValueError: Shapes that do not fit, a label outside the vocabulary, or a temperature outside its range.
        TypeError: Another element type.
    """
    log_probs, _, _, *more = rows_of(
        logits,
        labels,
        ignore_index,
        temperature,
        return_entropy,
        return_log_sum_squares,
        return_argmax,
        inplace,
        alone=True,
    )
    return (log_probs, *more) if more else log_probs


def rows_of(
    logits, labels, ignore_index, temperature, entropy, squares, argmax, inplace, *, alone=False
):
    """Log-probs, maxima, logarithms of sums, then what is asked for, in this order.

    With `alone` log-probs may stand alone, where nothing will ask for their gradient.
    """
    ignore_index = integer("ignore_index", ignore_index)
    temperature = finite("temperature", temperature)
    check_logits(logits)
    labels = checked_labels(labels, logits)
    if inplace:
        check_inplace(logits)
    options = (ignore_index, temperature, entropy, squares, argmax)
    # Forward mode goes there too, and is refused.
    if torch.is_grad_enabled() and (logits.requires_grad or forward_ad._current_level >= 0):
        return TokenLogProbs.apply(logits, labels, *options, inplace)
    if alone and not (entropy or squares or argmax) and _is_plain(logits):
        return (_ops.plain_log_probs(logits, labels, ignore_index, temperature), None, None)
    return _ops.token_log_probs(logits, labels, *options)


def _is_plain(logits: Tensor) -> bool:
    """Under a mode, such as that of fake tensors, the operator says what there is to do."""
    if type(logits) is not Tensor or not logits.is_cpu or not logits.is_contiguous():
        return False
    return not (torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack())


def check_inplace(logits: Tensor) -> None:
    if torch.compiler.is_compiling():
        raise ValueError("inplace: expected False under torch.compile, got True")
    if not logits.is_contiguous():
        expected, got = "contiguous logits", f"strides {logits.stride()}"
        raise ValueError(f"inplace: expected {expected}, got {got}")
    whole = logits if logits._base is None else logits._base
    if whole.is_leaf and whole.requires_grad:
        raise ValueError("inplace: expected logits that a model computed, got a leaf of the graph")


def entropies(logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Entropies of `softmax(logits / temperature)` in nats, `[..]` for logits `[.., vocab]`; differentiable.

    Raises:
        ValueError: A temperature outside 1e-30 to 1e30.
        TypeError: Another element type.
    """
    check_logits(logits)
    labels = torch.zeros(logits.shape[:-1], dtype=torch.int64, device=logits.device)
    _, entropy = token_log_probs(logits, labels, temperature=temperature, return_entropy=True)
    return entropy


def sequence_log_probs(
    logits: Tensor,
    labels: Tensor,
    *,
    weights: Tensor | None = None,
    cu_seqlens: Tensor | Sequence[int] | None = None,
    ignore_index: int = IGNORE,
    temperature: float = 1.0,
    inplace: bool = False,
) -> tuple[Tensor, Tensor]:
    """Sums of weight times log-prob of each sequence, and how many of its tokens count: `[sequences]` each.

    Shapes: logits `[sequences, length, vocab]`, or `[tokens, vocab]` (or `[1, tokens, vocab]`) with the offsets
    `cu_seqlens` of `sequences + 1` numbers. Sums are added in f64; differentiable.

    Args:
        weights: `[..]` factors of the tokens' log-probs; a token of weight 0 does not count.
        cu_seqlens: Where each sequence starts, and the number of tokens.
        ignore_index: The label of tokens that do not count.
        temperature: 1e-30 to 1e30.
        inplace: As in `token_log_probs`.

    Raises:
        ValueError: Shapes or offsets that do not fit, or a label outside the vocabulary.
        TypeError: Another element type.
    """
    check_logits(logits)
    labels = checked_labels(labels, logits)
    weights = by_token("weights", weights, logits, torch.float32)
    offsets = packing_of(logits, cu_seqlens)
    # A token of weight 0 has no gradient either: its label does not have to be one.
    counted = labels if weights is None else labels.masked_fill(weights == 0, ignore_index)
    log_probs = token_log_probs(
        logits, counted, ignore_index=ignore_index, temperature=temperature, inplace=inplace
    )
    labels = counted.contiguous()
    sums, tokens, _ = SequenceSums.apply(log_probs, labels, ignore_index, weights, offsets)
    return sums, tokens


def packing_of(logits: Tensor, cu_seqlens) -> Tensor:
    """Offsets of the sequences among all tokens, on the host."""
    if cu_seqlens is not None:
        if logits.dim() > 2 and logits.shape[:-2].numel() != 1:
            got = list(logits.shape)
            raise ValueError(f"logits: expected [tokens, vocab] beside cu_seqlens, got {got}")
        return offsets_of(cu_seqlens, logits.shape[:-1].numel())
    if logits.dim() != 3:
        got = list(logits.shape)
        raise ValueError(
            f"logits: expected [sequences, length, vocab], or cu_seqlens beside [tokens, vocab], got {got}"
        )
    sequences, length = logits.shape[:2]
    return torch.arange(sequences + 1, dtype=torch.int64, device="cpu") * length


def shift_labels(
    ids: Tensor,
    *,
    cu_seqlens: Tensor | Sequence[int] | None = None,
    ignore_index: int = IGNORE,
) -> Tensor:
    """Each id moved to the position that predicts it: labels for the logits of all positions, no slice needed.

    Shapes: ids `[sequences, length]`, or `[tokens]` (or `[1, tokens]`) with `cu_seqlens`; the result alike. The
    last position of a sequence predicts nothing and becomes `ignore_index`.

    Raises:
        ValueError: Offsets that do not end at the number of tokens.
    """
    if not isinstance(ids, Tensor) or ids.dtype.is_floating_point:
        got = ids.dtype if isinstance(ids, Tensor) else type(ids).__name__
        raise TypeError(f"ids: expected a tensor of integers, got {got}")
    if ids.dim() == 0:
        raise ValueError("ids: expected shape [.., length], got []")
    # Smaller types may not have `ignore_index`.
    ids = ids.to(torch.int64)
    labels = torch.full_like(ids, ignore_index)
    labels[..., :-1] = ids[..., 1:]
    if cu_seqlens is not None:
        ends = offsets_of(cu_seqlens, ids.numel())[1:]
        flat = labels.view(-1)
        flat[(ends[ends > 0] - 1).to(ids.device)] = ignore_index
    return labels


def mask_dpo_weights(
    labels: Tensor,
    sentences: Sequence[tuple[int, int, int, bool]],
    *,
    pairs: str | Sequence[tuple[int, int]] = "halves",
    cu_seqlens: Tensor | Sequence[int] | None = None,
    of_ids: bool = False,
    keep_unlabelled: bool = True,
) -> Tensor:
    """Mask-DPO's token weights (Gu et al., 2025), f32 of the labels' shape and device.

    1 for factual sentences of chosen sequences and non-factual ones of rejected sequences, 0 for the other
    sentences; tokens in no sentence keep 1, or get 0 without `keep_unlabelled`.

    Args:
        labels: `[sequences, length]`, or `[tokens]` with `cu_seqlens`; only their shape matters.
        sentences: `(sequence, start, end, factual)`: ranges of labels within their sequence.
        pairs: `"halves"` (all chosen, then all rejected), `"interleaved"`, or `(chosen, rejected)` sequences.
        of_ids: The ranges are of ids, which stand one position after their labels.

    Raises:
        ValueError: A sentence outside its sequence, sentences that overlap, or pairs that do not fit.
    """
    if cu_seqlens is None:
        if labels.dim() != 2:
            got = list(labels.shape)
            raise ValueError(f"labels: expected [sequences, length] or cu_seqlens, got {got}")
        offsets = [index * labels.shape[1] for index in range(labels.shape[0] + 1)]
    else:
        offsets = offsets_of(cu_seqlens, labels.numel()).tolist()
    found = _core.mask_dpo_weights(
        offsets,
        pair_indices(pairs, len(offsets) - 1),
        [_sentence(of) for of in sentences],
        of_ids=of_ids,
        keep_unlabelled=keep_unlabelled,
    )
    return torch.tensor(found, dtype=torch.float32, device=labels.device).view(labels.shape)


def _sentence(sentence) -> tuple[int, int, int, bool]:
    if len(sentence) != 4:
        raise ValueError(f"sentences: expected (sequence, start, end, factual), got {sentence!r}")
    *places, factual = sentence
    return (*indices("sentences", places), bool(factual))


def pair_indices(pairs, sequences: int) -> list[tuple[int, int]]:
    pairs = checked_pairs(pairs, sequences)
    if not isinstance(pairs, str):
        return pairs
    half = sequences // 2
    if pairs == "halves":
        return [(pair, half + pair) for pair in range(half)]
    return [(2 * pair, 2 * pair + 1) for pair in range(half)]
