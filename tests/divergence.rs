//! The stage `divergence` against the reference in f64, and the reference against finite differences.

#[path = "divergence/bad_input.rs"]
mod bad_input;
#[path = "divergence/bound.rs"]
mod bound;
#[path = "divergence/case.rs"]
mod case;
#[path = "divergence/forward_kl.rs"]
mod forward_kl;
#[path = "divergence/properties.rs"]
mod properties;

use half::{bf16, f16};
use prefuse::stages::TokenDivergence;
use prefuse::{Backend, Element, Reference};

use crate::backends::{backends, composed_backends, large_vocabs, vocabs};
use crate::common::{logits, normal, rng, weights};
pub use bound::compare;
pub use case::{Case, Found, Into, Source};

/// Every kind, and its parameters at the ends and between.
pub fn divergences() -> Vec<TokenDivergence> {
    use TokenDivergence as D;
    vec![
        D::ForwardKl,
        D::ReverseKl,
        D::SymmetricKl { reverse: 0.9 },
        D::JensenShannon { beta: 0.5 },
        D::JensenShannon { beta: 0.1 },
        D::SkewForwardKl { alpha: 0.1 },
        D::SkewReverseKl { alpha: 0.1 },
        D::TotalVariation,
        D::SoftCrossEntropy,
        D::ExpectedAdvantage { beta: 0.1, clip: (f64::NEG_INFINITY, f64::INFINITY) },
    ]
}

/// Finite for whatever student, since rows of [`logits`] exclude columns of their own.
fn is_finite(divergence: TokenDivergence) -> bool {
    use TokenDivergence as D;
    matches!(
        divergence,
        D::JensenShannon { .. }
            | D::SkewForwardKl { .. }
            | D::SkewReverseKl { .. }
            | D::TotalVariation
    )
}

/// A student that knows something of the teacher: its logits and noise, or others altogether. Where a KL
/// would be infinite, both exclude the same columns.
fn student<T: Element>(seed: u64, teacher: &[f64], vocab: usize, excludes: bool) -> Vec<T> {
    let other: Vec<f64> = logits(seed + 1, teacher.len() / vocab, vocab);
    let mut rng = rng(seed);
    let rows = teacher.iter().zip(&other).enumerate().map(|(i, (&x, &other))| {
        let near = x + 0.5 * normal(&mut rng);
        let y = if i / vocab % 4 == 1 { other } else { near };
        let y = match (excludes, x.is_finite(), y.is_finite()) {
            (false, true, false) => 0.5 * x,
            (false, false, _) => x,
            _ => y,
        };
        T::from_f64(y)
    });
    rows.collect()
}

fn upstream(seed: u64, tokens: usize) -> Vec<f64> {
    let mut rng = rng(seed);
    // Exactly representable in f32, with zeros.
    let value = |token: usize, x: f64| if token % 7 == 5 { 0.0 } else { f64::from(x as f32) };
    (0..tokens).map(|token| value(token, normal(&mut rng))).collect()
}

fn case<S: Element, T: Element>(
    divergence: TokenDivergence,
    [tokens, vocab, teacher_vocab]: [usize; 3],
    temperatures: [f64; 2],
) -> Case<S, T> {
    let seed = vocab as u64 + 17;
    let teacher: Vec<T> = logits(seed, tokens, teacher_vocab);
    let mut wide = vec![0.0; tokens * vocab];
    for token in 0..tokens {
        for v in 0..vocab.min(teacher_vocab) {
            wide[token * vocab + v] = teacher[token * teacher_vocab + v].to_f64();
        }
    }
    let student = student(seed, &wide, vocab, is_finite(divergence));
    let mut source = Source::one(teacher, teacher_vocab);
    if matches!(divergence, TokenDivergence::ExpectedAdvantage { .. }) {
        let reference = self::student(seed + 5, &exact_of(&source), teacher_vocab, false);
        source.parts.push((-1.0, reference));
    }
    let ids =
        (0..tokens as i64).map(|t| if t % 5 == 3 { -100 } else { t % vocab as i64 }).collect();
    let weights = Some(weights(seed, tokens));
    let upstream = upstream(seed, tokens);
    Case { student, vocab, source, divergence, temperatures, ids, weights, upstream }
}

