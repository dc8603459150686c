//! One call of both stages, and what it came to.

use std::ops::Range;

use half::{bf16, f16};
use prefuse::batch::{Combination, Labels, Logits, LogitsMut, Weights};
use prefuse::{Backend, DType, Element, Error, MaskedRows, Reference, mixed_token_log_probs};

use crate::backends::{large_vocabs, vocabs};
use crate::common::{Placed, labels, logits, normal, rng, spread, weights};

/// Logits of a type that holds these numbers.
#[derive(Clone, Debug)]
pub struct Part {
    pub coefficient: f64,
    pub dtype: DType,
    pub data: Vec<f64>,
}

/// A combination, and what is asked of it.
#[derive(Clone)]
pub struct Case {
    pub parts: Vec<Part>,
    pub vocab: usize,
    pub temperature: f64,
    pub ids: Vec<i64>,
    pub weights: Option<Vec<f32>>,
    pub upstream: Vec<f64>,
    /// Elements before the first row of each tensor and between all of them.
    pub gaps: [usize; 2],
    /// By which parts a gradient is asked for.
    pub wanted: [bool; 3],
}

/// `[tokens]` numbers, and the gradient by each part; empty where none was asked for.
pub struct Found {
    pub log_probs: Vec<f64>,
    pub maximum: Vec<f64>,
    pub log_sum: Vec<f64>,
    pub grads: Vec<Vec<f64>>,
    vocab: usize,
}

impl Found {
    /// Every number of some of the tokens, as it is.
    pub fn row_bits(&self, tokens: Range<usize>) -> Vec<u64> {
        let of_tokens = [&self.log_probs, &self.maximum, &self.log_sum];
        let of_tokens = of_tokens.into_iter().flat_map(|values| values[tokens.clone()].to_vec());
        let columns = tokens.start * self.vocab..tokens.end * self.vocab;
        let grads = self.grads.iter().filter(|grads| !grads.is_empty());
        let grads = grads.flat_map(|grads| grads[columns.clone()].to_vec());
        of_tokens.chain(grads).map(f64::to_bits).collect()
    }

    pub fn bits(&self) -> Vec<u64> {
        self.row_bits(0..self.log_probs.len())
    }
}

/// Types for so many parts, another choice for each turn.
pub fn types_of(backend: &dyn Backend, parts: usize, turn: usize) -> Vec<DType> {
    let types = backend.dtypes();
    (0..parts).map(|part| types[(turn / types.len().pow(part as u32)) % types.len()]).collect()
}

fn rounded(dtype: DType, x: f64) -> f64 {
    match dtype {
        DType::F32 => f64::from(x as f32),
        DType::F16 => f16::from_f64(x).to_f64(),
        DType::BF16 => bf16::from_f64(x).to_f64(),
        _ => x,
    }
}

/// The rows of [`logits`]: all parts exclude what the first does, and added ones something of their own in
/// plain rows.
pub fn case(
    coefficients: &[f64],
    types: &[DType],
    [tokens, vocab]: [usize; 2],
    temperature: f64,
) -> Case {
    let seed = vocab as u64 + 3;
    let first: Vec<f64> = logits(seed, tokens, vocab);
    let part = |(index, (&coefficient, &dtype)): (usize, (&f64, &DType))| {
        let own: Vec<f64> = logits(seed + index as u64, tokens, vocab);
        let number = |(at, (&x, &first)): (usize, (&f64, &f64))| {
            let (token, v) = (at / vocab, at % vocab);
            let x = if x.is_finite() { x } else { (at % 13) as f64 };
            let excludes = coefficient > 0.0 && token % 6 == 0 && v % 7 == 3;
            let excluded = first == f64::NEG_INFINITY || excludes;
            if excluded { f64::NEG_INFINITY } else { rounded(dtype, x) }
        };
        let data = own.iter().zip(&first).enumerate().map(number).collect();
        Part { coefficient, dtype, data }
    };
    let parts: Vec<_> = coefficients.iter().zip(types).enumerate().map(part).collect();
    let mut upstream = rng(seed);
    // Exactly representable in f32, with zeros.
    let by = |(token, x): (usize, f64)| if token % 7 == 5 { 0.0 } else { f64::from(x as f32) };
    let upstream = (0..tokens).map(|token| by((token, normal(&mut upstream)))).collect();
    let case = Case {
        vocab,
        temperature,
        ids: vec![0; tokens],
        weights: Some(weights(seed, tokens)),
        upstream,
        gaps: [0, 0],
        wanted: [true; 3],
        parts,
    };
    let rows: Vec<f64> = (0..tokens).flat_map(|token| case.combined(token)).collect();
    Case { ids: labels(seed, &rows, vocab), ..case }
}

