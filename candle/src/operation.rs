//! Values computed from logits, as candle operations with a backward.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
#[cfg(feature = "cuda")]
use candle_core::{
    CudaStorage,
    backend::{BackendDevice, BackendStorage},
};
use prefuse::batch::{Logits, LogitsMut};

use crate::rows;

/// Values that have been computed from logits, and their gradient.
pub(crate) trait Operation: Send + Sync + 'static {
    const NAME: &'static str;
    const GRADIENT_NAME: &'static str;

    fn output(&self) -> Result<(CpuStorage, Shape)>;

    /// `upstream` has the shape and type of the output, `grads` holds 0.
    fn logit_grads(
        &self,
        upstream: &Tensor,
        logits: Logits<'_>,
        grads: LogitsMut<'_>,
    ) -> Result<()>;
}

/// The output as a tensor that sends its gradient back to the logits that it was computed from.
pub(crate) fn attach(logits: &Tensor, operation: impl Operation) -> Result<Tensor> {
    logits.apply_op1(Output(Arc::new(operation)))
}

/// Does not look at the logits again: a candle operation returns one tensor, and callers get more
/// than that, so the values come first and the operation second.
struct Output<O>(Arc<O>);

impl<O: Operation> CustomOp1 for Output<O> {
    fn name(&self) -> &'static str {
        O::NAME
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.0.output()
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, logits: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        to_device(logits, self.0.output()?)
    }

    fn bwd(&self, logits: &Tensor, _: &Tensor, upstream: &Tensor) -> Result<Option<Tensor>> {
        let operation = LogitGrads { operation: self.0.clone(), upstream: upstream.clone() };
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
    upstream: Tensor,
}

impl<O: Operation> CustomOp1 for LogitGrads<O> {
    fn name(&self) -> &'static str {
        O::GRADIENT_NAME
    }

    fn cpu_fwd(&self, logits: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let write = |logits: Logits<'_>, grads: LogitsMut<'_>| {
            self.operation.logit_grads(&self.upstream, logits, grads)
        };
        Ok((rows::grads(logits, layout, write)?, layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, logits: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        to_device(logits, self.cpu_fwd(&logits.to_cpu_storage()?, layout)?)
    }
}

#[cfg(feature = "cuda")]
fn to_device(
    logits: &CudaStorage,
    (storage, shape): (CpuStorage, Shape),
) -> Result<(CudaStorage, Shape)> {
    Ok((logits.device().storage_from_cpu_storage_owned(storage)?, shape))
}

/// Whether candle was asked, by its own environment variable, to keep the graph of gradients for
/// second derivatives. Then ours carries a node that refuses them instead of passing for a
/// constant; otherwise the node would only keep the gradient's memory alive.
fn keeps_gradient_graphs() -> bool {
    std::env::var("CANDLE_GRAD_DO_NOT_DETACH").is_ok_and(|value| !value.is_empty() && value != "0")
}
