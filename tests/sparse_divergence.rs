//! The stage `sparse_divergence` against the reference in f64, and against the dense stage.

#[path = "sparse_divergence/bad_input.rs"]
mod bad_input;
#[path = "sparse_divergence/case.rs"]
mod case;

use half::{bf16, f16};
use prefuse::stages::{Remainder, TokenDivergence};
use prefuse::{Backend, DType, Element, Reference};
use rand::RngExt;

use crate::backends::{backends, composed_backends, edge_vocabs, fast_backends, large_vocabs};
use crate::common::{exact, logits, normal, rng, rounding};
use crate::divergence::{Case as Dense, Into, Source};
pub use case::Case;

/// All but the expected advantage, which has no sparse teacher.
fn divergences() -> Vec<TokenDivergence> {
    let mut all = crate::divergence::divergences();
    all.retain(|kind| !matches!(kind, TokenDivergence::ExpectedAdvantage { .. }));
    all
}

/// Some entries of the student's own distribution with noise, in no order.
pub fn case<S: Element, T: Element>(
    divergence: TokenDivergence,
    remainder: Remainder,
    [tokens, vocab, k]: [usize; 3],
) -> Case<S, T> {
    let student: Vec<S> = logits(vocab as u64 + 3, tokens, vocab);
    let mut rng = rng((vocab + k) as u64);
    let (mut entries, mut log_probs) = (vec![], vec![]);
    for row in student.chunks(vocab) {
        let mut ids: Vec<usize> = (0..vocab).collect();
        // Those of the student's -inf come last: a KL of them would be infinite.
        ids.sort_by(|&a, &b| row[b].to_f64().total_cmp(&row[a].to_f64()));
        let finite = ids.iter().take_while(|&&id| row[id].to_f64().is_finite()).count();
        let scores: Vec<f64> = ids
            .iter()
            .map(|&id| row[id].to_f64() - row[ids[0]].to_f64() + normal(&mut rng))
            .collect();
        let sum: f64 = scores[..finite].iter().map(|score| score.exp()).sum();
        let mut listed: Vec<(i64, f64)> = (0..k)
            .map(|entry| match entry < finite {
                true => (ids[entry] as i64, (scores[entry] - sum.ln()).min(0.0)),
                false => (ids[entry] as i64, f64::NEG_INFINITY),
            })
            .collect();
        for entry in 0..k {
            listed.swap(entry, rng.random_range(0..k));
        }
        entries.extend(listed.iter().map(|(id, _)| id));
        log_probs.extend(listed.iter().map(|(_, log_p)| T::from_f64(*log_p)));
    }
    let ids = (0..tokens as i64).map(|t| if t % 5 == 3 { -100 } else { 0 }).collect();
    let upstream = (0..tokens).map(|t| if t % 7 == 4 { 0.0 } else { 0.5 - t as f64 }).collect();
    let (temperature, weights) = (1.0, None);
    Case {
        student,
        vocab,
        entries,
        log_probs,
        remainder,
        divergence,
        temperature,
        ids,
        weights,
        upstream,
    }
}

