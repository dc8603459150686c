//! A row has the same bits wherever it lies: at every index, in any number of rows, at every address,
//! in place and out of place, and under every launch shape.

use half::bf16;
use prefuse::batch::{Labels, Logits, LogitsMut};
use prefuse::{Backend, Element, MaskedRows, RowOptions, Target, TokenLogProbs, token_log_probs};

use crate::backends::{edge_vocabs, fast_backends, many};
use crate::common::{Placed, bits, logits, spread};
use crate::each_dtype;

/// Log-probs, statistics, entropy and argmax of a row, and its gradient, as they are.
pub type RowBits = (Vec<u64>, Vec<u8>);

/// Where the rows of a buffer lie: elements before the first, and from one to the next.
#[derive(Clone, Copy, Debug)]
struct Layout {
    offset: usize,
    stride: usize,
}

/// What stands between rows, and in gradients before they are written.
const GAP: f64 = -7.0;

impl Layout {
    fn place<T: Element>(self, backend: &dyn Backend, data: &[T], vocab: usize) -> Placed {
        let mut rows = spread(data, vocab, self.stride, GAP);
        // What lies beyond the last row is outside of the buffer.
        rows.truncate(rows.len() + vocab - self.stride);
        rows.splice(0..0, vec![T::from_f64(GAP); self.offset]);
        Placed::new(backend, &rows)
    }

    fn view(self, placed: &Placed, tokens: usize, vocab: usize) -> Logits<'_> {
        let slice = placed.slice().part(self.offset..placed.slice().len()).unwrap();
        Logits::from_slice(slice, tokens, vocab, self.stride).unwrap()
    }

    fn target(self, placed: &mut Placed, tokens: usize, vocab: usize) -> LogitsMut<'_> {
        let slice = placed.slice_mut();
        let len = slice.len();
        let slice = slice.part(self.offset..len).unwrap();
        LogitsMut::from_slice(slice, tokens, vocab, self.stride).unwrap()
    }

    /// The rows, once nothing else has been found to be written.
    fn rows<T: Element>(self, placed: &Placed, vocab: usize) -> Vec<Vec<u8>> {
        let data = placed.read::<T>();
        let (before, rows) = data.split_at(self.offset);
        let gaps = rows.chunks(self.stride).flat_map(|row| row.get(vocab..).unwrap_or_default());
        assert!(before.iter().chain(gaps).all(|x| x.to_f64() == GAP), "{self:?}");
        let row = |row: &[T]| bytemuck::cast_slice(&row[..vocab]).to_vec();
        rows.chunks(self.stride).map(row).collect()
    }
}

struct Rows<'a, T> {
    data: &'a [T],
    vocab: usize,
    ids: &'a [i64],
}

impl<T: Element> Rows<'_, T> {
    /// Out of place from one layout to another, or in place where there is no other.
    fn bits(&self, backend: &dyn Backend, from: Layout, to: Option<Layout>) -> Vec<RowBits> {
        let &Self { data, vocab, ids } = self;
        let (tokens, labels) = (ids.len(), Labels::new(ids));
        let mut source = from.place(backend, data, vocab);
        let options = RowOptions::default().with_entropy().with_log_sum_squares().with_argmax();
        let view = from.view(&source, tokens, vocab);
        let ours = token_log_probs(backend, view, &labels, None, options).unwrap();
        let numbers = bits(&ours);
        let numbers = |token: usize| numbers.iter().skip(token).step_by(tokens).copied().collect();
        let grads = match to {
            None => {
                let target = Target::InPlace(from.target(&mut source, tokens, vocab));
                run(backend, &ours, target, &labels);
                from.rows::<T>(&source, vocab)
            }
            Some(to) => {
                let mut grads = to.place(backend, &vec![T::from_f64(GAP); data.len()], vocab);
                let view = from.view(&source, tokens, vocab);
                let grads_view = to.target(&mut grads, tokens, vocab);
                let target = Target::OutOfPlace { logits: view, grads: grads_view };
                run(backend, &ours, target, &labels);
                to.rows::<T>(&grads, vocab)
            }
        };
        grads.into_iter().enumerate().map(|(token, grads)| (numbers(token), grads)).collect()
    }
}

