//! What trainers of policy gradients log: by hand, on every backend, and where there is nothing to log.

use prefuse::batch::{Advantages, Batch, Labels, Packing, ReferenceLogProbs, Weights};
use prefuse::objectives::{
    Cispo, EntropyBonus, Gmpo, Gspo, KlPenalty, LogProbClip, Nll, Objective, PpoClip, Rloo, Sapo,
    Token,
};
use prefuse::{
    ClipFraction, ClipMetrics, DType, Loss, Reference, Resolved, RowOptions, Sequences, Slice,
    Term, TokenMetrics,
};

use crate::backends::composed_backends;
use crate::common::{forward, labels, logits, refused};

fn close(got: f64, expected: f64) {
    approx::assert_relative_eq!(got, expected, max_relative = 1e-14);
}

/// Sequences of 3, 2, 0 and 1 counted tokens; the log-ratios of these are ln 2, ln 0.5, 0; ln 4, ln 0.5;
/// and ln 0.1.
const OFFSETS: [i64; 5] = [0, 4, 6, 7, 8];
const RATIOS: [f64; 8] = [2.0, 0.5, f64::NAN, 1.0, 4.0, 0.5, f64::NAN, 0.1];

fn batch(advantages: Advantages<'static>) -> Batch<'static> {
    let weights = Weights::new(vec![1.0, -2.0, 0.0, 0.5, 1.0, 1.0, 1.0, 3.0]).unwrap();
    let old: Vec<f64> = RATIOS.iter().map(|ratio| -1.0 - ratio.ln()).collect();
    Batch::new(Labels::new(vec![1, 1, 1, 1, 1, 1, -100, 1]), Packing::new(&OFFSETS).unwrap())
        .and_then(|batch| batch.with_weights(weights))
        .and_then(|batch| batch.with_old(ReferenceLogProbs::per_token(&old)))
        .and_then(|batch| batch.with_reference(ReferenceLogProbs::per_token(&[-1.5; 8])))
        .and_then(|batch| batch.with_sequence_weights(&[2.0, 1.0, 1.0, 0.0]))
        .and_then(|batch| batch.with_advantages(advantages))
        .unwrap()
}

fn measure(batch: &Batch<'_>, terms: &[Term], entropy: bool) -> TokenMetrics {
    let terms: Vec<Resolved> = terms.iter().map(|term| term.resolve(batch).unwrap()).collect();
    let entropies = [1.0, 2.0, f64::NAN, 3.0, 4.0, 5.0, f64::NAN, 6.0];
    let entropy = entropy.then(|| Slice::new(&entropies));
    TokenMetrics::new(batch, &terms, Slice::new(&[-1.0; 8]), entropy).unwrap().unwrap()
}

/// The shares of each sequence's tokens, in a mean over all 6 tokens and over the 4 sequences.
fn fraction(clipped: [f64; 3]) -> [f64; 4] {
    let shares = [clipped[0] / 3.0, clipped[1] / 2.0, clipped[2]];
    let least = shares.into_iter().fold(f64::INFINITY, f64::min);
    let largest = shares.into_iter().fold(0.0, f64::max);
    [clipped.iter().sum::<f64>() / 6.0, shares.iter().sum::<f64>() / 4.0, least, largest]
}

fn compare(got: ClipFraction, clipped: [f64; 3]) {
    let ClipFraction { token_mean, sequence_mean, sequence_min, sequence_max, .. } = got;
    let got = [token_mean, sequence_mean, sequence_min, sequence_max];
    got.into_iter().zip(fraction(clipped)).for_each(|(got, expected)| close(got, expected));
}

fn by_sequence(advantages: [f64; 4]) -> Advantages<'static> {
    Advantages::per_sequence(advantages.to_vec()).unwrap()
}

fn all(objective: impl Objective<Token> + 'static) -> Term {
    Term::tokens(objective, Sequences::All)
}

