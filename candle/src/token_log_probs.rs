use candle_core::{CpuStorage, DType, Error, Result, Shape, Tensor};
use prefuse::batch::{Labels, Logits, LogitsMut, Weights};
use prefuse::{Element, MaskedRows, RowOptions, Slice, Target};

use crate::operation::{Operation, attach};
use crate::rows;

/// Log-probs of labels, and what else was asked for in the same visit.
#[derive(Clone, Debug)]
pub struct TokenLogProbs {
    /// `[tokens]` natural log-probs of the labels, f32 (f64 for f64 logits), differentiable; 0 for
    /// tokens that do not count.
    pub log_probs: Tensor,
    /// `[tokens]` entropies in nats, of the same type, differentiable, if asked for; 0 for tokens
    /// that do not count.
    pub entropies: Option<Tensor>,
    /// `[tokens]` lowest indices of the maxima, if asked for; -1 for tokens that do not count.
    pub argmax: Option<Vec<i64>>,
}

/// Log-probs of the labels under `[.., vocab]` logits, for a loss of your own, with a backward.
///
/// Logits as in [`preference_loss`](crate::preference_loss). The output is flat: one number for
/// each of the `tokens` rows. Weights say only which tokens count (those of weight 0 do not); no
/// log-prob is multiplied with its weight.
///
/// ```
/// use candle_core::{Device, Var};
/// use prefuse::RowOptions;
/// use prefuse::batch::Labels;
///
/// let logits = Var::new(&[[0.0_f32, 1.0, 2.0], [3.0, 1.0, 0.0]], &Device::Cpu)?;
/// let options = RowOptions::default().with_temperature(0.7).with_entropy();
/// let labels = Labels::new(&[2, 0]);
/// let tokens = prefuse_candle::token_log_probs(&logits, &labels, None, options)?;
///
/// let mut loss = tokens.log_probs.mean(0)?.neg()?;
/// if let Some(entropies) = tokens.entropies {
///     loss = (loss - (entropies.mean(0)? * 0.01)?)?;
/// }
/// assert!(loss.backward()?.get(&logits).is_some());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// Logits as in [`preference_loss`](crate::preference_loss); labels or weights of another number
/// than the rows; a label outside the vocabulary; a temperature outside 1e-30 to 1e30.
/// The backward refuses second derivatives.
pub fn token_log_probs(
    logits: &Tensor,
    labels: &Labels<'_>,
    weights: Option<&Weights<'_>>,
    options: RowOptions,
) -> Result<TokenLogProbs> {
    let values = rows::read(logits, |rows| {
        let backend = rows::backend(rows.dtype());
        prefuse::token_log_probs(backend.as_ref(), rows, labels, weights, options)
    })?;
    let argmax = values.argmax().map(Slice::host::<i64>).transpose().map_err(Error::wrap)?;
    let argmax = argmax.map(<[i64]>::to_vec);
    let has_entropies = values.entropy().is_some();
    let operation = TokenOperation {
        labels: labels.clone().into_owned().map_err(Error::wrap)?,
        weights: weights.cloned().map(Weights::into_owned).transpose().map_err(Error::wrap)?,
        values,
    };
    let output = attach(logits, operation)?;
    let entropies = if has_entropies { Some(output.get(1)?) } else { None };
    Ok(TokenLogProbs { log_probs: output.get(0)?, entropies, argmax })
}

/// A candle operation has one output, so this one's is `[1, tokens]` log-probs, or `[2, tokens]`
/// log-probs and entropies.
struct TokenOperation {
    labels: Labels<'static>,
    weights: Option<Weights<'static>>,
    values: prefuse::TokenLogProbs,
}

impl TokenOperation {
    fn stacked<T: Element>(&self) -> Result<(Vec<T>, Shape)> {
        let values = [Some(self.values.log_probs()), self.values.entropy()].into_iter().flatten();
        let values = values.map(Slice::host).collect::<prefuse::Result<Vec<&[T]>>>();
        let values = values.map_err(Error::wrap)?;
        Ok((values.concat(), Shape::from((values.len(), self.labels.len()))))
    }

    fn write<T: Element>(
        &self,
        upstream: &[T],
        logits: Logits<'_>,
        grads: LogitsMut<'_>,
    ) -> Result<()> {
        let backend = rows::backend(logits.dtype());
        let (log_probs, entropies) = upstream.split_at(self.labels.len());
        let entropies = self.values.entropy().map(|_| Slice::new(entropies));
        let target = Target::OutOfPlace { logits, grads };
        let tokens = (&self.labels, self.weights.as_ref());
        let upstream = (Slice::new(log_probs), entropies);
        self.values
            .logit_grads(backend.as_ref(), target, tokens, upstream, MaskedRows::AlreadyZero)
            .map_err(Error::wrap)
    }
}

impl Operation for TokenOperation {
    const NAME: &'static str = "prefuse-token-log-probs";
    const GRADIENT_NAME: &'static str = "prefuse-token-log-probs-gradient";

    fn output(&self) -> Result<(CpuStorage, Shape)> {
        Ok(match self.values.log_probs().dtype() {
            prefuse::DType::F64 => {
                let (values, shape) = self.stacked()?;
                (CpuStorage::F64(values), shape)
            }
            _ => {
                let (values, shape) = self.stacked()?;
                (CpuStorage::F32(values), shape)
            }
        })
    }

    fn logit_grads(
        &self,
        upstream: &Tensor,
        logits: Logits<'_>,
        grads: LogitsMut<'_>,
    ) -> Result<()> {
        let upstream = upstream.flatten_all()?;
        match upstream.dtype() {
            DType::F64 => self.write(&upstream.to_vec1::<f64>()?, logits, grads),
            _ => self.write(&upstream.to_vec1::<f32>()?, logits, grads),
        }
    }
}
