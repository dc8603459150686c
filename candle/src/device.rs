//! Candle's CUDA memory, lent to prefuse where it lies. All `unsafe` of the crate is here.
//!
//! Candle orders its work by one stream for each of its devices, allocations included: memory is
//! free for others once what its stream was given before has run. prefuse therefore works on that
//! very stream, or on one that takes turns with it, and what is lent is back in candle's order
//! before candle can give it to somebody else.
//!
//! The second case is what `Device::new_cuda` needs: its stream is the per-thread default stream,
//! one handle for another stream on every thread. prefuse's own memory outlives a call, and a loss
//! may be dropped or differentiated on another thread than it was made on, so it keeps to one stream.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::backend::{BackendDevice, BackendStorage};
use candle_core::cuda_backend::cudarc::driver::result::stream::{self, StreamKind};
use candle_core::cuda_backend::cudarc::driver::{
    CudaStream, DevicePtr, DevicePtrMut, DeviceRepr, SyncOnDrop,
};
use candle_core::cuda_backend::{CudaDType, WrapErr};
use candle_core::{CudaDevice, CudaStorage, Error, Result, bail};
use half::{bf16, f16};
use prefuse::{Backend, Cuda, DType, Element, Slice, SliceMut};

/// `CU_STREAM_PER_THREAD`, a macro of the driver's header.
const PER_THREAD: usize = 2;

/// A device of candle's, and the backend that works for it.
#[derive(Clone)]
pub(crate) struct Device {
    candle: CudaDevice,
    /// Candle's, by the name that it has on this thread.
    stream: Arc<CudaStream>,
    worker: Arc<Worker>,
    /// Stays on the thread that the name is for.
    _thread: PhantomData<*const ()>,
}

/// A backend and its stream, which lives as long.
struct Worker {
    cuda: Cuda,
    stream: Arc<CudaStream>,
}

impl Worker {
    /// The one for a stream of candle's. There is never a second: its number is that of the memory
    /// that a loss keeps from the forward to the backward. It is never dropped, so that the handle of
    /// its stream never names another.
    fn of(candle: &Arc<CudaStream>) -> Result<Arc<Self>> {
        static WORKERS: Mutex<BTreeMap<(usize, usize), Arc<Worker>>> = Mutex::new(BTreeMap::new());
        let key = (candle.context().ordinal(), candle.cu_stream() as usize);
        let mut workers = WORKERS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(worker) = workers.get(&key) {
            return Ok(worker.clone());
        }
        let worker = Arc::new(Self::new(candle)?);
        workers.insert(key, worker.clone());
        Ok(worker)
    }

    fn new(candle: &Arc<CudaStream>) -> Result<Self> {
        let stream = match candle.cu_stream() as usize {
            PER_THREAD => own_stream(candle)?,
            _ => candle.clone(),
        };
        let (ordinal, handle) = (candle.context().ordinal(), stream.cu_stream());
        // SAFETY: `stream` keeps the handle alive and stands beside the backend in a struct that is
        // never dropped. (That it is of the primary context, as all of candle's are, is checked.)
        let cuda = unsafe { Cuda::on_stream(ordinal, handle.cast()) }.map_err(Error::wrap)?;
        Ok(Self { cuda, stream })
    }
}

/// Not `CudaContext::new_stream`, which would have candle record and wait for events around every
/// operation from then on.
fn own_stream(candle: &CudaStream) -> Result<Arc<CudaStream>> {
    let context = candle.context();
    context.bind_to_thread().w()?;
    let stream = stream::create(StreamKind::NonBlocking).w()?;
    // SAFETY: the stream was just made in this context, which is current, and is never destroyed;
    // `Turn` orders its work and candle's.
    Ok(unsafe { context.wrap_borrowed_stream(stream) })
}

/// From here on the worker's stream comes after all that candle's was given so far, and when this
/// is dropped the other way round. On one and the same stream that is so anyway.
struct Turn<'a> {
    candle: &'a CudaStream,
    worker: &'a CudaStream,
}

impl<'a> Turn<'a> {
    fn begin(device: &'a Device) -> Result<Self> {
        let turn = Self { candle: &device.stream, worker: &device.worker.stream };
        if turn.candle != turn.worker {
            turn.worker.join(turn.candle).w()?;
        }
        Ok(turn)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if self.candle != self.worker && self.candle.join(self.worker).is_err() {
            // Waiting is the other way to be done with the memory. If that fails too, the context
            // is lost, and says so to the next call.
            let _ = self.worker.synchronize();
        }
    }
}

