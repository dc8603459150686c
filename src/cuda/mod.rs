//! The CUDA backend: one file for each stage checks nothing more, chooses a launch shape and launches
//! the kernel of its name; [`driver`] is what they ask of a device.

mod call;
mod context;
mod device;
mod divergence;
#[doc(hidden)]
pub mod driver;
mod fatbins;
mod launch;
mod loaded;
mod log_probs;
mod logit_grads;
mod memory;
mod mixed_log_probs;
mod mixed_logit_grads;
mod objective;
mod ranking;
mod sequence_sums;
mod sparse_divergence;
mod token_loss;
mod token_objective;
mod tokens;

#[doc(hidden)]
pub use device::CudaDriver;
#[doc(hidden)]
pub use fatbins::{Kernels, Module};
pub(crate) use memory::{DeviceBuffer, DeviceSlice, DeviceSliceMut};

use std::ffi::c_void;
use std::sync::Arc;

use crate::backend::{Backend, sealed};
use crate::element::DType;
use crate::error::Result;
use crate::memory::{Buffer, Place, Slice, SliceMut};
use crate::placed::PlacedTerm;
use crate::reference::token_loss as composed;
use crate::stages::{
    BackendId, Divergence, LogProbs, LogitGrads, MixedLogProbs, MixedLogitGrads, Objective,
    Ranking, SequenceSums, SparseDivergence, TokenGrads, TokenLoss, TokenObjective, UnitScale,
};
use context::Context;
#[doc(hidden)]
pub use driver::{Device, Driver, LaunchShape, Mapped};

const DTYPES: &[DType] = &[DType::F32, DType::F16, DType::BF16];

/// The CUDA backend, for f32, f16 and bf16 logits: one stream of one device, and the memory that it
/// orders. Copies are the same backend.
///
/// Stages are enqueued and not waited for; nothing in them allocates or waits, so that they can be
/// captured in a CUDA graph (an objective from outside of the crate is the exception: its scalars are
/// evaluated on the host). What a kernel finds wrong, such as a label outside the vocabulary, comes
/// back where the host next waits: reading a [`Slice`], [`check`](Self::check), or the
/// [`forward`](crate::Loss::forward) of a loss. From the failed call until then no kernel of this
/// backend writes anything. Threads that share a backend share its errors, and the first that waits
/// gets them: give each thread a backend of its own.
///
/// What a captured graph launches reads memory of this backend: it and the buffers have to outlive the
/// graph, and nothing else of the backend runs beside it.
///
/// Memory of one backend is refused by another, even on the same device: their streams do not wait for
/// each other.
///
/// A loss on the logits and on the stream of a framework, backward in place:
///
/// ```no_run
/// use prefuse::batch::{Batch, Labels, LogitsMut, Packing, Pairs};
/// use prefuse::objectives::SimPo;
/// use prefuse::{Cuda, DType, Loss, MaskedRows, Term, Upstream};
///
/// # let (stream, address, label_address) = (std::ptr::null_mut(), 0, 0);
/// let (tokens, vocab) = (4096, 128_256);
/// // SAFETY: the framework's stream outlives this; its null is the default stream.
/// let cuda = unsafe { Cuda::on_stream(0, stream) }?;
/// // SAFETY: `[tokens, vocab]` bf16 logits that only this stream uses until the gradient is there.
/// let logits = unsafe { cuda.from_raw_mut(DType::BF16, address, tokens * vocab) }?;
/// // SAFETY: `[tokens]` labels that stay as they are until then.
/// let labels = Labels::from_slice(unsafe { cuda.from_raw(DType::I64, label_address, tokens) }?)?;
///
/// let batch = Batch::new(labels, Packing::padded(8, 512)?)?.with_pairs(Pairs::halves(4)?)?;
/// let loss = Loss::new(batch, [Term::pairs(SimPo::new(2.0, 0.5))])?;
/// let logits = LogitsMut::from_slice(logits, tokens, vocab, vocab)?;
/// let forward = loss.forward(&cuda, logits.view())?; // waits for the numbers
/// println!("{}", forward.loss());
/// // Returns at once; what the framework enqueues next on its stream finds the gradient.
/// loss.logit_grads_in_place(&cuda, forward, logits, Upstream::Loss(1.0), MaskedRows::Zero)?;
/// # Ok::<(), prefuse::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Cuda {
    context: Arc<Context>,
}

impl Cuda {
    /// A stream of its own on the device of this number.
    ///
    /// # Errors
    /// In this order: [`NoDriver`](crate::Error::NoDriver), [`NoDevice`](crate::Error::NoDevice) or
    /// [`DeviceOrdinal`](crate::Error::DeviceOrdinal),
    /// [`KernelsNotBuilt`](crate::Error::KernelsNotBuilt),
    /// [`DriverTooOld`](crate::Error::DriverTooOld) or
    /// [`NoKernelsForDevice`](crate::Error::NoKernelsForDevice), or what else the driver says.
    pub fn new(ordinal: usize) -> Result<Self> {
        Self::with_driver(Box::new(CudaDriver::open(ordinal)?))
    }

