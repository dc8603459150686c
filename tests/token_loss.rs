//! Stages 1, 3 and 4 in one visit: the bits of the stages one after another.

use prefuse::batch::{Advantages, Batch, Labels, Packing, ReferenceLogProbs, Weights};
use prefuse::objectives::{
    AnyObjective, Cispo, EntropyBonus, Gspo, KlPenalty, Nll, PpoClip, Reduction, objectives,
};
use prefuse::stages::{
    SampledTokens, TokenLoss, TokenLossOutputs, TokenObjectiveGrads, TokenOutputs, Tokens,
    UnitScale,
};
use prefuse::{
    Backend, Cpu, Element, Loss, MaskedRows, Reference, RowOptions, Sequences, Target, Term,
    Upstream,
};

use crate::backends::{backends, fast_backends, visit, visits};
use crate::common::{Placed, bits, forward, labels, logits, refused, spread, weights};
use crate::each_dtype;

/// Sequences of a third of the tokens, of none, and of the rest; every kind of input.
fn sampled(ids: &[i64], weights: Option<&[f32]>, by_token: bool) -> Batch<'static> {
    let tokens = ids.len();
    let near = |shift: f64, scale: f64| -> Vec<f64> {
        (0..tokens).map(|t| -1.6 + scale * (t as f64 + shift).sin()).collect()
    };
    let third = tokens as i64 / 3;
    let packing = Packing::new(&[0, third, third, tokens as i64]).unwrap();
    let advantages = match by_token {
        true => Advantages::per_token(&near(2.0, 1.5)),
        false => Advantages::per_sequence(vec![1.25, 0.5, -0.75]).unwrap(),
    };
    let batch = Batch::new(Labels::new(ids.to_vec()), packing)
        .and_then(|batch| batch.with_old(ReferenceLogProbs::per_token(&near(0.0, 1.0))))
        .and_then(|batch| batch.with_reference(ReferenceLogProbs::per_token(&near(1.0, 0.5))))
        .and_then(|batch| batch.with_advantages(advantages))
        .unwrap();
    match weights {
        Some(weights) => batch.with_weights(Weights::new(weights.to_vec()).unwrap()).unwrap(),
        None => batch,
    }
}

fn singly() -> Vec<AnyObjective> {
    let on_tokens = objectives().into_iter().filter(|objective| objective.unit()[0] == "Token");
    on_tokens.filter(|objective| !objective.inputs().sequence).collect()
}

/// A clip, a penalty of some of the sequences and an entropy bonus, each divided by something else.
fn several(entropy: bool) -> Vec<Term> {
    let all = || Sequences::All;
    let clip = Term::tokens(PpoClip::new(0.2, 0.28), all());
    let kl = Term::tokens(KlPenalty::new(), Sequences::Indices(vec![2, 0])).with_weight(0.04);
    let mut terms =
        vec![clip.with_reduction(Reduction::SequenceMean), kl.with_reduction(Reduction::TokenMean)];
    if entropy {
        let bonus = Term::tokens(EntropyBonus::new(), all()).with_weight(0.01);
        terms.push(bonus.with_reduction(Reduction::Divisor(17.0)));
    }
    terms
}

