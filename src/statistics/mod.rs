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
//! | GRPO, Dr. GRPO, RLOO, GRPO-S, ReSpace | [`GroupAdvantages`], [`prompt_scaled`], [`without_neutral`] | [`Advantages::per_sequence`](crate::batch::Advantages::per_sequence) |
//! | P3O | [`P3oAdvantages`] | [`Advantages::per_sequence`](crate::batch::Advantages::per_sequence), [`Batch::with_pairs`](crate::batch::Batch::with_pairs) |
//! | levels of a ranking | [`ranks`] | [`Groups::pairs`](crate::batch::Groups::pairs), [`Batch::with_scores`](crate::batch::Batch::with_scores) |
//! | CRM, MPO | [`keep_largest`], [`easy_pairs`] | [`Term::with_pairs`](crate::Term::with_pairs) |
//! | policy gradients | [`mask_low_entropy`], [`mask_off_policy`] | [`Batch::with_advantages`](crate::batch::Batch::with_advantages) |
//! | AlignXplore | [`probability_sums`], [`align_xplore_rewards`] | rewards of a policy gradient |
//! | ORPO | [`log_odds`], [`log_odds_ratios`] | logs |
//! | DPORM, MORE | [`accuracy`], [`expected_calibration_error`] | logs |
//!
//! Where statistic and loss need the same log-probs, one visit of the logits is enough:
//! [`token_log_probs`](crate::token_log_probs), then the statistic, then
//! [`Loss::evaluate`](crate::Loss::evaluate). What KTO, BCO, AOT and MM-DPO take by sequence is
//! [`TokenLogProbs::sums`](crate::TokenLogProbs::sums).
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
mod entropy_quantile;
mod group_advantages;
mod infi_fpo;
mod irepo;
mod kto;
mod ld_dpo;
mod mm_dpo;
mod nash_md;
mod next_quill;
mod off_policy;
mod orpo;
mod p3o;
mod ranks;
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
pub use entropy_quantile::mask_low_entropy;
pub use group_advantages::{
    Baseline, GroupAdvantages, Singleton, Spread, prompt_scaled, without_neutral,
};
pub use infi_fpo::{Fusion, fuse_references};
pub use irepo::{preference_log_odds, strength_log_odds};
pub use kto::{EmptySequences, kto_baseline, kto_log_ratios};
pub use ld_dpo::ld_dpo_weights;
pub use mm_dpo::{mm_dpo_batch_beta, mm_dpo_beta_factors};
pub use nash_md::nash_md_weights;
pub use next_quill::NextQuill;
pub use off_policy::mask_off_policy;
pub use orpo::{log_odds, log_odds_ratios};
pub use p3o::P3oAdvantages;
pub use ranks::{Ties, ranks};
pub use re_po::{Reliability, posteriors};
pub use selection::{easy_pairs, keep_largest};
pub use spa::ConfidenceThreshold;
pub use sppo::{best_and_worst, win_rates};
pub use tgdpo::TgDpo;
pub use wpo::{WpoClamp, wpo_pair_weights, wpo_weights};

use std::cmp::Ordering;

use crate::batch::Pairs;
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

/// # Errors
/// A pair beyond the sequences, or a sequence in two pairs.
fn check_separate(pairs: &Pairs<'_>, sequences: usize) -> Result<()> {
    pairs.check(sequences)?;
    let mut pair_of = vec![None; sequences];
    for (pair, &(chosen, rejected)) in pairs.indices().iter().enumerate() {
        for sequence in [chosen, rejected] {
            if let Some(first) = pair_of[sequence].replace(pair) {
                let what = "pair";
                return Err(Error::Conflict { what, sequence, first, second: pair });
            }
        }
    }
    Ok(())
}

/// # Errors
/// Something given for the pairs, which would be lost with their order.
fn check_neutral(pairs: &Pairs<'_>, objective: &'static str) -> Result<()> {
    let given = pairs.inputs().into_iter();
    let neutral = [("beta", 1.0), ("margin", 0.0), ("soft label", 1.0), ("weight", 1.0)];
    for (values, (input, neutral)) in given.zip(neutral) {
        let other = values.unwrap_or_default().iter().enumerate().find(|(_, got)| **got != neutral);
        if let Some((pair, &got)) = other {
            return Err(Error::UnusedInput { objective, input, pair, neutral, got });
        }
    }
    match pairs.verdicts() {
        Some(_) => Err(Error::Unused { what: "verdicts" }),
        None => Ok(()),
    }
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