    /// A stream of somebody else, such as the framework's that made the logits; null is the default
    /// stream. It is never destroyed. Keep the backend as long as the stream: kernels are loaded once for
    /// a device, but memory of one backend is refused by another.
    ///
    /// # Errors
    /// Those of [`new`](Self::new), or a stream of another context than the device's primary one.
    ///
    /// # Safety
    /// `stream` is a `CUstream` (`cudaStream_t`) that lives longer than this backend and all memory
    /// that it allocates. `CU_STREAM_PER_THREAD` is another stream in each thread: with it, backend and
    /// memory stay on one thread.
    pub unsafe fn on_stream(ordinal: usize, stream: *mut c_void) -> Result<Self> {
        // SAFETY: the caller's promise.
        Self::with_driver(Box::new(unsafe { CudaDriver::on_stream(ordinal, stream) }?))
    }

    /// On anything that runs the kernels.
    ///
    /// # Errors
    /// The driver's own.
    #[doc(hidden)]
    pub fn with_driver(driver: Box<dyn Driver>) -> Result<Self> {
        Ok(Self { context: Arc::new(Context::new(driver)?) })
    }

    /// What the kernels of this build were compiled for, such as `sm_80 sm_90 compute_80`; it needs no
    /// driver.
    ///
    /// # Errors
    /// [`KernelsNotBuilt`](crate::Error::KernelsNotBuilt).
    pub fn built_for() -> Result<&'static str> {
        Kernels::embedded().map(|kernels| kernels.built)
    }

    /// The device's number and the driver's name for it.
    pub fn device(&self) -> (usize, &str) {
        let device = self.context.driver().device();
        (device.ordinal, &device.name)
    }

    /// Waits for everything enqueued so far.
    ///
    /// # Errors
    /// The first thing that a kernel found wrong since the last check, or the device's own errors.
    pub fn check(&self) -> Result<()> {
        self.context.check()
    }

    /// The same without waiting where nothing has been found so far.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn poll(&self) -> Result<()> {
        self.context.poll()
    }

    /// Device memory of somebody else, to read: `len` elements at `address`.
    ///
    /// # Errors
    /// An address that is no multiple of the element's size.
    ///
    /// # Safety
    /// The memory lies on this device and is initialised by what was enqueued before on this stream (for
    /// work on other streams, let this one wait for an event first). It stays as it is until everything
    /// has run that is enqueued with it here.
    pub unsafe fn from_raw(&self, dtype: DType, address: u64, len: usize) -> Result<Slice<'_>> {
        // SAFETY: the caller's promise.
        let slice = unsafe { DeviceSlice::from_raw(&self.context, dtype, address, len) }?;
        Ok(Slice::on_device(slice))
    }

    /// Device memory of somebody else, to write.
    ///
    /// # Errors
    /// As [`from_raw`](Self::from_raw).
    ///
    /// # Safety
    /// As [`from_raw`](Self::from_raw), and nobody else reads or writes it until then.
    pub unsafe fn from_raw_mut(
        &self,
        dtype: DType,
        address: u64,
        len: usize,
    ) -> Result<SliceMut<'_>> {
        // SAFETY: the caller's promise.
        let slice = unsafe { DeviceSliceMut::from_raw(&self.context, dtype, address, len) }?;
        Ok(SliceMut::on_device(slice))
    }
}

impl sealed::Sealed for Cuda {
    fn place(&self) -> Place {
        self.context.place()
    }

    fn errors_taken(&self) -> usize {
        self.context.errors_taken()
    }
}

