//! Rows beyond 2^31 and 2^32 elements, and more of them than a grid has blocks.

use half::bf16;
use prefuse::batch::{Batch, Combination, Labels, Logits, LogitsMut, Packing};
use prefuse::stages::{Remainder, SparseTeacher, StudentTarget, Teacher, TokenDivergence};
use prefuse::{
    Backend, Distillation, MaskedRows, RowOptions, Slice, SliceMut, Target, mixed_token_log_probs,
    token_log_probs,
};

use crate::backends::with_zeros;
use crate::common::{Placed, bits, logits};

/// The third row begins past 2^32 elements, the second past 2^31; the last row is the memory's end.
const STRIDE: usize = (1 << 31) + 24;
const ROWS: usize = 3;

fn row(token: usize, vocab: usize) -> std::ops::Range<usize> {
    token * STRIDE..token * STRIDE + vocab
}

fn fill(memory: &mut SliceMut<'_>, data: &[bf16], vocab: usize) {
    for (token, values) in data.chunks(vocab).enumerate() {
        let mut part = memory.reborrow().part(row(token, vocab)).unwrap();
        part.copy_from(Slice::new(values)).unwrap();
    }
}

/// That the rows of the memory are those of `packed`.
fn same_rows(backend: &dyn Backend, memory: &SliceMut<'_>, packed: &Placed, vocab: usize) {
    for (token, expected) in packed.read::<bf16>().chunks(vocab).enumerate() {
        let got: Vec<bf16> = memory.as_slice().part(row(token, vocab)).unwrap().read().unwrap();
        assert_eq!(got, expected, "{} row {token}", backend.name());
    }
}

fn check(backend: &dyn Backend, memory: &mut SliceMut<'_>, vocab: usize) {
    let data = logits::<bf16>(1, ROWS, vocab);
    fill(memory, &data, vocab);
    let (labels, options) = (Labels::new(&[3, 2, 1]), RowOptions::default().with_entropy());
    let mut packed = Placed::new(backend, &data);
    let expected =
        token_log_probs(backend, packed.logits(ROWS, vocab), &labels, None, options).unwrap();
    let strided = Logits::from_slice(memory.as_slice(), ROWS, vocab, STRIDE).unwrap();
    let ours = token_log_probs(backend, strided, &labels, None, options).unwrap();
    assert_eq!(bits(&ours), bits(&expected), "{}", backend.name());

    let upstream = Placed::new(backend, &[0.5_f32, -1.0, 2.0]);
    let grads = (upstream.slice(), Some(upstream.slice()));
    let target = Target::InPlace(packed.target(ROWS, vocab));
    expected.logit_grads(backend, target, (&labels, None), grads, MaskedRows::Zero).unwrap();
    let target = LogitsMut::from_slice(memory.reborrow(), ROWS, vocab, STRIDE).unwrap();
    let target = Target::InPlace(target);
    ours.logit_grads(backend, target, (&labels, None), grads, MaskedRows::Zero).unwrap();
    same_rows(backend, memory, &packed, vocab);
    for token in 0..ROWS {
        let end = row(token, vocab).end;
        let after = end..(end + 64).min(memory.len());
        let after = memory.as_slice().part(after).unwrap().read::<bf16>().unwrap();
        assert!(after.iter().all(|x| x.to_bits() == 0), "{} after row {token}", backend.name());
    }
}

/// The teacher's rows, then the student's, in place.
fn check_divergence(backend: &dyn Backend, memory: &mut SliceMut<'_>, vocab: usize) {
    let (data, other) = (logits::<bf16>(1, ROWS, vocab), logits::<bf16>(2, ROWS, vocab));
    fill(memory, &data, vocab);
    let labels = Placed::new(backend, &[3_i64, 2, 1]);
    let batch = || {
        let labels = Labels::from_slice(labels.slice()).unwrap();
        Batch::new(labels, Packing::new(&[0, 1, 3]).unwrap()).unwrap()
    };
    let (mut packed, other) = (Placed::new(backend, &data), Placed::new(backend, &other));
    for divergence in [TokenDivergence::ForwardKl, TokenDivergence::TotalVariation] {
        let all = Distillation::new(batch(), divergence).unwrap();
        let student = other.logits(ROWS, vocab);
        let far = Logits::from_slice(memory.as_slice(), ROWS, vocab, STRIDE).unwrap();
        let near = Teacher::new(packed.logits(ROWS, vocab));
        let expected = all.forward(backend, student, &near).unwrap();
        let got = all.forward(backend, student, &Teacher::new(far)).unwrap();
        assert_eq!(got.loss().to_bits(), expected.loss().to_bits(), "{}", backend.name());
    }
    let all = Distillation::new(batch(), TokenDivergence::JensenShannon { beta: 0.5 }).unwrap();
    let teacher = Teacher::new(other.logits(ROWS, vocab));
    let written = |target| StudentTarget::Written(Target::InPlace(target), MaskedRows::Zero);
    let target = written(packed.target(ROWS, vocab));
    all.forward_with_logit_grads(backend, target, &teacher, 3.0).unwrap();
    let target = LogitsMut::from_slice(memory.reborrow(), ROWS, vocab, STRIDE).unwrap();
    all.forward_with_logit_grads(backend, written(target), &teacher, 3.0).unwrap();
    same_rows(backend, memory, &packed, vocab);
    check_sparse_divergence(backend, memory, vocab, &batch());
}