/// With a gradient by the log-prob and by the entropy.
fn run(backend: &dyn Backend, ours: &TokenLogProbs, target: Target<'_>, labels: &Labels<'_>) {
    let factors = Placed::floats(backend, ours.log_probs().dtype(), &vec![0.7; labels.len()]);
    let upstream = (factors.slice(), Some(factors.slice()));
    ours.logit_grads(backend, target, (labels, None), upstream, MaskedRows::Zero).unwrap();
}

/// The same of contiguous rows.
pub fn row_bits<T: Element>(
    backend: &dyn Backend,
    data: &[T],
    vocab: usize,
    ids: &[i64],
) -> Vec<RowBits> {
    let packed = Layout { offset: 0, stride: vocab };
    Rows { data, vocab, ids }.bits(backend, packed, Some(packed))
}

/// Remembers the first device's bits: a row has the same on all, whatever their launch shapes are.
fn on_every_device(first: &mut Option<RowBits>, backend: &dyn Backend, bits: &RowBits) {
    if backend.name() == "cuda" {
        assert_eq!(first.get_or_insert_with(|| bits.clone()), bits, "{backend:?}");
    }
}

/// At every index, in batches of 1, 8 and many rows; odd vocabularies move the rows. The label is in
/// the first vector, inside, or last.
#[test]
fn in_any_batch() {
    fn body<T: Element>(vocab: usize) {
        let row = logits::<T>(11, 1, vocab);
        for label in [0, vocab / 2, vocab - 1] {
            let mut first = None;
            for backend in fast_backends().iter().filter(|b| b.dtypes().contains(&T::DTYPE)) {
                let run = |tokens: usize| {
                    row_bits(&**backend, &row.repeat(tokens), vocab, &vec![label as i64; tokens])
                };
                let alone = run(1).remove(0);
                let counts = if label == 0 { &[8, many(vocab)][..] } else { &[8] };
                for &tokens in counts {
                    let same = run(tokens).iter().all(|other| *other == alone);
                    assert!(same, "{tokens} rows of {vocab} {} {backend:?}", T::DTYPE);
                }
                on_every_device(&mut first, &**backend, &alone);
            }
        }
    }
    for &vocab in edge_vocabs() {
        if vocab <= 5000 {
            body::<f32>(vocab);
            body::<half::f16>(vocab);
        }
        body::<bf16>(vocab);
    }
}

/// At every address that elements may have, for logits and gradient apart and in place, with and
/// without gaps.
#[test]
fn at_any_address() {
    fn body<T: Element>(backend: &dyn Backend, vocab: usize) {
        let data = logits::<T>(12, 1, vocab).repeat(3);
        let rows = Rows { data: &data, vocab, ids: &[(vocab / 3) as i64; 3] };
        let at = |offset, gap| Layout { offset, stride: vocab + gap };
        let expected = rows.bits(backend, at(0, 0), Some(at(0, 0))).remove(0);
        let check = |from, to| {
            let same = rows.bits(backend, from, to).iter().all(|row| *row == expected);
            assert!(same, "{vocab} {} from {from:?} to {to:?} {backend:?}", T::DTYPE);
        };
        let addresses = 16 / T::DTYPE.size();
        // What a long row does at an address is what a short one does.
        let step = if vocab > 2000 { 3 } else { 1 };
        for from in (0..addresses).step_by(step) {
            let to = (3 * from + 1) % addresses;
            check(at(from, 0), Some(at(from, 3)));
            check(at(from, 5), Some(at(to, 0)));
            check(at(from, from), None);
        }
    }
    for backend in fast_backends() {
        for &vocab in edge_vocabs().iter().filter(|&&vocab| vocab <= 5000) {
            each_dtype!(&*backend, body, vocab);
        }
    }
}
