//! Candle's storage, seen as the rows of logits that the core reads.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, Error, Layout, Result, Storage, Tensor, WithDType, bail};
use prefuse::batch::{Logits, LogitsMut};
use prefuse::{Backend, Cpu, DType, Element, Reference};

/// Where the rows lie in their storage, in elements.
#[derive(Clone, Copy)]
struct Rows {
    start: usize,
    tokens: usize,
    vocab: usize,
    stride: usize,
}

impl Rows {
    fn of(layout: &Layout) -> Result<Self> {
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

    fn logits<T: Element>(self, data: &[T]) -> Result<Logits<'_>> {
        let data = data.get(self.start..).unwrap_or_default();
        Logits::strided(data, self.tokens, self.vocab, self.stride).map_err(Error::wrap)
    }

    fn grads<T: Element + WithDType>(
        self,
        data: &[T],
        write: impl FnOnce(Logits<'_>, LogitsMut<'_>) -> Result<()>,
    ) -> Result<CpuStorage> {
        let logits = self.logits(data)?;
        let mut grads = bytemuck::zeroed_vec(self.tokens * self.vocab);
        let target = LogitsMut::new(&mut grads, self.tokens, self.vocab).map_err(Error::wrap)?;
        write(logits, target)?;
        Ok(T::to_cpu_storage_owned(grads))
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

/// What computes on logits of an element type.
pub(crate) fn backend(dtype: DType) -> Box<dyn Backend> {
    match dtype {
        DType::F64 => Box::new(Reference::new()),
        _ => Box::new(Cpu::new()),
    }
}

/// Hands the logits to `read`, in place where they are on the CPU.
pub(crate) fn read<R>(
    logits: &Tensor,
    read: impl FnOnce(Logits<'_>) -> prefuse::Result<R>,
) -> Result<R> {
    let (storage, layout) = logits.storage_and_layout();
    let rows = Rows::of(layout)?;
    match &*storage {
        Storage::Cpu(storage) => read(view(storage, rows)?).map_err(Error::wrap),
        #[cfg(feature = "cuda")]
        Storage::Cuda(storage) => {
            read(view(&storage.to_cpu_storage()?, rows)?).map_err(Error::wrap)
        }
        other => bail!(
            "logits: expected a tensor on the CPU, or on CUDA with the feature `cuda` of \
             prefuse-candle, got {:?}",
            other.device().location()
        ),
    }
}

/// A new storage for the gradient, of the logits' element type and filled with 0 before `write`
/// sees it.
pub(crate) fn grads(
    storage: &CpuStorage,
    layout: &Layout,
    write: impl FnOnce(Logits<'_>, LogitsMut<'_>) -> Result<()>,
) -> Result<CpuStorage> {
    let rows = Rows::of(layout)?;
    match storage {
        CpuStorage::F64(data) => rows.grads(data, write),
        CpuStorage::F32(data) => rows.grads(data, write),
        CpuStorage::F16(data) => rows.grads(data, write),
        CpuStorage::BF16(data) => rows.grads(data, write),
        other => Err(no_logits(other)),
    }
}

fn view(storage: &CpuStorage, rows: Rows) -> Result<Logits<'_>> {
    match storage {
        CpuStorage::F64(data) => rows.logits(data),
        CpuStorage::F32(data) => rows.logits(data),
        CpuStorage::F16(data) => rows.logits(data),
        CpuStorage::BF16(data) => rows.logits(data),
        other => Err(no_logits(other)),
    }
}

fn no_logits(storage: &CpuStorage) -> Error {
    Error::msg(format!("logits: expected f32, f16, bf16 or f64, got {}", storage.dtype().as_str()))
}