/// The student's rows, in place.
fn check_sparse_divergence(
    backend: &dyn Backend,
    memory: &mut SliceMut<'_>,
    vocab: usize,
    batch: &Batch<'_>,
) {
    let data = logits::<bf16>(1, ROWS, vocab);
    fill(memory, &data, vocab);
    let mut packed = Placed::new(backend, &data);
    let last = vocab as i64 - 1;
    let ids = Placed::new(backend, &[0, last, 7, 1, 2, last]);
    let log_probs = Placed::new(backend, &[-1.0_f32; 2 * ROWS]);
    let teacher = SparseTeacher::new(ids.slice(), log_probs.slice(), 2, Remainder::Bin).unwrap();
    let kl = Distillation::new(batch.clone(), TokenDivergence::ReverseKl).unwrap();
    let written = |target| StudentTarget::Written(Target::InPlace(target), MaskedRows::Zero);
    let target = written(packed.target(ROWS, vocab));
    let expected = kl.forward_with_logit_grads(backend, target, &teacher, 3.0).unwrap();
    let target = LogitsMut::from_slice(memory.reborrow(), ROWS, vocab, STRIDE).unwrap();
    let got = kl.forward_with_logit_grads(backend, written(target), &teacher, 3.0).unwrap();
    assert_eq!(got.loss().to_bits(), expected.loss().to_bits(), "{}", backend.name());
    same_rows(backend, memory, &packed, vocab);
}

/// Log-probs of a mixture with `other`, and the gradient by the first part.
fn mixture(
    backend: &dyn Backend,
    logits: Logits<'_>,
    (other, upstream): (&Placed, &Placed),
    target: LogitsMut<'_>,
) -> Vec<f64> {
    let parts = [(1.5, logits), (-0.5, other.logits(ROWS, logits.vocab()))];
    let mixture = Combination::new(&parts).unwrap();
    let labels = Labels::new(&[3, 2, 1]);
    let found = mixed_token_log_probs(backend, &mixture, &labels, None, 1.0).unwrap();
    let (both, tokens) = ((&mixture, vec![Some(target), None]), (&labels, None));
    found.logit_grads(backend, both, tokens, upstream.slice(), MaskedRows::Zero).unwrap();
    found.log_probs().to_vec().unwrap()
}

/// Far rows as a part that is read, then as the gradient by a part.
fn check_mixture(backend: &dyn Backend, memory: &mut SliceMut<'_>, vocab: usize) {
    let (data, other) = (logits::<bf16>(1, ROWS, vocab), logits::<bf16>(2, ROWS, vocab));
    fill(memory, &data, vocab);
    let (packed, other) = (Placed::new(backend, &data), Placed::new(backend, &other));
    let upstream = Placed::new(backend, &[0.5_f32, -1.0, 2.0]);
    let with = (&other, &upstream);
    let mut grads = [(); 2].map(|()| Placed::new(backend, &data));
    let [near, of_far] = grads.each_mut().map(|grads| grads.target(ROWS, vocab));
    let expected = mixture(backend, packed.logits(ROWS, vocab), with, near);
    let far = Logits::from_slice(memory.as_slice(), ROWS, vocab, STRIDE).unwrap();
    assert_eq!(mixture(backend, far, with, of_far), expected, "{}", backend.name());
    let [near, of_far] = grads.each_ref().map(Placed::read::<bf16>);
    assert_eq!(of_far, near, "{}", backend.name());
    let target = LogitsMut::from_slice(memory.reborrow(), ROWS, vocab, STRIDE).unwrap();
    mixture(backend, packed.logits(ROWS, vocab), with, target);
    same_rows(backend, memory, &grads[0], vocab);
}

/// A warp a row, and a block or more a row.
#[test]
fn large_offsets_between_rows() {
    for vocab in [1000, 40_000] {
        with_zeros((ROWS - 1) * STRIDE + vocab, |backend, mut memory| {
            check(backend, &mut memory, vocab);
            check_divergence(backend, &mut memory, vocab);
            check_mixture(backend, &mut memory, vocab);
        });
    }
}
