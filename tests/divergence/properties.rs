//! What is true of every divergence, whatever the numbers.

use half::bf16;
use prefuse::batch::Labels;
use prefuse::stages::TokenDivergence;
use prefuse::{Backend, Element, RowOptions};

use super::case::{Case, Into, Source};
use super::{case, compare, divergences};
use crate::backends::{backends, composed_backends, edge_vocabs};
use crate::common::{Placed, exact, logits, rounding, rows};
use crate::each_dtype;

/// The same logits on both sides: the KL and its gradient are exactly 0, the others to rounding.
#[test]
fn a_teacher_of_itself() {
    fn body<T: Element>(backend: &dyn Backend) {
        use TokenDivergence as D;
        for vocab in [1, 33, 4099] {
            let tokens = 6;
            let data: Vec<T> = logits(3, tokens, vocab);
            for divergence in divergences() {
                if matches!(divergence, D::ExpectedAdvantage { .. } | D::SoftCrossEntropy) {
                    continue;
                }
                let case = Case {
                    student: data.clone(),
                    vocab,
                    source: Source::one(data.clone(), vocab),
                    divergence,
                    temperatures: [1.0, 1.0],
                    ids: vec![0; tokens],
                    weights: None,
                    upstream: vec![1.0; tokens],
                };
                let found = case.run(backend, Into::Buffer);
                let exact =
                    matches!(divergence, D::ForwardKl | D::ReverseKl | D::SymmetricKl { .. });
                let bound = if exact { 0.0 } else { 4e-7 };
                let what = format!("{backend:?} {} {vocab} {divergence:?}", T::DTYPE);
                for value in found.values {
                    assert!(value.abs() <= bound, "{what}: {value}");
                }
                for grad in found.grads {
                    let grad = grad.to_f64();
                    assert!(grad.abs() <= bound, "{what}: gradient {grad}");
                }
            }
        }
    }
    for backend in composed_backends() {
        each_dtype!(&*backend, body);
    }
}

/// A teacher that is sure of a label is the label: minus its log-prob, and the gradient of that.
#[test]
fn one_hot_teachers() {
    for backend in backends() {
        let (tokens, vocab) = (12, 1025);
        let data: Vec<f32> = logits(5, tokens, vocab);
        let ids: Vec<i64> = (0..tokens)
            .map(|t| (0..vocab).rfind(|v| data[t * vocab + v].is_finite()).unwrap() as i64)
            .collect();
        let mut hot = vec![f32::NEG_INFINITY; tokens * vocab];
        ids.iter().enumerate().for_each(|(t, &label)| hot[t * vocab + label as usize] = 3.0);
        let log_probs = rows(&*backend, &data, &Labels::new(&ids[..]), None, RowOptions::default());
        let log_probs = log_probs.log_probs().to_vec().unwrap();
        let case = Case {
            student: data,
            vocab,
            source: Source::one(hot, vocab),
            divergence: TokenDivergence::ForwardKl,
            temperatures: [1.0, 1.0],
            ids,
            weights: None,
            upstream: vec![1.0; tokens],
        };
        let found = case.run(&*backend, Into::Buffer);
        for (token, (value, log_prob)) in found.values.iter().zip(&log_probs).enumerate() {
            let bound = 1e-5 * (1.0 + log_prob.abs());
            assert!((value + log_prob).abs() <= bound, "{backend:?} {token}: {value} {log_prob}");
        }
    }
}

/// Rows of the gradient sum to 0 to the rounding of their elements.
#[test]
fn rows_sum_to_zero() {
    fn body<T: Element>(backend: &dyn Backend) {
        for divergence in divergences() {
            let case: Case<T, T> = case(divergence, [12, 1100, 1100], [1.0, 1.0]);
            let found = case.run(backend, Into::Buffer);
            let (relative, absolute) = rounding::<T>();
            for (token, row) in found.grads.chunks(1100).enumerate() {
                let sum: f64 = row.iter().map(|x| x.to_f64()).sum();
                // Each element is rounded once; p, q and the row's sum are right to 1e-5.
                let size: f64 = row.iter().map(|x| x.to_f64().abs()).sum();
                let parts = case.upstream[token].abs() * (1.0 + found.values[token].abs());
                let bound = (relative + 1e-5) * size + 1e-5 * parts + absolute * 1100.0;
                let what = format!("{backend:?} {} {divergence:?} {token}", T::DTYPE);
                assert!(sum.abs() <= bound, "{what}: {sum}, bound {bound}");
            }
        }
    }
    for backend in composed_backends() {
        each_dtype!(&*backend, body);
    }
}

