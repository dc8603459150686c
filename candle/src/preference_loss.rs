use std::sync::Arc;

use candle_core::{DType, Error, Result, Shape, Storage, Tensor};
use prefuse::batch::{Logits, LogitsMut};
use prefuse::{Forward, Loss, Slice, Upstream};

use crate::operation::{Operation, attach};
use crate::place::{self, Place};

/// A preference loss and everything that was computed on the way to it.
#[derive(Clone, Debug)]
pub struct PreferenceLoss {
    /// The loss: a scalar, f32 (f64 for f64 logits), on the logits' device. Its gradient by the
    /// logits is contiguous and of their shape and element type.
    pub loss: Tensor,
    /// The values behind it. On the host: terms with the losses and rewards of their units, metrics
    /// over the pairs. Where the logits are: log-probs of the tokens, sums over the sequences.
    pub forward: Arc<Forward>,
}

/// The preference loss of `[.., vocab]` logits, with a backward.
///
/// The leading dimensions, one or more, are flattened to the tokens of the batch: f32, f16, bf16
/// or f64 elements, adjacent within a row, and rows at one distance from each other, such as a
/// contiguous tensor or one narrowed in its last dimension. Neither the forward nor the backward
/// copies logits, on the CPU or on CUDA (f64 is for the CPU alone); the backward allocates the
/// gradient, which candle then adds to zeros of its own. On CUDA the forward waits for the values,
/// and the backward for the upstream gradient, one number. The logits have to stay as they are until
/// then: writing to their variable in between makes the gradient that of other numbers.
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
/// `.contiguous()`); logits that are neither on the CPU nor, with the feature `cuda`, on CUDA; a
/// batch that is not in host memory; and what [`Loss::forward`] refuses, such as a label outside the
/// vocabulary. The backward refuses an upstream gradient that is not finite, and second derivatives.
pub fn preference_loss(logits: &Tensor, loss: &Loss<'_>) -> Result<PreferenceLoss> {
    let (forward, value) = place::read(logits, |place, rows| {
        let forward = loss.forward(place.backend(), rows).map_err(Error::wrap)?;
        let value = scalar(place, rows.dtype().per_token(), forward.loss())?;
        Ok((Arc::new(forward), value))
    })?;
    let operation = LossOperation {
        loss: loss.clone().into_owned().map_err(Error::wrap)?,
        forward: forward.clone(),
    };
    Ok(PreferenceLoss { loss: attach(logits, (value, Shape::from(())), operation)?, forward })
}

fn scalar(place: &Place, dtype: prefuse::DType, value: f64) -> Result<Storage> {
    place.output(dtype, [1, 0], |mut output, _| {
        match dtype {
            prefuse::DType::F64 => output.copy_from(Slice::new(&[value])),
            _ => output.copy_from(Slice::new(&[value as f32])),
        }
        .map_err(Error::wrap)
    })
}

struct LossOperation {
    loss: Loss<'static>,
    forward: Arc<Forward>,
}

impl Operation for LossOperation {
    const NAME: &'static str = "prefuse-preference-loss";
    const GRADIENT_NAME: &'static str = "prefuse-preference-loss-gradient";

    fn logit_grads(
        &self,
        place: &Place,
        rows: (Logits<'_>, LogitsMut<'_>),
        _: &Tensor,
        upstream: &Tensor,
    ) -> Result<()> {
        let upstream = Upstream::Loss(upstream.to_dtype(DType::F64)?.to_scalar()?);
        let masked = place.masked_rows();
        self.loss
            .logit_grads(place.backend(), &self.forward, rows, upstream, masked)
            .map_err(Error::wrap)
    }
}