#[test]
fn means_by_hand() {
    let batch = batch(by_sequence([1.0, -1.0, 1.0, -1.0]));
    let terms = [all(KlPenalty::new()), all(PpoClip::new(0.2, 0.2)).with_weight(0.3)];
    let metrics = measure(&batch, &terms, true);
    assert_eq!(metrics.tokens, 6);
    close(metrics.entropy.unwrap(), 21.0 / 6.0);
    let log_ratio: f64 = [0, 1, 3, 4, 5, 7].iter().map(|&t| -RATIOS[t].ln()).sum();
    close(metrics.kl_old, log_ratio / 6.0);
    close(metrics.kl_reference.unwrap(), (-0.5_f64).exp() + 0.5 - 1.0);
    let ClipMetrics { low, high, region, dual, .. } = metrics.clip.unwrap();
    compare(low, [0.0, 1.0, 1.0]);
    compare(high, [1.0, 0.0, 0.0]);
    compare(region, [1.0, 1.0, 1.0]);
    compare(dual, [0.0; 3]);
    assert_eq!(measure(&batch, &terms, false).entropy, None);
    // The term of the policy decides on the tokens, another on the divergence.
    let terms = [
        Term::tokens(KlPenalty::new(), Sequences::Indices(vec![3])),
        Term::tokens(Sapo::new(), Sequences::Indices(vec![1, 2])),
    ];
    let metrics = measure(&batch, &terms, true);
    assert_eq!((metrics.tokens, metrics.entropy, metrics.clip), (2, Some(4.5), None));
    close(metrics.kl_reference.unwrap(), (-0.5_f64).exp() + 0.5 - 1.0);
}

#[test]
fn clips_by_hand() {
    let negative = || batch(by_sequence([-1.0; 4]));
    let clip = |batch: &Batch<'_>, term: Term| measure(batch, &[term], false).clip.unwrap();
    let ppo = all(PpoClip::new(0.6, 1.5).with_dual_clip(3.0));
    let got = clip(&negative(), ppo.clone());
    compare(got.low, [0.0, 0.0, 1.0]);
    compare(got.high, [0.0; 3]);
    compare(got.dual, [0.0, 1.0, 0.0]);
    let got = clip(&batch(by_sequence([1.0; 4])), ppo);
    compare(got.high, [0.0, 1.0, 0.0]);
    compare(got.dual, [0.0; 3]);
    // The cap comes before the clip, as in TRL.
    let capped = all(PpoClip::new(0.6, 1.5).with_ratio_cap(2.4));
    compare(clip(&batch(by_sequence([1.0; 4])), capped).region, [0.0; 3]);
    // Neither holds where the advantage is 0, of a token or of a sequence.
    let by_token = Advantages::per_token(&[0.0, -1.0, f64::NAN, 0.0, 1.0, 0.0, f64::NAN, 0.0]);
    let got = clip(&batch(by_token), all(PpoClip::new(0.2, 0.2)));
    compare(got.low, [1.0, 0.0, 0.0]);
    compare(got.high, [0.0, 1.0, 0.0]);
    let cispo = all(Cispo::new(1.9).with_floor(0.2));
    compare(clip(&batch(by_sequence([1.0; 4])), cispo.clone()).high, [1.0, 1.0, 0.0]);
    compare(clip(&negative(), cispo).low, [0.0, 0.0, 1.0]);
    for term in [all(Gmpo::new(1.0)), all(LogProbClip::new(1.0))] {
        compare(clip(&batch(by_sequence([1.0; 4])), term.clone()).high, [0.0, 1.0, 0.0]);
        compare(clip(&negative(), term).low, [0.0, 0.0, 1.0]);
    }
    // Sequences have the ratios 1, 2^0.5 and 0.1; their products are 1, 2 and 0.1.
    let gspo = all(Gspo::new(0.2, 0.3));
    compare(clip(&negative(), gspo.clone()).low, [0.0, 0.0, 1.0]);
    compare(clip(&batch(by_sequence([1.0; 4])), gspo).high, [0.0, 2.0, 0.0]);
    compare(clip(&batch(by_sequence([1.0; 4])), all(Rloo::new(0.9))).high, [0.0, 2.0, 0.0]);
}

/// Nothing is NaN where no token counts, or no policy sampled them.
#[test]
fn empty_batches() {
    let batch = Batch::new(Labels::new(vec![-100; 3]), Packing::new(&[0, 2, 3]).unwrap())
        .and_then(|batch| batch.with_advantages(by_two()))
        .unwrap();
    let terms = [all(PpoClip::new(0.2, 0.2)).resolve(&batch).unwrap()];
    let values = [f64::NAN; 3];
    let metrics = TokenMetrics::new(&batch, &terms, Slice::new(&values), Some(Slice::new(&values)));
    let metrics = metrics.unwrap().unwrap();
    assert_eq!((metrics.tokens, metrics.entropy, metrics.kl_old), (0, Some(0.0), 0.0));
    assert_eq!(metrics.kl_reference, None);
    assert_eq!(metrics.clip, Some(ClipMetrics::default()));
}

