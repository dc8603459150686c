//! Stage 3 over tokens: the launch of `kernels/token_objective.cu`. An objective that is not compiled
//! there is evaluated on the host, which waits for the log-probs and hands the results back.

use super::context::Context;
use super::objective::Compiled;
use super::tokens::Tokens;
use super::{address, launch, upstream};
use crate::element::DType;
use crate::error::Result;
use crate::memory::Slice;
use crate::objectives::Reduction;
use crate::placed::{PlacedPacking, Tables};
use crate::resolved::Resolved;
use crate::stages::{self, TokenAdvantages, TokenInputs, TokenObjective, TokenUnits, UnitScale};

/// Twin of `Floats` in kernels/include/token_terms.cuh.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Floats {
    values: u64,
    is_double: i64,
}

impl Floats {
    pub fn of(values: Option<Slice<'_>>) -> Self {
        values.map_or(Self::default(), |values| Self {
            values: values.address(),
            is_double: i64::from(values.dtype() == DType::F64),
        })
    }
}

/// Twin of `UnitScale` in kernels/include/token_terms.cuh.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Scale {
    divisor: f64,
    scale: f64,
    upstream: u64,
}

impl Scale {
    /// Of a term over tokens; without a scale for no gradient.
    fn of(term: &Resolved, scale: Option<UnitScale<'_>>) -> Self {
        let (all, upstream) = upstream(scale);
        Self {
            divisor: match term.reduction() {
                Reduction::Mean | Reduction::TokenMean => 0.0,
                Reduction::SequenceMean => -1.0,
                _ => term.divisor(0.0),
            },
            scale: all * term.weight(),
            upstream,
        }
    }
}

/// Twin of the same in kernels/include/token_terms.cuh.
#[repr(C)]
#[derive(Debug)]
pub(super) struct TermUnits {
    members: u64,
    units: i64,
    tokens: Tokens,
    offsets: u64,
    counts: u64,
    advantages: Floats,
    by_token: i64,
    weight: u64,
    scale: Scale,
}

impl TermUnits {
    /// Of a term over tokens; without a scale for no gradient.
    pub fn new(
        (term, tables): (&Resolved, &Tables),
        (tokens, packing, counts): (stages::Tokens<'_>, &PlacedPacking, Slice<'_>),
        advantages: Option<TokenAdvantages<'_>>,
        scale: Option<UnitScale<'_>>,
    ) -> Self {
        let (advantages, by_token) = match advantages {
            Some(TokenAdvantages::Sequences(values)) => (Some(values), 0),
            Some(TokenAdvantages::Tokens(values)) => (Some(values), 1),
            None => (None, 0),
        };
        Self {
            members: tables.members.slice().address(),
            units: term.units() as i64,
            tokens: Tokens::of(tokens),
            offsets: packing.offsets().address(),
            counts: counts.address(),
            advantages: Floats::of(advantages),
            by_token,
            weight: tables.inputs[3].as_ref().map_or(0, |weight| weight.slice().address()),
            scale: Scale::of(term, scale),
        }
    }
}

/// Twin of `TokenObjectiveArguments` in the kernel.
#[repr(C)]
#[derive(Debug)]
struct Arguments {
    term: TermUnits,
    log_probs: u64,
    old: Floats,
    reference: Floats,
    entropy: u64,
    bound: f64,
    losses: u64,
    grads: u64,
    entropy_grads: u64,
    error: u64,
}

pub(super) fn token_objective(context: &Context, mut stage: TokenObjective<'_>) -> Result<()> {
    let Some(tables) = stage.term.tables() else {
        unreachable!("a term placed on a device has tables")
    };
    if stage.term.term().units() == 0 {
        // A grid has at least a block.
        return Ok(());
    }
    let Some(compiled) = stage.term.term().objective().and_then(Compiled::of) else {
        return evaluate_on_host(&mut stage);
    };
    let _turn = context.turn();
    run(context, &stage, tables, compiled)
}

