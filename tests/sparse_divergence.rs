//! The stage `sparse_divergence` against the reference in f64, and the reference against the dense stage.

use half::bf16;
use prefuse::batch::Labels;
use prefuse::stages::{
    DivergenceOutputs, Remainder, SparseDivergence, SparseTeacher, StudentTarget, TokenDivergence,
    Tokens,
};
use prefuse::{Backend, DType, Element, Error, MaskedRows, Reference, Slice, Target};
use rand::RngExt;

use crate::backends::{edge_vocabs, host_backends, large_vocabs};
use crate::common::{Placed, exact, logits, normal, refused, rng, rounding};
use crate::divergence::{Case as Dense, Into, Source};

/// A student, and what a teacher lists for each token.
#[derive(Clone)]
pub struct Case<S, T> {
    pub student: Vec<S>,
    pub vocab: usize,
    /// `[tokens, k]`.
    pub entries: Vec<i64>,
    pub log_probs: Vec<T>,
    pub remainder: Remainder,
    pub divergence: TokenDivergence,
    pub temperature: f64,
    pub ids: Vec<i64>,
    pub upstream: Vec<f64>,
}

/// Divergences, the entropies of both, and the gradient.
pub struct Found<S> {
    pub numbers: [Vec<f64>; 3],
    pub grads: Vec<S>,
}

impl<S: Element, T: Element> Case<S, T> {
    fn exact(&self) -> Case<f64, f64> {
        let Self { vocab, remainder, divergence, temperature, .. } = *self;
        Case {
            student: exact(&self.student),
            entries: self.entries.clone(),
            log_probs: exact(&self.log_probs),
            ids: self.ids.clone(),
            upstream: self.upstream.clone(),
            vocab,
            remainder,
            divergence,
            temperature,
        }
    }

    pub fn run(&self, backend: &dyn Backend, into: Into) -> Result<Found<S>, Error> {
        let (tokens, vocab) = (self.ids.len(), self.vocab);
        let k = self.entries.len() / tokens;
        let dtype = S::DTYPE.per_token();
        let mut student = Placed::new(backend, &self.student);
        let start = if into == Into::Sum { 0.25 } else { f64::NAN };
        let mut grads = Placed::new(backend, &vec![S::from_f64(start); self.student.len()]);
        let entries = Placed::new(backend, &self.entries);
        let log_probs = Placed::new(backend, &self.log_probs);
        let teacher = SparseTeacher::new(entries.slice(), log_probs.slice(), k, self.remainder)?;
        let ids = Placed::new(backend, &self.ids);
        let labels = Labels::from_slice(ids.slice())?;
        let floats = || Placed::floats(backend, dtype, &vec![f64::NAN; tokens]);
        let mut outputs = [floats(), floats(), floats()];
        let upstream = Placed::floats(backend, dtype, &self.upstream);
        let target = match into {
            Into::Nowhere => StudentTarget::Values(student.logits(tokens, vocab)),
            Into::Place => StudentTarget::Written(
                Target::InPlace(student.target(tokens, vocab)),
                MaskedRows::Zero,
            ),
            Into::Buffer => StudentTarget::Written(
                Target::OutOfPlace {
                    logits: student.logits(tokens, vocab),
                    grads: grads.target(tokens, vocab),
                },
                MaskedRows::Zero,
            ),
            Into::Sum => StudentTarget::Added {
                logits: student.logits(tokens, vocab),
                grads: grads.target(tokens, vocab),
            },
        };
        let needed = backend.sparse_divergence_scratch(tokens, vocab);
        let mut scratch = backend.allocate(DType::F64, needed)?;
        let [values, student_entropy, teacher_entropy] = &mut outputs;
        backend.sparse_divergence(SparseDivergence::new(
            backend,
            (target, teacher),
            (self.divergence, self.temperature),
            Tokens::new(&labels, None)?,
            (
                DivergenceOutputs {
                    values: values.slice_mut(),
                    student_entropy: Some(student_entropy.slice_mut()),
                    teacher_entropy: Some(teacher_entropy.slice_mut()),
                },
                (into != Into::Nowhere).then(|| upstream.slice()),
            ),
            scratch.slice_mut(),
        )?)?;
        let numbers = outputs.each_ref().map(|placed| placed.slice().to_vec());
        let [values, student_entropy, teacher_entropy] = numbers;
        Ok(Found {
            numbers: [values?, student_entropy?, teacher_entropy?],
            grads: match into {
                Into::Nowhere => vec![],
                Into::Place => student.read(),
                Into::Buffer | Into::Sum => grads.read(),
            },
        })
    }
}

/// All but the expected advantage, which has no sparse teacher.
fn divergences() -> Vec<TokenDivergence> {
    let mut all = crate::divergence::divergences();
    all.retain(|kind| !matches!(kind, TokenDivergence::ExpectedAdvantage { .. }));
    all
}

/// Some entries of the student's own distribution with noise, in no order.
fn case<S: Element, T: Element>(
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
                true => (ids[entry] as i64, scores[entry] - sum.ln()),
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
    let temperature = 1.0;
    Case { student, vocab, entries, log_probs, remainder, divergence, temperature, ids, upstream }
}

