//! Backends, random inputs, and the vocabularies that every row test runs over.

use std::path::PathBuf;

use half::{bf16, f16};
use prefuse::batch::{Labels, Logits, Weights};
use prefuse::{Backend, Cpu, Element, Reference, RowOptions, SimdLevel, TokenLogProbs};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// The crate's folder, or its copy where the tests were carried to another machine.
pub fn root() -> PathBuf {
    std::env::var_os("PREFUSE_ROOT").map_or(env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
}

/// Sizes shrink under tools that slow a GPU down a hundredfold.
pub fn small() -> bool {
    std::env::var_os("PREFUSE_SMALL").is_some_and(|value| value == "1")
}

/// Every backend that can run here; an instruction set that the machine lacks is said and skipped.
pub fn backends() -> Vec<Box<dyn Backend>> {
    let mut backends: Vec<Box<dyn Backend>> = vec![Box::new(Reference::new())];
    for cpu in cpus() {
        backends.push(Box::new(cpu));
    }
    backends
}

/// The CPU backend at every instruction set that the machine has.
pub fn cpus() -> Vec<Cpu> {
    let levels = [SimdLevel::Baseline, SimdLevel::Avx2, SimdLevel::Avx512];
    let available = levels.into_iter().filter_map(|level| {
        let cpu = Cpu::with_simd(level);
        if cpu.is_none() {
            eprintln!("skipped: this machine has no {level:?}");
        }
        cpu
    });
    available.collect()
}

/// 1: the softmax is 1 whatever the logit. 2: the smallest choice. 31, 32, 33: around a vector.
/// 1000: shorter than a block. 4099: prime, a block and a tail; odd rows are unaligned. 32000:
/// Llama 2.
pub const VOCABS: [usize; 8] = [1, 2, 31, 32, 33, 1000, 4099, 32000];

/// [`VOCABS`], without the largest where sizes shrink.
pub fn vocabs() -> &'static [usize] {
    if small() { &VOCABS[..VOCABS.len() - 1] } else { &VOCABS }
}

/// Llama 3, Qwen 2 and Gemma, with few rows.
pub const LARGE_VOCABS: [usize; 3] = [128_256, 151_936, 262_144];

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

/// The same numbers from the reference in f64.
pub fn truth<T: Element>(
    logits: &[T],
    vocab: usize,
    labels: &Labels<'_>,
    weights: Option<&Weights<'_>>,
    options: RowOptions,
) -> TokenLogProbs {
    let exact = exact(logits);
    let logits = Logits::new(&exact, labels.len(), vocab).unwrap();
    prefuse::token_log_probs(&Reference::new(), logits, labels, weights, options).unwrap()
}

/// Every number of a result, as it is.
pub fn bits(result: &TokenLogProbs) -> Vec<u64> {
    let statistics = result.statistics();
    let parts = [Some(result.log_probs()), Some(statistics.maximum), Some(statistics.log_sum)];
    let parts = parts.into_iter().chain([result.entropy(), result.argmax()]).flatten();
    parts.flat_map(|part| part.to_vec().unwrap()).map(f64::to_bits).collect()
}

/// Half a unit in the last place of a stored number, relative, and the same at its smallest.
pub fn rounding<T: Element>() -> (f64, f64) {
    match T::DTYPE {
        prefuse::DType::F64 => (f64::EPSILON / 2.0, 0.0),
        prefuse::DType::F32 => (2f64.powi(-24), 2f64.powi(-150)),
        prefuse::DType::F16 => (2f64.powi(-11), 2f64.powi(-25)),
        prefuse::DType::BF16 => (2f64.powi(-8), 2f64.powi(-134)),
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
/// vocabulary, the large ones with few rows.
#[macro_export]
macro_rules! row_sweep {
    ($check:ident, $tokens:expr) => {
        #[test]
        fn every_backend_dtype_and_vocabulary() {
            for backend in $crate::common::backends() {
                let backend = &*backend;
                for &vocab in $crate::common::vocabs() {
                    $crate::each_dtype!(backend, $check, $tokens, vocab, 1.0);
                }
                $crate::each_dtype!(backend, $check, $tokens, 1000, 0.7);
                $crate::each_dtype!(backend, $check, $tokens, 1000, 2.0);
            }
        }

        #[test]
        fn large_vocabularies() {
            for backend in $crate::common::backends() {
                for vocab in $crate::common::LARGE_VOCABS {
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
