"""Numbers without gradient that losses take as constants, over lists; `docs/objectives.md` says what for."""

from ._core import (
    accuracy,
    aot_reference,
    consistency,
    expected_calibration_error,
    group_advantages,
    kendall_tau,
    kto_log_ratios,
    log_odds,
    log_odds_ratios,
    mask_dpo_weights,
    mm_dpo_beta_factors,
    preference_log_odds,
    shift_labels,
    strength_log_odds,
)

__all__ = [
    "accuracy",
    "aot_reference",
    "consistency",
    "expected_calibration_error",
    "group_advantages",
    "kendall_tau",
    "kto_log_ratios",
    "log_odds",
    "log_odds_ratios",
    "mask_dpo_weights",
    "mm_dpo_beta_factors",
    "preference_log_odds",
    "shift_labels",
    "strength_log_odds",
]
