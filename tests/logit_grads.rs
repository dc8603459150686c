//! Stage 4 against the reference in f64.

use prefuse::batch::{Labels, Weights};
use prefuse::{Backend, DType, Element, MaskedRows, RowOptions, Target, TokenLogProbs};
use rand::RngExt;

use crate::backends::backends;
use crate::common::{
    Placed, exact, labels, logits, normal, rng, rounding, rows, spread, truth, weights,
};
use crate::{each_dtype, row_sweep};

/// Runs forward and backward; `grads` has the type of the log-probs.
struct Case<'a, T: Element> {
    data: &'a [T],
    vocab: usize,
    labels: &'a Labels<'a>,
    weights: Option<&'a Weights<'a>>,
    options: RowOptions,
    log_prob_grads: &'a [f64],
    entropy_grads: Option<&'a [f64]>,
}

impl<'a, T: Element> Case<'a, T> {
    fn new(data: &'a [T], vocab: usize, labels: &'a Labels<'a>, log_prob_grads: &'a [f64]) -> Self {
        let options = RowOptions::default();
        Self { data, vocab, labels, weights: None, options, log_prob_grads, entropy_grads: None }
    }

    fn grads(&self, backend: &dyn Backend) -> Vec<T> {
        let tokens = self.labels.len();
        // Poisoned, so that an element that is not written shows.
        let mut grads = Placed::poisoned::<T>(backend, self.data.len());
        let data = Placed::new(backend, self.data);
        let logits = data.logits(tokens, self.vocab);
        let target = Target::OutOfPlace { logits, grads: grads.target(tokens, self.vocab) };
        self.run(backend, target, MaskedRows::Zero);
        grads.read()
    }

    fn run(&self, backend: &dyn Backend, target: Target<'_>, masked: MaskedRows) {
        let forward = rows(backend, self.data, self.labels, self.weights, self.options);
        let place = |values: &[f64]| Placed::floats(backend, forward.log_probs().dtype(), values);
        let (by_log_prob, by_entropy) = (place(self.log_prob_grads), self.entropy_grads.map(place));
        let upstream = (by_log_prob.slice(), by_entropy.as_ref().map(Placed::slice));
        let tokens = (self.labels, self.weights);
        forward.logit_grads(backend, target, tokens, upstream, masked).unwrap();
    }
}

fn upstream(seed: u64, tokens: usize) -> Vec<f64> {
    let mut rng = rng(seed);
    // Exactly representable in f32, with zeros.
    let value = |token: usize, x: f64| if token % 7 == 5 { 0.0 } else { f64::from(x as f32) };
    (0..tokens).map(|token| value(token, normal(&mut rng))).collect()
}

fn check<T: Element>(backend: &dyn Backend, tokens: usize, vocab: usize, temperature: f64) {
    let data = logits::<T>(vocab as u64 + 1, tokens, vocab);
    let ids = labels(vocab as u64, &data, vocab);
    let (labels, weights) = (Labels::new(&ids[..]), Weights::new(weights(9, tokens)).unwrap());
    let (by_log_prob, mut by_entropy) = (upstream(1, tokens), upstream(2, tokens));
    // So that one is 0 where the other is not.
    by_entropy.rotate_left(1);
    let options = RowOptions::default().with_temperature(temperature).with_entropy();
    for (weights, entropy_grads) in [(None, None), (Some(&weights), Some(&by_entropy[..]))] {
        let log_prob_grads = &by_log_prob[..];
        let case = Case {
            data: &data,
            vocab,
            labels: &labels,
            weights,
            options,
            log_prob_grads,
            entropy_grads,
        };
        let exact = exact(&data);
        let oracle = Case {
            data: &exact,
            vocab,
            labels: &labels,
            weights,
            options,
            log_prob_grads,
            entropy_grads,
        };
        let (got, expected) = (case.grads(backend), oracle.grads(&prefuse::Reference::new()));
        let statistics = truth(&data, &labels, weights, options);
        compare::<T>(&got, &expected, &case, &statistics, temperature, backend);
    }
}

