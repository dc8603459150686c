//! The stage `mixed_log_probs` against the reference in f64.

#[path = "mixed_log_probs/bad_input.rs"]
mod bad_input;
#[path = "mixed_log_probs/bound.rs"]
mod bound;
#[path = "mixed_log_probs/case.rs"]
mod case;

use half::bf16;
use prefuse::batch::{Combination, Labels, Logits};
use prefuse::{Backend, DType, RowOptions, mixed_token_log_probs};

use crate::backends::{backends, composed_backends, edge_vocabs, fast_backends, many};
use crate::common::{Placed, rows};
pub use bound::Bound;
pub use case::{
    COEFFICIENTS, Case, Found, Part, case, each_large_vocabulary, each_type_and_vocabulary,
    types_of,
};

fn check(backend: &dyn Backend, case: &Case) {
    let (got, truth) = (case.run(backend), case.truth());
    for token in 0..case.ids.len() {
        let what = format!("{backend:?} {} {:?} token {token}", case.vocab, case.coefficients());
        if !case.counts(token) {
            assert_eq!(got.log_probs[token], 0.0, "{what}");
            assert!(got.maximum[token].is_nan() && got.log_sum[token].is_nan(), "{what}");
            continue;
        }
        let bound = Bound::new(case, token);
        let near = |name: &str, got: f64, expected: f64, bound: f64| {
            let same = got == expected || got.is_nan() && expected.is_nan();
            let within = (got - expected).abs() <= bound;
            assert!(same || within, "{what} {name}: {got} for {expected}, bound {bound}");
        };
        let expected = truth.log_probs[token];
        near("log-prob", got.log_probs[token], expected, bound.log_prob(expected));
        let total = |found: &Found| found.maximum[token] / case.temperature + found.log_sum[token];
        near("log-sum-exp", total(&got), total(&truth), bound.log_sum_exp());
    }
}

#[test]
fn every_backend_type_and_vocabulary() {
    for backend in backends() {
        each_type_and_vocabulary(&*backend, check);
    }
}

#[test]
fn large_vocabularies() {
    for backend in fast_backends() {
        each_large_vocabulary(&*backend, check);
    }
}

/// One model of coefficient 1 is what stage 1 has.
#[test]
fn one_model_is_stage_1() {
    for backend in backends() {
        let case = case(&[1.0], &[DType::F32], [18, 4099], 0.7);
        let found = case.run(&*backend);
        let data: Vec<f32> = case.parts[0].data.iter().map(|&x| x as f32).collect();
        let labels = Labels::new(&case.ids[..]);
        let options = RowOptions::default().with_temperature(0.7);
        let expected = rows(&*backend, &data, &labels, None, options).log_probs().to_vec().unwrap();
        for token in (0..18).filter(|&token| case.counts(token)) {
            let (got, expected) = (found.log_probs[token], expected[token]);
            let bound = 2.0 * Bound::new(&case, token).log_prob(expected);
            assert!((got - expected).abs() <= bound, "{backend:?} {token}: {got} {expected}");
        }
    }
}

/// Offsets of the parts, each its own, change a log-prob by no more than one rounding: the logits are multiples
/// of 2^-6 that f32 holds beside 2^13, so that every difference of them is exact.
#[test]
fn offsets() {
    for backend in backends() {
        let mut plain = case(&[1.5, -0.5], &[DType::F32; 2], [12, 5000], 1.0);
        for part in &mut plain.parts {
            let grid = |x: f64| if x.is_finite() { (x % 64.0 * 64.0).round() / 64.0 } else { x };
            part.data.iter_mut().for_each(|x| *x = grid(*x));
        }
        let mut far = plain.clone();
        for (part, offset) in far.parts.iter_mut().zip([8192.0, -4096.0]) {
            part.data.iter_mut().for_each(|x| *x += offset);
        }
        let (plain, far) = (plain.run(&*backend), far.run(&*backend));
        for (token, (got, expected)) in far.log_probs.iter().zip(&plain.log_probs).enumerate() {
            // Of the label's distance from the maximum, f64 has 1e-12; the result is rounded once.
            let bound = 2f64.powi(-23) * expected.abs() + 1e-11;
            assert!((got - expected).abs() <= bound, "{backend:?} {token}: {got} {expected}");
        }
    }
}

