//! Numbers computed from log-probs, rewards or scores without gradient, which a loss then takes as
//! constants: weights, labels, betas, margins, scores, baselines, reference sums, pairs.
//!
//! | for | functions | the numbers go to |
//! |---|---|---|
//! | KTO | [`kto_log_ratios`], [`kto_baseline`] | [`Kto::with_baseline`](crate::objectives::Kto::with_baseline) |
//! | BCO | [`Moments`] | [`BcoPair::with_shift`](crate::objectives::BcoPair::with_shift), [`PointwiseLogistic::with_shift`](crate::objectives::PointwiseLogistic::with_shift) |
//! | MM-DPO | [`mm_dpo_beta_factors`] | [`Pairs::with_beta`](crate::batch::Pairs::with_beta) |
//! | MM-DPO's released code | [`mm_dpo_batch_beta`] | [`Dpo::new`](crate::objectives::Dpo::new) |
//! | LCPO / RE-PO | [`Reliability`], [`posteriors`] | [`Pairs::with_soft_label`](crate::batch::Pairs::with_soft_label) |
//! | CREAM | [`kendall_tau`], [`consistency`] | [`Pairs::with_soft_label`](crate::batch::Pairs::with_soft_label) |
//! | SPA / Selfie | [`ConfidenceThreshold`] | [`Pairs::with_soft_label`](crate::batch::Pairs::with_soft_label) |
//! | SPPO | [`win_rates`], [`best_and_worst`] | [`Batch::with_scores`](crate::batch::Batch::with_scores), [`Pairs::new`](crate::batch::Pairs::new) |
//! | iREPO | [`preference_log_odds`], [`strength_log_odds`] | [`Pairs::with_margin`](crate::batch::Pairs::with_margin) |
//! | InfiFPO | [`fuse_references`] | [`Batch::with_scores`](crate::batch::Batch::with_scores) |
//! | AOT | [`aot_reference`], [`aot_unpaired`] | [`ReferenceLogProbs::per_sequence`](crate::batch::ReferenceLogProbs::per_sequence), [`Batch::with_pairs`](crate::batch::Batch::with_pairs) |
//! | WPO | [`wpo_weights`], [`wpo_pair_weights`] | [`Pairs::with_weight`](crate::batch::Pairs::with_weight) |
//! | LD-DPO, TGDPO / SAIL, Nash-MD | [`ld_dpo_weights`], [`TgDpo`], [`nash_md_weights`] | [`Batch::with_weights`](crate::batch::Batch::with_weights) |
//! | NextQuill | [`NextQuill`] | [`Batch::with_weights`](crate::batch::Batch::with_weights), [`Reduction::Divisor`](crate::objectives::Reduction::Divisor) |
//! | CRM, MPO | [`keep_largest`], [`easy_pairs`] | [`Term::with_pairs`](crate::Term::with_pairs) |
//! | AlignXplore | [`probability_sums`], [`align_xplore_rewards`] | rewards of a policy gradient |
//! | ORPO | [`log_odds`], [`log_odds_ratios`] | logs |
//! | DPORM, MORE | [`accuracy`], [`expected_calibration_error`] | logs |
//!
//! Where statistic and loss need the same log-probs, one visit of the logits is enough:
//! [`token_log_probs`](crate::token_log_probs), then the statistic, then
//! [`Loss::evaluate`](crate::Loss::evaluate).
//!
//! Arithmetic is f64, on slices in host memory. A token counts if its label is not ignored and its
//! weight is not 0; values at other tokens are not read. Log-probs of tokens are data: one that is NaN
//! reaches its own sequence's number, and where it would become a weight it is an error. Rewards,
//! scores, margins and labels that are NaN are errors. Each item says its source; "reconstructed" means
//! that the formula comes from an abstract or from others' descriptions.

mod align_xplore;
mod aot;
mod bco;
mod calibration;
mod cream;
mod infi_fpo;
mod irepo;
mod kto;
mod ld_dpo;
mod mm_dpo;
mod nash_md;
mod next_quill;
mod orpo;
mod re_po;
mod selection;
mod spa;
mod sppo;
mod tgdpo;
mod tokens;
mod wpo;

pub use align_xplore::{ALIGN_XPLORE_THRESHOLD, align_xplore_rewards, probability_sums};
pub use aot::{aot_reference, aot_unpaired};
pub use bco::Moments;
pub use calibration::{accuracy, expected_calibration_error};
pub use cream::{consistency, kendall_tau};
pub use infi_fpo::{Fusion, fuse_references};
pub use irepo::{preference_log_odds, strength_log_odds};
pub use kto::{EmptySequences, kto_baseline, kto_log_ratios};
pub use ld_dpo::ld_dpo_weights;
pub use mm_dpo::{mm_dpo_batch_beta, mm_dpo_beta_factors};
pub use nash_md::nash_md_weights;
pub use next_quill::NextQuill;
pub use orpo::{log_odds, log_odds_ratios};
pub use re_po::{Reliability, posteriors};
pub use selection::{easy_pairs, keep_largest};
pub use spa::ConfidenceThreshold;
pub use sppo::{best_and_worst, win_rates};
pub use tgdpo::TgDpo;
pub use wpo::{WpoClamp, wpo_pair_weights, wpo_weights};

use std::cmp::Ordering;

use crate::error::{Error, Result};
use crate::objectives::Domain;

const NUMBER: Domain = Domain { expected: "a number", contains: |value| !value.is_nan() };

/// # Errors
/// An option outside its domain.
fn check_option(what: &'static str, got: f64, domain: Domain) -> Result<()> {
    if (domain.contains)(got) {
        Ok(())
    } else {
        Err(Error::Scalar { what, expected: domain.expected, got })
    }
}

/// # Errors
/// Fewer than `expected`.
fn at_least(what: &'static str, expected: usize, got: usize) -> Result<()> {
    if got >= expected { Ok(()) } else { Err(Error::TooFew { what, expected, got }) }
}

/// Numbers in order, equal ones by position.
fn compare(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or(Ordering::Equal)
}

/// Indices of numbers that are not NaN, smallest first, equal ones by position.
fn ascending(values: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| compare(values[a], values[b]));
    order
}
