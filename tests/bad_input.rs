//! Every bad input is its own error, names both sides, and leaves the caller's buffers as they were.

use prefuse::batch::{
    Advantages, Batch, Labels, Logits, LogitsMut, Packing, Pairs, ReferenceLogProbs, Sentence,
    Unlabelled, Weights, shift_labels,
};
use prefuse::objectives::{Dpo, Hinge, Ipo, Nll, Reduction, Reinforce, Robust, SimPo};
use prefuse::{Loss, Sequences, Term};

use crate::common::{batch, ready, refused};

#[test]
fn logits() {
    let data = [0.0_f32; 12];
    refused(Logits::new(&data, 0, 3), "tokens: expected at least 1, got 0");
    refused(Logits::new(&data, 4, 0), "entries of the vocabulary: expected at least 1, got 0");
    refused(Logits::new(&data, 5, 3), "logits: expected length 15, got 12");
    refused(Logits::new(&data, 3, 3), "logits: expected length 9, got 12");
    refused(
        Logits::strided(&data, 3, 3, 2),
        "row stride: expected at least the vocabulary 3, got 2",
    );
    refused(Logits::strided(&data, 4, 3, 4), "strided logits: expected length 15, got 12");
    assert!(Logits::strided(&data, 3, 3, 4).is_ok());
    refused(
        Logits::new(&data, usize::MAX / 2, 3),
        &format!("logits: {} rows of 3 elements overflow the address space", usize::MAX / 2),
    );
    let mut data = data;
    refused(LogitsMut::new(&mut data, 0, 3), "tokens: expected at least 1, got 0");
    refused(LogitsMut::new(&mut data, 5, 3), "logits: expected length 15, got 12");
    refused(
        LogitsMut::strided(&mut data, 2, 9, 8),
        "row stride: expected at least the vocabulary 9, got 8",
    );
}

#[test]
fn packing() {
    refused(Packing::new::<i32>(&[]), "entries of cu_seqlens: expected at least 2, got 0");
    refused(Packing::new(&[0_i64]), "entries of cu_seqlens: expected at least 2, got 1");
    refused(Packing::new(&[1_i32, 2]), "cu_seqlens: expected to start at 0, got 1");
    refused(
        Packing::new(&[0_i64, 3, 2]),
        "cu_seqlens[2]: expected at least 3, the entry before it, got 2",
    );
    refused(Packing::padded(0, 5), "sequences: expected at least 1, got 0");
    refused(Packing::padded(5, 0), "tokens of a sequence: expected at least 1, got 0");
    refused(
        Packing::padded(usize::MAX, 2),
        &format!("packing: {} rows of 2 elements overflow the address space", usize::MAX),
    );
    let most = usize::MAX;
    refused(
        Packing::padded(most, 1),
        &format!("sequences: expected a number that fits in memory, got {most}"),
    );
    refused(
        Pairs::halves(most),
        &format!("pairs: expected a number that fits in memory, got {most}"),
    );
    refused(
        Weights::mask_dpo(
            &Packing::new(&[0, 5, i64::MAX]).unwrap(),
            &Pairs::halves(1).unwrap(),
            &[],
            Unlabelled::Keep,
        ),
        &format!("tokens: expected a number that fits in memory, got {}", i64::MAX),
    );
    refused(
        batch(&[0; 3], &[0, 2]),
        "cu_seqlens: expected to end at the number of tokens 3, got 2",
    );
    refused(batch(&[], &[0, 0]), "tokens: expected at least 1, got 0");
    let packing = Packing::new(&[0_i32, 2]).unwrap();
    refused(shift_labels(&[1, 2, 3], &packing, -100), "ids: expected length 2, got 3");
}

#[test]
fn what_joins_a_batch() {
    let batch = || batch(&[0; 4], &[0, 2, 4]).unwrap();
    let weights = |weights: &'static [f32]| Weights::new(weights).unwrap();
    refused(batch().with_weights(weights(&[1.0])), "token weights: expected length 4, got 1");
    refused(
        Weights::new(&[1.0, f32::NAN][..]),
        "weight of token 1: expected a finite number, got NaN",
    );
    refused(
        Weights::new(&[f32::INFINITY][..]),
        "weight of token 0: expected a finite number, got inf",
    );
    refused(
        batch().with_reference(ReferenceLogProbs::per_token(&[0.0_f32; 3])),
        "reference log-probs: expected length 4, got 3",
    );
    refused(
        batch().with_reference(ReferenceLogProbs::per_sequence(&[0.0_f32; 3])),
        "reference sums: expected length 2, got 3",
    );
    let explained = "; per_sequence is for batches without token weights, per_sequence_weighted \
                     says that the batch's weights went into the sums";
    let sums = ReferenceLogProbs::per_sequence(&[0.0; 2][..]);
    let mixed = batch().with_weights(weights(&[1.0; 4])).and_then(|b| b.with_reference(sums));
    let dpo = || [Term::pairs(Dpo::new(0.1))];
    let paired = |batch: Batch<'static>| batch.with_pairs(Pairs::halves(1).unwrap()).unwrap();
    refused(
        Loss::new(paired(mixed.unwrap()), dpo()),
        &format!(
            "reference sums: expected sums under the batch's token weights, got per_sequence{explained}"
        ),
    );
    let sums = ReferenceLogProbs::per_sequence_weighted(&[0.0; 2][..]);
    refused(
        Loss::new(paired(batch().with_reference(sums).unwrap()), dpo()),
        &format!(
            "reference sums: expected sums of a batch without token weights, got per_sequence_weighted{explained}"
        ),
    );
}

