//! Where the rows of logits lie in candle's storage.

use candle_core::{Error, Layout, Result, bail};
use prefuse::Slice;
use prefuse::batch::Logits;

/// In elements.
#[derive(Clone, Copy)]
pub(crate) struct Rows {
    start: usize,
    tokens: usize,
    vocab: usize,
    stride: usize,
}

impl Rows {
    pub fn of(layout: &Layout) -> Result<Self> {
        let ([dims @ .., vocab], [strides @ .., step]) = (layout.dims(), layout.stride()) else {
            bail!("logits: expected rank 2 or more, got a scalar")
        };
        if dims.is_empty() {
            bail!("logits: expected rank 2 or more, got shape {:?}", layout.dims())
        }
        match row_stride(dims, strides).map(|stride| stride.unwrap_or(*vocab)) {
            Some(stride) if stride >= *vocab && (*step == 1 || *vocab <= 1) => {
                let (start, tokens) = (layout.start_offset(), dims.iter().product());
                Ok(Self { start, tokens, vocab: *vocab, stride })
            }
            _ => bail!(
                "logits: expected rows of adjacent elements at one distance from each other, got \
                 shape {:?} with strides {:?}; call .contiguous() first",
                layout.dims(),
                layout.stride()
            ),
        }
    }

    /// The rows of a whole storage.
    pub fn logits(self, storage: Slice<'_>) -> Result<Logits<'_>> {
        let Self { start, tokens, vocab, stride } = self;
        let end = storage.len();
        storage
            .part(start.min(end)..end)
            .and_then(|data| Logits::from_slice(data, tokens, vocab, stride))
            .map_err(Error::wrap)
    }
}

/// The distance between rows whose leading dimensions are `dims`: `None` if it varies, and
/// `Some(None)` if there is one row at most.
fn row_stride(dims: &[usize], strides: &[usize]) -> Option<Option<usize>> {
    let mut outwards = dims.iter().zip(strides).rev().filter(|&(&dim, _)| dim != 1);
    let Some((&dim, &row)) = outwards.next() else { return Some(None) };
    outwards
        .try_fold(dim * row, |next, (&dim, &stride)| (stride == next).then_some(dim * stride))
        .map(|_| Some(row))
}