fn run(
    context: &Context,
    stage: &TokenObjective<'_>,
    tables: &Tables,
    compiled: Compiled,
) -> Result<()> {
    let (term, inputs) = (stage.term.term(), stage.inputs);
    let used = term.inputs_used();
    let grads = stage.outputs.grads.as_ref();
    let arguments = Arguments {
        term: TermUnits::new(
            (term, tables),
            (stage.tokens, stage.packing, stage.counts),
            inputs.advantages,
            grads.map(|(_, scale)| *scale),
        ),
        log_probs: inputs.log_probs.address(),
        old: Floats::of(inputs.old),
        reference: Floats::of(inputs.reference.filter(|_| used.reference)),
        entropy: inputs.entropy.filter(|_| used.entropy).map_or(0, Slice::address),
        bound: term.log_ratio_bound(),
        losses: address(&stage.outputs.losses),
        grads: grads.map_or(0, |(grads, _)| address(&grads.log_probs)),
        entropy_grads: grads.and_then(|(grads, _)| grads.entropy.as_ref()).map_or(0, address),
        error: context.slot()[0],
    };
    let shape = launch::token_objective(term.units());
    // SAFETY: the kernel takes these arguments; the stage's constructor checked that the term is over
    // tokens and every length, and the members are those of the batch.
    unsafe { compiled.start::<_, ()>(context, shape, &arguments, None) }
}

/// Waits for the inputs, and writes losses and gradients as the kernel would.
fn evaluate_on_host(stage: &mut TokenObjective<'_>) -> Result<()> {
    let floats = |values: Slice<'_>| values.to_vec();
    let read = |values: Option<Slice<'_>>| values.map(floats).transpose();
    let inputs = stage.inputs;
    let log_probs = floats(inputs.log_probs)?;
    let [old, reference, entropy] =
        [read(inputs.old)?, read(inputs.reference)?, read(inputs.entropy)?];
    let (by_token, advantages) = match inputs.advantages {
        Some(TokenAdvantages::Sequences(values)) => (false, Some(floats(values)?)),
        Some(TokenAdvantages::Tokens(values)) => (true, Some(floats(values)?)),
        None => (false, None),
    };
    let counts: Vec<f64> = stage.counts.read()?;
    let labels: Vec<i64> = stage.tokens.labels.read()?;
    let weights: Option<Vec<f32>> = stage.tokens.weights.map(Slice::read).transpose()?;
    let tokens = stages::Tokens {
        labels: Slice::new(&labels),
        ignore: stage.tokens.ignore,
        weights: weights.as_deref().map(Slice::new),
    };
    fn slice(values: &Option<Vec<f64>>) -> Option<Slice<'_>> {
        values.as_deref().map(Slice::new)
    }
    let advantages = slice(&advantages).map(|values| match by_token {
        true => TokenAdvantages::Tokens(values),
        false => TokenAdvantages::Sequences(values),
    });
    let units = TokenUnits {
        term: stage.term.term(),
        tokens: tokens.host()?,
        packing: stage.packing,
        counts: Slice::new(&counts),
        inputs: TokenInputs {
            log_probs: Slice::new(&log_probs),
            old: slice(&old),
            reference: slice(&reference),
            entropy: slice(&entropy),
            advantages,
        },
    };
    let all = units.count();
    let mut losses = Vec::with_capacity(units.term.units());
    match &mut stage.outputs.grads {
        None => losses.extend(
            (0..units.term.units()).map(|unit| units.evaluate(unit, 0.0, &mut |_, _, _| ())),
        ),
        Some((grads, scale)) => {
            let mut by_log_prob: Vec<f32> = grads.log_probs.as_slice().read()?;
            let mut by_entropy: Option<Vec<f32>> =
                grads.entropy.as_ref().map(|grads| grads.as_slice().read()).transpose()?;
            let given = match scale {
                UnitScale::Given(upstream) => Some(upstream.read::<f64>()?),
                UnitScale::Reduced(_) => None,
            };
            let scale =
                given.as_deref().map_or(*scale, |given| UnitScale::Given(Slice::new(given)));
            let add = |to: &mut f32, by: f64| *to = (f64::from(*to) + by) as f32;
            for unit in 0..units.term.units() {
                let scale = units.scale(scale, unit, all);
                losses.push(units.evaluate(unit, scale, &mut |token, log_prob, entropy| {
                    add(&mut by_log_prob[token], log_prob);
                    if let Some(grads) = &mut by_entropy {
                        add(&mut grads[token], entropy);
                    }
                }));
            }
            grads.log_probs.copy_from(Slice::new(&by_log_prob))?;
            if let (Some(to), Some(from)) = (&mut grads.entropy, &by_entropy) {
                to.copy_from(Slice::new(from))?;
            }
        }
    }
    stage.outputs.losses.copy_from(Slice::new(&losses))
}
