//! Stage 1 against the reference in f64.

use approx::assert_relative_eq;
use prefuse::batch::{Labels, Weights};
use prefuse::{Backend, DType, Element, RowOptions, Slice, TokenLogProbs, token_log_probs};

use crate::backends::backends;
use crate::common::{Placed, bits, exact, labels, logits, rows, spread, truth, weights};
use crate::{each_dtype, row_sweep};

/// What the additions do to a row's sum, relative: a block of 4096 columns is summed by 64 lanes of
/// f32, so 64 additions of positive numbers and 6 in the lanes' tree, each half an ulp, and an
/// exponential is right to an ulp.
///
/// The kernels stay below: `ex2.approx` is right to 2 ulp, four half ulps. A segment of 1024 columns
/// is summed by 32 lanes in 4 chains of 8, 7 + 2 additions and 5 in the lanes' tree. Each state of a
/// segment then has a factor (4 half ulps), a sum with 1 and a product, and at most 8 of 256 states
/// meet in a lane, 8 + 5 additions: 4 + 14 + 6 + 13 = 37 half ulps. `log1pf` is right to an ulp of a
/// log-sum of at most ln 262144 = 12.5, 25 half ulps of 1: 62 in all.
const SUM: f64 = 75.0 * ROUND;

/// One rounding to f32.
const ROUND: f64 = 1.0 / (1 << 24) as f64;

/// What a result of this type may be off by, for a row of which these numbers are known.
struct Bound {
    dtype: DType,
    log_sum: f64,
    /// `sum p |z|` and `sum p z^2`.
    moments: [f64; 2],
    /// `log sum e^2z`, and `sum q |z|` with `q` its softmax.
    squares: [f64; 2],
}

impl Bound {
    fn new(dtype: DType, row: &[f64], temperature: f64) -> Self {
        let maximum = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let z = || row.iter().map(|x| (x - maximum) / temperature).filter(|z| z.is_finite());
        let sum: f64 = z().map(f64::exp).sum();
        let moment = |power: i32| z().map(|z| z.exp() * z.abs().powi(power)).sum::<f64>() / sum;
        let squares: f64 = z().map(|z| (2.0 * z).exp()).sum();
        let of_squares = z().map(|z| (2.0 * z).exp() * z.abs()).sum::<f64>() / squares;
        let moments = [moment(1), moment(2)];
        Self { dtype, log_sum: sum.ln(), moments, squares: [squares.ln(), of_squares] }
    }

    /// Beside `SUM`, the argument `z` of each exponential carries half an ulp each of `x - m`, of
    /// `1 / T` and of their product: to first order the log of the sum moves by `3 ROUND sum p |z|`.
    /// An error of the excess moves it by no more than `excess / (1 + excess) <= min(log-sum, 1)`.
    fn log_prob(&self, value: f64) -> f64 {
        match self.dtype {
            DType::F64 => 1e-12 * value.abs(),
            _ => {
                let arguments = 3.0 * ROUND * self.moments[0];
                SUM * self.log_sum.min(1.0) + arguments + ROUND * value.abs()
            }
        }
    }

    /// The entropy is the log-sum minus `sum e^z z / sum e^z`: numerator and denominator are each
    /// right to `SUM`, and an error of `z` moves `e^z z` by `(1 + |z|) e^z` times that.
    fn entropy(&self, value: f64) -> f64 {
        match self.dtype {
            DType::F64 => 1e-12 * value.abs().max(1.0),
            _ => {
                let [first, second] = self.moments;
                let mean = 2.0 * SUM * first + 3.0 * ROUND * (first + second + first * first);
                self.log_prob(value) + mean
            }
        }
    }
}

impl Bound {
    /// `log sum e^2z - 2 log sum e^z`: squaring doubles the relative error of an exponential and of
    /// its argument; the two logarithms and their difference are rounded once more each.
    fn log_sum_squares(&self, value: f64) -> f64 {
        match self.dtype {
            DType::F64 => 1e-12 * value.abs().max(1.0),
            _ => {
                let [squares, argument] = self.squares;
                let of_squares = 2.0 * SUM * squares.min(1.0) + 6.0 * ROUND * argument;
                let logarithms = ROUND * (value.abs() + 4.0 * self.log_sum);
                2.0 * self.log_prob(self.log_sum) + of_squares + logarithms
            }
        }
    }
}