fn exact_of<T: Element>(source: &Source<T>) -> Vec<f64> {
    source.parts[0].1.iter().map(|x| x.to_f64()).collect()
}

fn check<S: Element, T: Element>(backend: &dyn Backend, case: &Case<S, T>) {
    let what =
        format!("{backend:?} {} {} {} {}", S::DTYPE, T::DTYPE, case.vocab, case.source.vocab);
    let truth = case.truth();
    let got = case.run(backend, Into::Buffer);
    compare(&what, case, &got, &truth);
    let values = case.run(backend, Into::Nowhere);
    let bits = |values: &[f64]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    let close = |(a, b): (&f64, &f64)| {
        a == b || (a - b).abs() <= 1e-3 * b.abs() || a.is_nan() && b.is_nan()
    };
    assert!(values.values.iter().zip(&got.values).all(close), "{what}");
    assert_eq!(bits(&values.student_entropy), bits(&got.student_entropy), "{what}");
}

fn check_types<S: Element>(backend: &dyn Backend, divergence: TokenDivergence, size: [usize; 3]) {
    check::<S, f32>(backend, &case(divergence, size, [1.0, 1.0]));
    check::<S, f16>(backend, &case(divergence, size, [1.0, 1.0]));
    check::<S, bf16>(backend, &case(divergence, size, [1.0, 1.0]));
}

/// Every divergence, of every pair of types.
#[test]
fn every_backend_divergence_and_type() {
    for backend in composed_backends() {
        for divergence in divergences() {
            let size = [12, 33, 33];
            check_types::<f32>(&*backend, divergence, size);
            check_types::<f16>(&*backend, divergence, size);
            check_types::<bf16>(&*backend, divergence, size);
            let longer = [6, 1025, 1025];
            check::<f32, f16>(&*backend, &case(divergence, longer, [1.0, 1.0]));
            check::<f16, bf16>(&*backend, &case(divergence, longer, [1.0, 1.0]));
            check::<bf16, f32>(&*backend, &case(divergence, longer, [1.0, 1.0]));
        }
    }
}

/// Every vocabulary, with the divergences and the types going round.
#[test]
fn every_vocabulary() {
    for backend in backends() {
        let mut kinds = divergences().into_iter().cycle();
        let mut next = || kinds.next().unwrap();
        for &vocab in vocabs() {
            let size = [12, vocab, vocab];
            for _ in 0..if vocab > 5000 { 0 } else { 2 } {
                check::<bf16, bf16>(&*backend, &case(next(), size, [1.0, 1.0]));
                check::<f32, bf16>(&*backend, &case(next(), size, [1.0, 1.0]));
                check::<f32, f32>(&*backend, &case(next(), size, [1.0, 1.0]));
            }
        }
        // Long rows of one kind each, for an emulator's sake.
        let long = vocabs().iter().filter(|&&vocab| vocab > 5000).chain(large_vocabs());
        for (index, &vocab) in long.enumerate() {
            match index % 2 {
                0 => check::<bf16, bf16>(&*backend, &case(next(), [2, vocab, vocab], [1.0, 1.0])),
                _ => check::<f32, bf16>(&*backend, &case(next(), [2, vocab, vocab], [1.0, 1.0])),
            }
        }
    }
}

/// Temperatures of student and teacher; teachers that know more or fewer entries than the student.
#[test]
fn temperatures_and_vocabularies() {
    for backend in composed_backends() {
        for divergence in divergences() {
            check::<f32, f32>(&*backend, &case(divergence, [12, 1000, 1000], [2.0, 0.7]));
            check::<bf16, f32>(&*backend, &case(divergence, [12, 300, 333], [0.7, 1.0]));
            check::<f32, bf16>(&*backend, &case(divergence, [12, 1300, 1025], [1.0, 2.0]));
        }
    }
}