/// The log-probs of the student carry the error of stage 1, half ulps of `4 (|z| + log-sum + |log q|) + 80`;
/// what the teacher lists is exact, and sums over entries are f64. As in the dense stage a value changes by
/// `(p + q) (1 + |log q - log p|)` for each unit of it; `q` of all others by as much as a listed one.
fn compare<S: Element, T: Element>(backend: &dyn Backend, case: &Case<S, T>) {
    let truth = case.exact().run(&Reference::new(), Into::Buffer).unwrap();
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
    for backend in host_backends() {
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
    for backend in host_backends() {
        let largest = large_vocabs().last();
        let sizes = edge_vocabs().iter().chain(largest).copied();
        for (vocab, kind) in
            sizes.zip([ForwardKl, JensenShannon { beta: 0.5 }, TotalVariation].into_iter().cycle())
        {
            let k = vocab.min(1024);
            compare::<f32, half::f16>(&*backend, &case(kind, Remainder::Bin, [3, vocab, k]));
            compare::<bf16, f32>(&*backend, &case(kind, Remainder::Renormalised, [3, vocab, k]));
        }
    }
}

/// A student that is sure of what is listed: the others' probability is none that f32 has, and their gradient
/// is what the teacher leaves for them. And one that is sure of another column.
#[test]
fn confident_students() {
    for backend in host_backends() {
        for divergence in divergences() {
            for others in [-60.0, -150.0, 90.0] {
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

/// All entries listed: the dense stage's numbers.
#[test]
fn the_whole_vocabulary_is_dense() {
    for divergence in divergences() {
        for remainder in [Remainder::Renormalised, Remainder::Bin] {
            let sparse: Case<f64, f64> = case(divergence, remainder, [6, 33, 33]);
            let mut teacher = vec![0.0; sparse.student.len()];
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
            let (got, expected) = (
                sparse.run(&Reference::new(), Into::Buffer).unwrap(),
                dense.run(&Reference::new(), Into::Buffer),
            );
            let close = |a: f64, b: f64| a == b || (a - b).abs() <= 1e-12 * (1.0 + b.abs());
            let pairs = got.numbers[0].iter().zip(&expected.values);
            let pairs = pairs.chain(got.grads.iter().zip(&expected.grads));
            for (a, b) in pairs.chain(got.numbers[2].iter().zip(&expected.teacher_entropy)) {
                assert!(close(*a, *b), "{divergence:?} {remainder:?}: {a} for {b}");
            }
        }
    }
}

/// In place, in a buffer and added; a row by itself and among others.
#[test]
fn targets_and_batches() {
    for backend in host_backends() {
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

/// Bad entries are found before anything is written, the first token's first; tokens that do not count may
/// list anything.
#[test]
fn bad_entries() {
    for backend in host_backends() {
        let mut case: Case<f32, f32> = case(TokenDivergence::ForwardKl, Remainder::Bin, [6, 40, 4]);
        case.entries[3 * 4] = 99;
        case.log_probs[3 * 4 + 1] = f32::NAN;
        case.run(&*backend, Into::Buffer).unwrap();
        case.entries[5 * 4] = -1;
        refused(
            case.run(&*backend, Into::Place),
            "teacher's ids of token 5: expected 0 to 39, got -1",
        );
        case.log_probs[4 * 4 + 1] = 0.5;
        refused(
            case.run(&*backend, Into::Place),
            "teacher's log-probs of token 4: expected at most 0, got 0.5",
        );
        case.entries[2 * 4 + 3] = case.entries[2 * 4];
        let message = format!(
            "teacher's ids of token 2: expected each once, got {} again",
            case.entries[2 * 4]
        );
        refused(case.run(&*backend, Into::Place), &message);
        case.entries[1] = 40;
        refused(
            case.run(&*backend, Into::Place),
            "teacher's ids of token 0: expected 0 to 39, got 40",
        );
    }
}

#[test]
fn shapes_and_types() {
    let (ids, log_probs) = ([0_i64, 1, 2, 1], [-1.0_f32; 4]);
    let (ids, log_probs) = (Slice::new(&ids), Slice::new(&log_probs));
    let new = |ids, log_probs, k| SparseTeacher::new(ids, log_probs, k, Remainder::Bin);
    refused(new(log_probs, log_probs, 2), "teacher's ids: expected i64, got f32");
    refused(new(ids, ids, 2), "teacher's log-probs: expected f16, bf16, f32 or f64, got i64");
    refused(
        new(ids, log_probs, 0),
        "entries of a sparse teacher: expected a number from 1 to 1024, got 0.0",
    );
    refused(
        new(ids, log_probs, 1025),
        "entries of a sparse teacher: expected a number from 1 to 1024, got 1025.0",
    );
    refused(new(ids, log_probs, 3), "teacher's ids: expected length 6, got 4");
    let half = log_probs.part(0..2).unwrap();
    refused(new(ids, half, 2), "teacher's log-probs: expected length 4, got 2");
    let base: Case<f32, f32> = case(TokenDivergence::ForwardKl, Remainder::Bin, [6, 3, 2]);
    let backend = Reference::new();
    let clip = (0.0, 1.0);
    let advantage =
        Case { divergence: TokenDivergence::ExpectedAdvantage { beta: 1.0, clip }, ..base.clone() };
    refused(
        advantage.run(&backend, Into::Buffer),
        "an expected advantage: expected logits of the whole vocabulary, got a sparse teacher",
    );
    let narrow = Case { student: vec![0.0; 6], vocab: 1, ..base };
    refused(
        narrow.run(&backend, Into::Buffer),
        "entries of a sparse teacher: expected at most the vocabulary, got 2.0",
    );
}
