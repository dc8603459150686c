//! Stage 1 against the reference in f64.

use approx::assert_relative_eq;
use prefuse::batch::{Labels, Logits, Weights};
use prefuse::{Backend, DType, Element, RowOptions, token_log_probs};

use crate::common::{LARGE_VOCABS, VOCABS, backends, cpus, labels, logits, truth, weights};
use crate::each_dtype;

/// The sum of a row's exponentials is relatively right to this. A block of 4096 columns is summed
/// by 64 lanes of f32, so 64 additions of positive numbers and 6 in the lanes' tree, each half an
/// ulp; an exponential is right to 1 ulp, and its argument `z` to half an ulp of `z`, which
/// changes `exp(z)` by at most `|z| exp(z) 2^-24 <= 0.37 * 2^-24` of the largest term.
const SUM: f64 = 75.0 * (1.0 / (1 << 24) as f64);

/// One rounding to f32.
const ROUND: f64 = 1.0 / (1 << 24) as f64;

fn bound(dtype: DType, value: f64, log_sum: f64) -> f64 {
    match dtype {
        DType::F64 => 1e-12 * value.abs().max(1e-3),
        // d log(1 + e) = de / (1 + e) <= relative error of e times log(1 + e), and no more than
        // the relative error of the sum.
        _ => SUM * log_sum.min(1.0) + ROUND * value.abs(),
    }
}

fn check<T: Element>(backend: &dyn Backend, tokens: usize, vocab: usize, temperature: f64) {
    let data = logits::<T>(vocab as u64, tokens, vocab);
    let ids = labels(vocab as u64, &data, vocab);
    let (labels, weights) = (Labels::new(&ids[..]), Weights::new(weights(7, tokens)).unwrap());
    let options = RowOptions::default().with_temperature(temperature).with_entropy().with_argmax();
    for weights in [None, Some(&weights)] {
        let view = Logits::new(&data, tokens, vocab).unwrap();
        let ours = token_log_probs(backend, view, &labels, weights, options).unwrap();
        let truth = truth(&data, vocab, &labels, weights, options);
        let log_sums = truth.statistics().log_sum.to_f64();
        let dtype = ours.log_probs().dtype();
        let context =
            |token: usize| format!("{} {} vocab {vocab} token {token}", backend.name(), T::DTYPE);
        for (got, expected) in [
            (ours.log_probs(), truth.log_probs()),
            (ours.statistics().log_sum, truth.statistics().log_sum),
            (ours.statistics().maximum, truth.statistics().maximum),
        ] {
            for (token, (got, expected)) in got.to_f64().iter().zip(expected.to_f64()).enumerate() {
                let bound = bound(dtype, expected, log_sums[token]);
                let error = (got - expected).abs();
                assert!(error <= bound, "{}: {got} for {expected}, bound {bound}", context(token));
            }
        }
        let entropies = truth.entropy().unwrap().to_f64();
        for (token, (got, expected)) in
            ours.entropy().unwrap().to_f64().iter().zip(&entropies).enumerate()
        {
            // log-sum minus a weighted mean of z, whose terms are p z with p relatively right to
            // 2 SUM; sum p |z| = entropy - log-sum <= entropy + log-sum.
            let bound = bound(dtype, *expected, log_sums[token])
                + if dtype == DType::F64 {
                    1e-12
                } else {
                    2.0 * SUM * (expected + log_sums[token])
                };
            assert!(
                (got - expected).abs() <= bound,
                "{}: entropy {got} for {expected}, bound {bound}",
                context(token)
            );
        }
        assert_eq!(ours.argmax(), truth.argmax(), "{}", context(0));
    }
}

#[test]
fn every_backend_dtype_and_vocabulary() {
    for backend in backends() {
        let backend = &*backend;
        for vocab in VOCABS {
            each_dtype!(backend, check, 24, vocab, 1.0);
        }
        each_dtype!(backend, check, 24, 1000, 0.7);
        each_dtype!(backend, check, 24, 1000, 2.0);
    }
}

#[test]
fn large_vocabularies() {
    for cpu in cpus() {
        for vocab in LARGE_VOCABS {
            each_dtype!(&cpu as &dyn Backend, check, 6, vocab, 1.0);
        }
    }
}

/// A label that the model is almost sure of: `log p = -exp(-gap) * others` keeps its digits, where
/// f32 log-softmax returns 0.
#[test]
fn confident_rows_keep_their_digits() {
    for backend in backends() {
        for gap in [20.0_f32, 40.0, 60.0] {
            let mut row = vec![0.0_f32; 1000];
            row[17] = gap;
            let logits = Logits::new(&row, 1, 1000).unwrap();
            let labels = Labels::new(&[17][..]);
            let ours = token_log_probs(&*backend, logits, &labels, None, RowOptions::default());
            let got = ours.unwrap().log_probs().to_f64()[0];
            let expected = -(999.0 * (-f64::from(gap)).exp()).ln_1p();
            assert_relative_eq!(got, expected, max_relative = SUM + ROUND);
        }
    }
}