/// The f32 arithmetic of a gradient: the argument `z - log-sum` of the exponential carries half an
/// ulp each of z, log-sum and their difference, and the error of the log-sum itself (75 half ulps
/// of 1, see the test of stage 1); all of it times p, as the exponential is its own derivative.
/// With an entropy term the same holds for `p (log p + H)`, and H is right to 3 * 75 half ulps of
/// its parts. The stored element is then rounded once.
fn compare<T: Element>(
    got: &[T],
    expected: &[f64],
    case: &Case<'_, T>,
    statistics: &TokenLogProbs,
    temperature: f64,
    backend: &dyn Backend,
) {
    let half_ulp = if T::DTYPE == DType::F64 { f64::EPSILON } else { 2f64.powi(-24) };
    let (relative, absolute) = rounding::<T>();
    let maximum = statistics.statistics().maximum.to_vec().unwrap();
    let log_sum = statistics.statistics().log_sum.to_vec().unwrap();
    let entropy = statistics.entropy().unwrap().to_vec().unwrap();
    for (index, (got, &expected)) in got.iter().zip(expected).enumerate() {
        let (token, v) = (index / case.vocab, index % case.vocab);
        // The statistics of tokens that do not count.
        if maximum[token].is_nan() {
            assert_eq!(got.to_f64(), 0.0);
            continue;
        }
        let z = (case.data[index].to_f64() - maximum[token]) / temperature;
        let log_p = z - log_sum[token];
        let p = log_p.exp();
        let argument = 4.0 * (z.abs() + log_sum[token] + log_p.abs()) + 80.0;
        let argument = if p == 0.0 { 0.0 } else { argument * half_ulp };
        let by_log_prob = case.log_prob_grads[token].abs() * p * argument;
        let by_entropy = case.entropy_grads.map_or(0.0, |grads| {
            let scale = (log_p + entropy[token]).abs() + 1.0;
            let parts = 225.0 * half_ulp * (entropy[token] + log_sum[token]);
            if p == 0.0 { 0.0 } else { grads[token].abs() * p * (scale * argument + parts) }
        });
        // exp flushes below e^-87, which is below the smallest normal f32 by less than 2.
        let flushed = 4.0 * f64::from(f32::MIN_POSITIVE);
        let arithmetic =
            (by_log_prob + by_entropy + flushed) / temperature + 4.0 * half_ulp * expected.abs();
        let bound = arithmetic + relative * (expected.abs() + arithmetic) + absolute;
        let got = got.to_f64();
        let error = (got - expected).abs();
        assert!(
            error <= bound,
            "{backend:?} {} token {token} of vocab {} column {v}: {got} for {expected}, bound {bound}",
            T::DTYPE,
            case.vocab,
        );
    }
}

row_sweep!(check, 18);

/// In place and out of place are the same bits, in any stride, and what lies between rows is kept.
#[test]
fn in_place_is_out_of_place() {
    fn body<T: Element>(backend: &dyn Backend) {
        let (tokens, vocab, stride) = (12, 333, 350);
        let data = logits::<T>(3, tokens, vocab);
        let ids = labels(3, &data, vocab);
        let (labels, grads) = (Labels::new(&ids[..]), upstream(4, tokens));
        let case = Case::new(&data, vocab, &labels, &grads);
        let expected = case.grads(backend);
        let mut strided = Placed::new(backend, &spread(&data, vocab, stride, -7.0));
        let target = strided.strided_target(tokens, vocab, stride);
        case.run(backend, Target::InPlace(target), MaskedRows::Zero);
        let bytes = bytemuck::cast_slice::<T, u8>;
        assert_eq!(bytes(&strided.read()), bytes(&spread(&expected, vocab, stride, -7.0)));
    }
    for backend in backends() {
        each_dtype!(&*backend, body);
    }
}

/// Logits and gradient may have different strides; what lies between the gradient's rows is kept.
#[test]
fn out_of_place_strides() {
    fn body<T: Element>(backend: &dyn Backend) {
        let (tokens, vocab, from, to) = (40, 33, 47, 38);
        let data = logits::<T>(3, tokens, vocab);
        let ids = labels(3, &data, vocab);
        let (labels, upstream) = (Labels::new(&ids[..]), upstream(4, tokens));
        let case = Case::new(&data, vocab, &labels, &upstream);
        let expected = case.grads(backend);
        let strided = Placed::new(backend, &spread(&data, vocab, from, f64::NAN));
        let mut grads = Placed::new(backend, &vec![T::from_f64(-7.0); tokens * to]);
        let logits = strided.strided(tokens, vocab, from);
        let target = Target::OutOfPlace { logits, grads: grads.strided_target(tokens, vocab, to) };
        case.run(backend, target, MaskedRows::Zero);
        let bytes = bytemuck::cast_slice::<T, u8>;
        assert_eq!(bytes(&grads.read()), bytes(&spread(&expected, vocab, to, -7.0)));
    }
    for backend in backends() {
        each_dtype!(&*backend, body);
    }
}