/// A label that the combination is almost sure of, where neither part is: `log p = -exp(-gap) * others`.
#[test]
fn confident_rows_keep_their_digits() {
    for backend in backends() {
        for gap in [20.0, 40.0, 60.0] {
            let mut parts = [vec![1e3; 5000], vec![-1e3; 5000]];
            parts[0][17] += 0.75 * gap;
            parts[1][17] -= 0.25 * gap;
            let found = Case::plain(&[1.0, -1.0], parts, vec![17]).run(&*backend);
            let expected = -(4999.0 * (-gap).exp()).ln_1p();
            approx::assert_relative_eq!(found.log_probs[0], expected, max_relative = 1e-5);
        }
    }
}

/// A block that lies far below, or far above, the ones before it.
#[test]
fn blocks_apart() {
    for backend in backends() {
        for step in [-1e4, -300.0, 0.0, 300.0, 1e4] {
            let data = |sign: f64| -> Vec<f64> {
                (0..9000).map(|v| sign * (step * (v / 3000) as f64 + (v % 7) as f64)).collect()
            };
            for label in [0, 2999, 3000, 8999] {
                let parts = [data(1.0), data(-0.5)];
                let case =
                    Case { temperature: 2.0, ..Case::plain(&[1.0, -1.0], parts, vec![label]) };
                check(&*backend, &case);
            }
        }
    }
}

/// What a part excludes is excluded, whatever the others say; a label there has a log-prob of -inf; nothing
/// left is NaN; a part that does not enter is not read.
#[test]
fn excluded_columns() {
    let (inf, nan) = (f64::INFINITY, f64::NAN);
    for backend in backends() {
        let run = |coefficients: &[f64], parts: [Vec<f64>; 2], label: i64| {
            Case::plain(coefficients, parts, vec![label]).run(&*backend).log_probs[0]
        };
        let parts = || [vec![0.5, -inf, 0.5], vec![0.25, -inf, 0.25]];
        approx::assert_relative_eq!(run(&[1.0, -1.0], parts(), 0), -(2f64.ln()), epsilon = 1e-6);
        assert_eq!(run(&[1.0, -1.0], parts(), 1), -inf);
        let first = || [vec![0.5, -inf, 0.5], vec![0.25, 7.0, 0.25]];
        assert_eq!(run(&[1.5, -0.5], first(), 1), -inf);
        approx::assert_relative_eq!(run(&[0.5, 0.5], first(), 0), -(2f64.ln()), epsilon = 1e-6);
        // Subtracted, it is all that is left.
        assert!(run(&[-1.0, 1.0], first(), 0).is_nan());
        assert!(run(&[1.0, 1.0], [vec![-inf; 3], vec![1.0; 3]], 0).is_nan());
        for endless in [nan, inf] {
            assert!(run(&[1.0, 1.0], [vec![endless, 0.0, 0.0], vec![1.0; 3]], 1).is_nan());
        }
        let unread = run(&[1.0, 0.0], [vec![0.0; 3], vec![nan, -inf, inf]], 1);
        approx::assert_relative_eq!(unread, -(3f64.ln()), epsilon = 1e-6);
        approx::assert_relative_eq!(run(&[0.0, 0.0], first(), 1), -(3f64.ln()), epsilon = 1e-6);
    }
}

