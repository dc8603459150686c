//! `prefuse._core.Backend`: the stages over tensors' memory.

use std::sync::LazyLock;

use prefuse::batch::{Labels, Logits, Packing, Weights};
use prefuse::stages::{
    LogProbs, LogitGrads, RowStatistics, SequenceSums, TokenGrads, TokenOutputs, TokenUpstream,
    Tokens, TotalsMut,
};
use prefuse::{
    Cpu, Cuda, DType, Loss, MaskedRows, Reference, Result, ScalarLoss, Target, TermValue,
    TokenLogProbs, Upstream,
};
use pyo3::prelude::*;

use crate::batch::{LossText, Tensors};
use crate::divergence::{DivergenceText, run_divergence};
use crate::error::run;
use crate::memory::{Memory, Rows};

/// Where tensors lie, and what computes there.
pub enum Device {
    Host(Box<dyn prefuse::Backend>),
    Cuda(Cuda),
}

/// For numbers that the core takes from host memory alone.
pub static HOST: LazyLock<Device> = LazyLock::new(|| Device::Host(Box::new(Cpu::new())));

impl Device {
    pub fn backend(&self) -> &dyn prefuse::Backend {
        match self {
            Self::Host(backend) => backend.as_ref(),
            Self::Cuda(cuda) => cuda,
        }
    }
}

/// The stages on one device and stream. Addresses are the caller's responsibility: as many elements of the
/// named type have to live there, on this device, until the call is over and, on a stream, its work.
#[pyclass(frozen)]
pub struct Backend {
    device: Device,
}

/// Labels, and the label of tokens that do not count.
pub type Counted = (Memory, i64);

