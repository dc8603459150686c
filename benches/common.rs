//! Inputs of the benches: random logits, and the sizes that they run at. No bench uses all of it.
#![allow(dead_code)]

use prefuse::Element;
use prefuse::batch::Labels;
use prefuse::objectives::AnyObjective;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// Qwen 2's vocabulary.
pub const VOCAB: usize = 151_936;

/// Logits with the spread of a trained model's, about normal with deviation 3.
pub fn logits<T: Element>(tokens: usize, vocab: usize) -> Vec<T> {
    let mut rng = SmallRng::seed_from_u64(0);
    let mut uniform = || rng.random::<f32>() + rng.random::<f32>() + rng.random::<f32>() - 1.5;
    (0..tokens * vocab).map(|_| T::from_f64(f64::from(6.0 * uniform()))).collect()
}

/// A label for each token; every second one ignored if `half_masked`.
pub fn ids(tokens: usize, vocab: usize, half_masked: bool) -> Vec<i64> {
    let label = |token: usize| ((token * 7919) % vocab) as i64;
    let ignored = |token: usize| half_masked && token % 2 == 1;
    (0..tokens).map(|t| if ignored(t) { Labels::IGNORE } else { label(t) }).collect()
}

/// The same as labels.
pub fn labels(tokens: usize, vocab: usize, half_masked: bool) -> Labels<'static> {
    Labels::new(ids(tokens, vocab, half_masked))
}

/// Calls `bench::<T>(criterion, tokens, vocab)` for each type of the CPU backend, and with few rows and with
/// short ones.
#[macro_export]
macro_rules! each_shape {
    ($bench:ident, $criterion:expr) => {
        $bench::<f32>($criterion, 256, $crate::common::VOCAB);
        $bench::<half::f16>($criterion, 256, $crate::common::VOCAB);
        $bench::<half::bf16>($criterion, 256, $crate::common::VOCAB);
        $bench::<half::bf16>($criterion, 8, $crate::common::VOCAB);
        $bench::<half::bf16>($criterion, 16_384, 1000);
    };
}

/// An objective's name and parameters.
pub fn name(objective: &AnyObjective) -> String {
    let parameters = objective.parameters().into_iter();
    parameters
        .fold(objective.name().to_owned(), |name, (key, value)| format!("{name} {key} {value}"))
}
