"""Distillation by token, from the logits of a student and of its teachers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .._objective import finite, integer, kind
from ..divergences import Divergence, ExpectedAdvantage
from . import _autograd, _ops
from ._checks import (
    LOGITS,
    by_token,
    check_logits,
    checked_labels,
    same_device,
    without_grad,
)
from ._log_probs import IGNORE, packing_of


@dataclass(frozen=True, eq=False)
class Combination:
    """The teacher `sum_i c_i z_i` of the logits of 1 to 3 models.

    Args:
        parts: `(coefficient, logits)` of each.
    """

    parts: Sequence[tuple[float, Tensor]]


@dataclass(frozen=True, eq=False)
class AlignDistil:
    """AlignDistil's teacher (Zhang et al., 2025, eq. 15 to 19): `z_dpo + alpha (z_dpo - z_reverse)`.

    `alpha` is `ratio` times the total variation of the two at the token, and 1e-3; the token's divergence is
    multiplied by `beta / alpha`. The paper takes the reverse KL.

    Args:
        dpo: Logits of the model that DPO trained.
        reverse: Logits of the model that DPO trained on reversed pairs.
        beta: 0.1 in the paper.
        ratio: 10 in the paper, 15 for the policy's own samples.
        doubled_variation: Twice the total variation, as in the released code.
    """

    dpo: Tensor
    reverse: Tensor
    beta: float = 0.1
    ratio: float = 10.0
    doubled_variation: bool = False


@dataclass(frozen=True, eq=False)
class SparseTeacher:
    """Some entries of each token's distribution, as files of offline teachers have them.

    Args:
        ids: `[.., k]` int64, k from 1 to 1024, each once for a token.
        log_probs: `[.., k]` natural log-probs at the teacher's temperature, of a type that logits have.
        remainder: `"bin"`: what is not listed is one more entry; `"renormalised"`: it is nothing.
    """

    ids: Tensor
    log_probs: Tensor
    remainder: str = "bin"


Teacher = Tensor | Combination | AlignDistil | SparseTeacher


@dataclass(frozen=True, eq=False)
class Distilled:
    """A distillation's loss and its values by token.

    Attributes:
        loss: A scalar; what `backward` is called on.
        values: `[..]` divergences of the tokens, without gradient; 0 at those that do not count.
        student_entropy: `[..]` entropies of the student in nats.
        teacher_entropy: `[..]` entropies of the teacher; `None` for an expected advantage.
    """

    loss: Tensor
    values: Tensor
    student_entropy: Tensor
    teacher_entropy: Tensor | None


def _teacher(teacher: Teacher, student: Tensor) -> tuple[list[Tensor], list, str | dict]:
    """Tensors of logits, then ids and log-probs of entries, and the text."""
    if isinstance(teacher, Tensor):
        return [teacher], [None, None], "Logits"
    if isinstance(teacher, Combination):
        parts = [_part(of) for of in teacher.parts]
        coefficients = [coefficient for coefficient, _ in parts]
        return (
            [of for _, of in parts],
            [None, None],
            {"Combination": {"coefficients": coefficients}},
        )
    if isinstance(teacher, AlignDistil):
        numbers = {"beta": finite("beta of AlignDistil", teacher.beta)}
        numbers["ratio"] = finite("ratio of AlignDistil", teacher.ratio)
        text = {"AlignDistil": {**numbers, "doubled": teacher.doubled_variation}}
        return [teacher.dpo, teacher.reverse], [None, None], text
    if isinstance(teacher, SparseTeacher):
        return [], *_entries(teacher, student)
    expected = "a tensor, Combination, AlignDistil or SparseTeacher"
    raise TypeError(f"teacher: expected {expected}, got {kind(teacher)}")


def _part(part: tuple[float, Tensor]) -> tuple[float, Tensor]:
    if not isinstance(part, Sequence) or len(part) != 2:
        raise TypeError(f"parts: expected (coefficient, logits), got {kind(part)}")
    return finite("coefficient", part[0]), part[1]


def _entries(teacher: SparseTeacher, student: Tensor) -> tuple[list[Tensor], dict]:
    ids, log_probs = teacher.ids, teacher.log_probs
    for what, of in (("teacher's ids", ids), ("teacher's log_probs", log_probs)):
        if not isinstance(of, Tensor):
            raise TypeError(f"{what}: expected a tensor, got {type(of).__name__}")
        if of.dim() < 1 or of.shape[:-1] != student.shape[:-1]:
            expected, got = [*student.shape[:-1], "k"], list(of.shape)
            raise ValueError(f"{what}: expected shape {expected}, got {got}")
        same_device(what, of, student)
    if log_probs.dtype not in LOGITS:
        expected = "float32, float16, bfloat16 or float64"
        raise TypeError(f"teacher's log_probs: expected {expected}, got {log_probs.dtype}")
    if ids.shape != log_probs.shape:
        expected, got = list(ids.shape), list(log_probs.shape)
        raise ValueError(
            f"teacher's log_probs: expected shape {expected}, that of the ids, got {got}"
        )
    if ids.dtype != torch.int64:
        if ids.dtype.is_floating_point:
            raise TypeError(f"teacher's ids: expected int64, got {ids.dtype}")
        ids = ids.to(torch.int64)
    remainders = {"bin": True, "renormalised": False}
    if teacher.remainder not in remainders:
        raise ValueError(f"remainder: expected 'bin' or 'renormalised', got {teacher.remainder!r}")
    text = {"entries": ids.shape[-1], "has_bin": remainders[teacher.remainder]}
    return [ids, log_probs.detach()], {"Sparse": text}


def _prepared(divergence, student, teacher, labels, temperatures, ignore_index):
    """Labels, entries, text and its floats, how many entropies there are, and the teacher's tensors."""
    if not isinstance(divergence, Divergence):
        expected = "an instance of one of prefuse.divergences"
        raise TypeError(f"divergence: expected {expected}, got {kind(divergence)}")
    check_logits(student, "student_logits")
    shape, device = student.shape[:-1], student.device
    # Labels say which tokens count, and nothing else.
    if labels is None:
        labels = torch.zeros(shape, dtype=torch.int64, device=device)
    else:
        ignored = checked_labels(labels, student) == integer("ignore_index", ignore_index)
        labels = torch.where(ignored, IGNORE, 0)
    teachers, (ids, entries), text = _teacher(teacher, student)
    for of in teachers:
        check_logits(of, "teacher_logits")
        same_device("teacher_logits", of, student)
        without_grad("teacher_logits", of)
        if of.shape[:-1] != student.shape[:-1]:
            expected, got = list(student.shape[:-1]), list(of.shape[:-1])
            raise ValueError(f"teacher_logits: expected shape {expected} + [vocab], got {got}")
    text = {"divergence": divergence.text(), "temperatures": list(temperatures), "teacher": text}
    entropies = 1 if isinstance(divergence, ExpectedAdvantage) else 2
    return labels, ids, entries, *_ops.described(text), entropies, teachers