/// In place, in a buffer and added to another gradient: the same numbers, and the addition is of the f32
/// gradient, rounded once.
#[test]
fn targets() {
    fn body<T: Element>(backend: &dyn Backend) {
        for divergence in divergences() {
            for [vocab, teacher] in [[333, 333], [333, 300]] {
                let mut case: Case<T, T> = case(divergence, [6, vocab, teacher], [1.0, 1.0]);
                let bytes = |grads: Vec<T>| bytemuck::cast_slice::<T, u8>(&grads).to_vec();
                let buffer = case.run(backend, Into::Buffer).grads;
                let place = case.run(backend, Into::Place).grads;
                assert_eq!(bytes(place), bytes(buffer.clone()), "{backend:?} {divergence:?}");
                let added = case.run(backend, Into::Sum).grads;
                let (relative, _) = rounding::<T>();
                for (sum, grad) in exact(&added).into_iter().zip(exact(&buffer)) {
                    let rounded = relative * (2.0 * grad.abs() + 2.0 * sum.abs());
                    assert!((sum - 0.25 - grad).abs() <= rounded, "{backend:?} {sum} {grad}");
                }
                // What is not asked for stays to the bit.
                case.upstream = vec![0.0; 6];
                let added = case.run(backend, Into::Sum).grads;
                assert!(exact(&added).iter().all(|&x| x == 0.25), "{backend:?}");
            }
        }
    }
    for backend in composed_backends() {
        each_dtype!(&*backend, body);
    }
}

/// Rows that do not count may hold anything; a NaN stays in its row.
#[test]
fn masked_rows_and_nan() {
    for backend in composed_backends() {
        for divergence in divergences() {
            let mut case: Case<f32, bf16> = case(divergence, [12, 40, 40], [1.0, 1.0]);
            let before = case.run(&*backend, Into::Buffer);
            let counts = |token: usize| case.ids[token] != -100 && token % 4 != 2;
            let masked: Vec<_> = (0..12).filter(|&token| !counts(token)).collect();
            assert!(masked.len() >= 4);
            for token in masked {
                case.student[token * 40 + 3] = f32::NAN;
                case.source.parts[0].1[token * 40 + 4] = bf16::NAN;
            }
            let after = case.run(&*backend, Into::Buffer);
            let bits = |x: &[f64]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&before.values), bits(&after.values), "{backend:?}");
            assert_eq!(bits(&exact(&before.grads)), bits(&exact(&after.grads)), "{backend:?}");
            case.source.parts[0].1[4] = bf16::NAN;
            let after = case.run(&*backend, Into::Buffer);
            assert!(after.values[0].is_nan(), "{backend:?} {divergence:?}");
            assert_eq!(bits(&before.values[1..]), bits(&after.values[1..]), "{backend:?}");
            assert_eq!(bits(&exact(&before.grads[40..])), bits(&exact(&after.grads[40..])));
        }
    }
}

/// A teacher that excludes what the student does not: infinite where the formula is.
#[test]
fn infinite_divergences() {
    for backend in backends() {
        let run = |divergence, student: [f32; 3], teacher: [f32; 3]| {
            let case = Case {
                student: student.to_vec(),
                vocab: 3,
                source: Source::one(teacher.to_vec(), 3),
                divergence,
                temperatures: [1.0, 1.0],
                ids: vec![0],
                weights: None,
                upstream: vec![1.0],
            };
            case.run(&*backend, Into::Buffer)
        };
        let (all, some) = ([0.0, 0.5, 1.0], [0.0, 0.5, f32::NEG_INFINITY]);
        use TokenDivergence::{ForwardKl, ReverseKl, SoftCrossEntropy};
        assert_eq!(run(ReverseKl, all, some).values, [f64::INFINITY], "{backend:?}");
        assert_eq!(run(ForwardKl, some, all).values, [f64::INFINITY], "{backend:?}");
        assert_eq!(run(SoftCrossEntropy, some, all).values, [f64::INFINITY], "{backend:?}");
        assert!(run(ForwardKl, all, some).values[0].is_finite());
        assert!(run(ReverseKl, some, all).values[0].is_finite());
        assert_eq!(run(ReverseKl, some, all).grads[2], 0.0, "{backend:?}");
    }
}