fn check<T: Element>(backend: &dyn Backend, tokens: usize, vocab: usize, temperature: f64) {
    let data = logits::<T>(vocab as u64, tokens, vocab);
    let ids = labels(vocab as u64, &data, vocab);
    let (labels, weights) = (Labels::new(&ids[..]), Weights::new(weights(7, tokens)).unwrap());
    let options = RowOptions::default().with_temperature(temperature).with_entropy().with_argmax();
    let options = options.with_log_sum_squares();
    let dtype = T::DTYPE.per_token();
    let bounds: Vec<Bound> =
        exact(&data).chunks(vocab).map(|row| Bound::new(dtype, row, temperature)).collect();
    for weights in [None, Some(&weights)] {
        let ours = rows(backend, &data, &labels, weights, options);
        let truth = truth(&data, &labels, weights, options);
        let close = |what: &str, [got, expected]: [Slice<'_>; 2], bound: fn(&Bound, f64) -> f64| {
            let [got, expected] = [got, expected].map(|values| values.to_vec().unwrap());
            for (token, (got, expected)) in got.into_iter().zip(expected).enumerate() {
                let bound = bound(&bounds[token], expected);
                assert!(
                    (got - expected).abs() <= bound || got.is_nan() && expected.is_nan(),
                    "{backend:?} {} {vocab} token {token} {what}: {got} for {expected}, bound {bound}",
                    T::DTYPE,
                );
            }
        };
        let both = |part: fn(&TokenLogProbs) -> Slice<'_>| [part(&ours), part(&truth)];
        close("log-prob", both(|result| result.log_probs()), Bound::log_prob);
        close("log-sum", both(|result| result.statistics().log_sum), Bound::log_prob);
        close("maximum", both(|result| result.statistics().maximum), |_, _| 0.0);
        close("entropy", both(|result| result.entropy().unwrap()), Bound::entropy);
        let squares = |result: &TokenLogProbs| result.log_sum_squares().unwrap().to_vec().unwrap();
        for (token, (got, expected)) in squares(&ours).iter().zip(squares(&truth)).enumerate() {
            let bound = bounds[token].log_sum_squares(expected);
            assert!(
                (got - expected).abs() <= bound || got.is_nan() && expected.is_nan(),
                "{backend:?} {} {vocab} token {token}: {got} for {expected}, bound {bound}",
                T::DTYPE
            );
        }
        close("argmax", both(|result| result.argmax().unwrap()), |_, _| 0.0);
    }
}

row_sweep!(check, 24);

/// Two logits far apart under a temperature, so that nothing is exact: every rounding of `z` shows.
#[test]
fn a_rounded_argument() {
    fn body<T: Element>(backend: &dyn Backend) {
        const STEPS: usize = 200;
        let gap = |step: usize| 20.0 + 0.171 * step as f64;
        let row = |step| [0.3371, 0.3371 - gap(step)].map(T::from_f64);
        let data: Vec<T> = (0..STEPS).flat_map(row).collect();
        let ids = [0; STEPS];
        let (labels, options) =
            (Labels::new(&ids[..]), RowOptions::default().with_temperature(0.7));
        let ours = rows(backend, &data, &labels, None, options).log_probs().to_vec().unwrap();
        let truth = truth(&data, &labels, None, options).log_probs().to_vec().unwrap();
        for (step, (got, expected)) in ours.into_iter().zip(truth).enumerate() {
            let (gap, row) = (gap(step), exact(&row(step)));
            let bound = Bound::new(T::DTYPE.per_token(), &row, 0.7).log_prob(expected);
            assert!((got - expected).abs() <= bound, "{gap}: {got} for {expected}, bound {bound}");
        }
    }
    for backend in backends() {
        each_dtype!(&*backend, body);
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
            let ours = rows(&*backend, &row, &Labels::new(&[17]), None, RowOptions::default());
            let got = ours.log_probs().to_vec().unwrap()[0];
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
        let labels = Labels::new(&[0, 1, 2, 3][..]);
        let options = RowOptions::default().with_argmax().with_entropy();
        let ours = rows(&*backend, &data, &labels, None, options);
        let nan: Vec<bool> =
            ours.log_probs().to_vec().unwrap().iter().map(|x| x.is_nan()).collect();
        assert_eq!(nan, [true, false, true, true], "{}", backend.name());
        assert_eq!(
            ours.argmax().unwrap().to_vec().unwrap(),
            [3.0, 0.0, 0.0, 5.0],
            "{}",
            backend.name()
        );
    }
}

/// A label of probability 0 has log-prob -inf, as in torch, and its row's statistics stay finite.
#[test]
fn impossible_labels() {
    for backend in backends() {
        let data = [0.0_f32, f32::NEG_INFINITY, 1.0];
        let ours = rows(&*backend, &data, &Labels::new(&[1]), None, RowOptions::default());
        assert_eq!(ours.log_probs().to_vec().unwrap(), [f64::NEG_INFINITY]);
        assert!(ours.statistics().log_sum.to_vec().unwrap()[0].is_finite());
    }
}