/// Runs the loss both ways and compares every number; rows are `stride` apart, and out of place their
/// gradients closer.
fn compare<T: Element>(
    backend: &dyn Backend,
    loss: &Loss<'_>,
    data: &[T],
    stride: usize,
    masked: MaskedRows,
) {
    let (tokens, vocab) = (loss.batch().tokens(), data.len() / loss.batch().tokens());
    let upstream = Upstream::Loss(-1.5);
    let strided = spread(data, vocab, stride, 7.0);
    let what = format!("{backend:?} {} {tokens} {vocab} {stride}", T::DTYPE);
    let mut expected = Placed::new(backend, &strided);
    let stages = loss.forward(backend, expected.strided(tokens, vocab, stride)).unwrap();
    let found = [bits(stages.tokens()), vec![stages.loss().to_bits()]];
    let target = expected.strided_target(tokens, vocab, stride);
    loss.logit_grads_in_place(backend, stages, target, upstream, masked).unwrap();
    let expected: Vec<T> = expected.read();

    let mut in_place = Placed::new(backend, &strided);
    let target = Target::InPlace(in_place.strided_target(tokens, vocab, stride));
    let visit = loss.forward_with_logit_grads(backend, target, upstream, masked).unwrap();
    assert_eq!([bits(visit.tokens()), vec![visit.loss().to_bits()]], found, "{what}");
    same_bits(&in_place.read::<T>(), &expected, &what);
    let again = in_place.strided_target(tokens, vocab, stride);
    refused(
        loss.logit_grads_in_place(backend, visit, again, upstream, masked),
        "logits: expected those of the forward call, got a gradient written in place",
    );

    if masked == MaskedRows::Zero {
        let from = Placed::new(backend, &strided);
        let mut to = Placed::poisoned::<T>(backend, tokens * vocab);
        let (logits, grads) = (from.strided(tokens, vocab, stride), to.target(tokens, vocab));
        let target = Target::OutOfPlace { logits, grads };
        let visit = loss.forward_with_logit_grads(backend, target, upstream, masked).unwrap();
        let rows = expected.chunks(stride).flat_map(|row| row[..vocab].to_vec());
        same_bits(&to.read::<T>(), &rows.collect::<Vec<_>>(), &what);
        same_bits(&from.read::<T>(), &strided, &what);
        // The logits are still there.
        let grads = (from.strided(tokens, vocab, stride), to.target(tokens, vocab));
        loss.logit_grads(backend, &visit, grads, upstream, masked).unwrap();
    }
}

fn same_bits<T: Element>(got: &[T], expected: &[T], what: &str) {
    assert_eq!(got.len(), expected.len());
    let pairs = got.iter().zip(expected).map(|(a, b)| (a.to_f64(), b.to_f64()));
    let differs = |&(a, b): &(f64, f64)| a.to_bits() != b.to_bits() && !(a.is_nan() && b.is_nan());
    let found = pairs.enumerate().find(|(_, pair)| differs(pair));
    assert!(found.is_none(), "{what}: {found:?}");
}

/// Few rows and many, rows short and long; strides that keep rows on boundaries and one that does not.
#[test]
fn one_visit_has_the_bits_of_the_stages() {
    fn body<T: Element>(backend: &dyn Backend, tokens: usize, vocab: usize) {
        let data: Vec<T> = logits(11, tokens, vocab);
        let (ids, weights) = (labels(11, &data, vocab), weights(11, tokens));
        // Long rows have one way each, for an emulator's sake.
        let ways = [(true, false), (false, true)];
        for (weighted, by_token) in ways.into_iter().skip(usize::from(vocab >= 30_000)) {
            let batch = sampled(&ids, weighted.then_some(&weights), by_token);
            let loss = Loss::new(batch, several(by_token)).unwrap();
            compare(backend, &loss, &data, vocab, MaskedRows::Zero);
            if vocab < 30_000 {
                let stride = vocab.next_multiple_of(8) + 8;
                compare(backend, &loss, &data, stride, MaskedRows::AlreadyZero);
            }
        }
    }
    for backend in backends() {
        for &(tokens, vocab) in visits() {
            // The reference makes no visit of its own: what it is compared with is itself.
            if backend.name() != "reference" || vocab < 1000 {
                each_dtype!(&*backend, body, tokens, vocab);
            }
        }
    }
}