/// NaN logits are data: their row is NaN, and no other. So are rows without a finite maximum.
#[test]
fn not_a_number_stays_in_its_row() {
    for backend in backends() {
        let inf = f32::INFINITY;
        let mut data = [vec![1.0_f32; 70], vec![0.5; 70], vec![-inf; 70], vec![0.25; 70]].concat();
        data[3] = f32::NAN;
        data[3 * 70 + 5] = inf;
        let logits = Logits::new(&data, 4, 70).unwrap();
        let labels = Labels::new(&[0, 1, 2, 3][..]);
        let options = RowOptions::default().with_argmax().with_entropy();
        let ours = token_log_probs(&*backend, logits, &labels, None, options).unwrap();
        let nan: Vec<bool> = ours.log_probs().to_f64().iter().map(|x| x.is_nan()).collect();
        assert_eq!(nan, [true, false, true, true], "{}", backend.name());
        assert_eq!(ours.argmax().unwrap(), [3, 0, 0, 5], "{}", backend.name());
    }
}

/// A label of probability 0 has log-prob -inf, as in torch, and its row's statistics stay finite.
#[test]
fn impossible_labels() {
    for backend in backends() {
        let data = [0.0_f32, f32::NEG_INFINITY, 1.0];
        let logits = Logits::new(&data, 1, 3).unwrap();
        let labels = Labels::new(&[1][..]);
        let ours =
            token_log_probs(&*backend, logits, &labels, None, RowOptions::default()).unwrap();
        assert_eq!(ours.log_probs().to_f64(), [f64::NEG_INFINITY]);
        assert!(ours.statistics().log_sum.to_f64()[0].is_finite());
    }
}

/// The rows of tokens that do not count are not read: NaN in them reaches nothing.
#[test]
fn masked_rows_are_not_read() {
    for backend in backends() {
        let data = [f32::NAN, f32::NAN, 0.0, 1.0, f32::NAN, f32::NAN];
        let logits = Logits::new(&data, 3, 2).unwrap();
        let (labels, weights) = (Labels::new(&[-100, 0, 1][..]), Weights::new(vec![1.0, 1.0, 0.0]));
        let options = RowOptions::default().with_argmax().with_entropy();
        let ours = token_log_probs(&*backend, logits, &labels, Some(&weights.unwrap()), options);
        let ours = ours.unwrap();
        let values = ours.log_probs().to_f64();
        assert_eq!((values[0], values[2]), (0.0, 0.0));
        assert_eq!(ours.argmax().unwrap(), [-1, 1, -1]);
        assert_eq!(ours.entropy().unwrap().to_f64()[2], 0.0);
    }
}

/// Row stride and what lies between the rows change no bit.
#[test]
fn strided_rows() {
    fn body<T: Element>(backend: &dyn Backend) {
        let (tokens, vocab, stride) = (6, 333, 401);
        let data = logits::<T>(3, tokens, vocab);
        let mut strided = vec![T::from_f64(f64::NAN); (tokens - 1) * stride + vocab];
        for token in 0..tokens {
            strided[token * stride..][..vocab].copy_from_slice(&data[token * vocab..][..vocab]);
        }
        let ids = labels(3, &data, vocab);
        let labels = Labels::new(&ids[..]);
        let options = RowOptions::default().with_entropy().with_argmax();
        let run = |logits| token_log_probs(backend, logits, &labels, None, options).unwrap();
        let packed = run(Logits::new(&data, tokens, vocab).unwrap());
        let ours = run(Logits::strided(&strided, tokens, vocab, stride).unwrap());
        assert_eq!(ours, packed);
    }
    for backend in backends() {
        each_dtype!(&*backend, body);
    }
}

/// Any ignore value, also one that is a vocabulary entry.
#[test]
fn ignore_values() {
    for backend in backends() {
        let data = [0.0_f32, 1.0, 0.0, 1.0];
        let logits = Logits::new(&data, 2, 2).unwrap();
        let labels = Labels::new(&[0, 1][..]).with_ignore(0);
        let ours =
            token_log_probs(&*backend, logits, &labels, None, RowOptions::default()).unwrap();
        let values = ours.log_probs().to_f64();
        assert_eq!(values[0], 0.0);
        assert_relative_eq!(values[1], -(-1f64).exp().ln_1p(), max_relative = 1e-6);
    }
}