/// The rows of tokens that do not count are not read: NaN in them reaches nothing.
#[test]
fn masked_rows_are_not_read() {
    for backend in backends() {
        let data = [f32::NAN, f32::NAN, 0.0, 1.0, f32::NAN, f32::NAN];
        let labels = Labels::new(&[-100, 0, 1]);
        let weights = Weights::new(vec![1.0, 1.0, 0.0]).unwrap();
        let options = RowOptions::default().with_argmax().with_entropy().with_log_sum_squares();
        let ours = rows(&*backend, &data, &labels, Some(&weights), options);
        let values = ours.log_probs().to_vec().unwrap();
        assert_eq!((values[0], values[2]), (0.0, 0.0));
        assert_eq!(ours.argmax().unwrap().to_vec().unwrap(), [-1.0, 1.0, -1.0]);
        assert_eq!(ours.entropy().unwrap().to_vec().unwrap()[2], 0.0);
        assert_eq!(ours.log_sum_squares().unwrap().to_vec().unwrap()[2], 0.0);
    }
}

/// Row stride and what lies between the rows change no bit.
#[test]
fn strided_rows() {
    fn body<T: Element>(backend: &dyn Backend) {
        let (tokens, vocab, stride) = (6, 333, 401);
        let data = logits::<T>(3, tokens, vocab);
        let strided = spread(&data, vocab, stride, f64::NAN);
        // The last row may end at the vocabulary.
        let strided = Placed::new(backend, &strided[..(tokens - 1) * stride + vocab]);
        let ids = labels(3, &data, vocab);
        let labels = Labels::new(&ids[..]);
        let options = RowOptions::default().with_entropy().with_log_sum_squares().with_argmax();
        let packed = rows(backend, &data, &labels, None, options);
        let logits = strided.strided(tokens, vocab, stride);
        let ours = token_log_probs(backend, logits, &labels, None, options).unwrap();
        assert_eq!(bits(&ours), bits(&packed));
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
        let labels = Labels::new(&[0, 1]).with_ignore(0);
        let ours = rows(&*backend, &data, &labels, None, RowOptions::default());
        let values = ours.log_probs().to_vec().unwrap();
        assert_eq!(values[0], 0.0);
        assert_relative_eq!(values[1], -(-1f64).exp().ln_1p(), max_relative = 1e-6);
    }
}

/// The logarithm of the sum of squared probabilities alone, and where its value is known: uniform rows,
/// one entry, a row that is certain, one with impossible entries, one of nothing else.
#[test]
fn sums_of_squares() {
    for backend in backends() {
        let inf = f32::INFINITY;
        for (row, expected) in [
            (vec![7.25_f32; 4099], -(4099_f64).ln()),
            (vec![-3.0], 0.0),
            ([vec![1e4], vec![0.0; 98]].concat(), 0.0),
            (vec![1e4, 1e4, -inf, 9e3], -(2_f64).ln()),
            (vec![-inf; 33], f64::NAN),
        ] {
            let labels = Labels::new(&[0][..]);
            let options = RowOptions::default().with_log_sum_squares();
            let ours = rows(&*backend, &row, &labels, None, options);
            assert!(ours.entropy().is_none());
            let got = ours.log_sum_squares().unwrap().to_vec().unwrap()[0];
            let close = (got - expected).abs() <= 2e-7 * expected.abs();
            assert!(close || got.is_nan() && expected.is_nan(), "{backend:?} {got} {expected}");
        }
    }
}

/// Other statistics of the same visit change no bit of any.
#[test]
fn statistics_do_not_depend_on_one_another() {
    fn body<T: Element>(backend: &dyn Backend) {
        let (tokens, vocab) = (6, 4099);
        let data = logits::<T>(5, tokens, vocab);
        let ids = labels(5, &data, vocab);
        let labels = Labels::new(&ids[..]);
        let plain = RowOptions::default();
        let run = |options| rows(backend, &data, &labels, None, options);
        let all = run(plain.with_entropy().with_log_sum_squares().with_argmax());
        let bits = |values: Slice<'_>| -> Vec<u64> {
            values.to_vec().unwrap().into_iter().map(f64::to_bits).collect()
        };
        let (alone, squares) = (run(plain), run(plain.with_log_sum_squares()));
        assert_eq!(bits(alone.log_probs()), bits(all.log_probs()));
        assert_eq!(bits(squares.log_probs()), bits(all.log_probs()));
        let [got, expected] = [&squares, &all].map(|result| result.log_sum_squares().unwrap());
        assert_eq!(bits(got), bits(expected));
        let entropy = run(plain.with_entropy());
        assert_eq!(bits(entropy.entropy().unwrap()), bits(all.entropy().unwrap()));
    }
    for backend in backends() {
        each_dtype!(&*backend, body);
    }
}