def token_divergences(
    divergence: Divergence,
    student_logits: Tensor,
    teacher: Teacher,
    labels: Tensor | None = None,
    *,
    temperature: float = 1.0,
    teacher_temperature: float | None = None,
    ignore_index: int = IGNORE,
) -> Tensor:
    """Divergences of the student from the teacher by token, `[..]`, 0 where a token does not count.

    Differentiable by the student's logits under any gradient of the values: TDPO builds on them. Arguments as
    those of `distillation_loss`.
    """
    temperatures = _temperatures(temperature, teacher_temperature)
    labels, ids, entries, *text, _, teachers = _prepared(
        divergence, student_logits, teacher, labels, temperatures, ignore_index
    )
    values, *_ = _autograd.Divergence.apply(
        student_logits, labels, IGNORE, ids, entries, *text, 0, *teachers
    )
    return values


def _temperatures(student: float, teacher: float | None) -> list[float]:
    teacher = student if teacher is None else teacher
    return [finite("temperature", student), finite("teacher_temperature", teacher)]


def distillation_loss(
    divergence: Divergence,
    student_logits: Tensor,
    teacher: Teacher,
    labels: Tensor | None = None,
    *,
    weights: Tensor | None = None,
    cu_seqlens: Tensor | Sequence[int] | None = None,
    temperature: float = 1.0,
    teacher_temperature: float | None = None,
    squared_temperature: bool = False,
    reduction: str | float = "token_mean",
    ignore_index: int = IGNORE,
) -> Distilled:
    """A divergence of the student's distributions from the teacher's, with its gradient by the student's logits.

    Shapes: student_logits `[.., vocab]`, a teacher's logits the same but for the vocabulary: both distributions
    are over the columns that all have. On the CPU value and gradient come from the same visit.

    Args:
        divergence: One of `prefuse.divergences`.
        teacher: Logits, a `Combination`, an `AlignDistil` or a `SparseTeacher`, whose gradient is not computed.
        labels: `[..]`; they say which tokens count, all where there are none.
        weights: `[..]` factors of the tokens; a token of weight 0 does not count.
        cu_seqlens: For `"sequence_mean"` of `[tokens, vocab]` logits.
        temperature: Divides the student's logits, 1e-30 to 1e30.
        teacher_temperature: Divides the teacher's; the student's where it is `None`. A sparse teacher's log-probs
            are taken as they are.
        squared_temperature: Also the factor `temperature * teacher_temperature` (Hinton et al., 2015).
        reduction: `"token_mean"` (or `"mean"`) over the counted tokens, `"sequence_mean"` over sequences of means
            over their tokens, `"sum"`, or a number to divide the sum by.
        ignore_index: The label of tokens that do not count.

    Raises:
        ValueError: Shapes or parameters that do not fit, a sparse teacher's ids outside the vocabulary or twice,
            log-probs above 0.
        TypeError: Another type of a tensor's elements or of an argument.
    """
    temperatures = _temperatures(temperature, teacher_temperature)
    check_logits(student_logits, "student_logits")
    weights = by_token("weights", weights, student_logits, torch.float32)
    labels, ids, entries, *text, entropies, teachers = _prepared(
        divergence, student_logits, teacher, labels, temperatures, ignore_index
    )
    if weights is not None:
        if not torch.compiler.is_compiling() and not torch.isfinite(weights).all():
            raise ValueError("weights: expected finite numbers, got NaN or infinity")
        labels = labels.masked_fill(weights == 0, IGNORE)
    counted = labels != IGNORE
    factors = _factors(student_logits, counted, cu_seqlens, reduction)
    if weights is not None:
        factors = factors * weights
    if squared_temperature:
        factors = factors * (temperatures[0] * temperatures[1])
    loss, values, *of_entropies = _autograd.Distillation.apply(
        student_logits, labels, IGNORE, ids, entries, *text, entropies, factors, *teachers
    )
    teacher_entropy = of_entropies[1] if entropies == 2 else None
    return Distilled(loss, values, of_entropies[0], teacher_entropy)


def _factors(student: Tensor, counted: Tensor, cu_seqlens, reduction) -> Tensor:
    """What each token's divergence is multiplied by."""
    dtype = _ops.per_token(student)
    ones = counted.to(dtype)
    if not isinstance(reduction, str):
        divisor = finite("reduction", reduction)
        if not 1e-30 <= divisor <= 1e30:
            raise ValueError(f"reduction: expected a divisor from 1e-30 to 1e30, got {divisor}")
        return ones / divisor
    if reduction == "sum":
        return ones
    if reduction in ("token_mean", "mean"):
        return ones / counted.sum().clamp(min=1)
    if reduction != "sequence_mean":
        expected = "'token_mean', 'sequence_mean', 'sum' or a number"
        raise ValueError(f"reduction: expected {expected}, got {reduction!r}")
    ends = packing_of(student, cu_seqlens)[1:].to(student.device)
    places = torch.arange(counted.numel(), device=student.device)
    of_tokens = torch.bucketize(places, ends, right=True)
    flat = ones.reshape(-1)
    counts = torch.zeros(len(ends), dtype=dtype, device=student.device)
    counts.index_add_(0, of_tokens, flat)
    return (flat / (counts.clamp(min=1) * len(ends))[of_tokens]).view(counted.shape)
