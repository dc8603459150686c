//! The losses of the example from candle's own operations, in the logits' element type.

use candle_core::{D, DType, Result, Tensor};

use crate::example::{Kind, LABELS, SEQUENCES, TOKENS, reference_sums};

/// `[tokens, vocab]` log-softmax.
pub fn log_softmax(logits: &Tensor) -> Result<Tensor> {
    let shifted = logits.broadcast_sub(&logits.max_keepdim(D::Minus1)?)?;
    shifted.broadcast_sub(&shifted.exp()?.sum_keepdim(D::Minus1)?.log()?)
}

/// `[tokens]` log-probs of the labels; of label 0 where there is none.
pub fn log_probs(logits: &Tensor) -> Result<Tensor> {
    let labels = LABELS.map(|label| label.max(0));
    let labels = Tensor::new(&labels, logits.device())?.unsqueeze(1)?;
    log_softmax(logits)?.gather(&labels, 1)?.squeeze(1)
}

pub fn loss(kind: Kind, logits: &Tensor) -> Result<Tensor> {
    let dtype = logits.dtype();
    let constant = |values: Vec<f64>| Tensor::new(values, logits.device())?.to_dtype(dtype);
    let mask = kind.mask();
    // A select, for a product with 0 would not stop a NaN.
    let counts = Tensor::new(
        mask.iter().map(|&mask| u8::from(mask != 0.)).collect::<Vec<_>>(),
        logits.device(),
    )?;
    let log_probs = log_probs(logits)?;
    let log_probs = counts.where_cond(&log_probs, &log_probs.zeros_like()?)?;
    let sums = log_probs.reshape((SEQUENCES, TOKENS / SEQUENCES))?.sum(1)?;
    let margin = |rewards: &Tensor| rewards.narrow(0, 0, 2)? - rewards.narrow(0, 2, 2)?;
    match kind {
        Kind::Dpo | Kind::MaskDpo => {
            let beta = if kind == Kind::Dpo { 0.1 } else { 0.5 };
            let ratios = (sums - constant(reference_sums(kind))?)?;
            logistic((margin(&ratios)? * beta)?)
        }
        Kind::SimPoNll => {
            let tokens = mask.chunks(3).map(|sequence| sequence.iter().sum()).collect();
            let averages = (&sums / constant(tokens)?)?;
            let sim_po = logistic(((margin(&averages)? * 2.0)? - 0.5)?)?;
            sim_po - (sums.narrow(0, 0, 2)?.mean(0)? * 0.2)?
        }
    }
}

/// `mean(-log sigmoid(u))`.
fn logistic(u: Tensor) -> Result<Tensor> {
    (u.neg()?.exp()? + 1.0)?.log()?.mean(0)
}

/// The loss and its gradient in f64, on the very numbers of `logits`.
pub fn truth(kind: Kind, logits: &Tensor) -> Result<(Tensor, Tensor)> {
    let logits = candle_core::Var::from_tensor(&logits.to_dtype(DType::F64)?)?;
    let loss = loss(kind, &logits)?;
    let grad = crate::example::grad(&loss, &logits)?;
    Ok((loss, grad))
}