/// An upstream gradient near the end of f32 under a small temperature: columns of probability 0 stay
/// 0, where a factor folded with 1 / T would be infinite and its product with 0 NaN.
#[test]
fn large_factors_do_not_meet_zero() {
    for backend in backends() {
        let data = [0.0_f32, -1.0, -200.0];
        let labels = Labels::new(&[0][..]);
        let case = Case {
            data: &data,
            vocab: 3,
            labels: &labels,
            weights: None,
            options: RowOptions::default().with_temperature(1e-3),
            log_prob_grads: &[1e37],
            entropy_grads: None,
        };
        assert!(case.grads(&*backend).iter().all(|&grad| grad == 0.0));
    }
}

/// Rows of tokens that do not count are 0, or untouched where the caller said that they are 0.
#[test]
fn masked_rows() {
    for backend in backends() {
        let data = [0.5_f32, 1.0, f32::NAN, 1.0, 0.25, 1.0];
        let (labels, weights) =
            (Labels::new(&[0, 1, 1][..]), Weights::new(vec![1.0, 0.0, 1.0]).unwrap());
        let case = Case {
            data: &data,
            vocab: 2,
            labels: &labels,
            weights: Some(&weights),
            options: RowOptions::default(),
            log_prob_grads: &[1.0, f64::NAN, 0.0],
            entropy_grads: None,
        };
        let grads = case.grads(&*backend);
        assert!(grads[0] > 0.0);
        assert_eq!(grads[2..], [0.0; 4], "masked, and upstream 0");

        let mut data = Placed::new(&*backend, &data);
        let mut grads = Placed::new(&*backend, &[7.0_f32; 6]);
        let target = Target::OutOfPlace { logits: data.logits(3, 2), grads: grads.target(3, 2) };
        case.run(&*backend, target, MaskedRows::AlreadyZero);
        assert_eq!(grads.read::<f32>()[2..], [7.0, 7.0, 0.0, 0.0], "left alone, and upstream 0");

        case.run(&*backend, Target::InPlace(data.target(3, 2)), MaskedRows::AlreadyZero);
        let data: Vec<f32> = data.read();
        assert!(data[2].is_nan() && data[3] == 1.0, "left alone in place");
    }
}

/// The gradient of a label of probability 0 is the finite limit, one-hot minus softmax.
#[test]
fn impossible_labels() {
    for backend in backends() {
        let data = [0.0_f32, f32::NEG_INFINITY, 0.0];
        let labels = Labels::new(&[1][..]);
        let case = Case::new(&data, 3, &labels, &[1.0]);
        let grads = case.grads(&*backend);
        approx::assert_relative_eq!(grads[..], [-0.5, 1.0, -0.5][..], max_relative = 1e-6);
    }
}

/// The gradient at a label that the model is almost sure of, `1 - p`, keeps its digits.
#[test]
fn confident_labels_keep_their_digits() {
    for backend in backends() {
        let mut row = vec![0.0_f32; 1000];
        row[17] = 30.0;
        let labels = Labels::new(&[17][..]);
        let case = Case::new(&row, 1000, &labels, &[1.0]);
        let expected = -(-(999.0 * (-30f64).exp()).ln_1p()).exp_m1();
        let got = f64::from(case.grads(&*backend)[17]);
        approx::assert_relative_eq!(got, expected, max_relative = 1e-5);
    }
}

/// Rows of the gradient sum to 0 to the rounding of their elements.
#[test]
fn rows_sum_to_zero() {
    fn body<T: Element>(backend: &dyn Backend) {
        let (tokens, vocab) = (12, 4099);
        let data = logits::<T>(rng(5).random(), tokens, vocab);
        let ids = labels(3, &data, vocab);
        let (labels, grads) = (Labels::new(&ids[..]), vec![1.0; tokens]);
        let case = Case::new(&data, vocab, &labels, &grads);
        let (relative, absolute) = rounding::<T>();
        for row in case.grads(backend).chunks(vocab) {
            let sum: f64 = row.iter().map(|x| x.to_f64()).sum();
            // Each element is rounded once, and p itself is right to 1e-5 (see `compare`).
            let size: f64 = row.iter().map(|x| x.to_f64().abs()).sum();
            let bound = (relative + 1e-5) * size + absolute * vocab as f64;
            assert!(sum.abs() <= bound, "{} {}: {sum}, bound {bound}", backend.name(), T::DTYPE);
        }
    }
    for backend in backends() {
        each_dtype!(&*backend, body);
    }
}
