//! Values computed from logits, as candle operations with a backward.

use std::sync::{Arc, Mutex, PoisonError};

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp1, Error, Layout, Result, Shape, Storage, Tensor, bail};
use prefuse::Slice;
use prefuse::batch::{Logits, LogitsMut};

#[cfg(feature = "cuda")]
use crate::device::Device;
use crate::host;
use crate::place::Place;
use crate::rows::Rows;

/// Values that have been computed from logits, and their gradient.
pub(crate) trait Operation: Send + Sync + 'static {
    const NAME: &'static str;
    const GRADIENT_NAME: &'static str;

    /// Writes the gradient by the logits, whose memory is as [`Place::output`] gives it. `output` is
    /// what was attached, and `upstream` the gradient by it, of the same shape and type.
    fn logit_grads(
        &self,
        place: &Place,
        rows: (Logits<'_>, LogitsMut<'_>),
        output: &Tensor,
        upstream: &Tensor,
    ) -> Result<()>;
}

/// `value` as a tensor that sends its gradient back to the logits that it was computed from.
pub(crate) fn attach(
    logits: &Tensor,
    value: (Storage, Shape),
    operation: impl Operation,
) -> Result<Tensor> {
    let value = Mutex::new(Some(value));
    logits.apply_op1(Output { value, operation: Arc::new(operation) })
}

/// Does not look at the logits again: a candle operation returns one tensor, and callers get more
/// than that, so the value comes first, the operation second, and candle takes the one from the
/// other.
struct Output<O> {
    value: Mutex<Option<(Storage, Shape)>>,
    operation: Arc<O>,
}

impl<O: Operation> Output<O> {
    fn take(&self) -> Result<(Storage, Shape)> {
        let value = self.value.lock().unwrap_or_else(PoisonError::into_inner).take();
        value.ok_or_else(|| Error::msg(format!("{}: applied twice", O::NAME)))
    }
}

impl<O: Operation> CustomOp1 for Output<O> {
    fn name(&self) -> &'static str {
        O::NAME
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        let (storage, shape) = self.take()?;
        Ok((on_host(storage)?, shape))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        let (storage, shape) = self.take()?;
        Ok((on_device(storage)?, shape))
    }

    fn bwd(&self, logits: &Tensor, output: &Tensor, upstream: &Tensor) -> Result<Option<Tensor>> {
        let operation = LogitGrads {
            operation: self.operation.clone(),
            output: output.clone(),
            upstream: upstream.clone(),
        };
        let grads = match keeps_gradient_graphs() {
            true => logits.apply_op1(operation),
            false => logits.apply_op1_no_bwd(&operation),
        };
        grads.map(Some)
    }
}

/// Its own backward is candle's default, the error `BackwardNotSupported`.
struct LogitGrads<O> {
    operation: Arc<O>,
    output: Tensor,
    upstream: Tensor,
}

impl<O: Operation> LogitGrads<O> {
    /// Contiguous, of the logits' shape and type.
    fn compute(&self, place: &Place, logits: Slice<'_>, layout: &Layout) -> Result<Storage> {
        let logits = Rows::of(layout)?.logits(logits)?;
        let (tokens, vocab) = (logits.tokens(), logits.vocab());
        place.output(logits.dtype(), [tokens * vocab, 0], |grads, _| {
            let grads = LogitsMut::from_slice(grads, tokens, vocab, vocab).map_err(Error::wrap)?;
            self.operation.logit_grads(place, (logits, grads), &self.output, &self.upstream)
        })
    }
}

impl<O: Operation> CustomOp1 for LogitGrads<O> {
    fn name(&self) -> &'static str {
        O::GRADIENT_NAME
    }

    fn cpu_fwd(&self, logits: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let logits = host::slice(logits)?;
        let place = Place::Host(host::backend(logits.dtype()));
        Ok((on_host(self.compute(&place, logits, layout)?)?, layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, logits: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let device = Device::of(logits)?;
        let lent = device.lend(logits)?;
        let grads = self.compute(&Place::Device(device.clone()), lent.slice()?, layout)?;
        Ok((on_device(grads)?, layout.shape().clone()))
    }
}

fn on_host(storage: Storage) -> Result<CpuStorage> {
    match storage {
        Storage::Cpu(storage) => Ok(storage),
        other => bail!("prefuse-candle: expected a result on the CPU, got {:?}", other.device()),
    }
}

#[cfg(feature = "cuda")]
fn on_device(storage: Storage) -> Result<CudaStorage> {
    match storage {
        Storage::Cuda(storage) => Ok(storage),
        other => bail!("prefuse-candle: expected a result on CUDA, got {:?}", other.device()),
    }
}

/// Whether candle was asked, by its own environment variable, to keep the graph of gradients for
/// second derivatives. Then ours carries a node that refuses them instead of passing for a
/// constant; otherwise the node would only keep the gradient's memory alive.
fn keeps_gradient_graphs() -> bool {
    std::env::var("CANDLE_GRAD_DO_NOT_DETACH").is_ok_and(|value| !value.is_empty() && value != "0")
}
