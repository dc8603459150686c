//! Inputs and outputs where a backend reaches them, and random inputs.

use std::path::{Path, PathBuf};

use half::{bf16, f16};
use prefuse::batch::{
    Batch, Labels, Logits, LogitsMut, Packing, Pairs, ReferenceLogProbs, Weights,
};
use prefuse::{
    Backend, Buffer, DType, Element, Error, Forward, Loss, MaskedRows, Reference, RowOptions,
    Slice, SliceMut, TokenLogProbs, Upstream, token_log_probs,
};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// The crate's folder, or its copy where the tests were carried to another machine.
pub fn root() -> PathBuf {
    let here = || {
        let mut folders = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
        folders.find(|folder| folder.join("src/objectives").is_dir()).unwrap().to_owned()
    };
    std::env::var_os("PREFUSE_ROOT").map_or_else(here, PathBuf::from)
}

/// Numbers where a backend reads and writes them.
pub struct Placed(Buffer);

impl Placed {
    pub fn new<T: Element>(backend: &dyn Backend, data: &[T]) -> Self {
        Self(backend.upload(Slice::new(data)).unwrap())
    }

    /// f64 or f32, such as log-probs are.
    pub fn floats(backend: &dyn Backend, dtype: DType, data: &[f64]) -> Self {
        match dtype {
            DType::F64 => Self::new(backend, data),
            _ => Self::new(backend, &data.iter().map(|&x| x as f32).collect::<Vec<_>>()),
        }
    }

    pub fn poisoned<T: Element>(backend: &dyn Backend, len: usize) -> Self {
        Self::new(backend, &vec![T::from_f64(f64::NAN); len])
    }

    pub fn slice(&self) -> Slice<'_> {
        self.0.slice()
    }

    pub fn slice_mut(&mut self) -> SliceMut<'_> {
        self.0.slice_mut()
    }

    pub fn logits(&self, tokens: usize, vocab: usize) -> Logits<'_> {
        self.strided(tokens, vocab, vocab)
    }

    pub fn strided(&self, tokens: usize, vocab: usize, stride: usize) -> Logits<'_> {
        Logits::from_slice(self.slice(), tokens, vocab, stride).unwrap()
    }

    pub fn target(&mut self, tokens: usize, vocab: usize) -> LogitsMut<'_> {
        self.strided_target(tokens, vocab, vocab)
    }

    pub fn strided_target(&mut self, tokens: usize, vocab: usize, stride: usize) -> LogitsMut<'_> {
        LogitsMut::from_slice(self.slice_mut(), tokens, vocab, stride).unwrap()
    }

    pub fn read<T: Element>(&self) -> Vec<T> {
        self.slice().read().unwrap()
    }
}

/// Log-probs of contiguous rows.
pub fn rows<T: Element>(
    backend: &dyn Backend,
    data: &[T],
    labels: &Labels<'_>,
    weights: Option<&Weights<'_>>,
    options: RowOptions,
) -> TokenLogProbs {
    let data = Placed::new(backend, data);
    let logits = data.logits(labels.len(), data.slice().len() / labels.len());
    token_log_probs(backend, logits, labels, weights, options).unwrap()
}

/// The same numbers from the reference in f64.
pub fn truth<T: Element>(
    data: &[T],
    labels: &Labels<'_>,
    weights: Option<&Weights<'_>>,
    options: RowOptions,
) -> TokenLogProbs {
    rows(&Reference::new(), &exact(data), labels, weights, options)
}

/// A loss of contiguous rows.
pub fn forward<T: Element>(loss: &Loss<'_>, backend: &dyn Backend, data: &[T]) -> Forward {
    let tokens = loss.batch().tokens();
    loss.forward(backend, Placed::new(backend, data).logits(tokens, data.len() / tokens)).unwrap()
}

/// The gradient of a loss, into a buffer in which an element that is not written shows.
pub fn gradient<T: Element>(
    loss: &Loss<'_>,
    backend: &dyn Backend,
    forward: &Forward,
    data: &[T],
    upstream: Upstream<'_>,
) -> Vec<T> {
    let (tokens, vocab) = (loss.batch().tokens(), data.len() / loss.batch().tokens());
    let (logits, mut grads) =
        (Placed::new(backend, data), Placed::poisoned::<T>(backend, data.len()));
    let target = (logits.logits(tokens, vocab), grads.target(tokens, vocab));
    loss.logit_grads(backend, forward, target, upstream, MaskedRows::Zero).unwrap();
    grads.read()
}

pub fn rng(seed: u64) -> SmallRng {
    SmallRng::seed_from_u64(seed)
}