/// Name and number.
type Metrics = Vec<(&'static str, f64)>;

/// Loss; value, losses and rewards of each term; metrics.
type Evaluated = (f64, Vec<(f64, Vec<f64>, Vec<[f64; 2]>)>, Metrics);

#[pymethods]
impl Backend {
    /// The CPU backend, for f32, f16 and bf16 logits.
    #[staticmethod]
    fn cpu() -> Self {
        Self { device: Device::Host(Box::new(Cpu::new())) }
    }

    /// The reference in f64.
    #[staticmethod]
    fn reference() -> Self {
        Self { device: Device::Host(Box::new(Reference::new())) }
    }

    /// A CUDA device, on a stream of the caller's that is never destroyed.
    ///
    /// Raises `CudaUnavailable`.
    #[staticmethod]
    fn cuda(py: Python<'_>, ordinal: usize, stream: usize) -> PyResult<Self> {
        // SAFETY: the caller's promise; an address is what torch calls a stream's handle.
        let cuda = run(py, || unsafe { Cuda::on_stream(ordinal, stream as *mut _) })?;
        Ok(Self { device: Device::Cuda(cuda) })
    }

    /// Raises what a kernel found wrong in an earlier call, if it is known by now.
    fn poll(&self, py: Python<'_>) -> PyResult<()> {
        match &self.device {
            Device::Host(_) => Ok(()),
            Device::Cuda(cuda) => run(py, || cuda.poll()),
        }
    }

    /// Waits for the stream, then raises what a kernel found wrong.
    fn check(&self, py: Python<'_>) -> PyResult<()> {
        match &self.device {
            Device::Host(_) => Ok(()),
            Device::Cuda(cuda) => run(py, || cuda.check()),
        }
    }

    /// Stage 1. `statistics` are maxima and logarithms of sums, of which a gradient asks; `more` are entropies,
    /// logarithms of sums of squares and argmax, where they are asked for.
    #[allow(clippy::too_many_arguments, reason = "Python names them")]
    fn log_probs(
        &self,
        py: Python<'_>,
        logits: Rows,
        counted: Counted,
        temperature: f64,
        log_probs: Memory,
        statistics: Option<[Memory; 2]>,
        more: [Option<Memory>; 3],
    ) -> PyResult<()> {
        let device = &self.device;
        run(py, || {
            let backend = device.backend();
            // SAFETY: the caller's promise, see the class.
            let (logits, labels) = unsafe { (logits.logits(device)?, labels(device, counted)?) };
            // SAFETY: as above.
            let output = |of: Memory| unsafe { of.slice_mut(device) };
            let (log_probs, [entropy, squares, argmax]) = (output(log_probs)?, more);
            let unasked = if statistics.is_none() { logits.tokens() } else { 0 };
            let allocate = || backend.allocate(log_probs.dtype(), unasked);
            let mut own = [allocate()?, allocate()?];
            let [maximum, log_sum] = match statistics {
                None => own.each_mut().map(prefuse::Buffer::slice_mut),
                Some([maximum, log_sum]) => [output(maximum)?, output(log_sum)?],
            };
            let outputs = TokenOutputs {
                entropy: entropy.map(output).transpose()?,
                log_sum_squares: squares.map(output).transpose()?,
                argmax: argmax.map(output).transpose()?,
                ..TokenOutputs::new(log_probs, maximum, log_sum)
            };
            let scratch = backend.log_probs_scratch(logits.tokens(), logits.vocab());
            let mut scratch = backend.allocate(DType::F64, scratch)?;
            let tokens = Tokens::new(&labels, None)?;
            let scratch = scratch.slice_mut();
            let stage = LogProbs::new(backend, logits, tokens, temperature, outputs, scratch)?;
            backend.log_probs(stage)
        })
    }

    /// Stage 4, over the logits where there are no `grads`. `statistics` are maxima and logarithms of sums,
    /// `upstream` the gradient by the log-probs, `entropy` that by the entropies and the entropies.
    #[allow(clippy::too_many_arguments, reason = "Python names them")]
    fn logit_grads(
        &self,
        py: Python<'_>,
        logits: Rows,
        grads: Option<Rows>,
        counted: Counted,
        temperature: f64,
        statistics: [Memory; 2],
        upstream: Memory,
        entropy: Option<[Memory; 2]>,
    ) -> PyResult<()> {
        let device = &self.device;
        run(py, || {
            let backend = device.backend();
            // SAFETY: the caller's promise, see the class.
            let slice = |of: Memory| unsafe { of.slice(device) };
            // SAFETY: as above.
            let labels = unsafe { labels(device, counted) }?;
            // SAFETY: as above.
            let target = unsafe { target(device, logits, grads) }?;
            let [maximum, log_sum] = statistics;
            let statistics = RowStatistics { maximum: slice(maximum)?, log_sum: slice(log_sum)? };
            let entropy = match entropy {
                Some([by, values]) => Some((slice(by)?, slice(values)?)),
                None => None,
            };
            let upstream = TokenUpstream { log_probs: slice(upstream)?, entropy };
            let tokens = Tokens::new(&labels, None)?;
            backend.logit_grads(LogitGrads::new(
                backend,
                target,
                tokens,
                temperature,
                statistics,
                upstream,
                MaskedRows::Zero,
            )?)
        })
    }

    /// Stage 2: f64 sums of weight times log-prob, counted tokens, and sums of their weights.
    fn sequence_sums(
        &self,
        py: Python<'_>,
        log_probs: Memory,
        counted: Counted,
        weights: Option<Memory>,
        offsets: Vec<i64>,
        totals: [Memory; 3],
    ) -> PyResult<()> {
        let device = &self.device;
        run(py, || {
            let backend = device.backend();
            // SAFETY: the caller's promise, see the class.
            let slice = |of: Memory| unsafe { of.slice(device) };
            // SAFETY: as above.
            let labels = unsafe { labels(device, counted) }?;
            let weights = weights.map(slice).transpose()?.map(Weights::from_slice).transpose()?;
            let packing = Packing::new(&offsets)?.place(backend)?;
            let [sums, tokens, weights_of] = totals;
            // SAFETY: as above.
            let totals = unsafe {
                TotalsMut {
                    sums: sums.slice_mut(device)?,
                    tokens: tokens.slice_mut(device)?,
                    weights: weights_of.slice_mut(device)?,
                }
            };
            let tokens = Tokens::new(&labels, weights.as_ref())?;
            let log_probs = slice(log_probs)?;
            backend.sequence_sums(SequenceSums::new(backend, log_probs, tokens, &packing, totals)?)
        })
    }

    /// Stage 2 backwards: `[tokens]` gradients from `[sequences]` f64 ones.
    fn token_grads(
        &self,
        py: Python<'_>,
        by_sums: Memory,
        counted: Counted,
        weights: Option<Memory>,
        offsets: Vec<i64>,
        grads: Memory,
    ) -> PyResult<()> {
        let device = &self.device;
        run(py, || {
            let backend = device.backend();
            // SAFETY: the caller's promise, see the class.
            let slice = |of: Memory| unsafe { of.slice(device) };
            // SAFETY: as above.
            let labels = unsafe { labels(device, counted) }?;
            let weights = weights.map(slice).transpose()?.map(Weights::from_slice).transpose()?;
            let packing = Packing::new(&offsets)?.place(backend)?;
            // SAFETY: as above.
            let grads = unsafe { grads.slice_mut(device) }?;
            let tokens = Tokens::new(&labels, weights.as_ref())?;
            let by_sums = slice(by_sums)?;
            backend.token_grads(TokenGrads::new(backend, by_sums, tokens, &packing, grads)?)
        })
    }

    /// Stages 2 and 3 over log-probs of stage 1, and the gradient of the loss by these and by the entropies,
    /// where a term looks at them. `rows` are log-probs, maxima and logarithms of sums.
    #[allow(clippy::too_many_arguments, reason = "Python names them")]
    fn loss(
        &self,
        py: Python<'_>,
        text: &str,
        tensors: Tensors,
        vocab: usize,
        temperature: f64,
        rows: [Memory; 3],
        entropy: Option<Memory>,
        grads: [Option<Memory>; 2],
    ) -> PyResult<Evaluated> {
        let text = LossText::parse(text)?;
        let terms = text.terms()?;
        let device = &self.device;
        run(py, || {
            let backend = device.backend();
            // SAFETY: the caller's promise, see the class.
            let batch = unsafe { text.of_tokens(device, &tensors) }?;
            // SAFETY: as above.
            let slice = |of: Memory| unsafe { of.slice(device) };
            let [log_probs, maximum, log_sum] = rows;
            let size = [log_probs.len(), vocab];
            let statistics = RowStatistics { maximum: slice(maximum)?, log_sum: slice(log_sum)? };
            let (parts, entropy) =
                ((slice(log_probs)?, statistics), entropy.map(slice).transpose()?);
            let tokens = TokenLogProbs::from_parts(backend, (size, temperature), parts, entropy)?;
            let loss = Loss::new(batch, terms)?;
            let forward = loss.evaluate(backend, tokens)?;
            let (by_log_prob, by_entropy) =
                loss.token_grads(backend, &forward, Upstream::Loss(1.0))?;
            let found = [Some(&by_log_prob), by_entropy.as_ref()];
            for (to, from) in grads.into_iter().zip(found) {
                if let Some((to, from)) = to.zip(from) {
                    // SAFETY: as above.
                    unsafe { to.slice_mut(device) }?.copy_from(from.slice())?;
                }
            }
            let mut metrics = pair_metrics(forward.metrics());
            metrics.extend(sequence_metrics(forward.sequence_metrics()));
            metrics.extend(token_metrics(loss.token_metrics(&forward)?));
            Ok((forward.loss(), values(forward.terms()), metrics))
        })
    }

    /// Stage 3 by itself over one number for each sequence, and the gradient by these.
    fn scalar_loss(
        &self,
        py: Python<'_>,
        text: &str,
        tensors: Tensors,
        values_of: Memory,
        tokens: Option<Memory>,
    ) -> PyResult<(Evaluated, Vec<f64>)> {
        let text = LossText::parse(text)?;
        let terms = text.terms()?;
        let device = &self.device;
        run(py, || {
            let backend = device.backend();
            // SAFETY: the caller's promise, see the class.
            let batch = unsafe { text.of_sequences(device, &tensors, values_of.len()) }?;
            // SAFETY: as above.
            let slice = |of: Memory| unsafe { of.slice(device) };
            let loss = ScalarLoss::new(batch, terms)?;
            let tokens = tokens.map(slice).transpose()?;
            let forward = loss.forward(backend, slice(values_of)?, tokens)?;
            let grads = forward.grads(backend, Upstream::Loss(1.0))?;
            let mut metrics = pair_metrics(forward.metrics());
            metrics.extend(sequence_metrics(forward.sequence_metrics()));
            Ok(((forward.loss(), values(forward.terms()), metrics), grads))
        })
    }

    /// Divergences of each token, and the gradient by the student's logits where there is an `upstream`.
    #[allow(clippy::too_many_arguments, reason = "Python names them")]
    fn divergence(
        &self,
        py: Python<'_>,
        text: &str,
        student: Rows,
        teachers: Vec<Rows>,
        entries: Option<[Memory; 2]>,
        counted: Counted,
        values: Memory,
        entropies: [Option<Memory>; 2],
        gradient: Option<(Memory, Rows)>,
    ) -> PyResult<()> {
        let text = DivergenceText::parse(text)?;
        let device = &self.device;
        // SAFETY: the caller's promise, see the class.
        run(py, || unsafe {
            let outputs = (values, entropies);
            run_divergence(device, &text, student, (teachers, entries), counted, outputs, gradient)
        })
    }
}

/// # Errors
/// Labels that are not i64, or those of the device.
///
/// # Safety
/// As for [`Memory::slice`].
pub unsafe fn labels(device: &Device, (ids, ignore): Counted) -> Result<Labels<'_>> {
    // SAFETY: the caller's promise.
    Ok(Labels::from_slice(unsafe { ids.slice(device) }?)?.with_ignore(ignore))
}