/// The log-probs of the student carry the error of stage 1, half ulps of `4 (|z| + log-sum + |log q|) + 80`;
/// what the teacher lists is exact, and sums over entries are f64. As in the dense stage a value changes by
/// `(p + q) (1 + |log q - log p|)` for each unit of it; `q` of all others by as much as a listed one.
pub fn compare<S: Element, T: Element>(backend: &dyn Backend, case: &Case<S, T>) {
    let truth = case.cast::<f64>().run(&Reference::new(), Into::Buffer).unwrap();
    let got = case.run(backend, Into::Buffer).unwrap();
    let half_ulp = if S::DTYPE == DType::F64 { f64::EPSILON } else { 2f64.powi(-24) };
    let (relative, absolute) = rounding::<S>();
    for (token, &id) in case.ids.iter().enumerate() {
        let what = format!("{backend:?} {} {} {:?}", S::DTYPE, case.vocab, case.divergence);
        let row = &exact(&case.student)[token * case.vocab..][..case.vocab];
        let maximum = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let z = |v: usize| (row[v] - maximum) / case.temperature;
        let log_sum = (0..case.vocab).map(|v| z(v).exp()).sum::<f64>().ln();
        // The farthest column that has a probability of f32 is 104 below the maximum.
        let error =
            |v: usize| (4.0 * (2.0 * z(v).abs().min(104.0) + 2.0 * log_sum) + 80.0) * half_ulp;
        let widest = (0..case.vocab).map(error).fold(0.0, f64::max);
        // Both distributions together weigh 2, and no logarithm here is beyond 150.
        let size = truth.numbers.iter().map(|of| of[token].abs()).sum::<f64>();
        let bound = 4.0 * widest * (1.0 + size) + 100.0 * half_ulp * (1.0 + size);
        for (got, truth) in got.numbers.iter().zip(&truth.numbers) {
            let (got, truth) = (got[token], truth[token]);
            let same = got == truth || (got - truth).abs() <= bound;
            assert!(same, "{what} token {token}: {got} for {truth}, bound {bound}");
        }
        let infinite = truth.numbers[0][token].is_infinite();
        for v in 0..case.vocab {
            let index = token * case.vocab + v;
            let (got, expected) = (got.grads[index].to_f64(), truth.grads[index]);
            if id == -100 {
                assert_eq!(got, 0.0, "{what} token {token}");
            }
            if infinite {
                continue;
            }
            let q = (z(v) - log_sum).exp();
            let scale = case.upstream[token].abs() / case.temperature;
            let flushed = 4.0 * f64::from(f32::MIN_POSITIVE) * (1.0 + scale);
            let arithmetic = scale * (2.0 * q * bound + 2.0 * widest * q * (1.0 + size))
                + flushed
                + (4.0 * widest + 8.0 * half_ulp) * expected.abs();
            let bound = arithmetic + relative * (expected.abs() + arithmetic) + absolute;
            let close = (got - expected).abs() <= bound || got.is_nan() && expected.is_nan();
            assert!(close, "{what} token {token} column {v}: {got} for {expected}, bound {bound}");
        }
    }
}

/// Every divergence and rule, with one entry and with many, in every type.
#[test]
fn every_backend_and_divergence() {
    for backend in backends() {
        for divergence in divergences() {
            for remainder in [Remainder::Renormalised, Remainder::Bin] {
                for k in [1, 8, 33] {
                    compare::<f32, f32>(&*backend, &case(divergence, remainder, [6, 33, k]));
                    compare::<bf16, bf16>(&*backend, &case(divergence, remainder, [6, 1030, k]));
                }
            }
        }
    }
}

/// The most entries; long rows.
#[test]
fn many_entries() {
    use TokenDivergence::{ForwardKl, JensenShannon, TotalVariation};
    for backend in backends() {
        let largest = large_vocabs().last();
        let sizes = edge_vocabs().iter().chain(largest).copied();
        for (vocab, kind) in
            sizes.zip([ForwardKl, JensenShannon { beta: 0.5 }, TotalVariation].into_iter().cycle())
        {
            let k = vocab.min(1024);
            compare::<f32, f16>(&*backend, &case(kind, Remainder::Bin, [3, vocab, k]));
            compare::<bf16, f32>(&*backend, &case(kind, Remainder::Renormalised, [3, vocab, k]));
        }
    }
}

/// All entries listed: the dense stage's numbers.
#[test]
fn the_whole_vocabulary_is_dense() {
    fn body<S: Element>(backend: &dyn Backend, within: f64) {
        for divergence in divergences() {
            for remainder in [Remainder::Renormalised, Remainder::Bin] {
                let sparse: Case<S, S> = case(divergence, remainder, [6, 33, 33]);
                let mut teacher = vec![S::from_f64(0.0); sparse.student.len()];
                let listed = sparse.entries.iter().zip(&sparse.log_probs).enumerate();
                listed.for_each(|(at, (&id, &log_p))| teacher[at / 33 * 33 + id as usize] = log_p);
                let dense = Dense {
                    student: sparse.student.clone(),
                    vocab: 33,
                    source: Source::one(teacher, 33),
                    divergence,
                    temperatures: [1.0, 1.0],
                    ids: sparse.ids.clone(),
                    weights: None,
                    upstream: sparse.upstream.clone(),
                };
                let got = sparse.run(backend, Into::Buffer).unwrap();
                let expected = dense.run(backend, Into::Buffer);
                let close = |a: f64, b: f64| a == b || (a - b).abs() <= within * (1.0 + b.abs());
                let pairs = got.numbers[0].iter().zip(&expected.values);
                let (of_sparse, of_dense) = (exact(&got.grads), exact(&expected.grads));
                let pairs = pairs.chain(of_sparse.iter().zip(&of_dense));
                for (a, b) in pairs.chain(got.numbers[2].iter().zip(&expected.teacher_entropy)) {
                    assert!(close(*a, *b), "{backend:?} {divergence:?} {remainder:?}: {a} for {b}");
                }
            }
        }
    }
    body::<f64>(&Reference::new(), 1e-12);
    for backend in composed_backends() {
        body::<f32>(&*backend, 1e-5);
    }
}

