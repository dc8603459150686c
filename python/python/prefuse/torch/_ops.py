"""The operators `torch.ops.prefuse`, each with the kernel of both devices and its shapes for `torch.compile`.

None of them is differentiable by itself: `_autograd` connects them. An operator with `torch.library`'s own autograd
costs twice as much on small tensors.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .._objective import json
from ._device import backend_of
from ._layout import (
    empty_grads,
    gathered,
    grads_memory,
    layout_of,
    memory,
    new_values,
    rows_memory,
    spread,
)

_library = torch.library.Library("prefuse", "DEF")

METRICS = (
    "rewards/chosen",
    "rewards/rejected",
    "rewards/accuracies",
    "rewards/margins",
    "min_reward",
    "max_reward",
    "logps/chosen",
    "logps/rejected",
    "tokens/chosen",
    "tokens/rejected",
    "count/chosen",
    "count/rejected",
    "sequences/rewards/chosen",
    "sequences/rewards/rejected",
    "sequences/rewards/margins",
    "sequences/logps/chosen",
    "sequences/logps/rejected",
    "sequences/tokens",
    "num_tokens",
    "ppo_kl",
    "entropy",
    "kl",
    "clip_ratio/low_mean",
    "clip_ratio/low_min",
    "clip_ratio/high_mean",
    "clip_ratio/high_max",
    "clip_ratio/region_mean",
    "pg_clipfrac_lower",
)
_PLACES = {name: place for place, name in enumerate(METRICS)}


def _operator(schema: str, kernel, fake) -> None:
    name = schema.split("(", 1)[0]
    _library.define(schema)
    _library.impl(name, kernel, "CPU")
    _library.impl(name, kernel, "CUDA")
    torch.library.register_fake(f"prefuse::{name}", fake, lib=_library)


def described(value: dict) -> tuple[str, Tensor]:
    """A text for `_core`, and the floats that `_text` puts into it."""
    floats: list[float] = []
    text = json(value, floats)
    if not torch.compiler.is_compiling():
        return text, torch.tensor(floats, dtype=torch.float64, device="cpu")
    # A factor of a tensor is the one use of a float of which torch does not make a constant.
    one = torch.ones((), dtype=torch.float64, device="cpu")
    return text, torch.stack([one * of for of in floats])


def _text(text: str, floats: Tensor) -> str:
    return text % tuple(floats.tolist())


def per_token(logits: Tensor) -> torch.dtype:
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def _tokens(logits: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.empty(logits.shape[:-1], dtype=dtype, device=logits.device)


def _token_log_probs(logits, labels, ignore_index, temperature, entropy, squares, argmax):
    layout, dims, dtype = layout_of(logits), logits.shape[:-1], per_token(logits)
    backend = backend_of(logits)
    shape = dims if layout.steps is None else (layout.rows,)
    rows = [new_values(shape, dtype, logits) for _ in range(3 + entropy + squares)]
    if argmax:
        rows.append(new_values(shape, torch.int64, logits))
    if layout.rows:
        labels = spread(labels, layout, dims, ignore_index)
        outputs = [memory(of) for of in rows]
        more = [
            outputs[3] if entropy else None,
            outputs[3 + entropy] if squares else None,
            outputs[-1] if argmax else None,
        ]
        backend.log_probs(
            rows_memory(logits, layout),
            (memory(labels), ignore_index),
            temperature,
            outputs[0],
            outputs[1:3],
            more,
        )
    return rows if layout.steps is None else [gathered(of, layout, dims) for of in rows]


def plain_log_probs(logits, labels, ignore_index, temperature):
    """Log-probs alone of a contiguous tensor in eager mode, without the operator: half of what that costs."""
    layout = layout_of(logits)
    dtype, labels = per_token(logits), labels.contiguous()
    log_probs = torch.empty_like(labels, dtype=dtype)
    if layout.rows:
        backend_of(logits).log_probs(
            rows_memory(logits, layout),
            (memory(labels), ignore_index),
            temperature,
            memory(log_probs),
            None,
            _NO_MORE,
        )
    return log_probs


_NO_MORE = (None, None, None)


def _token_log_probs_fake(logits, labels, ignore_index, temperature, entropy, squares, argmax):
    rows = [_tokens(logits, per_token(logits)) for _ in range(3 + entropy + squares)]
    return rows + [_tokens(logits, torch.int64)] * argmax


_operator(
    "token_log_probs(Tensor logits, Tensor labels, int ignore_index, float temperature, "
    "bool entropy, bool log_sum_squares, bool argmax) -> Tensor[]",
    _token_log_probs,
    _token_log_probs_fake,
)


def _write_grads(logits, grads, labels, ignore_index, temperature, *of_rows):
    """Stage 4 into `grads`, or over the logits where there are none."""
    layout, dims = layout_of(logits), logits.shape[:-1]
    if layout.rows == 0:
        return
    backend = backend_of(logits)
    if grads is None:
        # A call that found something wrong writes nothing, and the logits would pass for their gradient.
        backend.check()
    labels = spread(labels, layout, dims, ignore_index)
    # Bound, so that they outlive the call.
    of_rows = [None if of is None else spread(of, layout, dims, 0.0) for of in of_rows]
    maximum, log_sum, by_log_prob, by_entropy, entropy = of_rows
    backend.logit_grads(
        rows_memory(logits, layout),
        None if grads is None else grads_memory(grads, layout),
        (memory(labels), ignore_index),
        temperature,
        [memory(maximum), memory(log_sum)],
        memory(by_log_prob),
        None if by_entropy is None else [memory(by_entropy), memory(entropy)],
    )


_OF_ROWS = (
    "Tensor labels, int ignore_index, float temperature, Tensor maximum, Tensor log_sum, "
    "Tensor by_log_prob, Tensor? by_entropy, Tensor? entropy"
)


def _logit_grads(logits, *of_rows):
    grads = empty_grads(logits, layout_of(logits))
    _write_grads(logits, grads, *of_rows)
    return grads


_operator(
    f"logit_grads(Tensor logits, {_OF_ROWS}) -> Tensor",
    _logit_grads,
    lambda logits, *_: empty_grads(logits, layout_of(logits)),
)
_operator(
    f"logit_grads_(Tensor(a!) logits, {_OF_ROWS}) -> ()",
    lambda logits, *of_rows: _write_grads(logits, None, *of_rows),
    lambda *_: None,
)


def _described(names: str, given: list[Tensor]) -> dict:
    return {name: memory(of) for name, of in zip(names.split(","), given)} if names else {}


def _evaluated(found, like: Tensor, units: int):
    """Loss, losses, rewards and metrics as tensors."""
    value, terms, metrics = found
    dtype, device = per_token(like), like.device
    losses = [loss for _, losses, _ in terms for loss in losses]
    rewards = [
        reward
        for _, losses, rewards in terms
        for reward in (rewards or [(float("nan"), float("nan"))] * len(losses))
    ]
    if len(losses) != units:
        raise RuntimeError(f"losses: expected {units}, got {len(losses)}")
    values, present = [0.0] * len(METRICS), [0.0] * len(METRICS)
    for name, number in metrics:
        values[_PLACES[name]], present[_PLACES[name]] = number, 1.0
    return (
        torch.tensor(value, dtype=dtype, device=device),
        torch.tensor(losses, dtype=dtype, device=device),
        torch.tensor(rewards, dtype=dtype, device=device).view(units, 2),
        torch.tensor([term for term, *_ in terms], dtype=torch.float64, device="cpu"),
        torch.tensor([values, present], dtype=torch.float64, device="cpu"),
    )


def _evaluated_fake(like: Tensor, units, terms):
    dtype, device = per_token(like), like.device
    return (
        torch.empty((), dtype=dtype, device=device),
        torch.empty((units,), dtype=dtype, device=device),
        torch.empty((units, 2), dtype=dtype, device=device),
        torch.empty((terms,), dtype=torch.float64, device="cpu"),
        torch.empty((2, len(METRICS)), dtype=torch.float64, device="cpu"),
    )


def _loss(
    log_probs,
    maximum,
    log_sum,
    entropy,
    labels,
    given,
    names,
    vocab,
    temperature,
    text,
    floats,
    units,
    terms,
    uses_entropy,
):
    by_log_prob = torch.empty_like(log_probs)
    by_entropy = torch.empty_like(log_probs if uses_entropy else log_probs[:0])
    backend = backend_of(log_probs)
    tensors = _described(names, given)
    tensors["labels"] = memory(labels)
    found = backend.loss(
        _text(text, floats),
        tensors,
        vocab,
        temperature,
        [memory(log_probs), memory(maximum), memory(log_sum)],
        None if entropy is None else memory(entropy),
        [memory(by_log_prob), memory(by_entropy) if uses_entropy else None],
    )
    return (*_evaluated(found, log_probs, units), by_log_prob, by_entropy)


def _loss_fake(log_probs, *arguments):
    *_, units, terms, uses_entropy = arguments
    by_entropy = torch.empty_like(log_probs if uses_entropy else log_probs[:0])
    return (*_evaluated_fake(log_probs, units, terms), torch.empty_like(log_probs), by_entropy)


_operator(
    "loss(Tensor log_probs, Tensor maximum, Tensor log_sum, Tensor? entropy, Tensor labels, Tensor[] given, "
    "str names, SymInt vocab, float temperature, str text, Tensor floats, SymInt units, int terms, "
    "bool uses_entropy) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    _loss,
    _loss_fake,
)


def _scalar_loss(values, tokens, given, names, text, floats, units, terms):
    backend = backend_of(values)
    found, grads = backend.scalar_loss(
        _text(text, floats),
        _described(names, given),
        memory(values),
        None if tokens is None else memory(tokens),
    )
    grads = torch.tensor(grads, dtype=values.dtype, device=values.device)
    return (*_evaluated(found, values, units), grads)


def _scalar_loss_fake(values, tokens, given, names, text, floats, units, terms):
    return (*_evaluated_fake(values, units, terms), torch.empty_like(values))


_operator(
    "scalar_loss(Tensor values, Tensor? tokens, Tensor[] given, str names, str text, Tensor floats, "
    "SymInt units, int terms) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    _scalar_loss,
    _scalar_loss_fake,
)


def _sequence_sums(log_probs, labels, ignore_index, weights, offsets):
    backend, device = backend_of(log_probs), log_probs.device
    sequences = offsets.numel() - 1
    totals = [torch.empty((sequences,), dtype=torch.float64, device=device) for _ in range(3)]
    backend.sequence_sums(
        memory(log_probs),
        (memory(labels), ignore_index),
        None if weights is None else memory(weights),
        offsets.tolist(),
        [memory(of) for of in totals],
    )
    return tuple(of.to(log_probs.dtype) for of in totals)


def _sequence_sums_fake(log_probs, labels, ignore_index, weights, offsets):
    return tuple(log_probs.new_empty((offsets.numel() - 1,)) for _ in range(3))


_operator(
    "sequence_sums(Tensor log_probs, Tensor labels, int ignore_index, Tensor? weights, Tensor offsets) "
    "-> (Tensor, Tensor, Tensor)",
    _sequence_sums,
    _sequence_sums_fake,
)


def _token_grads(by_sums, labels, ignore_index, weights, offsets):
    backend = backend_of(by_sums)
    grads = torch.empty(labels.shape, dtype=by_sums.dtype, device=by_sums.device)
    exact = by_sums.to(torch.float64)
    backend.token_grads(
        memory(exact),
        (memory(labels), ignore_index),
        None if weights is None else memory(weights),
        offsets.tolist(),
        memory(grads),
    )
    return grads


_operator(
    "token_grads(Tensor by_sums, Tensor labels, int ignore_index, Tensor? weights, Tensor offsets) -> Tensor",
    _token_grads,
    lambda by_sums, labels, *_: by_sums.new_empty(labels.shape),
)


def _nothing(logits: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.empty((0,), dtype=dtype, device=logits.device)


def _divergence(
    student, teachers, ids, entries, labels, ignore_index, text, floats, upstream, entropies
):
    layout, dims, dtype = layout_of(student), student.shape[:-1], per_token(student)
    backend = backend_of(student)
    shape = dims if layout.steps is None else (layout.rows,)
    rows = [new_values(shape, dtype, student) for _ in range(1 + entropies)]
    grads = _nothing(student, student.dtype) if upstream is None else empty_grads(student, layout)
    if layout.rows:
        labels = spread(labels, layout, dims, ignore_index)
        gradient = None
        if upstream is not None:
            upstream = spread(upstream, layout, dims, 0.0)
            gradient = memory(upstream), grads_memory(grads, layout)
        sparse = None
        if ids is not None:
            sparse = [spread(of, layout, dims, 0) for of in (ids, entries)]
        of_teachers = [_beside(of, student, layout) for of in teachers]
        outputs = [memory(of) for of in rows]
        backend.divergence(
            _text(text, floats),
            rows_memory(student, layout),
            [rows_memory(of, own) for of, own in zip(teachers, of_teachers)],
            None if sparse is None else [memory(of) for of in sparse],
            (memory(labels), ignore_index),
            outputs[0],
            [*outputs[1:], None, None][:2],
            gradient,
        )
    if layout.steps is not None:
        rows = [gathered(of, layout, dims) for of in rows]
    rows += [_nothing(student, dtype) for _ in range(2 - entropies)]
    return (*rows, grads)


def _beside(teacher: Tensor, student: Tensor, layout):
    own = layout_of(teacher, "teacher_logits")
    if (own.rows, own.steps) != (layout.rows, layout.steps):
        raise ValueError(
            "teacher_logits: expected rows in the order of the student's, "
            f"got strides {teacher.stride()} beside {student.stride()}; call .contiguous() on both"
        )
    return own


def _divergence_fake(
    student, teachers, ids, entries, labels, ignore_index, text, floats, upstream, entropies
):
    dtype = per_token(student)
    rows = [_tokens(student, dtype) for _ in range(1 + entropies)]
    rows += [_nothing(student, dtype) for _ in range(2 - entropies)]
    none = upstream is None
    grads = _nothing(student, student.dtype) if none else empty_grads(student, layout_of(student))
    return (*rows, grads)


_operator(
    "divergence(Tensor student, Tensor[] teachers, Tensor? ids, Tensor? entries, Tensor labels, "
    "int ignore_index, str text, Tensor floats, Tensor? upstream, int entropies) -> "
    "(Tensor, Tensor, Tensor, Tensor)",
    _divergence,
    _divergence_fake,
)

token_log_probs = torch.ops.prefuse.token_log_probs.default
