//! The tests of the crate that a backend takes part in, over emulated CUDA devices: the same bodies.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../../../alignment.rs"]
mod alignment;
mod backends;
#[path = "../../../bad_call.rs"]
mod bad_call;
#[path = "../../../bad_stage.rs"]
mod bad_stage;
#[path = "../../../common.rs"]
mod common;
#[path = "../../../device_errors.rs"]
mod device_errors;
#[path = "../../../distillation.rs"]
mod distillation;
#[path = "../../../divergence.rs"]
mod divergence;
#[path = "../../../golden/mod.rs"]
mod golden;
#[path = "../../../large_offsets.rs"]
mod large_offsets;
mod launches;
#[path = "../../../log_probs.rs"]
mod log_probs;
#[path = "../../../logit_grads.rs"]
mod logit_grads;
#[path = "../../../mask_dpo.rs"]
mod mask_dpo;
#[path = "../../../mixed_log_probs.rs"]
mod mixed_log_probs;
#[path = "../../../mixed_logit_grads.rs"]
mod mixed_logit_grads;
#[path = "../../../objective.rs"]
mod objective;
#[path = "../../../own_objectives.rs"]
mod own_objectives;
#[path = "../../../properties.rs"]
mod properties;
#[path = "../../../ranking.rs"]
mod ranking;
#[path = "../../../ranking_on_rewards.rs"]
mod ranking_on_rewards;
#[path = "../../../sequence_sums.rs"]
mod sequence_sums;
#[path = "../../../sparse_divergence.rs"]
mod sparse_divergence;
#[path = "../../../terms.rs"]
mod terms;
#[path = "../../../token_loss.rs"]
mod token_loss;
#[path = "../../../token_metrics.rs"]
mod token_metrics;
#[path = "../../../token_objective.rs"]
mod token_objective;
#[path = "../../../units.rs"]
mod units;
