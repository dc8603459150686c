//! One test body for each stage and property, over every backend, element type and vocabulary.
#![allow(missing_docs, clippy::unwrap_used)]

mod bad_input;
mod bad_stage;
mod common;
mod golden;
mod layout;
mod log_probs;
mod logit_grads;
mod mask_dpo;
mod objective;
mod objective_source;
mod properties;
mod sequence_sums;
