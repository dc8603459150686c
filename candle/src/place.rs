//! Where an operation runs: the backend of the logits' device, and candle's memory as it sees it.

use candle_core::{Error, Layout, Result, Storage, Tensor, bail};
use prefuse::batch::Logits;
use prefuse::{Backend, DType, MaskedRows, Slice, SliceMut};

#[cfg(feature = "cuda")]
use crate::device::{self, Device};
use crate::host;
use crate::rows::Rows;

pub(crate) enum Place {
    Host(Box<dyn Backend>),
    #[cfg(feature = "cuda")]
    Device(Device),
}

/// Memory of candle's while an operation looks at it.
pub(crate) enum Lent<'a> {
    Host(Slice<'a>),
    #[cfg(feature = "cuda")]
    Device(device::Lent<'a>),
}

impl Place {
    pub fn of(storage: &Storage) -> Result<Self> {
        match storage {
            Storage::Cpu(storage) => Ok(Self::Host(host::backend(host::slice(storage)?.dtype()))),
            #[cfg(feature = "cuda")]
            Storage::Cuda(storage) => Device::of(storage).map(Self::Device),
            other => bail!(
                "logits: expected a tensor on the CPU, or on CUDA with the feature `cuda` of \
                 prefuse-candle, got {:?}",
                other.device().location()
            ),
        }
    }

    pub fn backend(&self) -> &dyn Backend {
        match self {
            Self::Host(backend) => backend.as_ref(),
            #[cfg(feature = "cuda")]
            Self::Device(device) => device.backend(),
        }
    }

    /// Whether what is wrong with a label comes to light only where the host next waits.
    pub fn is_asynchronous(&self) -> bool {
        !matches!(self, Self::Host(_))
    }

    /// All elements of a storage, in place.
    pub fn lend<'a>(&'a self, storage: &'a Storage) -> Result<Lent<'a>> {
        match (self, storage) {
            (Self::Host(_), Storage::Cpu(storage)) => host::slice(storage).map(Lent::Host),
            #[cfg(feature = "cuda")]
            (Self::Device(device), Storage::Cuda(storage)) => {
                device.lend(storage).map(Lent::Device)
            }
            (_, other) => bail!(
                "prefuse-candle: expected a tensor on the logits' device, got {:?}",
                other.device().location()
            ),
        }
    }

    /// What [`output`](Self::output) leaves to the gradient of rows that do not count. Host memory
    /// comes zeroed at no cost; on a device that would be one more write of everything.
    pub fn masked_rows(&self) -> MaskedRows {
        match self {
            Self::Host(_) => MaskedRows::AlreadyZero,
            #[cfg(feature = "cuda")]
            Self::Device(_) => MaskedRows::Zero,
        }
    }

    /// A new storage of two parts, which `write` fills: on the host it finds 0, on a device
    /// anything.
    pub fn output(
        &self,
        dtype: DType,
        lens: [usize; 2],
        write: impl FnOnce(SliceMut<'_>, SliceMut<'_>) -> Result<()>,
    ) -> Result<Storage> {
        match self {
            Self::Host(_) => host::output(dtype, lens, write).map(Storage::Cpu),
            #[cfg(feature = "cuda")]
            Self::Device(device) => device.output(dtype, lens, write).map(Storage::Cuda),
        }
    }
}

impl Lent<'_> {
    pub fn slice(&self) -> Result<Slice<'_>> {
        match self {
            Self::Host(slice) => Ok(*slice),
            #[cfg(feature = "cuda")]
            Self::Device(lent) => lent.slice(),
        }
    }
}

/// Hands the logits to `read`, in place.
pub(crate) fn read<R>(
    logits: &Tensor,
    read: impl FnOnce(&Place, Logits<'_>) -> Result<R>,
) -> Result<R> {
    let (storage, layout) = logits.storage_and_layout();
    let rows = Rows::of(layout)?;
    let place = Place::of(&storage)?;
    let lent = place.lend(&storage)?;
    read(&place, rows.logits(lent.slice()?)?)
}

/// The elements of a contiguous tensor.
pub(crate) fn values<'a>(storage: Slice<'a>, layout: &Layout) -> Result<Slice<'a>> {
    match layout.contiguous_offsets() {
        Some((start, end)) => storage.part(start..end).map_err(Error::wrap),
        None => bail!("prefuse-candle: expected a contiguous tensor, got {layout:?}"),
    }
}