/// # Errors
/// Shapes that do not fit, or those of the device.
///
/// # Safety
/// As for [`Memory::slice_mut`] of what is written, and [`Memory::slice`] of the rest.
unsafe fn target<'a>(device: &'a Device, logits: Rows, grads: Option<Rows>) -> Result<Target<'a>> {
    // SAFETY: the caller's promise.
    unsafe {
        match grads {
            None => Ok(Target::InPlace(logits.logits_mut(device)?)),
            Some(grads) => {
                let logits: Logits<'a> = logits.logits(device)?;
                Ok(Target::OutOfPlace { logits, grads: grads.logits_mut(device)? })
            }
        }
    }
}

fn values(terms: &[TermValue]) -> Vec<(f64, Vec<f64>, Vec<[f64; 2]>)> {
    terms.iter().map(|term| (term.value, term.losses.clone(), term.rewards.clone())).collect()
}

/// By TRL's names.
fn pair_metrics(metrics: Option<prefuse::PairMetrics>) -> Metrics {
    metrics.map_or(vec![], |of| {
        vec![
            ("rewards/chosen", of.rewards_chosen),
            ("rewards/rejected", of.rewards_rejected),
            ("rewards/accuracies", of.rewards_accuracy),
            ("rewards/margins", of.rewards_margin),
            ("min_reward", of.rewards_min),
            ("max_reward", of.rewards_max),
            ("logps/chosen", of.log_probs_chosen),
            ("logps/rejected", of.log_probs_rejected),
            ("tokens/chosen", of.tokens_chosen),
            ("tokens/rejected", of.tokens_rejected),
        ]
    })
}