/// Each by itself, with an upstream gradient for each sequence.
#[test]
fn every_objective_on_single_tokens() {
    let (tokens, vocab) = visit();
    let data: Vec<f32> = logits(5, tokens, vocab);
    let ids = labels(5, &data, vocab);
    let objectives = singly();
    assert!(objectives.len() >= 8, "{objectives:?}");
    // Old and reference log-probs stand by the policy's, so that no limit of an objective holds them all.
    let packing = || Packing::new(&[0, 1, tokens]).unwrap();
    let likelihood = Term::sequences(Nll::new(), Sequences::All);
    let likelihood = Loss::new(Batch::new(Labels::new(&ids[..]), packing()).unwrap(), [likelihood]);
    let found = forward(&likelihood.unwrap(), &Cpu::new(), &data);
    let log_probs = found.tokens().log_probs().to_vec().unwrap();
    for objective in objectives {
        let inputs = objective.inputs();
        let mut batch = Batch::new(Labels::new(&ids[..]), packing()).unwrap();
        let near = |shift: f64| -> Vec<f64> {
            log_probs.iter().zip(0..).map(|(x, t)| x + shift * f64::from(t).cos()).collect()
        };
        if inputs.old {
            batch = batch.with_old(ReferenceLogProbs::per_token(&near(0.4))).unwrap();
        }
        if inputs.reference {
            batch = batch.with_reference(ReferenceLogProbs::per_token(&near(-0.7))).unwrap();
        }
        if inputs.advantage {
            let advantages = Advantages::per_sequence(vec![-1.0, 0.5]).unwrap();
            batch = batch.with_advantages(advantages).unwrap();
        }
        let batch = batch.with_sequence_weights(&[0.5, -2.0]).unwrap();
        let term = Term::new(objective.clone()).with_sequences(Sequences::All).with_weight(0.3);
        let loss = Loss::new(batch, [term]).unwrap();
        let upstream: [&[f64]; 1] = [&[0.25, -3.0]];
        let upstream = Upstream::Units(&upstream);
        for backend in fast_backends() {
            let backend = &*backend;
            let stages = forward(&loss, backend, &data);
            let expected = crate::common::gradient(&loss, backend, &stages, &data, upstream);
            let mut grads = Placed::new(backend, &data);
            let target = Target::InPlace(grads.target(tokens, vocab));
            let visit =
                loss.forward_with_logit_grads(backend, target, upstream, MaskedRows::Zero).unwrap();
            assert_eq!(visit.terms(), stages.terms(), "{objective:?} {backend:?}");
            same_bits(&grads.read::<f32>(), &expected, &format!("{objective:?} {backend:?}"));
            assert!(expected.iter().any(|&x| x != 0.0), "{objective:?}");
        }
    }
}

/// What else a row can be asked for comes from the same visit.
#[test]
fn with_every_row_option() {
    let (tokens, vocab) = visit();
    let data: Vec<f32> = logits(6, tokens, vocab);
    let ids = labels(6, &data, vocab);
    let options = RowOptions::default().with_temperature(0.7).with_entropy();
    let options = options.with_log_sum_squares().with_argmax();
    for backend in fast_backends() {
        let loss = Loss::new(sampled(&ids, None, false), several(true)).unwrap();
        compare(&*backend, &loss.with_rows(options), &data, vocab, MaskedRows::Zero);
    }
}

/// A loss that looks at whole sequences has its gradient from the same call.
#[test]
fn other_losses_take_two_visits() {
    let (tokens, vocab) = (40, 50);
    let data: Vec<f32> = logits(7, tokens, vocab);
    let ids = labels(7, &data, vocab);
    let all = || Sequences::All;
    for backend in backends() {
        let mixed = [
            Term::tokens(Cispo::new(1.2), all()),
            Term::sequences(Nll::new(), all()).with_weight(0.1),
        ];
        let gspo =
            [Term::tokens(Gspo::new(0.2, 0.3), all()), Term::tokens(KlPenalty::new(), all())];
        for terms in [mixed, gspo] {
            let loss = Loss::new(sampled(&ids, None, false), terms).unwrap();
            compare(&*backend, &loss, &data, vocab, MaskedRows::Zero);
        }
    }
}

