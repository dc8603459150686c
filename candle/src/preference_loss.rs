use std::sync::Arc;

use candle_core::{CpuStorage, DType, Error, Result, Shape, Tensor};
use prefuse::batch::{Logits, LogitsMut};
use prefuse::{Forward, Loss, MaskedRows, Upstream};

use crate::operation::{Operation, attach};
use crate::rows;

/// A preference loss and everything that was computed on the way to it.
#[derive(Clone, Debug)]
pub struct PreferenceLoss {
    /// The loss: a scalar, f32 (f64 for f64 logits), on the logits' device. Its gradient by the
    /// logits is contiguous and of their shape and element type.
    pub loss: Tensor,
    /// The values behind it, on the host: terms with the losses and rewards of their units,
    /// metrics over the pairs, log-probs of the tokens, sums over the sequences.
    pub forward: Arc<Forward>,
}

/// The preference loss of `[.., vocab]` logits, with a backward.
///
/// The leading dimensions, one or more, are flattened to the tokens of the batch: f32, f16, bf16
/// or f64 elements, adjacent within a row, and rows at one distance from each other, such as a
/// contiguous tensor or one narrowed in its last dimension. Neither the forward nor the backward
/// copies CPU logits; the backward allocates the gradient, which candle then adds to zeros of its
/// own. The logits have to stay as they are until then: writing to their variable in between makes
/// the gradient that of other numbers.
///
/// ```
/// use candle_core::{Device, Var};
/// use prefuse::batch::{Batch, Labels, Packing, Pairs};
/// use prefuse::objectives::{Nll, SimPo};
/// use prefuse::{Loss, Sequences, Term};
///
/// let batch = Batch::new(Labels::new(&[1, 0, 2, -100]), Packing::padded(2, 2)?)?
///     .with_pairs(Pairs::halves(1)?)?;
/// let terms = [
///     Term::pairs(SimPo::new(2.0, 0.5)),
///     Term::sequences(Nll::new(), Sequences::Chosen).with_weight(0.2),
/// ];
/// let logits = Var::ones((2, 2, 3), candle_core::DType::F32, &Device::Cpu)?;
/// let result = prefuse_candle::preference_loss(&logits, &Loss::new(batch, terms)?)?;
///
/// let [sim_po, nll] = result.forward.terms() else { unreachable!() };
/// assert!((sim_po.value + nll.value - f64::from(result.loss.to_scalar::<f32>()?)).abs() < 1e-6);
/// let grads = result.loss.backward()?;
/// assert_eq!(grads.get(&logits).map(|grad| grad.dims()), Some(&[2, 2, 3][..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// Rank below 2, other element types, or rows that lie otherwise (the message says to call
/// `.contiguous()`); logits that are neither on the CPU nor, with the feature `cuda`, on CUDA;
/// and what [`Loss::forward`] refuses, such as a label outside the vocabulary. The backward
/// refuses an upstream gradient that is not finite, and second derivatives.
pub fn preference_loss(logits: &Tensor, loss: &Loss<'_>) -> Result<PreferenceLoss> {
    let forward =
        rows::read(logits, |rows| loss.forward(rows::backend(rows.dtype()).as_ref(), rows))?;
    let forward = Arc::new(forward);
    let loss = loss.clone().into_owned().map_err(Error::wrap)?;
    let operation = LossOperation { loss, forward: forward.clone() };
    Ok(PreferenceLoss { loss: attach(logits, operation)?, forward })
}

struct LossOperation {
    loss: Loss<'static>,
    forward: Arc<Forward>,
}

impl Operation for LossOperation {
    const NAME: &'static str = "prefuse-preference-loss";
    const GRADIENT_NAME: &'static str = "prefuse-preference-loss-gradient";

    fn output(&self) -> Result<(CpuStorage, Shape)> {
        let loss = self.forward.loss();
        let storage = match self.forward.tokens().log_probs().dtype() {
            prefuse::DType::F64 => CpuStorage::F64(vec![loss]),
            _ => CpuStorage::F32(vec![loss as f32]),
        };
        Ok((storage, Shape::from(())))
    }

    fn logit_grads(
        &self,
        upstream: &Tensor,
        logits: Logits<'_>,
        grads: LogitsMut<'_>,
    ) -> Result<()> {
        let upstream = Upstream::Loss(upstream.to_dtype(DType::F64)?.to_scalar()?);
        let backend = rows::backend(logits.dtype());
        let (forward, target, masked) = (&self.forward, (logits, grads), MaskedRows::AlreadyZero);
        self.loss
            .logit_grads(backend.as_ref(), forward, target, upstream, masked)
            .map_err(Error::wrap)
    }
}