/// Beside -inf a probability that f32 does not have is 0, wherever its column is, so that masks of several
/// kinds agree.
#[test]
fn masks_of_several_kinds() {
    use TokenDivergence::{ForwardKl, ReverseKl, SoftCrossEntropy, SymmetricKl};
    let unclipped = (f64::NEG_INFINITY, f64::INFINITY);
    let advantage = TokenDivergence::ExpectedAdvantage { beta: 1.0, clip: unclipped };
    for backend in composed_backends() {
        // The column that one of them excludes, its place, and the other's logit there.
        let run = |divergence, excluded_by_teacher: bool, [at, vocab]: [usize; 2], logit: f32| {
            let [mut masked, mut other] = [(); 2].map(|()| logits::<f32>(2, 1, vocab));
            for row in [&mut masked, &mut other] {
                row.iter_mut().for_each(|x| *x = x.clamp(-2.0, 2.0));
            }
            (masked[at], other[at]) = (f32::NEG_INFINITY, logit);
            let mut source = Source::one(masked.clone(), vocab);
            let mut student = other.clone();
            if !excluded_by_teacher {
                (source, student) = (Source::one(other, vocab), masked);
            }
            if divergence == advantage {
                source.parts.push((-1.0, vec![0.0; vocab]));
            }
            Case {
                student,
                vocab,
                source,
                divergence,
                temperatures: [1.0, 1.0],
                ids: vec![0],
                weights: None,
                upstream: vec![1.0],
            }
            .run(&*backend, Into::Buffer)
        };
        for at in [[0, 3], [2, 3], [0, 5000], [4999, 5000]] {
            for (divergence, by_teacher) in [
                (ForwardKl, false),
                (SoftCrossEntropy, false),
                (ReverseKl, true),
                (SymmetricKl { reverse: 0.5 }, true),
                (SymmetricKl { reverse: 0.5 }, false),
                (advantage, true),
            ] {
                let what = format!("{backend:?} {divergence:?} {at:?}");
                let visible = run(divergence, by_teacher, at, -60.0);
                assert_eq!(visible.values, [f64::INFINITY], "{what}");
                for hidden in [-110.0, -65_504.0, f32::MIN] {
                    let found = run(divergence, by_teacher, at, hidden);
                    assert!(found.values[0].is_finite(), "{what} {hidden}: {:?}", found.values);
                    assert!(found.grads.iter().all(|grad| grad.is_finite()), "{what} {hidden}");
                }
            }
        }
    }
}

/// Upstream gradients of NaN make their row's gradient NaN, of whatever bits they are.
#[test]
fn upstream_of_nan() {
    fn body<T: Element>(backend: &dyn Backend) {
        for divergence in divergences() {
            let mut case: Case<T, T> = case(divergence, [6, 70, 70], [1.0, 1.0]);
            case.weights = None;
            case.upstream = vec![1.0; 6];
            case.upstream[0] = f64::from(f32::from_bits(0x7fff_ffff));
            for into in [Into::Place, Into::Buffer, Into::Sum] {
                let grads = exact(&case.run(backend, into).grads);
                assert!(grads[..70].iter().all(|x| x.is_nan()), "{backend:?} {divergence:?}");
                assert!(grads[70..].iter().all(|x| !x.is_nan()), "{backend:?} {divergence:?}");
            }
        }
    }
    for backend in composed_backends() {
        each_dtype!(&*backend, body);
    }
}

/// Parts of coefficient 0 are not read; one of a negative coefficient is a distribution too.
#[test]
fn coefficients() {
    for backend in composed_backends() {
        for divergence in divergences() {
            let is_advantage = matches!(divergence, TokenDivergence::ExpectedAdvantage { .. });
            let mut case: Case<f32, f32> = case(divergence, [6, 40, 40], [1.0, 1.0]);
            if !is_advantage {
                case.source.parts[0].0 = -0.5;
                let finite = |x: &mut f32| *x = x.max(-20.0);
                case.student.iter_mut().for_each(finite);
                case.source.parts[0].1.iter_mut().for_each(finite);
            }
            let (what, truth) = (format!("{backend:?} {divergence:?}"), case.truth());
            compare(&what, &case, &case.run(&*backend, Into::Buffer), &truth);
            let mut more = case.clone();
            more.source.parts.push((0.0, vec![f32::NAN; 6 * 40]));
            compare(&what, &case, &more.run(&*backend, Into::Buffer), &truth);
        }
    }
}

