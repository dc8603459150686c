//! Rows beyond 2^31 and 2^32 elements, and more of them than a grid has blocks.

use half::bf16;
use prefuse::batch::{Labels, Logits, LogitsMut};
use prefuse::{Backend, MaskedRows, RowOptions, Slice, SliceMut, Target, token_log_probs};

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

/// A warp a row, and a block or more a row.
#[test]
fn large_offsets_between_rows() {
    for vocab in [1000, 40_000] {
        with_zeros((ROWS - 1) * STRIDE + vocab, |backend, mut memory| {
            check(backend, &mut memory, vocab);
        });
    }
}