/// A whole storage, lent to be read.
pub(crate) struct Lent<'a> {
    cuda: &'a Cuda,
    dtype: DType,
    address: u64,
    len: usize,
    // In this order: the event, where cudarc tracks them, is recorded on the worker's stream, and
    // then candle's goes on.
    _event: SyncOnDrop<'a>,
    _turn: Turn<'a>,
}

impl Lent<'_> {
    pub fn slice(&self) -> Result<Slice<'_>> {
        // SAFETY: a storage of candle's has been written by what its stream was given, and lies on
        // this device. Its borrow keeps it from being written or freed while this is lent, and the
        // end of the turn puts what candle does with it later behind all that reads it.
        unsafe { self.cuda.from_raw(self.dtype, self.address, self.len) }.map_err(Error::wrap)
    }
}

impl Device {
    pub fn of(storage: &CudaStorage) -> Result<Self> {
        let candle = storage.device().clone();
        let stream = candle.cuda_stream();
        let worker = Worker::of(&stream)?;
        // An error that was left there would keep the kernels from writing what they are given.
        worker.cuda.poll().map_err(Error::wrap)?;
        Ok(Self { candle, stream, worker, _thread: PhantomData })
    }

    pub fn backend(&self) -> &dyn Backend {
        &self.worker.cuda
    }

    /// All elements of a storage, in place.
    pub fn lend<'a>(&'a self, storage: &'a CudaStorage) -> Result<Lent<'a>> {
        if !storage.device().same_device(&self.candle) {
            bail!(
                "prefuse-candle: expected a tensor of the logits' {:?}, got one of {:?}",
                self.candle,
                storage.device()
            )
        }
        match storage.dtype() {
            candle_core::DType::F32 => self.lend_as::<f32>(storage),
            candle_core::DType::F16 => self.lend_as::<f16>(storage),
            candle_core::DType::BF16 => self.lend_as::<bf16>(storage),
            other => bail!(
                "logits: expected f32, f16 or bf16 on CUDA, got {}; f64 is for the CPU",
                other.as_str()
            ),
        }
    }

    fn lend_as<'a, T>(&'a self, storage: &'a CudaStorage) -> Result<Lent<'a>>
    where
        T: Element + CudaDType + DeviceRepr + 'a,
    {
        let memory = storage.as_cuda_slice::<T>()?;
        let turn = Turn::begin(self)?;
        let (address, event) = memory.device_ptr(&self.worker.stream);
        Ok(Lent {
            cuda: &self.worker.cuda,
            dtype: T::DTYPE,
            address,
            len: memory.len(),
            _event: event,
            _turn: turn,
        })
    }

    /// A new storage of two parts, of no particular contents before `write` fills it.
    pub fn output(
        &self,
        dtype: DType,
        lens: [usize; 2],
        write: impl FnOnce(SliceMut<'_>, SliceMut<'_>) -> Result<()>,
    ) -> Result<CudaStorage> {
        match dtype {
            DType::F32 => self.fill::<f32>(lens, write),
            DType::F16 => self.fill::<f16>(lens, write),
            DType::BF16 => self.fill::<bf16>(lens, write),
            other => bail!("prefuse-candle: expected f32, f16 or bf16 on CUDA, got {other}"),
        }
    }

    fn fill<T: Element + CudaDType + DeviceRepr>(
        &self,
        [first, second]: [usize; 2],
        write: impl FnOnce(SliceMut<'_>, SliceMut<'_>) -> Result<()>,
    ) -> Result<CudaStorage> {
        // SAFETY: the stages write every element of their outputs, whatever was there; where they
        // fail, the memory is dropped unseen.
        let mut memory = unsafe { self.candle.alloc::<T>(first + second) }?;
        {
            let _turn = Turn::begin(self)?;
            let (address, _event) = memory.device_ptr_mut(&self.worker.stream);
            let cuda = &self.worker.cuda;
            let part = |offset: usize, len| {
                // SAFETY: `first + second` elements were just allocated at `address`, and the parts do
                // not overlap. Nobody else knows them before this turn's end, which puts all that
                // candle does with them behind what is written, their release included.
                unsafe {
                    cuda.from_raw_mut(T::DTYPE, address + (offset * size_of::<T>()) as u64, len)
                }
                .map_err(Error::wrap)
            };
            write(part(0, first)?, part(first, second)?)?;
        }
        Ok(CudaStorage::wrap_cuda_slice(memory, self.candle.clone()))
    }
}