/// A row has the same bits at every index, alone and among others. A third of the divergences at a time.
#[test]
fn in_any_batch() {
    fn body<T: Element>(backend: &dyn Backend, vocab: usize, from: usize) {
        for divergence in divergences().into_iter().skip(from).step_by(3) {
            let all: Case<T, T> = case(divergence, [5, vocab, vocab], [1.0, 1.0]);
            let found = all.run(backend, Into::Buffer);
            for token in [0, 4] {
                let row = |data: &[T]| data[token * vocab..][..vocab].to_vec();
                let parts = all.source.parts.iter().map(|(c, data)| (*c, row(data))).collect();
                let one = Case {
                    student: row(&all.student),
                    source: Source { parts, vocab, adaptive: None },
                    ids: vec![all.ids[token]],
                    weights: all.weights.as_ref().map(|weights| vec![weights[token]]),
                    upstream: vec![all.upstream[token]],
                    ..all.clone()
                };
                let alone = one.run(backend, Into::Buffer);
                let what = format!("{backend:?} {} {vocab} {divergence:?} {token}", T::DTYPE);
                let bits = |x: f64| x.to_bits();
                assert_eq!(bits(alone.values[0]), bits(found.values[token]), "{what}");
                let bytes = |grads: Vec<T>| bytemuck::cast_slice::<T, u8>(&grads).to_vec();
                assert_eq!(bytes(alone.grads), bytes(row(&found.grads)), "{what}");
            }
        }
    }
    for backend in backends() {
        for (place, &vocab) in edge_vocabs().iter().enumerate() {
            if vocab <= 4099 {
                each_dtype!(&*backend, body, vocab, place % 3);
            }
        }
    }
}

/// Entropies are those of stage 1.
#[test]
fn entropies() {
    for backend in backends() {
        let case: Case<f32, f32> = case(TokenDivergence::ForwardKl, [12, 1025, 1025], [0.7, 1.0]);
        let found = case.run(&*backend, Into::Nowhere);
        let options = RowOptions::default().with_entropy();
        let labels = Labels::new(&case.ids[..]);
        for (data, temperature, entropies) in [
            (&case.student, 0.7, &found.student_entropy),
            (&case.source.parts[0].1, 1.0, &found.teacher_entropy),
        ] {
            let options = options.with_temperature(temperature);
            let data = Placed::new(&*backend, data).read::<f32>();
            let of_rows = rows(&*backend, &data, &labels, None, options);
            let expected = of_rows.entropy().unwrap().to_vec().unwrap();
            for token in (0..12).filter(|&t| case.ids[t] != -100 && t % 4 != 2) {
                let bound = 1e-5 * (1.0 + expected[token]);
                let (got, expected) = (entropies[token], expected[token]);
                assert!((got - expected).abs() <= bound, "{backend:?} {token}: {got} {expected}");
            }
        }
    }
}

/// A teacher that excludes every column is no distribution.
#[test]
fn empty_teachers() {
    for backend in composed_backends() {
        for (divergence, vocab) in divergences().into_iter().flat_map(|d| [(d, 1), (d, 3)]) {
            let mut source = Source::one(vec![f32::NEG_INFINITY; vocab], vocab);
            if matches!(divergence, TokenDivergence::ExpectedAdvantage { .. }) {
                source.parts.push((-1.0, vec![0.5; vocab]));
            }
            let case: Case<f32, f32> = Case {
                student: vec![0.5; vocab],
                vocab,
                source,
                divergence,
                temperatures: [1.0; 2],
                ids: vec![0],
                weights: None,
                upstream: vec![1.0],
            };
            let got = case.run(&*backend, Into::Buffer);
            let all = got.values.iter().copied().chain(exact(&got.grads));
            assert!(all.into_iter().all(f64::is_nan), "{backend:?} {divergence:?} {vocab}");
        }
    }
}
