//! Distillation from a batch to the gradient: what the reductions divide by, and whose tokens count.

use prefuse::batch::{Batch, Labels, Logits, LogitsMut, Packing, Pairs, Weights};
use prefuse::objectives::Reduction;
use prefuse::stages::{Remainder, SparseTeacher, StudentTarget, Teacher, TokenDivergence};
use prefuse::{Backend, Distillation, MaskedRows, Reference, Sequences, Slice, Target};

use crate::backends::composed_backends;
use crate::common::{Placed, logits, refused};

const TOKENS: usize = 7;
const VOCAB: usize = 40;

/// Sequences of 3, 0 and 4 tokens, of which the second and the sixth do not count.
fn batch() -> Batch<'static> {
    let labels = Labels::new(vec![0, -100, 1, 2, 3, -100, 4]);
    Batch::new(labels, Packing::new(&[0, 3, 3, 7]).unwrap()).unwrap()
}

fn weights() -> Vec<f32> {
    vec![1.0, 2.0, 0.5, 1.5, 1.0, 1.0, -0.5]
}

fn data(seed: u64) -> Vec<f32> {
    logits(seed, TOKENS, VOCAB).iter().map(|x: &f32| x.clamp(-9.0, 9.0)).collect()
}

fn close(got: f64, expected: f64) {
    assert!((got - expected).abs() <= 2e-5 * (1.0 + expected.abs()), "{got} for {expected}");
}

/// The loss and the gradient of each reduction from the divergences of the tokens.
#[test]
fn reductions() {
    for backend in composed_backends() {
        let (student, teacher) = (data(1), data(2));
        let (student, teacher) =
            (Placed::new(&*backend, &student), Placed::new(&*backend, &teacher));
        let teacher = Teacher::new(teacher.logits(TOKENS, VOCAB));
        let weighted = batch().with_weights(Weights::new(weights()).unwrap()).unwrap();
        let all = Distillation::new(weighted, TokenDivergence::ReverseKl).unwrap();
        let view = || student.logits(TOKENS, VOCAB);
        let values = all.forward(&*backend, view(), &teacher).unwrap();
        let values = values.values().to_vec().unwrap();
        assert_eq!((values[1], values[5]), (0.0, 0.0));
        let sum =
            |of: &[usize]| of.iter().map(|&t| values[t] * f64::from(weights()[t])).sum::<f64>();
        let (first, last) = (sum(&[0, 2]), sum(&[3, 4, 6]));
        for (reduction, expected, of_first, of_last) in [
            (Reduction::Mean, (first + last) / 5.0, 0.2, 0.2),
            (Reduction::TokenMean, (first + last) / 5.0, 0.2, 0.2),
            (Reduction::Sum, first + last, 1.0, 1.0),
            (Reduction::Divisor(17.0), (first + last) / 17.0, 1.0 / 17.0, 1.0 / 17.0),
            (Reduction::SequenceMean, (first / 2.0 + last / 3.0) / 3.0, 1.0 / 6.0, 1.0 / 9.0),
        ] {
            let loss = all.clone().with_reduction(reduction).with_weight(2.0);
            close(loss.forward(&*backend, view(), &teacher).unwrap().loss(), 2.0 * expected);
            let grads = |by: &dyn Fn(StudentTarget<'_>)| {
                let mut grads = Placed::poisoned::<f32>(&*backend, TOKENS * VOCAB);
                let (logits, to) = (view(), grads.target(TOKENS, VOCAB));
                let target = Target::OutOfPlace { logits, grads: to };
                by(StudentTarget::Written(target, MaskedRows::Zero));
                grads.read::<f32>()
            };
            let got = grads(&|target| {
                loss.forward_with_logit_grads(&*backend, target, &teacher, -1.5).unwrap();
            });
            let by_sums = [-3.0 * of_first, 7.0, -3.0 * of_last];
            let expected =
                grads(&|target| loss.logit_grads(&*backend, target, &teacher, &by_sums).unwrap());
            for (got, expected) in got.iter().zip(&expected) {
                close(f64::from(*got), f64::from(*expected));
            }
        }
    }
}

/// A selection of sequences, the weights of sequences, and `T^2`.
#[test]
fn selections_and_factors() {
    let backend = Reference::new();
    let (student, teacher) = (data(3), data(4));
    let student = Logits::new(&student, TOKENS, VOCAB).unwrap();
    let teacher = Teacher::new(Logits::new(&teacher, TOKENS, VOCAB).unwrap());
    let batch = batch()
        .with_pairs(Pairs::new(vec![(2, 0)]).unwrap())
        .and_then(|batch| batch.with_sequence_weights(vec![3.0, 1.0, 0.5]))
        .unwrap();
    let all = Distillation::new(batch, TokenDivergence::JensenShannon { beta: 0.3 }).unwrap();
    let found = all.forward(&backend, student, &teacher).unwrap();
    let [first, _, last] = found.sums() else { panic!() };
    close(found.loss(), (3.0 * first + 0.5 * last) / 5.0);
    let chosen = all.clone().with_sequences(Sequences::Chosen);
    let found = chosen.forward(&backend, student, &teacher).unwrap();
    close(found.loss(), 0.5 * last / 3.0);
    let warm = chosen.with_temperatures(2.0, 4.0);
    let [plain, squared] = [warm.clone(), warm.with_squared_temperature()]
        .map(|of| of.forward(&backend, student, &teacher).unwrap().loss());
    close(squared, 8.0 * plain);
    let twice = all.with_sequences(Sequences::Indices(vec![0, 2, 0]));
    refused(
        twice.forward(&backend, student, &teacher),
        "distillation: expected each sequence once, got sequence 0 again at 2",
    );
}