impl Case {
    /// Two parts in f32, and an upstream gradient of 1.
    pub fn plain(coefficients: &[f64], parts: [Vec<f64>; 2], ids: Vec<i64>) -> Self {
        let (vocab, upstream) = (parts[0].len() / ids.len(), vec![1.0; ids.len()]);
        let parts = coefficients.iter().zip(parts);
        let dtype = DType::F32;
        let parts = parts.map(|(&coefficient, data)| Part { coefficient, dtype, data }).collect();
        let (weights, gaps, wanted) = (None, [0, 0], [true; 3]);
        Self { parts, vocab, temperature: 1.0, ids, weights, upstream, gaps, wanted }
    }

    pub fn coefficients(&self) -> Vec<(f64, DType)> {
        self.parts.iter().map(|part| (part.coefficient, part.dtype)).collect()
    }

    pub fn counts(&self, token: usize) -> bool {
        let weights = self.weights.as_ref();
        self.ids[token] != -100 && weights.is_none_or(|weights| weights[token] != 0.0)
    }

    /// `sum_i c_i z_i` of a token.
    pub fn combined(&self, token: usize) -> Vec<f64> {
        let column = |v: usize| {
            let parts = self.parts.iter().filter(|part| part.coefficient != 0.0);
            let terms =
                || parts.clone().map(|part| part.coefficient * part.data[token * self.vocab + v]);
            let excluded = terms().any(|term| term == f64::NEG_INFINITY);
            if excluded { f64::NEG_INFINITY } else { terms().sum() }
        };
        (0..self.vocab).map(column).collect()
    }

    /// One of the rows by itself.
    pub fn only(&self, token: usize) -> Self {
        let row = |part: &Part| {
            let data = part.data[token * self.vocab..][..self.vocab].to_vec();
            Part { data, ..part.clone() }
        };
        Self {
            parts: self.parts.iter().map(row).collect(),
            ids: vec![self.ids[token]],
            weights: self.weights.as_ref().map(|weights| vec![weights[token]]),
            upstream: vec![self.upstream[token]],
            ..self.clone()
        }
    }

    /// From the reference, in f64.
    pub fn truth(&self) -> Found {
        let parts = self.parts.iter().cloned().map(|part| Part { dtype: DType::F64, ..part });
        Self { parts: parts.collect(), gaps: [0, 0], ..self.clone() }.run(&Reference::new())
    }

    pub fn run(&self, backend: &dyn Backend) -> Found {
        self.try_run(backend, MaskedRows::Zero).unwrap()
    }

    /// The gradients of tokens that do not count are written over NaN, or left at it; what lies between the
    /// rows is 7 and stays so.
    pub fn try_run(&self, backend: &dyn Backend, masked: MaskedRows) -> Result<Found, Error> {
        let tensors: Vec<_> = self.parts.iter().map(|part| self.place(backend, part)).collect();
        let parts = self.parts.iter().zip(&tensors);
        let parts: Vec<_> =
            parts.map(|(part, data)| (part.coefficient, self.logits(data))).collect();
        let mixture = Combination::new(&parts)?;
        let ids = Placed::new(backend, &self.ids);
        let labels = Labels::from_slice(ids.slice())?;
        let weights = self.weights.as_ref().map(|weights| Placed::new(backend, weights));
        let weights = weights.as_ref().map(|w| Weights::from_slice(w.slice())).transpose()?;
        let tokens = (&labels, weights.as_ref());
        let found = mixed_token_log_probs(backend, &mixture, tokens.0, tokens.1, self.temperature)?;
        let upstream = Placed::floats(backend, found.log_probs().dtype(), &self.upstream);
        let nan = vec![f64::NAN; self.ids.len() * self.vocab];
        let poison = |part: &Part| self.place(backend, &Part { data: nan.clone(), ..part.clone() });
        let mut grads: Vec<_> = self.parts.iter().map(poison).collect();
        let to = grads.iter_mut().zip(self.wanted);
        let to = to.map(|(grads, wanted)| wanted.then(|| self.target(grads))).collect();
        found.logit_grads(backend, (&mixture, to), tokens, upstream.slice(), masked)?;
        let numbers = |values: prefuse::Slice<'_>| values.to_vec().unwrap();
        let statistics = found.statistics();
        let grads = grads.iter().zip(self.wanted);
        let grads = grads.map(|(grads, wanted)| if wanted { self.rows(grads) } else { vec![] });
        Ok(Found {
            log_probs: numbers(found.log_probs()),
            maximum: numbers(statistics.maximum),
            log_sum: numbers(statistics.log_sum),
            grads: grads.collect(),
            vocab: self.vocab,
        })
    }