impl Backend for Cuda {
    fn name(&self) -> &'static str {
        "cuda"
    }

    fn dtypes(&self) -> &'static [DType] {
        DTYPES
    }

    fn allocate(&self, dtype: DType, len: usize) -> Result<Buffer> {
        DeviceBuffer::zeroed(&self.context, dtype, len).map(Buffer::on_device)
    }

    fn log_probs_scratch(&self, tokens: usize, vocab: usize) -> usize {
        launch::log_probs_scratch(self.context.driver().device(), tokens, vocab)
    }

    fn log_probs(&self, stage: LogProbs<'_>) -> Result<()> {
        BackendId::of(self).check(stage.backend)?;
        let _turn = self.context.turn();
        log_probs::log_probs(&self.context, stage)
    }

    fn sequence_sums(&self, stage: SequenceSums<'_>) -> Result<()> {
        BackendId::of(self).check(stage.backend)?;
        let _turn = self.context.turn();
        sequence_sums::sequence_sums(&self.context, stage)
    }

    fn token_grads(&self, stage: TokenGrads<'_>) -> Result<()> {
        BackendId::of(self).check(stage.backend)?;
        let _turn = self.context.turn();
        sequence_sums::token_grads(&self.context, stage)
    }

    fn objective_scratch(&self, members: usize) -> usize {
        objective::scratch(members)
    }

    fn objective(&self, stage: Objective<'_>) -> Result<()> {
        BackendId::of(self).check(stage.backend)?;
        objective::objective(&self.context, stage)
    }

    fn ranking_scratch(&self, members: usize) -> usize {
        ranking::scratch(members)
    }

    fn ranking(&self, stage: Ranking<'_>) -> Result<()> {
        BackendId::of(self).check(stage.backend)?;
        ranking::ranking(&self.context, stage)
    }

    fn token_objective(&self, stage: TokenObjective<'_>) -> Result<()> {
        BackendId::of(self).check(stage.backend)?;
        token_objective::token_objective(&self.context, stage)
    }

    fn logit_grads(&self, stage: LogitGrads<'_>) -> Result<()> {
        BackendId::of(self).check(stage.backend)?;
        let _turn = self.context.turn();
        logit_grads::logit_grads(&self.context, stage)
    }

    fn mixed_log_probs_scratch(&self, tokens: usize, vocab: usize) -> usize {
        launch::mixed_log_probs_scratch(self.context.driver().device(), tokens, vocab)
    }

    fn mixed_log_probs(&self, stage: MixedLogProbs<'_>) -> Result<()> {
        BackendId::of(self).check(stage.backend)?;
        let _turn = self.context.turn();
        mixed_log_probs::mixed_log_probs(&self.context, stage)
    }

    fn mixed_logit_grads(&self, stage: MixedLogitGrads<'_>) -> Result<()> {
        BackendId::of(self).check(stage.backend)?;
        let _turn = self.context.turn();
        mixed_logit_grads::mixed_logit_grads(&self.context, stage)
    }

    fn divergence_scratch(&self, _tokens: usize, _vocab: usize) -> usize {
        0
    }

    fn divergence(&self, stage: Divergence<'_>) -> Result<()> {
        BackendId::of(self).check(stage.backend)?;
        let _turn = self.context.turn();
        divergence::divergence(&self.context, stage)
    }

    fn sparse_divergence_scratch(&self, tokens: usize, _vocab: usize) -> usize {
        sparse_divergence::scratch(tokens)
    }

    fn sparse_divergence(&self, stage: SparseDivergence<'_>) -> Result<()> {
        BackendId::of(self).check(stage.backend)?;
        let _turn = self.context.turn();
        sparse_divergence::sparse_divergence(&self.context, stage)
    }

    fn token_loss_scratch(&self, tokens: usize, vocab: usize, terms: &[PlacedTerm]) -> usize {
        let composed = composed::scratch(self, [tokens, vocab], terms);
        composed.max(token_loss::scratch(tokens, terms.len()))
    }

    fn token_loss(&self, stage: TokenLoss<'_>) -> Result<()> {
        BackendId::of(self).check(stage.backend)?;
        token_loss::token_loss(self, stage)
    }
}

/// Enqueues a kernel that takes one struct, and a number of parts where it has one.
///
/// # Safety
/// The kernel's signature is `A`'s twin (and an int32), and what it points to fits the launch.
unsafe fn start<A>(
    context: &Context,
    kernel: &str,
    shape: LaunchShape,
    arguments: &A,
    parts: Option<usize>,
) -> Result<()> {
    let parts = parts.map(|parts| parts as i32);
    let mut list = [pointer(arguments), parts.as_ref().map_or(std::ptr::null_mut(), pointer)];
    let count = if parts.is_some() { 2 } else { 1 };
    // SAFETY: the caller's promise.
    unsafe { context.driver().launch(kernel, shape, &mut list[..count]) }
}

/// The driver reads arguments and writes none.
fn pointer<T>(argument: &T) -> *mut c_void {
    std::ptr::from_ref(argument).cast_mut().cast()
}

fn address(buffer: &SliceMut<'_>) -> u64 {
    buffer.as_slice().address()
}

/// The upstream gradient of all units and the address of each unit's own: one of them, or none.
fn upstream(scale: Option<UnitScale<'_>>) -> (f64, u64) {
    match scale {
        None => (0.0, 0),
        Some(UnitScale::Reduced(upstream)) => (upstream, 0),
        Some(UnitScale::Given(upstream)) => (0.0, upstream.address()),
    }
}

/// log2(e) / T, what an f32 difference of logits is multiplied by.
fn scale(temperature: f64) -> f32 {
    (std::f64::consts::LOG2_E / temperature) as f32
}

/// The name of a row kernel.
fn kernel(stage: &str, form: &str, dtype: DType, extra: &str) -> String {
    format!("{stage}_{form}_{dtype}{extra}")
}