/// Entries of the whole vocabulary are the dense teacher; a preference loss's gradient stays below.
#[test]
fn sparse_teachers() {
    for backend in composed_backends() {
        let (student, teacher) = (data(5), data(6));
        let log_probs: Vec<f32> = teacher
            .chunks(VOCAB)
            .flat_map(|row| {
                let sum: f64 = row.iter().map(|&x| f64::from(x).exp()).sum();
                row.iter().map(move |&x| (f64::from(x) - sum.ln()) as f32)
            })
            .collect();
        let ids: Vec<i64> = (0..TOKENS * VOCAB).map(|at| (at % VOCAB) as i64).collect();
        let placed = [&student, &teacher, &log_probs].map(|data| Placed::new(&*backend, data));
        let ids = Placed::new(&*backend, &ids);
        let view = placed[0].logits(TOKENS, VOCAB);
        let kl = Distillation::new(batch(), TokenDivergence::ForwardKl).unwrap();
        let dense = Teacher::new(placed[1].logits(TOKENS, VOCAB));
        let expected = kl.forward(&*backend, view, &dense).unwrap();
        for remainder in [Remainder::Renormalised, Remainder::Bin] {
            let sparse =
                SparseTeacher::new(ids.slice(), placed[2].slice(), VOCAB, remainder).unwrap();
            let found = kl.forward(&*backend, view, &sparse).unwrap();
            close(found.loss(), expected.loss());
            let mut grads = Placed::new(&*backend, &vec![1.0_f32; TOKENS * VOCAB]);
            let to = StudentTarget::Added { logits: view, grads: grads.target(TOKENS, VOCAB) };
            kl.forward_with_logit_grads(&*backend, to, &sparse, 1.0).unwrap();
            for row in grads.read::<f32>().chunks(VOCAB) {
                close(row.iter().map(|&x| f64::from(x)).sum(), VOCAB as f64);
            }
        }
    }
}

#[test]
fn bad_input() {
    let backend: &dyn Backend = &Reference::new();
    let (student, teacher) = (data(1), data(2));
    let logits = Logits::new(&student, TOKENS, VOCAB).unwrap();
    let teacher = Teacher::new(Logits::new(&teacher, TOKENS, VOCAB).unwrap());
    let kl = || Distillation::new(batch(), TokenDivergence::ForwardKl).unwrap();
    refused(
        Distillation::new(batch(), TokenDivergence::SymmetricKl { reverse: -1.0 }),
        "share of the reverse KL: expected a number from 0 to 1, got -1.0",
    );
    refused(
        kl().with_weight(f64::NAN).forward(backend, logits, &teacher),
        "term weight of distillation: expected a number from -1e30 to 1e30, got NaN",
    );
    refused(
        kl().with_sequences(Sequences::Chosen).forward(backend, logits, &teacher),
        "distillation: expected a batch with pairs, got none",
    );
    refused(
        kl().forward(backend, Logits::new(&student, 14, 20).unwrap(), &teacher),
        "rows of logits: expected length 7, got 14",
    );
    let mut grads = vec![0.0_f32; TOKENS * VOCAB];
    let to = LogitsMut::new(&mut grads, TOKENS, VOCAB).unwrap();
    refused(
        kl().logit_grads(backend, StudentTarget::Added { logits, grads: to }, &teacher, &[1.0]),
        "gradients by sequence: expected length 3, got 1",
    );
    refused(
        kl().forward_with_logit_grads(backend, StudentTarget::Values(logits), &teacher, 1.0),
        "upstream gradient by divergences: expected a target that takes a gradient, got StudentTarget::Values",
    );
    let ids = [0_i64; TOKENS];
    let log_probs = [-1.0_f32; TOKENS];
    let (ids, log_probs) = (Slice::new(&ids), Slice::new(&log_probs));
    let sparse = SparseTeacher::new(ids, log_probs, 1, Remainder::Bin).unwrap();
    let other = Batch::new(Labels::new(&[0, 1][..]), Packing::new(&[0, 2]).unwrap()).unwrap();
    let two = Logits::new(&student[..2 * VOCAB], 2, VOCAB).unwrap();
    refused(
        Distillation::new(other, TokenDivergence::ForwardKl)
            .unwrap()
            .forward(backend, two, &sparse),
        "tokens of a sparse teacher: expected length 2, got 7",
    );
}

/// A combination in which nothing enters is uniform, also over more columns than a block has.
#[test]
fn a_teacher_of_coefficient_0_is_uniform() {
    let (tokens, vocab) = (2, 5000);
    let data: Vec<f32> =
        logits(5, tokens, vocab).iter().map(|x: &f32| x.clamp(-9.0, 9.0)).collect();
    let expected: f64 = data
        .chunks(vocab)
        .map(|row| {
            let row: Vec<f64> = row.iter().map(|&x| f64::from(x)).collect();
            let log_sum = row.iter().map(|x| x.exp()).sum::<f64>().ln();
            let mean = row.iter().sum::<f64>() / vocab as f64;
            log_sum - mean - (vocab as f64).ln()
        })
        .sum();
    for backend in composed_backends() {
        let student = Placed::new(&*backend, &data);
        let view = || student.logits(tokens, vocab);
        let batch = Batch::new(Labels::new(vec![0, 1]), Packing::new(&[0, 2]).unwrap()).unwrap();
        let kl = Distillation::new(batch, TokenDivergence::ForwardKl).unwrap();
        let kl = kl.with_reduction(Reduction::Sum);
        let teacher = Teacher::combination(&[(0.0, view())]).unwrap();
        close(kl.forward(&*backend, view(), &teacher).unwrap().loss(), expected);
    }
}