/// A NaN stays in its row, and rows that do not count are not read.
#[test]
fn not_a_number_stays_in_its_row() {
    for backend in backends() {
        let mut case = case(&[1.0, -1.0], &[DType::BF16, DType::F32], [12, 40], 1.0);
        let before = case.run(&*backend);
        let masked: Vec<_> = (0..12).filter(|&token| !case.counts(token)).collect();
        assert!(masked.len() >= 4);
        masked.iter().for_each(|token| case.parts[token % 2].data[token * 40 + 3] = f64::NAN);
        assert_eq!(case.run(&*backend).bits(), before.bits(), "{backend:?}");
        case.parts[1].data[5] = f64::NAN;
        let after = case.run(&*backend);
        assert!(after.log_probs[0].is_nan(), "{backend:?}");
        assert_eq!(after.row_bits(1..12), before.row_bits(1..12), "{backend:?}");
    }
}

/// Strides and what lies between the rows change no bit; nor does an odd first element.
#[test]
fn strided_and_unaligned_rows() {
    for backend in fast_backends() {
        for types in [[DType::BF16; 2], [DType::F32, DType::F16]] {
            let case = case(&[1.5, -0.5], &types, [12, 2333], 1.0);
            let expected = case.run(&*backend);
            for gaps in [[0, 3], [8, 0], [5, 1]] {
                let strided = Case { gaps, ..case.clone() };
                assert_eq!(strided.run(&*backend).bits(), expected.bits(), "{backend:?} {gaps:?}");
            }
        }
    }
}

/// A row has the same bits at every index, alone and among others.
#[test]
fn in_any_batch() {
    for backend in fast_backends() {
        for &vocab in edge_vocabs() {
            for coefficients in [&[1.0, -1.0][..], &[0.5, 0.25, -0.75]] {
                let types = types_of(&*backend, coefficients.len(), vocab);
                let tokens = many(vocab).min(40);
                let all = case(coefficients, &types, [tokens, vocab], 1.0);
                let found = all.run(&*backend);
                for token in [0, 6, tokens - 1] {
                    let alone = all.only(token).run(&*backend);
                    let expected = found.row_bits(token..token + 1);
                    assert_eq!(alone.bits(), expected, "{backend:?} {vocab} {token}");
                }
            }
        }
    }
}

/// Sums by sequence are those of the log-probs.
#[test]
fn sums() {
    for backend in composed_backends() {
        let data = Placed::new(&*backend, &[0.5_f32, 1.0, 0.25, 0.0, 2.0, 1.0]);
        let other = Placed::new(&*backend, &[bf16::ONE; 6]);
        let parts = [(1.5, data.logits(3, 2)), (-0.5, other.logits(3, 2))];
        let (mixture, labels) = (Combination::new(&parts).unwrap(), Labels::new(&[0, 1, -100]));
        let found = mixed_token_log_probs(&*backend, &mixture, &labels, None, 1.0).unwrap();
        let packing = prefuse::batch::Packing::new(&[0, 2, 3]).unwrap();
        let totals = found.sums(&*backend, (&labels, None), &packing).unwrap();
        let expected: f64 = found.log_probs().to_vec().unwrap().iter().sum();
        assert_eq!((totals.sums, totals.tokens), (vec![expected, 0.0], vec![2.0, 0.0]));
    }
}

/// Of the reference with f64 logits all is f64, also beside f32.
#[test]
fn f64_beside_f32() {
    let (double, single) = ([0.5_f64, 1.0], [0.25_f32, 0.0]);
    let parts =
        [(1.0, Logits::new(&double, 1, 2).unwrap()), (1.0, Logits::new(&single, 1, 2).unwrap())];
    for parts in [parts, [parts[1], parts[0]]] {
        let mixture = Combination::new(&parts).unwrap();
        let (labels, reference) = (Labels::new(&[1]), prefuse::Reference::new());
        let found = mixed_token_log_probs(&reference, &mixture, &labels, None, 1.0).unwrap();
        assert_eq!(found.log_probs().dtype(), DType::F64);
        let expected = 1.0 - (0.75f64.exp() + 1.0f64.exp()).ln();
        approx::assert_relative_eq!(
            found.log_probs().to_vec().unwrap()[0],
            expected,
            max_relative = 1e-15
        );
    }
}