/// Of a teacher of so many models, or AlignDistil's.
fn several<S: Element, T: Element>(
    divergence: TokenDivergence,
    [tokens, vocab]: [usize; 2],
    (parts, adaptive): (usize, bool),
) -> Case<S, T> {
    let mut case: Case<S, T> = case(divergence, [tokens, vocab, vocab], [1.0, 1.0]);
    let first = exact_of(&case.source);
    case.source.parts = vec![(1.4, case.source.parts[0].1.clone())];
    for (seed, coefficient) in [(31, -0.4), (32, 0.25)].into_iter().take(parts - 1) {
        case.source.parts.push((coefficient, student(seed, &first, vocab, false)));
    }
    case.source.adaptive = adaptive.then_some((0.1, 10.0, false));
    case
}

/// Teachers that are sums of several models, and AlignDistil's.
#[test]
fn several_models() {
    fn body<S: Element, T: Element>(backend: &dyn Backend, of: (usize, bool)) {
        for divergence in divergences() {
            let is_advantage = matches!(divergence, TokenDivergence::ExpectedAdvantage { .. });
            if !(is_advantage && of.1) {
                check(backend, &several::<S, T>(divergence, [6, 1030], of));
            }
        }
    }
    for backend in composed_backends() {
        body::<f32, f32>(&*backend, (2, false));
        body::<bf16, f16>(&*backend, (3, false));
        body::<f32, bf16>(&*backend, (2, true));
        body::<bf16, bf16>(&*backend, (2, true));
    }
}

/// Rows of 17 segments: devices without clusters cannot hold them on chip, and read them again. Odd
/// rows begin at no boundary, where neighbours' columns share words with those that a gradient replaces.
#[test]
fn long_rows_of_several_models() {
    use TokenDivergence::{JensenShannon, ReverseKl};
    for backend in backends() {
        for (divergence, of) in [(JensenShannon { beta: 0.1 }, (3, false)), (ReverseKl, (2, true))]
        {
            let case = several::<f32, f32>(divergence, [2, 17_409], of);
            let [buffer, place] = [Into::Buffer, Into::Place].map(|into| case.run(&*backend, into));
            compare(&format!("{backend:?}"), &case, &buffer, &case.truth());
            let bits = |grads: Vec<f32>| grads.into_iter().map(f32::to_bits).collect::<Vec<_>>();
            assert!(bits(buffer.grads) == bits(place.grads), "{backend:?} {divergence:?}");
        }
    }
}

/// The gradient of the reference is that of its values.
#[test]
fn finite_differences() {
    for divergence in divergences() {
        for (temperatures, vocabs) in [([1.0, 1.0], [7, 7]), ([2.0, 0.5], [9, 7])] {
            for adaptive in [None, Some((0.1, 10.0, true))] {
                let [vocab, teacher] = vocabs;
                let mut rng = rng(3);
                let mut random =
                    |len: usize| (0..len).map(|_| 2.0 * normal(&mut rng)).collect::<Vec<f64>>();
                let tokens = 3;
                let parts = vec![(1.0, random(tokens * teacher)), (-0.5, random(tokens * teacher))];
                if matches!(divergence, TokenDivergence::ExpectedAdvantage { .. })
                    && adaptive.is_some()
                {
                    continue;
                }
                let case = Case {
                    student: random(tokens * vocab),
                    vocab,
                    source: Source { parts, vocab: teacher, adaptive },
                    divergence,
                    temperatures,
                    ids: vec![0; tokens],
                    weights: None,
                    upstream: vec![1.0, -0.5, 2.0],
                };
                differences(&case);
            }
        }
    }
}

fn differences(case: &Case<f64, f64>) {
    let step = 1e-5;
    let loss = |student: Vec<f64>| {
        let moved = Case { student, ..case.clone() };
        let found = moved.run(&Reference::new(), Into::Nowhere);
        found.values.iter().zip(&case.upstream).map(|(value, by)| value * by).sum::<f64>()
    };
    let grads = case.run(&Reference::new(), Into::Buffer).grads;
    for (index, grad) in grads.into_iter().enumerate() {
        let moved = |by: f64| {
            let mut student = case.student.clone();
            student[index] += by;
            loss(student)
        };
        let slope = (moved(step) - moved(-step)) / (2.0 * step);
        // The third derivative times step^2, and the rounding of values divided by the step.
        assert!(
            (slope - grad).abs() <= 1e-8 * (1.0 + grad.abs()),
            "{:?} {index}: {slope} for {grad}",
            case.divergence
        );
    }
}