/// By the names of TRL's KTO trainer, apart from those of a term over pairs.
fn sequence_metrics(metrics: Option<prefuse::SequenceMetrics>) -> Metrics {
    metrics.map_or(vec![], |of| {
        vec![
            ("count/chosen", of.desirable as f64),
            ("count/rejected", of.undesirable as f64),
            ("sequences/rewards/chosen", of.rewards_desirable),
            ("sequences/rewards/rejected", of.rewards_undesirable),
            ("sequences/rewards/margins", of.rewards_margin),
            ("sequences/logps/chosen", of.log_probs_desirable),
            ("sequences/logps/rejected", of.log_probs_undesirable),
            ("sequences/tokens", of.tokens),
        ]
    })
}

/// By the names of TRL's GRPO trainer and of verl.
fn token_metrics(metrics: Option<prefuse::TokenMetrics>) -> Metrics {
    let Some(of) = metrics else { return vec![] };
    let mut list = vec![("num_tokens", of.tokens as f64), ("ppo_kl", of.kl_old)];
    list.extend(of.entropy.map(|entropy| ("entropy", entropy)));
    list.extend(of.kl_reference.map(|kl| ("kl", kl)));
    if let Some(clip) = of.clip {
        list.extend([
            ("clip_ratio/low_mean", clip.low.token_mean),
            ("clip_ratio/low_min", clip.low.sequence_min),
            ("clip_ratio/high_mean", clip.high.token_mean),
            ("clip_ratio/high_max", clip.high.sequence_max),
            ("clip_ratio/region_mean", clip.region.token_mean),
            ("pg_clipfrac_lower", clip.dual.token_mean),
        ]);
    }
    list
}
