//! Candle's memory on the CPU.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, Result, WithDType, bail};
use half::{bf16, f16};
use prefuse::{Backend, Cpu, DType, Element, Reference, Slice, SliceMut};

/// What computes on logits of an element type.
pub(crate) fn backend(dtype: DType) -> Box<dyn Backend> {
    match dtype {
        DType::F64 => Box::new(Reference::new()),
        _ => Box::new(Cpu::new()),
    }
}

/// All elements of a storage, in place.
pub(crate) fn slice(storage: &CpuStorage) -> Result<Slice<'_>> {
    Ok(match storage {
        CpuStorage::F64(data) => Slice::new(data),
        CpuStorage::F32(data) => Slice::new(data),
        CpuStorage::F16(data) => Slice::new(data),
        CpuStorage::BF16(data) => Slice::new(data),
        other => bail!("logits: expected f32, f16, bf16 or f64, got {}", other.dtype().as_str()),
    })
}

/// A new storage of two parts, filled with 0 before `write` sees it.
pub(crate) fn output(
    dtype: DType,
    lens: [usize; 2],
    write: impl FnOnce(SliceMut<'_>, SliceMut<'_>) -> Result<()>,
) -> Result<CpuStorage> {
    match dtype {
        DType::F64 => fill::<f64>(lens, write),
        DType::F32 => fill::<f32>(lens, write),
        DType::F16 => fill::<f16>(lens, write),
        DType::BF16 => fill::<bf16>(lens, write),
        other => bail!("prefuse-candle: expected f32, f16, bf16 or f64, got {other}"),
    }
}

fn fill<T: Element + WithDType>(
    [first, second]: [usize; 2],
    write: impl FnOnce(SliceMut<'_>, SliceMut<'_>) -> Result<()>,
) -> Result<CpuStorage> {
    // Zeroed by the allocator: large memory comes as fresh pages, which nobody has to write.
    let mut data = bytemuck::zeroed_vec::<T>(first + second);
    let (one, other) = data.split_at_mut(first);
    write(SliceMut::new(one), SliceMut::new(other))?;
    Ok(T::to_cpu_storage_owned(data))
}
