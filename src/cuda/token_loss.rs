//! Stages 1, 3 and 4 in one visit: the launches of `kernels/token_loss.cu`. What it does not take, an
//! objective that is not compiled there among it, goes through the stages.

use std::sync::LazyLock;

use super::context::Context;
use super::objective::Compiled;
use super::token_objective::{Floats, TermUnits};
use super::tokens::{self, Tokens};
use super::{Cuda, LaunchShape, address, kernel, launch, log_probs, start};
use crate::error::Result;
use crate::objectives::cuda_token_objectives;
use crate::placed::{PlacedTerm, Tables};
use crate::reference::token_loss as composed;
use crate::stages::{MaskedRows, TokenLoss};

/// Twins of the constants in the kernel.
const MAX_TERMS: usize = 8;
const MAX_PARAMETERS: usize = 8;

/// Rows of the gradient begin on boundaries of so many bytes.
const BOUNDARY: usize = 16;

/// Twin of `TermArguments` in the kernel.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct TermArguments {
    objective: i64,
    parameters: [f64; MAX_PARAMETERS],
    factors: u64,
}

/// Twin of `TokenLossArguments` in the kernel.
#[repr(C)]
#[derive(Debug)]
struct Arguments {
    rows: log_probs::Arguments,
    grads: u64,
    grads_stride: i64,
    by_log_prob: u64,
    by_entropy: u64,
    old: Floats,
    reference: Floats,
    advantages: u64,
    inverse_temperature: f32,
    keep_masked: i32,
    terms: i64,
    term: [TermArguments; MAX_TERMS],
}

/// The kernel asserts the same.
const _: () = assert!(size_of::<TermArguments>() == 80 && size_of::<Arguments>() == 864);

/// Twin of `TokenFactorsArguments` in the kernel.
#[repr(C)]
#[derive(Debug)]
struct FactorsArguments {
    term: TermUnits,
    factors: u64,
    token_advantages: u64,
    error: u64,
}

/// f64 numbers: the factors of each term's tokens, and the advantages.
pub(super) fn scratch(tokens: usize, terms: usize) -> usize {
    tokens.saturating_mul(terms.saturating_add(1))
}

pub(super) fn token_loss(cuda: &Cuda, stage: TokenLoss<'_>) -> Result<()> {
    let Some(visit) = Visit::of(&cuda.context, &stage) else {
        return composed::token_loss(cuda, stage);
    };
    let _turn = cuda.context.turn();
    visit.run(&cuda.context, &stage)
}

/// A visit that the kernel can make.
struct Visit<'a> {
    shape: LaunchShape,
    terms: Vec<(TermArguments, &'a Tables)>,
}

impl<'a> Visit<'a> {
    fn of(context: &Context, stage: &'a TokenLoss<'_>) -> Option<Self> {
        let (logits, grads) = stage.target.views();
        let (device, dtype, size) = (context.driver().device(), logits.dtype(), logits.shape());
        let on_boundary = |bytes: usize| bytes.is_multiple_of(BOUNDARY);
        let rows_on_boundaries = on_boundary(grads.data().address() as usize)
            && (size.tokens == 1 || on_boundary(grads.shape().stride.wrapping_mul(dtype.size())));
        if !rows_on_boundaries || stage.terms.len() > MAX_TERMS {
            return None;
        }
        let shape = launch::token_loss(device, dtype, size.tokens, size.vocab)?;
        let terms = stage.terms.iter().map(Self::term).collect::<Option<_>>()?;
        Some(Self { shape, terms })
    }

    fn term(placed: &'a PlacedTerm) -> Option<(TermArguments, &'a Tables)> {
        static PLACES: LazyLock<Vec<&str>> = LazyLock::new(cuda_token_objectives);
        let (objective, tables) = (placed.term().objective()?, placed.tables()?);
        let given = Compiled::of(objective)?.parameters();
        let objective = PLACES.iter().position(|&name| name == objective.name())? as i64;
        let mut parameters = [0.0; MAX_PARAMETERS];
        parameters.get_mut(..given.len())?.copy_from_slice(&given);
        Some((TermArguments { objective, parameters, factors: 0 }, tables))
    }

    fn run(mut self, context: &Context, stage: &TokenLoss<'_>) -> Result<()> {
        let (logits, grads) = stage.target.views();
        let count = logits.tokens();
        let (rows, by) = (&stage.outputs.rows, &stage.outputs.grads);
        let numbers = |index: usize| address(&stage.scratch) + (index * count * 8) as u64;
        let advantages = numbers(self.terms.len());
        let tokens = Tokens::of(stage.tokens);
        tokens::check(context, tokens, logits.vocab())?;
        let zeroed = scratch(count, self.terms.len()) * 8;
        // SAFETY: the stage's constructor checked that the scratch has room for them.
        unsafe { context.driver().zero(numbers(0), zeroed) }?;
        for (index, (term, tables)) in self.terms.iter_mut().enumerate() {
            term.factors = numbers(index);
            let resolved = stage.terms[index].term();
            if resolved.units() == 0 {
                continue;
            }
            let arguments = FactorsArguments {
                term: TermUnits::new(
                    (resolved, tables),
                    (stage.tokens, stage.packing, stage.counts),
                    stage.sampled.advantages,
                    Some(stage.scales[index]),
                ),
                factors: term.factors,
                token_advantages: advantages,
                error: context.slot()[0],
            };
            let shape = launch::token_objective(resolved.units());
            // SAFETY: the kernel takes these arguments; the stage's constructor checked every length,
            // and the members are those of the batch.
            unsafe { start(context, "token_factors", shape, &arguments, None) }?;
        }
        let mut term = [TermArguments::default(); MAX_TERMS];
        for (to, (from, _)) in term.iter_mut().zip(&self.terms) {
            *to = *from;
        }
        let by_entropy = by.entropy.as_ref().map_or(0, address);
        let arguments = Arguments {
            rows: log_probs::arguments(
                context,
                (logits, stage.tokens),
                (stage.temperature, rows),
                0,
            ),
            grads: grads.data().address(),
            grads_stride: grads.shape().stride as i64,
            by_log_prob: address(&by.log_probs),
            by_entropy,
            old: Floats::of(stage.sampled.old),
            reference: Floats::of(stage.sampled.reference),
            advantages,
            inverse_temperature: (1.0 / stage.temperature) as f32,
            keep_masked: i32::from(stage.masked == MaskedRows::AlreadyZero),
            terms: self.terms.len() as i64,
            term,
        };
        let moments = rows.entropy.is_some() || rows.log_sum_squares.is_some();
        let extra = match (moments, by_entropy != 0) {
            (_, true) => "_entropy",
            (true, false) => "_moments",
            (false, false) => "",
        };
        let name = kernel("token_loss", "cluster", logits.dtype(), extra);
        // SAFETY: the kernel takes these arguments; the stage's constructor checked every length, the
        // terms are over these tokens, and their parameters are those that the kernel was compiled with.
        unsafe { start(context, &name, self.shape, &arguments, None) }
    }
}
