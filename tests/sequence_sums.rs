//! Stage 2 and its backward, through the loss.

use prefuse::batch::{Batch, Labels, Packing, Weights};
use prefuse::objectives::{Nll, Reduction};
use prefuse::stages::{SequenceSums, Tokens, TotalsMut};
use prefuse::{Backend, Loss, Sequences, Term, Upstream};

use crate::backends::backends;
use crate::common::{Placed, forward, gradient, normal, rng};

struct Sums {
    sums: Vec<f64>,
    tokens: Vec<f64>,
    weights: Vec<f64>,
}

fn sums(
    backend: &dyn Backend,
    log_probs: &[f32],
    (ids, weights): (&[i64], Option<&[f32]>),
    packing: &Packing,
) -> Sums {
    let mut totals = [(); 3].map(|()| Placed::poisoned::<f64>(backend, packing.sequences()));
    let (log_probs, ids) = (Placed::new(backend, log_probs), Placed::new(backend, ids));
    let labels = Labels::from_slice(ids.slice()).unwrap();
    let factors = weights.map(|weights| Placed::new(backend, weights));
    let weights = factors.as_ref().map(|weights| Weights::from_slice(weights.slice()).unwrap());
    let (packing, tokens) =
        (packing.place(backend).unwrap(), Tokens::new(&labels, weights.as_ref()).unwrap());
    let [sums, counts, weights] = totals.each_mut().map(Placed::slice_mut);
    let outputs = TotalsMut { sums, tokens: counts, weights };
    let stage = SequenceSums::new(backend, log_probs.slice(), tokens, &packing, outputs).unwrap();
    backend.sequence_sums(stage).unwrap();
    let [sums, tokens, weights] = totals.map(|total| total.read());
    Sums { sums, tokens, weights }
}

/// Ignored and masked tokens count nowhere, whatever stands there; empty sequences sum to 0;
/// the count of tokens and the sum of their weights are separate.
#[test]
fn what_counts() {
    for backend in backends() {
        let log_probs = [-1.0_f32, -2.0, f32::NEG_INFINITY, f32::NAN, -4.0];
        let (ids, weights) = ([1, 1, -100, 1, 1], [1.0, -0.5, 1.0, 0.0, 3.0]);
        let packing = Packing::new(&[0_i32, 2, 2, 4, 5]).unwrap();
        let ours = sums(&*backend, &log_probs, (&ids, Some(&weights)), &packing);
        assert_eq!(ours.sums, [0.0, 0.0, 0.0, -12.0]);
        assert_eq!(ours.tokens, [2.0, 0.0, 0.0, 1.0]);
        assert_eq!(ours.weights, [0.5, 0.0, 0.0, 3.0]);
        let plain = sums(&*backend, &[-1.0, -2.0, 9.0, -3.0, -4.0], (&ids, None), &packing);
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
    let packing = Packing::new(&[0_i64, 8192, 8193, 200_000]).unwrap();
    for backend in backends() {
        let ours = sums(&*backend, &log_probs, (&ids, None), &packing);
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
        let forward = forward(&loss, &*backend, &data);
        let upstream = Upstream::Units(&[&[1.0, 5.0, 3.0]]);
        let grads = gradient(&loss, &*backend, &forward, &data, upstream);
        // -log p has gradient p - [v == label], p = 1/2.
        let expected = [-1.0, 1.0, 0.0, 0.0, 1.5, -1.5, 0.0, 0.0, -1.5, 1.5];
        approx::assert_relative_eq!(grads[..], expected[..], max_relative = 1e-6);
    }
}