#[test]
fn pairs() {
    refused(Pairs::halves(0), "pairs: expected at least 1, got 0");
    refused(Pairs::interleaved(0), "pairs: expected at least 1, got 0");
    refused(
        Pairs::new(vec![(0, 1), (2, 2)]),
        "pair 1: expected two different sequences, got 2 twice",
    );
    let batch = || batch(&[0; 4], &[0, 2, 4]).unwrap();
    refused(
        batch().with_pairs(Pairs::new(vec![(0, 1), (2, 0)]).unwrap()),
        "chosen of pair 1: expected a sequence below 2, got 2",
    );
    refused(
        batch().with_pairs(Pairs::halves(2).unwrap()),
        "rejected of pair 0: expected a sequence below 2, got 2",
    );
    let pairs = || Pairs::halves(2).unwrap();
    refused(pairs().with_beta(&[1.0][..]), "beta: expected length 2, got 1");
    for beta in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        refused(
            pairs().with_beta(vec![1.0, beta]),
            &format!("beta of pair 1: expected a number from 1e-30 to 1e30, got {beta:?}"),
        );
    }
    refused(
        pairs().with_margin(&[f64::INFINITY, 0.0][..]),
        "margin of pair 0: expected a finite number, got inf",
    );
    refused(
        pairs().with_soft_label(&[0.5, 1.5][..]),
        "soft label of pair 1: expected a number from 0 to 1, got 1.5",
    );
    refused(
        pairs().with_weight(&[f64::NAN, 0.0][..]),
        "weight of pair 0: expected a finite number, got NaN",
    );
}

#[test]
fn parameters() {
    let make = |term: Term| Loss::new(ready(), [term]);
    for beta in [0.0, -0.1, f64::NAN, f64::INFINITY] {
        refused(
            make(Term::pairs(Dpo::new(beta))),
            &format!("beta of Dpo: expected a number from 1e-30 to 1e30, got {beta:?}"),
        );
        assert!(make(Term::pairs(Ipo::new(beta))).is_err());
        assert!(make(Term::pairs(Hinge::new(beta))).is_err());
        assert!(make(Term::pairs(Robust::new(beta, 0.1))).is_err());
        assert!(make(Term::pairs(SimPo::new(beta, 0.1))).is_err());
    }
    for smoothing in [-0.1, 0.6, f64::NAN] {
        let expected = format!("from 0 to 0.5, got {smoothing}");
        refused(
            make(Term::pairs(Dpo::new(0.1).with_label_smoothing(smoothing))),
            &format!("label_smoothing of Dpo: expected a number {expected}"),
        );
        refused(
            make(Term::pairs(SimPo::new(2.0, 0.5).with_label_smoothing(smoothing))),
            &format!("label_smoothing of SimPo: expected a number {expected}"),
        );
    }
    refused(
        make(Term::pairs(Robust::new(0.1, 0.5))),
        "label_smoothing of Robust: expected a number from 0 to below 0.5, got 0.5",
    );
    refused(
        make(Term::pairs(SimPo::new(2.0, f64::NAN))),
        "gamma of SimPo: expected a number from 0 to 1e30, got NaN",
    );
    for got in [f64::NAN, f64::INFINITY] {
        let advantages = |at: usize| {
            let mut advantages = [1.0; 4];
            advantages[at] = got;
            let ids = Labels::new(vec![0, -100, 0, 0]);
            let batch = Batch::new(ids, Packing::new(&[0, 2, 4]).unwrap())
                .and_then(|batch| batch.with_weights(Weights::new(vec![1.0, 1.0, 0.0, 1.0])?))
                .and_then(|batch| batch.with_advantages(Advantages::per_token(&advantages)))
                .unwrap();
            Loss::new(batch, [Term::tokens(Reinforce::new(), Sequences::All)])
        };
        // Of tokens that do not count they are not read.
        assert!(advantages(1).is_ok() && advantages(2).is_ok());
        refused(
            advantages(3),
            &format!("advantage of token 3: expected a finite number, got {got}"),
        );
    }
    refused(
        make(Term::pairs(Dpo::new(0.1)).with_weight(f64::NAN)),
        "term weight of Dpo: expected a number from -1e30 to 1e30, got NaN",
    );
    refused(
        make(Term::pairs(Dpo::new(0.1)).with_reduction(Reduction::Divisor(0.0))),
        "divisor of Dpo: expected a number from 1e-30 to 1e30, got 0.0",
    );
}