#[test]
fn a_refused_call_writes_nothing() {
    let (tokens, vocab) = visit();
    let data: Vec<f32> = logits(8, tokens, vocab);
    let mut ids = labels(8, &data, vocab);
    ids[tokens - 1] = vocab as i64;
    for backend in backends() {
        let loss = Loss::new(sampled(&ids, None, false), several(false)).unwrap();
        let mut placed = Placed::new(&*backend, &data);
        let target = Target::InPlace(placed.target(tokens, vocab));
        let result =
            loss.forward_with_logit_grads(&*backend, target, Upstream::Loss(1.0), MaskedRows::Zero);
        let (token, last) = (tokens - 1, vocab - 1);
        let expected = format!("expected 0 to {last} or the ignore value -100, got {vocab}");
        refused(result, &format!("label of token {token}: {expected}"));
        same_bits(&placed.read::<f32>(), &data, "logits");
        let target = Target::InPlace(placed.target(tokens, vocab));
        let upstream = Upstream::Loss(f64::NAN);
        let result = loss.forward_with_logit_grads(&*backend, target, upstream, MaskedRows::Zero);
        refused(result, "upstream gradient: expected a finite number in the range of f32, got NaN");
        same_bits(&placed.read::<f32>(), &data, "logits");
    }
}

/// The stage by itself.
#[test]
fn what_the_stage_refuses() {
    let backend = Reference::new();
    let batch = sampled(&[1, 0, 2, 1, 0, 2], None, false);
    let packing = batch.packing().place(&backend).unwrap();
    let stage_of =
        |terms: usize, objective: AnyObjective, entropy: bool, counts: usize, scratch: usize| {
            let term = Term::new(objective).with_sequences(Sequences::All);
            let placed = [term.resolve(&batch).unwrap().place(&backend, &batch).unwrap()];
            let mut buffers: [_; 7] = std::array::from_fn(|_| Placed::new(&backend, &[0.0_f32; 6]));
            let counts = Placed::new(&backend, &vec![2.0; counts]);
            let mut scratch = Placed::new(&backend, &vec![0.0; scratch]);
            let [data, log_probs, maximum, log_sum, entropies, by_log_prob, by_entropy] =
                buffers.each_mut();
            *data = Placed::new(&backend, &[0.5_f32; 18]);
            let [log_probs, maximum, log_sum] =
                [log_probs, maximum, log_sum].map(Placed::slice_mut);
            let rows = TokenOutputs::new(log_probs, maximum, log_sum);
            let outputs = TokenLossOutputs {
                rows: TokenOutputs { entropy: entropy.then(|| entropies.slice_mut()), ..rows },
                grads: TokenObjectiveGrads {
                    log_probs: by_log_prob.slice_mut(),
                    entropy: entropy.then(|| by_entropy.slice_mut()),
                },
            };
            let scales = [UnitScale::Reduced(1.0)];
            TokenLoss::new(
                &backend,
                (Target::InPlace(data.target(6, 3)), MaskedRows::Zero, 1.0),
                (Tokens::of(&batch), &packing),
                (&placed[..terms], &scales[..terms]),
                (SampledTokens::default(), counts.slice()),
                outputs,
                scratch.slice_mut(),
            )
            .map(|stage| backend.token_loss(stage))?
        };
    let stage =
        |objective, entropy, counts, scratch| stage_of(1, objective, entropy, counts, scratch);
    let bonus = || AnyObjective::new(EntropyBonus::new());
    assert_eq!(stage(bonus(), true, 3, 3), Ok(()));
    for (result, message) in [
        (
            stage(AnyObjective::new(Gspo::new(0.1, 0.2)), true, 3, 3),
            "Gspo: expected a term that looks at tokens singly, got one that looks at their sequence",
        ),
        (
            stage(AnyObjective::new(Nll::new()), true, 3, 3),
            "Nll: expected a term over tokens, got one over other units",
        ),
        (stage_of(0, bonus(), true, 3, 3), "terms: expected at least 1, got 0"),
        (stage(bonus(), false, 3, 3), "EntropyBonus: expected a batch with entropies, got none"),
        (
            stage(AnyObjective::new(Cispo::new(1.0)), true, 3, 3),
            "Cispo: expected a batch with advantages, got none",
        ),
        (stage(bonus(), true, 2, 3), "counted tokens: expected length 3, got 2"),
        (stage(bonus(), true, 3, 2), "scratch of token_loss: expected length 3, got 2"),
    ] {
        refused::<()>(result, message);
    }
}
