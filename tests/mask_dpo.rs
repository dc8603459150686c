//! Mask-DPO: which tokens count, and what becomes of empty masks.

use prefuse::batch::{
    Batch, Labels, Packing, Pairs, ReferenceLogProbs, Sentence, Unlabelled, Weights, shift_labels,
};
use prefuse::objectives::Dpo;
use prefuse::{Backend, Loss, Term, Upstream};

use crate::backends::composed_backends;
use crate::common::{forward, gradient, logits};

fn packing() -> Packing {
    Packing::new(&[0_i32, 6, 12]).unwrap()
}

fn sentences() -> [Sentence; 4] {
    [
        Sentence::new(0, 0..2, true),
        Sentence::new(0, 2..5, false),
        Sentence::new(1, 0..3, true),
        Sentence::new(1, 3..5, false),
    ]
}

/// True sentences count in the chosen answer, false ones in the rejected answer, and what stands
/// in no sentence on both sides, or on none.
#[test]
fn weights_follow_roles() {
    let pairs = Pairs::halves(1).unwrap();
    let weights = |unlabelled| {
        Weights::mask_dpo(&packing(), &pairs, &sentences(), unlabelled)
            .unwrap()
            .host()
            .unwrap()
            .to_vec()
    };
    let keep = [1., 1., 0., 0., 0., 1., 0., 0., 0., 1., 1., 1.];
    assert_eq!(weights(Unlabelled::Keep), keep);
    let drop = [1., 1., 0., 0., 0., 0., 0., 0., 0., 1., 1., 0.];
    assert_eq!(weights(Unlabelled::Drop), drop);

    let swapped = Pairs::new(vec![(1, 0)]).unwrap();
    let swapped = Weights::mask_dpo(&packing(), &swapped, &sentences(), Unlabelled::Keep).unwrap();
    assert_eq!(swapped.host().unwrap(), [0., 0., 1., 1., 1., 1., 1., 1., 1., 0., 0., 1.]);
}

/// A sentence given by its ids covers the labels that are those ids; nothing predicts the first id.
#[test]
fn sentences_shift_with_the_labels() {
    let ids: Vec<i64> = (10..22).collect();
    let labels = shift_labels(&ids, &packing(), -100).unwrap();
    let pairs = Pairs::halves(1).unwrap();
    let masked = |start: usize, end: usize| -> Vec<i64> {
        let sentence = [Sentence::from_ids(1, start..end, true)];
        let weights = Weights::mask_dpo(&packing(), &pairs, &sentence, Unlabelled::Keep).unwrap();
        let masked =
            weights.host().unwrap().iter().zip(&labels).filter(|(weight, _)| **weight == 0.0);
        masked.map(|(_, &label)| label).collect()
    };
    assert_eq!(masked(2, 4), ids[8..10]);
    assert_eq!(masked(0, 2), ids[7..8]);
    assert_eq!(masked(0, 1), [0_i64; 0]);
    assert_eq!(masked(5, 6), ids[11..12]);
}

fn run(backend: &dyn Backend, weights: Weights<'_>) -> (f64, Vec<f32>) {
    let data = logits::<f32>(0, 12, 7);
    let labels: Vec<i64> = data.chunks(7).map(finite).collect();
    let batch = Batch::new(Labels::new(&labels[..]), packing())
        .and_then(|batch| batch.with_weights(weights))
        .and_then(|batch| batch.with_reference(ReferenceLogProbs::per_token(&[-1.5_f32; 12])))
        .and_then(|batch| batch.with_pairs(Pairs::halves(1).unwrap()))
        .unwrap();
    let loss = Loss::new(batch, [Term::pairs(Dpo::new(0.5))]).unwrap();
    let forward = forward(&loss, backend, &data);
    let grads = gradient(&loss, backend, &forward, &data, Upstream::Loss(1.0));
    (forward.loss(), grads)
}

fn finite(row: &[f32]) -> i64 {
    row.iter().position(|x| x.is_finite()).unwrap() as i64
}

/// Tokens under the mask get a gradient of exactly 0, all others do not.
#[test]
fn masked_tokens_get_no_gradient() {
    let pairs = Pairs::halves(1).unwrap();
    for backend in composed_backends() {
        let weights =
            Weights::mask_dpo(&packing(), &pairs, &sentences(), Unlabelled::Keep).unwrap();
        let expected: Vec<bool> =
            weights.host().unwrap().iter().map(|&weight| weight != 0.0).collect();
        let (_, grads) = run(&*backend, weights);
        // Row 5 of the inputs has one finite logit: its label is certain, and so is a gradient of 0.
        let moves = |row: &[f32]| row.iter().any(|&x| x != 0.0);
        for (token, row) in grads.chunks(7).enumerate().filter(|(token, _)| token % 6 != 5) {
            assert_eq!(moves(row), expected[token], "{} token {token}", backend.name());
        }
    }
}

/// One side without a factual token: finite loss, and only the other side learns. Both sides: ln 2
/// and nothing moves.
#[test]
fn empty_masks() {
    for backend in composed_backends() {
        let mut weights = vec![0.0; 12];
        weights[6..].fill(1.0);
        let (loss, grads) = run(&*backend, Weights::new(weights).unwrap());
        assert!(loss.is_finite());
        assert!(grads[..6 * 7].iter().all(|&x| x == 0.0));
        assert!(grads[6 * 7..].iter().any(|&x| x != 0.0));

        let (loss, grads) = run(&*backend, Weights::new(vec![0.0; 12]).unwrap());
        assert_eq!(loss, std::f64::consts::LN_2);
        assert!(grads.iter().all(|&x| x == 0.0));
    }
}