/// The student's temperature, every type of the teacher, and rows of weight 0, which may hold anything.
#[test]
fn temperatures_types_and_weights() {
    fn body<S: Element, T: Element>(backend: &dyn Backend) {
        for divergence in divergences() {
            let mut case: Case<S, T> = case(divergence, Remainder::Bin, [6, 1030, 7]);
            case.temperature = 0.7;
            case.weights = Some(vec![1.0, 0.0, -2.0, 1.0, 1.0, 0.5]);
            case.student[1030..2 * 1030].fill(S::from_f64(f64::NAN));
            case.entries[7..14].copy_from_slice(&[-1, 5, 5, 1 << 40, 0, 0, 1030]);
            case.log_probs[7..14].fill(T::from_f64(f64::NAN));
            for into in [Into::Buffer, Into::Sum] {
                let found = case.run(backend, into).unwrap();
                assert!(found.numbers.iter().all(|of| of[1] == 0.0), "{backend:?}");
                let kept = if into == Into::Sum { 0.25 } else { 0.0 };
                let row = &exact(&found.grads)[1030..2 * 1030];
                assert!(row.iter().all(|&x| x == kept), "{backend:?}");
            }
            // Sound rows of the same weights.
            case.student.copy_within(0..1030, 1030);
            case.entries.copy_within(0..7, 7);
            case.log_probs.copy_within(0..7, 7);
            compare(backend, &case);
        }
    }
    for backend in composed_backends() {
        body::<f32, bf16>(&*backend);
        body::<f16, f32>(&*backend);
        body::<bf16, f16>(&*backend);
    }
}

/// Listed probabilities of more than 1 together leave nothing to others.
#[test]
fn sums_above_one() {
    for backend in backends() {
        for divergence in divergences() {
            for remainder in [Remainder::Renormalised, Remainder::Bin] {
                let mut case: Case<f32, f32> = case(divergence, remainder, [6, 300, 8]);
                case.log_probs.iter_mut().for_each(|log_p| *log_p = (*log_p + 3.0).min(0.0));
                compare(&*backend, &case);
            }
        }
    }
}

/// A student that is sure of what is listed: the others' probability is none that f32 has, and their gradient
/// is what the teacher leaves for them. And one that is sure of another column.
#[test]
fn confident_students() {
    for backend in backends() {
        for divergence in divergences() {
            for others in [-60.0, -150.0, -1000.0, 90.0] {
                let mut case: Case<f32, f32> = case(divergence, Remainder::Bin, [6, 1030, 8]);
                for (row, listed) in case.student.chunks_mut(1030).zip(case.entries.chunks(8)) {
                    for (column, x) in row.iter_mut().enumerate() {
                        let is_listed = listed.contains(&(column as i64));
                        *x = if is_listed { 0.5 * *x } else { others + 0.01 * *x };
                    }
                }
                compare(&*backend, &case);
            }
        }
    }
}