pub fn normal(rng: &mut SmallRng) -> f64 {
    let (radius, angle): (f64, f64) = (rng.random(), rng.random());
    (-2.0 * (1.0 - radius).ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
}

/// Logits of several kinds, row by row: plain, far from 0, confident, with -inf entries, with a
/// whole block of -inf, with one finite entry.
pub fn logits<T: Element>(seed: u64, tokens: usize, vocab: usize) -> Vec<T> {
    let mut rng = rng(seed);
    let mut data = Vec::with_capacity(tokens * vocab);
    for token in 0..tokens {
        let peak = rng.random_range(0..vocab);
        for v in 0..vocab {
            let x = 3.0 * normal(&mut rng);
            data.push(T::from_f64(match token % 6 {
                1 => x + 1e4,
                2 if v == peak => 30.0,
                3 if v != peak && v % 3 == 1 => f64::NEG_INFINITY,
                4 if v != peak && v < 3 * vocab / 4 => f64::NEG_INFINITY,
                5 if v != peak => f64::NEG_INFINITY,
                _ => x,
            }));
        }
    }
    data
}

/// Labels with a finite log-prob, every fifth one ignored.
pub fn labels<T: Element>(seed: u64, logits: &[T], vocab: usize) -> Vec<i64> {
    let mut rng = rng(seed ^ 0xabcd);
    let rows = logits.chunks(vocab).enumerate();
    rows.map(|(token, row)| {
        if token % 5 == 3 {
            return -100;
        }
        let start = rng.random_range(0..vocab);
        let finite = (0..vocab).map(|v| (start + v) % vocab).find(|&v| row[v].to_f64().is_finite());
        finite.unwrap() as i64
    })
    .collect()
}

/// Random weights with zeros and negatives.
pub fn weights(seed: u64, tokens: usize) -> Vec<f32> {
    let mut rng = rng(seed ^ 0x1234);
    (0..tokens).map(|t| if t % 4 == 2 { 0.0 } else { normal(&mut rng) as f32 }).collect()
}

pub fn exact<T: Element>(values: &[T]) -> Vec<f64> {
    values.iter().map(|value| value.to_f64()).collect()
}

/// Rows that start `stride` elements apart, with `gap` between them and after the last.
pub fn spread<T: Element>(data: &[T], vocab: usize, stride: usize, gap: f64) -> Vec<T> {
    let mut strided = vec![T::from_f64(gap); data.len() / vocab * stride];
    for (to, from) in strided.chunks_mut(stride).zip(data.chunks(vocab)) {
        to[..vocab].copy_from_slice(from);
    }
    strided
}

/// Every number of a result, as it is.
pub fn bits(result: &TokenLogProbs) -> Vec<u64> {
    let statistics = result.statistics();
    let parts = [Some(result.log_probs()), Some(statistics.maximum), Some(statistics.log_sum)];
    let parts = parts
        .into_iter()
        .chain([result.entropy(), result.log_sum_squares(), result.argmax()])
        .flatten();
    parts.flat_map(|part| part.to_vec().unwrap()).map(f64::to_bits).collect()
}

#[track_caller]
pub fn refused<T>(result: Result<T, Error>, message: &str) {
    match result {
        Ok(_) => panic!("accepted, expected: {message}"),
        Err(error) => assert_eq!(error.to_string(), message),
    }
}

pub fn batch(labels: &[i64], cu_seqlens: &[i64]) -> Result<Batch<'static>, Error> {
    Batch::new(Labels::new(labels.to_vec()), Packing::new(cu_seqlens)?)
}

pub fn ready() -> Batch<'static> {
    batch(&[0; 4], &[0, 2, 4])
        .and_then(|batch| batch.with_reference(ReferenceLogProbs::per_token(&[-1.0_f32; 4])))
        .and_then(|batch| batch.with_pairs(Pairs::halves(1).unwrap()))
        .unwrap()
}

/// Half a unit in the last place of a stored number, relative, and the same at its smallest.
pub fn rounding<T: Element>() -> (f64, f64) {
    match T::DTYPE {
        DType::F64 => (f64::EPSILON / 2.0, 0.0),
        DType::F32 => (2f64.powi(-24), 2f64.powi(-150)),
        DType::F16 => (2f64.powi(-11), 2f64.powi(-25)),
        DType::BF16 => (2f64.powi(-8), 2f64.powi(-134)),
        other => panic!("{other} is not rounded"),
    }
}

/// Runs a generic body for each element type that the backend takes.
#[macro_export]
macro_rules! each_dtype {
    ($backend:expr, $body:ident $(, $argument:expr)*) => {
        for dtype in $backend.dtypes() {
            match dtype {
                prefuse::DType::F64 => $body::<f64>($backend $(, $argument)*),
                prefuse::DType::F32 => $body::<f32>($backend $(, $argument)*),
                prefuse::DType::F16 => $body::<half::f16>($backend $(, $argument)*),
                prefuse::DType::BF16 => $body::<half::bf16>($backend $(, $argument)*),
                other => panic!("{other} logits"),
            }
        }
    };
}

/// Two tests that run `check(backend, tokens, vocab, temperature)`: over every backend, type and
/// vocabulary, the large ones with few rows and without the reference, which has no blocks.
#[macro_export]
macro_rules! row_sweep {
    ($check:ident, $tokens:expr) => {
        #[test]
        fn every_backend_dtype_and_vocabulary() {
            for backend in $crate::backends::backends() {
                let backend = &*backend;
                for &vocab in $crate::backends::vocabs() {
                    $crate::each_dtype!(backend, $check, $tokens, vocab, 1.0);
                }
                $crate::each_dtype!(backend, $check, $tokens, 1000, 0.7);
                $crate::each_dtype!(backend, $check, $tokens, 1000, 2.0);
            }
        }

        #[test]
        fn large_vocabularies() {
            for backend in $crate::backends::fast_backends() {
                for &vocab in $crate::backends::large_vocabs() {
                    $crate::each_dtype!(&*backend, $check, 6, vocab, 1.0);
                }
            }
        }
    };
}

/// f16 cannot hold an offset of 1e4 and distinguish logits around it, but it can hold it.
#[test]
fn inputs_are_what_they_say() {
    let row = logits::<f16>(1, 6, 1000);
    assert!(row[1000].to_f64() > 9000.0);
    assert!(logits::<bf16>(1, 6, 1000)[5 * 1000..].iter().filter(|x| x.is_finite()).count() == 1);
}