    fn place(&self, backend: &dyn Backend, part: &Part) -> Placed {
        fn typed<T: Element>(backend: &dyn Backend, case: &Case, data: &[f64]) -> Placed {
            let [before, between] = case.gaps;
            let stride = case.vocab + between;
            let rows: Vec<T> = data.iter().map(|&x| T::from_f64(x)).collect();
            let rows = spread(&rows, case.vocab, stride, 7.0);
            Placed::new(backend, &[vec![T::from_f64(7.0); before], rows].concat())
        }
        match part.dtype {
            DType::F64 => typed::<f64>(backend, self, &part.data),
            DType::F32 => typed::<f32>(backend, self, &part.data),
            DType::F16 => typed::<f16>(backend, self, &part.data),
            DType::BF16 => typed::<bf16>(backend, self, &part.data),
            other => panic!("{other} logits"),
        }
    }

    fn logits<'a>(&self, data: &'a Placed) -> Logits<'a> {
        let ([before, between], tokens) = (self.gaps, self.ids.len());
        let data = data.slice().part(before..data.slice().len()).unwrap();
        Logits::from_slice(data, tokens, self.vocab, self.vocab + between).unwrap()
    }

    fn target<'a>(&self, data: &'a mut Placed) -> LogitsMut<'a> {
        let ([before, between], tokens) = (self.gaps, self.ids.len());
        let len = data.slice().len();
        let data = data.slice_mut().part(before..len).unwrap();
        LogitsMut::from_slice(data, tokens, self.vocab, self.vocab + between).unwrap()
    }

    fn rows(&self, data: &Placed) -> Vec<f64> {
        let [before, between] = self.gaps;
        let all = data.slice().to_vec().unwrap();
        let (before, rows) = all.split_at(before);
        let between = rows.chunks(self.vocab + between).flat_map(|row| &row[self.vocab..]);
        assert!(before.iter().chain(between).all(|&x| x == 7.0), "between the rows");
        rows.chunks(self.vocab + self.gaps[1]).flat_map(|row| row[..self.vocab].to_vec()).collect()
    }
}

/// NextQuill's, SPA's, a first part that is subtracted, one that does not enter, and three.
pub const COEFFICIENTS: [&[f64]; 6] =
    [&[1.0, -1.0], &[1.5, -0.5], &[-0.3, 1.3], &[1.0, 0.0], &[0.5, 0.25, -0.75], &[0.7]];

/// Calls `check` with every vocabulary and all coefficients, the types going round, and with every pair of types.
pub fn each_type_and_vocabulary(backend: &dyn Backend, check: fn(&dyn Backend, &Case)) {
    for (index, &vocab) in vocabs().iter().enumerate() {
        for (at, coefficients) in COEFFICIENTS.into_iter().enumerate() {
            let types = types_of(backend, coefficients.len(), index + at);
            check(backend, &case(coefficients, &types, [12, vocab], 1.0));
        }
    }
    for temperature in [0.7, 2.0] {
        for types in 0..9 {
            let types = types_of(backend, 2, types);
            check(backend, &case(&[1.5, -0.5], &types, [12, 1000], temperature));
        }
    }
}

pub fn each_large_vocabulary(backend: &dyn Backend, check: fn(&dyn Backend, &Case)) {
    for &vocab in large_vocabs() {
        check(backend, &case(&[1.0, -1.0], &[DType::BF16; 2], [6, vocab], 1.0));
        check(backend, &case(&[1.5, -0.5], &[DType::F32, DType::F16], [3, vocab], 1.0));
    }
}
