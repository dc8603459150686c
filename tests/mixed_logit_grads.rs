//! The stage `mixed_logit_grads` against the reference in f64, and the reference against finite differences.

use half::bf16;
use prefuse::batch::{Combination, Labels, LogitsMut};
use prefuse::stages::{MixedLogitGrads, RowStatistics, Tokens};
use prefuse::{Backend, DType, MaskedRows, Reference, mixed_token_log_probs};

use crate::backends::{backends, composed_backends, fast_backends};
use crate::common::{Placed, refused, rounding};
use crate::mixed_log_probs::{
    Bound, COEFFICIENTS, Case, Found, case, each_large_vocabulary, each_type_and_vocabulary,
};

fn rounding_of(dtype: DType) -> (f64, f64) {
    match dtype {
        DType::F16 => rounding::<half::f16>(),
        DType::BF16 => rounding::<half::bf16>(),
        DType::F32 => rounding::<f32>(),
        _ => rounding::<f64>(),
    }
}

fn check(backend: &dyn Backend, case: &Case) {
    compare(&format!("{backend:?}"), case, &case.run(backend), &case.truth());
}

/// A probability is right to `Bound::probability`, and its product with the factors of its row is rounded a few
/// times. What would be subnormal, of the exponential or of that product, may be 0. The stored element is
/// rounded once.
fn compare(backend: &str, case: &Case, got: &Found, truth: &Found) {
    for token in 0..case.ids.len() {
        let bounds = case.counts(token).then(|| Bound::new(case, token));
        for (part, (got, truth)) in case.parts.iter().zip(got.grads.iter().zip(&truth.grads)) {
            let (relative, absolute) = rounding_of(part.dtype);
            let factor = (case.upstream[token] * part.coefficient).abs();
            let inverse = 1.0 / case.temperature;
            let flushed = 4.0 * f64::from(f32::MIN_POSITIVE) * inverse.max(1.0) * (1.0 + factor);
            for v in 0..case.vocab {
                let (got, expected) = (got[token * case.vocab + v], truth[token * case.vocab + v]);
                let Some(bounds) = &bounds else {
                    assert_eq!(got, 0.0, "{backend} token {token} does not count");
                    continue;
                };
                let of_p = bounds.column(v) * bounds.probability(v);
                let rounded = 8.0 * 2f64.powi(-24) * expected.abs();
                let arithmetic = factor * inverse * of_p + flushed + rounded;
                let bound = arithmetic + relative * (expected.abs() + arithmetic) + absolute;
                assert!(
                    (got - expected).abs() <= bound,
                    "{backend} {} {part:.0?} token {token} column {v}: {got} for {expected}, bound {bound}",
                    case.vocab,
                    part = (part.coefficient, part.dtype),
                );
            }
        }
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

/// The gradient of the reference is that of its log-probs.
#[test]
fn finite_differences() {
    for coefficients in COEFFICIENTS {
        for temperature in [1.0, 2.0, 0.5] {
            let types = vec![DType::F64; coefficients.len()];
            let mut case = case(coefficients, &types, [1, 7], temperature);
            case.upstream = vec![-1.5];
            for part in &mut case.parts {
                part.data.iter_mut().for_each(|x| *x = if x.is_finite() { *x } else { 0.5 });
            }
            for (part, grads) in case.run(&Reference::new()).grads.iter().enumerate() {
                for (v, grad) in grads.iter().enumerate() {
                    let step = 1e-5;
                    let moved = |by: f64| {
                        let mut case = case.clone();
                        case.parts[part].data[v] += by;
                        -1.5 * case.run(&Reference::new()).log_probs[0]
                    };
                    let slope = (moved(step) - moved(-step)) / (2.0 * step);
                    // The third derivative times step^2, and the rounding of log-probs by the step.
                    assert!((slope - grad).abs() <= 1e-8, "{coefficients:?}: {slope} {grad}");
                }
            }
        }
    }
}

/// The gradients are asked for one by one, and do not depend on one another.
#[test]
fn some_parts() {
    for backend in backends() {
        let types = [DType::F32, DType::BF16, DType::F16];
        let all = case(&[0.5, 0.25, -0.75], &types, [12, 2333], 1.0);
        let expected = all.run(&*backend).grads;
        for wanted in 0..8 {
            let wanted = [0, 1, 2].map(|part| wanted >> part & 1 == 1);
            let found = Case { wanted, ..all.clone() }.run(&*backend).grads;
            for part in 0..3 {
                let expected = if wanted[part] { &expected[part][..] } else { &[] };
                let bits = |x: &[f64]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                assert_eq!(bits(&found[part]), bits(expected), "{backend:?} {wanted:?}");
            }
        }
    }
}

/// Rows of tokens that do not count are 0 or left alone; an upstream gradient of 0 reads nothing; one of NaN
/// is NaN throughout.
#[test]
fn masked_rows() {
    for backend in backends() {
        let mut case = case(&[1.5, -0.5], &[DType::BF16, DType::F32], [12, 40], 1.0);
        case.upstream[0] = 0.0;
        let counted: Vec<_> = (0..12).map(|token| case.counts(token)).collect();
        assert!(counted[0]);
        let zeroed = case.run(&*backend).grads;
        assert!(zeroed[0][..40].iter().all(|&grad| grad == 0.0), "{backend:?}");
        let kept = case.try_run(&*backend, MaskedRows::AlreadyZero).unwrap().grads;
        for (part, (zeroed, kept)) in zeroed.iter().zip(&kept).enumerate() {
            for (token, counts) in counted.iter().enumerate() {
                let rows = [zeroed, kept].map(|grads| &grads[token * 40..][..40]);
                match counts {
                    true => assert_eq!(rows[0], rows[1], "{backend:?} {part} {token}"),
                    false => assert!(rows[1].iter().all(|x| x.is_nan()), "{backend:?} {token}"),
                }
            }
        }
        case.upstream[0] = f64::NAN;
        case.parts[1].coefficient = 0.0;
        let grads = case.run(&*backend).grads;
        assert!(grads[0][..40].iter().all(|grad| grad.is_nan()), "{backend:?}");
        assert!(grads[1].iter().all(|&grad| grad == 0.0), "{backend:?}");
    }
}

/// Excluded columns have a gradient of 0, and a label among them the finite limit, one-hot minus softmax; rows
/// without a distribution are NaN.
#[test]
fn excluded_columns() {
    let (inf, nan) = (f64::INFINITY, f64::NAN);
    for backend in backends() {
        let run = |parts: [Vec<f64>; 2], label: i64| {
            Case::plain(&[1.5, -0.5], parts, vec![label]).run(&*backend).grads
        };
        let parts = || [vec![0.5, -inf, 0.5], vec![0.25, 7.0, 0.25]];
        for (label, by_mixture) in [(0, [0.5, 0.0, -0.5]), (1, [-0.5, 1.0, -0.5])] {
            for (grads, coefficient) in run(parts(), label).iter().zip([1.5, -0.5]) {
                let expected = by_mixture.map(|grad| coefficient * grad);
                approx::assert_relative_eq!(grads[..], expected[..], max_relative = 1e-6);
            }
        }
        for first in [vec![-inf; 3], vec![nan, 0.0, 0.0], vec![inf, 0.0, 0.0]] {
            let grads = run([first, vec![0.0; 3]], 1);
            assert!(grads.iter().flatten().all(|grad| grad.is_nan()), "{backend:?} {grads:?}");
        }
    }
}

/// `1 - p` at a label that is almost sure keeps its digits.
#[test]
fn confident_labels_keep_their_digits() {
    for backend in backends() {
        let mut parts = [vec![1e3; 5000], vec![-1e3; 5000]];
        parts[0][17] += 20.0;
        parts[1][17] -= 10.0;
        let grads = Case::plain(&[1.0, -1.0], parts, vec![17]).run(&*backend).grads;
        let expected = -(-(4999.0 * (-30f64).exp()).ln_1p()).exp_m1();
        approx::assert_relative_eq!(grads[0][17], expected, max_relative = 1e-5);
        approx::assert_relative_eq!(grads[1][17], -expected, max_relative = 1e-5);
    }
}

/// An upstream gradient near the end of f32 under a small temperature: columns of probability 0 stay 0.
#[test]
fn large_factors_do_not_meet_zero() {
    for backend in backends() {
        let parts = [vec![0.0, -1.0, -200.0], vec![0.0; 3]];
        let mut case = Case::plain(&[1.0, -1.0], parts, vec![0]);
        (case.temperature, case.upstream) = (1e-3, vec![1e37]);
        let grads = case.run(&*backend).grads;
        assert!(grads.iter().flatten().all(|&grad| grad == 0.0), "{backend:?} {grads:?}");
    }
}

/// The most probable column has a probability of 1 at the smallest temperatures, whatever its distance from the
/// maxima of the parts; it may be far from the other columns.
#[test]
fn small_temperatures() {
    for backend in backends() {
        for temperature in [1e-6, 1e-30] {
            let mut parts = [vec![2.1; 5000], vec![7.9; 5000]];
            (parts[0][0], parts[1][4999]) = (9.0, 0.2);
            let case = Case::plain(&[1.0, -1.0], parts, vec![0]);
            let case = Case { temperature, upstream: vec![1e-30], ids: vec![17], ..case };
            let grads = case.run(&*backend).grads;
            let mut expected = vec![0.0; 5000];
            (expected[17], expected[4999]) = (1e-30 / temperature, -1e-30 / temperature);
            approx::assert_relative_eq!(grads[0][..], expected[..], max_relative = 1e-5);
        }
    }
}

/// Each row of each gradient sums to 0 to the rounding of its elements.
#[test]
fn rows_sum_to_zero() {
    for backend in backends() {
        let types = [DType::F32, DType::BF16];
        let case = case(&[1.5, -0.5], &types, [12, 4099], 1.0);
        for (grads, dtype) in case.run(&*backend).grads.iter().zip(types) {
            let (relative, absolute) = rounding_of(dtype);
            for row in grads.chunks(4099) {
                let size: f64 = row.iter().map(|x| x.abs()).sum();
                let bound = (relative + 1e-5) * size + absolute * 4099.0;
                let sum: f64 = row.iter().sum();
                assert!(sum.abs() <= bound, "{backend:?} {dtype}: {sum}, bound {bound}");
            }
        }
    }
}

/// What the call and the stage refuse, before anything is written.
#[test]
fn bad_input() {
    for backend in composed_backends() {
        let data = [0.5_f32, 1.0, 0.25, 0.0, 2.0, 1.0];
        let (data, other) = (Placed::new(&*backend, &data), Placed::new(&*backend, &[1.0_f32; 6]));
        let two = |coefficient| {
            let parts = [(1.0, data.logits(2, 3)), (coefficient, other.logits(2, 3))];
            Combination::new(&parts).unwrap()
        };
        let labels = Labels::new(&[0, 2]);
        let found = mixed_token_log_probs(&*backend, &two(-1.0), &labels, None, 1.0).unwrap();
        let upstream = Placed::new(&*backend, &[1.0_f32; 2]);
        let mut grads = [(); 2].map(|()| Placed::new(&*backend, &[7.0_f32; 8]));
        let mut call = |mixture: &Combination<'_>, ids: &[i64], shape: [usize; 2], parts: usize| {
            let labels = Labels::new(ids);
            let to = |grads| {
                let part = Placed::slice_mut(grads).part(0..shape[0] * shape[1]).unwrap();
                Some(LogitsMut::from_slice(part, shape[0], shape[1], shape[1]).unwrap())
            };
            let to = grads.iter_mut().take(parts).map(to).collect();
            let (tokens, masked) = ((&labels, None), MaskedRows::Zero);
            found.logit_grads(&*backend, (mixture, to), tokens, upstream.slice(), masked)
        };
        refused(
            call(&two(-0.5), &[0, 2], [2, 3], 2),
            "coefficient of a combination: expected that of the forward call, got -0.5",
        );
        let one = Combination::new(&[(1.0, data.logits(2, 3))]).unwrap();
        refused(
            call(&one, &[0, 2], [2, 3], 1),
            "a combination: expected that of the forward call, got one of more or fewer models",
        );
        let wide = [(1.0, data.logits(1, 6)), (-1.0, other.logits(1, 6))];
        refused(
            call(&Combination::new(&wide).unwrap(), &[0], [1, 6], 2),
            "logits: expected shape [2, 3], got [1, 6]",
        );
        refused(
            call(&two(-1.0), &[0, 2], [2, 4], 2),
            "logits gradient: expected shape [2, 3], got [2, 4]",
        );
        refused(
            call(&two(-1.0), &[0, 2], [2, 3], 1),
            "gradients of a combination: expected length 2, got 1",
        );
        let mut half = Placed::new(&*backend, &[bf16::ONE; 6]);
        let to = LogitsMut::from_slice(half.slice_mut(), 2, 3, 3).unwrap();
        let both = (&two(-1.0), vec![None, Some(to)]);
        let (tokens, masked) = ((&labels, None), MaskedRows::Zero);
        refused(
            found.logit_grads(&*backend, both, tokens, upstream.slice(), masked),
            "logits gradient: expected f32, got bf16",
        );
        assert_eq!(half.read::<bf16>(), [bf16::ONE; 6], "{backend:?}");
        let bad_label = call(&two(-1.0), &[0, 3], [2, 3], 2);
        let bad_label = bad_label.and_then(|()| grads[0].slice().to_vec().map(|_| ()));
        refused(bad_label, "label of token 1: expected 0 to 2 or the ignore value -100, got 3");
        assert!(grads.iter().all(|grads| grads.read::<f32>() == [7.0; 8]), "{backend:?}");
    }
}

/// Lengths and types of what the stage reads by token.
#[test]
fn statistics_and_upstream() {
    for backend in composed_backends() {
        let data = Placed::new(&*backend, &[0.5_f32; 6]);
        let mixture = Combination::new(&[(1.0, data.logits(2, 3))]).unwrap();
        let ids = Placed::new(&*backend, &[0_i64, 2]);
        let labels = Labels::from_slice(ids.slice()).unwrap();
        let numbers = |dtype, len| backend.allocate(dtype, len).unwrap();
        let call = |types: [DType; 3], lengths: [usize; 3], temperature: f64| {
            let [maximum, log_sum, upstream] = [0, 1, 2].map(|i| numbers(types[i], lengths[i]));
            let statistics = RowStatistics { maximum: maximum.slice(), log_sum: log_sum.slice() };
            let tokens = Tokens::new(&labels, None).unwrap();
            let (both, masked) = ((mixture, vec![None]), MaskedRows::Zero);
            let by = upstream.slice();
            MixedLogitGrads::new(&*backend, both, tokens, temperature, statistics, by, masked)
                .map(|_| ())
        };
        let (single, double) = (DType::F32, DType::F64);
        let types = [double, single, single];
        call(types, [2; 3], 1.0).unwrap();
        refused(call([single; 3], [2; 3], 1.0), "maximum: expected f64, got f32");
        refused(call([double; 3], [2; 3], 1.0), "log_sum: expected f32, got f64");
        refused(
            call([double, single, double], [2; 3], 1.0),
            "upstream gradient by log_probs: expected f32, got f64",
        );
        refused(call(types, [1, 2, 2], 1.0), "maximum: expected length 2, got 1");
        refused(call(types, [2, 3, 2], 1.0), "log_sum: expected length 2, got 3");
        refused(
            call(types, [2, 2, 0], 1.0),
            "upstream gradient by log_probs: expected length 2, got 0",
        );
        refused(
            call(types, [2; 3], -1.0),
            "temperature: expected a number from 1e-30 to 1e30, got -1.0",
        );
    }
}