/// A teacher that excludes what the student does not, and the other way round; NaN stays in its row.
#[test]
fn infinite_divergences() {
    use TokenDivergence::{ForwardKl, JensenShannon, ReverseKl};
    let minus = f32::NEG_INFINITY;
    for backend in backends() {
        let run = |divergence, student: [f32; 4], log_probs: [f32; 2], remainder| {
            let case = Case {
                student: [student, [0.0; 4]].concat(),
                vocab: 4,
                entries: vec![2, 0, 3, 1],
                log_probs: [log_probs, [-1.0, -2.0]].concat(),
                remainder,
                divergence,
                temperature: 1.0,
                ids: vec![0, 0],
                weights: None,
                upstream: vec![1.0; 2],
            };
            let found = case.run(&*backend, Into::Buffer).unwrap();
            assert!(!found.numbers[0][1].is_nan(), "{backend:?}");
            found.numbers[0][0]
        };
        let (bin, renormalised) = (Remainder::Bin, Remainder::Renormalised);
        let listed = [-0.5, minus];
        assert!(run(ForwardKl, [0.0; 4], listed, bin).is_finite(), "{backend:?}");
        assert_eq!(run(ReverseKl, [0.0; 4], listed, bin), f64::INFINITY, "{backend:?}");
        assert_eq!(run(ReverseKl, [0.0; 4], [-0.5; 2], renormalised), f64::INFINITY);
        assert_eq!(run(ForwardKl, [0.0, 1.0, minus, 0.0], listed, bin), f64::INFINITY);
        let others = [0.0, minus, 0.0, minus];
        assert_eq!(run(ForwardKl, others, [-1.0; 2], bin), f64::INFINITY, "{backend:?}");
        assert!(run(ReverseKl, others, [-1.0; 2], renormalised).abs() < 1e-6, "{backend:?}");
        assert!(run(JensenShannon { beta: 0.5 }, others, listed, bin).is_finite());
        for nan in [[f32::NAN, -1.0], [-1.0, f32::NAN]] {
            assert!(run(ForwardKl, [0.0; 4], nan, renormalised).is_nan(), "{backend:?}");
        }
        for student in [[f32::NAN, 0.0, 0.0, 0.0], [0.0, f32::NAN, 0.0, 0.0]] {
            assert!(run(ReverseKl, student, [-1.0; 2], bin).is_nan(), "{backend:?}");
        }
    }
}

/// In place, in a buffer and added; a row by itself and among others.
#[test]
fn targets_and_batches() {
    for backend in fast_backends() {
        for divergence in divergences() {
            let all: Case<bf16, f32> = case(divergence, Remainder::Bin, [6, 300, 20]);
            let buffer = all.run(&*backend, Into::Buffer).unwrap();
            let place = all.run(&*backend, Into::Place).unwrap();
            let bits = |grads: &[bf16]| grads.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&place.grads), bits(&buffer.grads), "{backend:?} {divergence:?}");
            let added = all.run(&*backend, Into::Sum).unwrap();
            for (sum, grad) in exact(&added.grads).into_iter().zip(exact(&buffer.grads)) {
                let rounded = 2f64.powi(-7) * (grad.abs() + sum.abs());
                assert!((sum - 0.25 - grad).abs() <= rounded, "{backend:?} {sum} {grad}");
            }
            let part = |token: usize| Case {
                student: all.student[token * 300..][..300].to_vec(),
                entries: all.entries[token * 20..][..20].to_vec(),
                log_probs: all.log_probs[token * 20..][..20].to_vec(),
                ids: vec![all.ids[token]],
                upstream: vec![all.upstream[token]],
                ..all.clone()
            };
            for token in 0..6 {
                let alone = part(token).run(&*backend, Into::Buffer).unwrap();
                let row = &buffer.grads[token * 300..][..300];
                assert_eq!(bits(&alone.grads), bits(row), "{backend:?} {divergence:?}");
                let (a, b) = (alone.numbers[0][0], buffer.numbers[0][token]);
                assert_eq!(a.to_bits(), b.to_bits(), "{backend:?} {divergence:?}");
            }
        }
    }
}

/// Rows on no boundary, and on others than their gradient.
#[test]
fn rows_have_the_same_bits_anywhere() {
    fn check<S: Element>(backend: &dyn Backend, vocab: usize) {
        let divergence = TokenDivergence::JensenShannon { beta: 0.5 };
        let case: Case<S, f32> = case(divergence, Remainder::Bin, [6, vocab, 9]);
        for into in [Into::Buffer, Into::Place, Into::Sum] {
            let expected = case.run(backend, into).unwrap();
            for before in [1, 3, 6] {
                let got = case.run_behind(backend, into, before).unwrap();
                assert_eq!(bits(&got.numbers.concat()), bits(&expected.numbers.concat()));
                let what = format!("{backend:?} {} {vocab} {into:?} {before}", S::DTYPE);
                assert_eq!(bits(&exact(&got.grads)), bits(&exact(&expected.grads)), "{what}");
            }
        }
    }
    fn bits(numbers: &[f64]) -> Vec<u64> {
        numbers.iter().map(|x| x.to_bits()).collect()
    }
    for backend in fast_backends() {
        for vocab in [11, 1029, 2051] {
            check::<f32>(&*backend, vocab);
            check::<bf16>(&*backend, vocab);
        }
    }
}