#[test]
fn terms() {
    refused(Loss::new(ready(), []), "terms: expected at least 1, got 0");
    let bare = batch(&[0; 4], &[0, 2, 4]).unwrap();
    let nll = |sequences| Term::sequences(Nll::new(), sequences);
    refused(
        Loss::new(bare.clone(), [nll(Sequences::Chosen)]),
        "Nll: expected a batch with pairs, got none",
    );
    refused(
        Loss::new(bare.clone(), [nll(Sequences::Indices(vec![]))]),
        "Nll: expected at least 1 unit, got 0",
    );
    refused(
        Loss::new(bare.clone(), [nll(Sequences::Indices(vec![1, 2]))]),
        "sequence of selection 1: expected below 2, got 2",
    );
    refused(
        Loss::new(bare.clone(), [Term::pairs(SimPo::new(2.0, 0.5))]),
        "SimPo: expected a batch with pairs, got none",
    );
    let paired = bare.with_pairs(Pairs::halves(1).unwrap()).unwrap();
    refused(
        Loss::new(paired, [Term::pairs(Dpo::new(0.1))]),
        "Dpo: expected a batch with reference log-probs, got none",
    );
    let with = |pairs| ready().with_pairs(pairs).unwrap();
    let pairs = || Pairs::halves(1).unwrap();
    refused(
        Loss::new(with(pairs().with_margin(&[0.5][..]).unwrap()), [Term::pairs(Ipo::new(0.1))]),
        "margin of pair 0: Ipo does not use it, expected the neutral 0, got 0.5",
    );
    refused(
        Loss::new(
            with(pairs().with_soft_label(&[0.5][..]).unwrap()),
            [Term::pairs(Hinge::new(0.1))],
        ),
        "soft label of pair 0: Hinge does not use it, expected the neutral 1, got 0.5",
    );
    // Every term over pairs has to use it, and terms over sequences use none.
    let margin = || with(pairs().with_margin(&[0.5][..]).unwrap());
    refused(
        Loss::new(margin(), [Term::pairs(Dpo::new(0.1)), Term::pairs(Ipo::new(0.1))]),
        "margin of pair 0: Ipo does not use it, expected the neutral 0, got 0.5",
    );
    assert!(Loss::new(margin(), [Term::pairs(Dpo::new(0.1)), nll(Sequences::Chosen)]).is_ok());
    refused(
        Loss::new(margin(), [nll(Sequences::Chosen)]),
        "margin of pair 0: Nll does not use it, expected the neutral 0, got 0.5",
    );
    refused(
        Loss::new(with(pairs().with_weight(&[0.0][..]).unwrap()), [nll(Sequences::Chosen)]),
        "weight of pair 0: Nll does not use it, expected the neutral 1, got 0.0",
    );
    let neutral = with(pairs().with_margin(&[0.0][..]).unwrap());
    assert!(Loss::new(neutral, [Term::pairs(Ipo::new(0.1))]).is_ok());
}

#[test]
fn sentences() {
    let (packing, pairs) = (Packing::new(&[0_i32, 4, 9]).unwrap(), Pairs::halves(1).unwrap());
    let weights =
        |sentences: &[Sentence]| Weights::mask_dpo(&packing, &pairs, sentences, Unlabelled::Keep);
    refused(
        weights(&[Sentence::new(2, 0..1, true)]),
        "sequence of sentence 0: expected below 2, got 2",
    );
    refused(
        weights(&[Sentence::new(0, 0..1, true), Sentence::new(0, 3..5, true)]),
        "sentence 1: expected a range within the 4 tokens of sequence 0, got 3..5",
    );
    #[allow(clippy::reversed_empty_ranges)]
    let reversed = Sentence::new(1, 3..2, true);
    refused(
        weights(&[Sentence::from_ids(0, 2..5, true)]),
        "sentence 0: expected a range within the 4 tokens of sequence 0, got 2..5",
    );
    refused(
        weights(&[reversed]),
        "sentence 0: expected a range within the 5 tokens of sequence 1, got 3..2",
    );
    refused(
        weights(&[Sentence::new(1, 0..3, true), Sentence::new(1, 2..4, false)]),
        "sentence 1: overlaps an earlier sentence at token 2 of sequence 1",
    );
    let cycle = Pairs::new(vec![(0, 1), (1, 0)]).unwrap();
    refused(
        Weights::mask_dpo(&packing, &cycle, &[], Unlabelled::Keep),
        "sequence 1: expected one role in all pairs, got chosen and rejected",
    );
    let beyond = Pairs::halves(2).unwrap();
    refused(
        Weights::mask_dpo(&packing, &beyond, &[], Unlabelled::Keep),
        "rejected of pair 0: expected a sequence below 2, got 2",
    );
}
