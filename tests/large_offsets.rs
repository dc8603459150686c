//! Rows beyond 2^31 and 2^32 elements, and more of them than a grid has blocks.

use half::bf16;
use prefuse::batch::{Batch, Labels, Logits, LogitsMut, Packing};
use prefuse::stages::{StudentTarget, Teacher, TokenDivergence};
use prefuse::{
    Backend, Distillation, MaskedRows, RowOptions, Slice, SliceMut, Target, token_log_probs,
};

use crate::backends::with_zeros;
use crate::common::{Placed, bits, logits};

/// The third row begins past 2^32 elements, the second past 2^31; the last row is the memory's end.
const STRIDE: usize = (1 << 31) + 24;
const ROWS: usize = 3;

fn check(backend: &dyn Backend, memory: &mut SliceMut<'_>, vocab: usize) {
    let data = logits::<bf16>(1, ROWS, vocab);
    let row = |token: usize| token * STRIDE..token * STRIDE + vocab;
    for (token, values) in data.chunks(vocab).enumerate() {
        let mut part = memory.reborrow().part(row(token)).unwrap();
        part.copy_from(Slice::new(values)).unwrap();
    }
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
    for (token, expected) in packed.read::<bf16>().chunks(vocab).enumerate() {
        let got: Vec<bf16> = memory.as_slice().part(row(token)).unwrap().read().unwrap();
        assert_eq!(got, expected, "{} row {token}", backend.name());
        let after = row(token).end..(row(token).end + 64).min(memory.len());
        let after = memory.as_slice().part(after).unwrap().read::<bf16>().unwrap();
        assert!(after.iter().all(|x| x.to_bits() == 0), "{} after row {token}", backend.name());
    }
}

/// The teacher's rows, then the student's, in place.
fn check_divergence(backend: &dyn Backend, memory: &mut SliceMut<'_>, vocab: usize) {
    let (data, other) = (logits::<bf16>(1, ROWS, vocab), logits::<bf16>(2, ROWS, vocab));
    let row = |token: usize| token * STRIDE..token * STRIDE + vocab;
    for (token, values) in data.chunks(vocab).enumerate() {
        let mut part = memory.reborrow().part(row(token)).unwrap();
        part.copy_from(Slice::new(values)).unwrap();
    }
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
    for (token, expected) in packed.read::<bf16>().chunks(vocab).enumerate() {
        let got: Vec<bf16> = memory.as_slice().part(row(token)).unwrap().read().unwrap();
        assert_eq!(got, expected, "{} row {token}", backend.name());
    }
}

/// A warp a row, and a block or more a row.
#[test]
fn large_offsets_between_rows() {
    for vocab in [1000, 40_000] {
        with_zeros((ROWS - 1) * STRIDE + vocab, |backend, mut memory| {
            check(backend, &mut memory, vocab);
            check_divergence(backend, &mut memory, vocab);
        });
    }
}
