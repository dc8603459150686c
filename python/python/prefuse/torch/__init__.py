"""The losses on PyTorch tensors: CPU tensors on the CPU, CUDA tensors on their device and current stream.

Logits are f32, f16 or bf16 (f64 on the CPU, for `gradcheck`), of any leading shape, and are not copied; rows
have adjacent elements and lie at multiples of one distance, as those of `logits[:, :-1]` do. Log-probs, losses
and entropies are f32 (f64 for f64), natural logarithms. Labels are int64, `ignore_index` where a token does not
count.

A label outside the vocabulary raises `ValueError`; on CUDA it does so at the next call, or in `check()`.
"""

from __future__ import annotations

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError("prefuse.torch needs PyTorch: pip install 'prefuse[torch]'") from error

from ._device import check
from ._distillation import (
    AlignDistil,
    Combination,
    Distilled,
    SparseTeacher,
    distillation_loss,
    token_divergences,
)
from ._log_probs import (
    entropies,
    mask_dpo_weights,
    sequence_log_probs,
    shift_labels,
    token_log_probs,
)
from ._losses import (
    LossOutput,
    objective_loss,
    policy_loss,
    preference_loss,
    ranking_loss,
    reward_loss,
)

__all__ = [
    "AlignDistil",
    "Combination",
    "Distilled",
    "LossOutput",
    "SparseTeacher",
    "check",
    "distillation_loss",
    "entropies",
    "mask_dpo_weights",
    "objective_loss",
    "policy_loss",
    "preference_loss",
    "ranking_loss",
    "reward_loss",
    "sequence_log_probs",
    "shift_labels",
    "token_divergences",
    "token_log_probs",
]
