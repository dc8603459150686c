//! Stage 2 and its backward, through the loss.

use prefuse::batch::{Batch, Labels, Logits, LogitsMut, Packing, Weights};
use prefuse::objectives::{Nll, Reduction};
use prefuse::stages::{SequenceSums, Tokens, TotalsMut};
use prefuse::{Backend, Loss, MaskedRows, Sequences, SliceMut, Term, Upstream};

use crate::common::{backends, normal, rng};

struct Sums {
    sums: Vec<f64>,
    tokens: Vec<f64>,
    weights: Vec<f64>,
}

fn sums(
    backend: &dyn Backend,
    log_probs: &[f32],
    (labels, weights): (&Labels<'_>, Option<&Weights<'_>>),
    packing: &Packing,
) -> Sums {
    let sequences = packing.sequences();
    let poison = || vec![f64::NAN; sequences];
    let mut ours = Sums { sums: poison(), tokens: poison(), weights: poison() };
    let totals = TotalsMut {
        sums: SliceMut::new(&mut ours.sums),
        tokens: SliceMut::new(&mut ours.tokens),
        weights: SliceMut::new(&mut ours.weights),
    };
    let tokens = Tokens::new(labels, weights).unwrap();
    let stage = SequenceSums::new(log_probs.into(), tokens, packing, totals).unwrap();
    backend.sequence_sums(stage).unwrap();
    ours
}

/// Ignored and masked tokens count nowhere, whatever stands there; empty sequences sum to 0;
/// the count of tokens and the sum of their weights are separate.
#[test]
fn what_counts() {
    for backend in backends() {
        let log_probs = [-1.0_f32, -2.0, f32::NEG_INFINITY, f32::NAN, -4.0];
        let labels = Labels::new(&[1, 1, -100, 1, 1][..]);
        let weights = Weights::new(vec![1.0, -0.5, 1.0, 0.0, 3.0]).unwrap();
        let packing = Packing::new(&[0_i32, 2, 2, 4, 5]).unwrap();
        let ours = sums(&*backend, &log_probs, (&labels, Some(&weights)), &packing);
        assert_eq!(ours.sums, [0.0, 0.0, 0.0, -12.0]);
        assert_eq!(ours.tokens, [2.0, 0.0, 0.0, 1.0]);
        assert_eq!(ours.weights, [0.5, 0.0, 0.0, 3.0]);
        let plain = sums(&*backend, &[-1.0, -2.0, 9.0, -3.0, -4.0], (&labels, None), &packing);
        assert_eq!(plain.sums, [-3.0, 0.0, -3.0, -4.0]);
        assert_eq!(plain.weights, [2.0, 0.0, 1.0, 1.0]);
    }
}

/// Within 1e-9 relative of a compensated sum of the same f32 numbers, at any length.
#[test]
fn sums_are_f64() {
    let mut rng = rng(1);
    let log_probs: Vec<f32> =
        (0..200_000).map(|_| -(normal(&mut rng) as f32).abs() * 3.0).collect();
    let ids = vec![0; log_probs.len()];
    let labels = Labels::new(&ids[..]);
    let packing = Packing::new(&[0_i64, 8192, 8193, 200_000]).unwrap();
    for backend in backends() {
        let ours = sums(&*backend, &log_probs, (&labels, None), &packing);
        for (sequence, got) in ours.sums.iter().enumerate() {
            let (mut sum, mut lost) = (0.0, 0.0);
            for &x in &log_probs[packing.get(sequence).unwrap()] {
                let y = f64::from(x) - lost;
                let next = sum + y;
                lost = (next - sum) - y;
                sum = next;
            }
            approx::assert_relative_eq!(*got, sum, max_relative = 1e-9);
        }
    }
}

/// Each token's gradient is its sequence's, times its weight.
#[test]
fn backwards() {
    for backend in backends() {
        let data = [0.0_f32; 10];
        let weights = Weights::new(vec![2.0, 1.0, -1.0, 0.0, 1.0]).unwrap();
        let packing = Packing::new(&[0_i32, 2, 2, 5]).unwrap();
        let batch = Batch::new(Labels::new(&[0, -100, 0, 0, 0][..]), packing).unwrap();
        let batch = batch.with_weights(weights).unwrap();
        let term = Term::sequences(Nll::new(), Sequences::All).with_reduction(Reduction::Sum);
        let loss = Loss::new(batch, [term]).unwrap();
        let logits = Logits::new(&data, 5, 2).unwrap();
        let forward = loss.forward(&*backend, logits).unwrap();
        let mut grads = [f32::NAN; 10];
        let target = LogitsMut::new(&mut grads, 5, 2).unwrap();
        let upstream = Upstream::Units(&[&[1.0, 5.0, 3.0]]);
        loss.logit_grads(&*backend, &forward, (logits, target), upstream, MaskedRows::Zero)
            .unwrap();
        // -log p has gradient p - [v == label], p = 1/2.
        let expected = [-1.0, 1.0, 0.0, 0.0, 1.5, -1.5, 0.0, 0.0, -1.5, 1.5];
        approx::assert_relative_eq!(grads[..], expected[..], max_relative = 1e-6);
    }
}