fn by_two() -> Advantages<'static> {
    Advantages::per_sequence(&[1.0, -1.0]).unwrap()
}

/// Of a forward call, on every backend: what the reference has, as far as log-probs are rounded to f32.
#[test]
fn of_a_forward_call() {
    let (tokens, vocab) = (24, 37);
    let data: Vec<f32> = logits::<f32>(5, tokens, vocab).iter().map(|x| x / 8.0).collect();
    let ids = labels(5, &data, vocab);
    let old: Vec<f64> = (0..tokens).map(|t| -3.6 + (t as f64).sin()).collect();
    let advantages: Vec<f64> = (0..tokens).map(|t| (2.0 * t as f64).cos()).collect();
    let batch = Batch::new(Labels::new(&ids[..]), Packing::new(&[0, 9, 9, 24]).unwrap())
        .and_then(|batch| batch.with_old(ReferenceLogProbs::per_token(&old)))
        .and_then(|batch| batch.with_reference(ReferenceLogProbs::per_token(&[-4.0; 24])))
        .and_then(|batch| batch.with_advantages(Advantages::per_token(&advantages)))
        .unwrap();
    let terms = [all(PpoClip::new(0.2, 0.2)), all(KlPenalty::new()), all(EntropyBonus::new())];
    let loss = Loss::new(batch.clone(), terms).unwrap();
    let exact: Vec<f64> = data.iter().map(|&x| f64::from(x)).collect();
    let of = |metrics: TokenMetrics| {
        let clip = metrics.clip.unwrap();
        let fractions = [clip.low, clip.high, clip.region, clip.dual];
        (
            [metrics.entropy.unwrap(), metrics.kl_old, metrics.kl_reference.unwrap()],
            fractions.map(|f| [f.token_mean, f.sequence_mean, f.sequence_min, f.sequence_max]),
        )
    };
    let truth = forward(&loss, &Reference::new(), &exact);
    let metrics = loss.token_metrics(&truth).unwrap().unwrap();
    let (expected, counted) = (of(metrics), metrics.tokens as f64);
    assert!(expected.1.iter().flatten().any(|&share| share > 0.0));
    // The divergence is the mean of the losses of its term, whose tokens have no weights.
    close(expected.0[2], truth.terms()[1].losses.iter().sum::<f64>() / counted);
    for backend in
        composed_backends().iter().filter(|backend| backend.dtypes().contains(&DType::F32))
    {
        let got = forward(&loss, &**backend, &data);
        let got = of(loss.token_metrics(&got).unwrap().unwrap());
        assert_eq!(got.1, expected.1);
        for (got, expected) in got.0.iter().zip(expected.0) {
            // Log-probs and entropies are below 9 and right to 2e-6; k3's slope there is below e^5.
            approx::assert_relative_eq!(*got, expected, epsilon = 3e-4);
        }
    }
    let other = Loss::new(batch, [all(PpoClip::new(0.2, 0.2))]).unwrap();
    refused(
        other.token_metrics(&truth),
        "forward: expected a result of this loss, got one of another",
    );
    let pairless = Batch::new(Labels::new(&ids[..]), Packing::new(&[0, 24]).unwrap()).unwrap();
    let pairless = Loss::new(pairless, [Term::sequences(Nll::new(), Sequences::All)]).unwrap();
    let pairless = pairless.with_rows(RowOptions::default());
    let none = forward(&pairless, &Reference::new(), &exact);
    assert_eq!(pairless.token_metrics(&none).unwrap(), None);
}

#[test]
fn bad_calls() {
    let batch = batch(by_sequence([1.0; 4]));
    let terms = [all(PpoClip::new(0.2, 0.2)).resolve(&batch).unwrap()];
    let (eight, seven) = ([0.0; 8], [0.0; 7]);
    let new = |batch: &Batch<'_>, log_probs: &[f64], entropy: Option<&[f64]>| {
        TokenMetrics::new(batch, &terms, Slice::new(log_probs), entropy.map(Slice::new))
    };
    refused(new(&batch, &seven, None), "log_probs: expected length 8, got 7");
    refused(new(&batch, &eight, Some(&seven)), "entropy: expected length 8, got 7");
    let other = Batch::new(Labels::new(vec![1; 8]), Packing::new(&[0, 8]).unwrap()).unwrap();
    refused(
        new(&other, &eight, None),
        "term: expected one resolved against this batch, got one of another",
    );
}
