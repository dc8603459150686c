//! Stage 3 over tokens: each sequence in token order, sequences side by side.

use rayon::prelude::*;

use crate::element::{DType, Element};
use crate::error::Result;
use crate::stages::{TokenObjective, TokenObjectiveGrads, TokenUnits, UnitScale};

pub(super) fn token_objective(mut stage: TokenObjective<'_>) -> Result<()> {
    let units = stage.units()?;
    let losses = stage.outputs.losses.host::<f64>()?;
    match (&mut stage.outputs.grads, units.inputs.log_probs.dtype()) {
        (None, _) => {
            let losses = losses.par_iter_mut().enumerate();
            losses.for_each(|(unit, loss)| *loss = units.evaluate(unit, 0.0, |_, _, _| ()));
            Ok(())
        }
        (Some((grads, scale)), DType::F64) => run::<f64>(units, losses, grads, *scale),
        (Some((grads, scale)), _) => run::<f32>(units, losses, grads, *scale),
    }
}

fn run<T: Element>(
    units: TokenUnits<'_>,
    losses: &mut [f64],
    grads: &mut TokenObjectiveGrads<'_>,
    scale: UnitScale<'_>,
) -> Result<()> {
    let tokens = units.count();
    let by_log_probs = sequences(&units, grads.log_probs.host::<T>()?);
    let by_entropy = match &mut grads.entropy {
        Some(entropy) => sequences(&units, entropy.host::<T>()?),
        None => by_log_probs.iter().map(|_| Default::default()).collect(),
    };
    let by_token = by_log_probs.into_par_iter().zip(by_entropy);
    losses.par_iter_mut().zip(by_token).enumerate().for_each(
        |(unit, (loss, (log_probs, entropy)))| {
            let start = units.packing.packing().range(units.term.member(unit, 0)).start;
            let scale = units.scale(scale, unit, tokens);
            let add = |to: &mut T, by: f64| *to = T::from_f64(to.to_f64() + by);
            *loss = units.evaluate(unit, scale, |token, by_log_prob, by_entropy| {
                add(&mut log_probs[token - start], by_log_prob);
                if let Some(to) = entropy.get_mut(token - start) {
                    add(to, by_entropy);
                }
            });
        },
    );
    Ok(())
}

/// The part of each unit's sequence; a term over tokens has no sequence twice.
fn sequences<'v, T>(units: &TokenUnits<'_>, mut values: &'v mut [T]) -> Vec<&'v mut [T]> {
    let packing = units.packing.packing();
    let mut parts: Vec<&'v mut [T]> = Vec::with_capacity(packing.sequences());
    for range in packing.ranges() {
        let (part, rest) = values.split_at_mut(range.len());
        parts.push(part);
        values = rest;
    }
    let of = |unit| std::mem::take(&mut parts[units.term.member(unit, 0)]);
    (0..units.term.units()).map(of).collect()
}
