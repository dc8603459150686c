//! The stages of one seed: supervised fine-tuning, then DPO and Mask-DPO from the same start.

use anyhow::{Result, ensure};
use candle_core::Tensor;
use candle_nn::{AdamW, Optimizer, ParamsAdamW};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use serde::Serialize;

use crate::args::Settings;
use crate::data::Data;
use crate::loss::{Method, preference_loss, token_log_probs};
use crate::measure::{Measures, PairLogProbs, measure};
use crate::model::{Model, Shape};
use crate::progress::Progress;
use crate::sequences::{IGNORED, Pack, SequencePair};

/// Pairs per forward pass where there is no backward pass.
const EVALUATION_PAIRS: usize = 16;

/// A fine-tuned model, frozen as the reference of both methods, with its log-probabilities.
pub struct Start {
    pub seed: u64,
    model: Model,
    train: Vec<PairLogProbs>,
    held_out: Vec<PairLogProbs>,
    pub measures: Measures,
}

impl Start {
    /// The reference's log-probabilities of a batch, in the order of `pack_pairs`.
    fn reference(&self, batch: &[usize]) -> Vec<f32> {
        let chosen = batch.iter().flat_map(|&index| &self.train[index].chosen);
        let rejected = batch.iter().flat_map(|&index| &self.train[index].rejected);
        chosen.chain(rejected).copied().collect()
    }
}

/// Held-out figures after a number of steps.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Point {
    pub step: usize,
    #[serde(flatten)]
    pub measures: Measures,
}

/// Fine-tunes a fresh model on chosen and rejected answers alike, so that true and false
/// statements both have probabilities worth comparing.
pub fn fine_tune(
    data: &Data,
    settings: &Settings,
    seed: u64,
    progress: &Progress,
) -> Result<Start> {
    let model = Model::new(shape(data, settings), seed)?;
    let mut optimizer = optimizer(&model)?;
    let mut batches = Batches::new(data.train.len(), settings.pairs_per_step, 2 * seed);
    for step in 0..settings.sft_steps {
        let pack = pack_pairs(&data.train, &batches.next_batch())?;
        let loss = mean_loss(&model.logits(&pack)?, &pack)?;
        optimizer.set_learning_rate(scheduled(
            settings.sft_learning_rate,
            step,
            settings.sft_steps,
        ));
        optimizer.backward_step(&loss)?;
        let loss = loss.to_scalar::<f32>()?;
        ensure!(loss.is_finite(), "seed {seed}, SFT step {}: the loss is {loss}", step + 1);
        progress.step(seed, "SFT", loss.into());
    }
    let train = pair_log_probs(&model, &data.train)?;
    let held_out = pair_log_probs(&model, &data.held_out)?;
    let measures = measure(&data.held_out, &held_out, &held_out);
    Ok(Start { seed, model, train, held_out, measures })
}

/// Trains a copy of the start on preferences; returns the held-out figures on the way.
pub fn align(
    start: &Start,
    method: Method,
    data: &Data,
    settings: &Settings,
    progress: &Progress,
) -> Result<Vec<Point>> {
    let model = start.model.duplicate()?;
    let mut optimizer = optimizer(&model)?;
    // The seed does not know the method: both see the same pairs in the same order.
    let mut batches = Batches::new(data.train.len(), settings.pairs_per_step, 2 * start.seed + 1);
    let mut points = vec![Point { step: 0, measures: start.measures }];
    for step in 0..settings.steps {
        let batch = batches.next_batch();
        let pack = pack_pairs(&data.train, &batch)?;
        let reference = start.reference(&batch);
        let logits = model.logits(&pack)?;
        let loss = preference_loss(&logits, &pack, &reference, method, settings.beta)?;
        optimizer.set_learning_rate(scheduled(settings.learning_rate, step, settings.steps));
        optimizer.backward_step(&loss)?;
        let loss = f64::from(loss.to_scalar::<f32>()?);
        check_finite("loss", loss, start.seed, method, step + 1)?;
        progress.step(start.seed, method.name(), loss);
        if is_evaluated(step + 1, settings) {
            let held_out = pair_log_probs(&model, &data.held_out)?;
            let measures = measure(&data.held_out, &held_out, &start.held_out);
            check_finite("margin", measures.margin, start.seed, method, step + 1)?;
            points.push(Point { step: step + 1, measures });
        }
    }
    Ok(points)
}

/// Stops a run that has diverged: its figures would mean nothing.
fn check_finite(what: &str, value: f64, seed: u64, method: Method, step: usize) -> Result<()> {
    let method = method.name();
    ensure!(
        value.is_finite(),
        "seed {seed}, {method} step {step}: the {what} is {value}; lower --learning-rate"
    );
    Ok(())
}

fn shape(data: &Data, settings: &Settings) -> Shape {
    Shape {
        vocabulary: data.vocabulary,
        max_tokens: data.longest(),
        width: settings.width,
        heads: settings.heads,
        layers: settings.layers,
    }
}

fn optimizer(model: &Model) -> Result<AdamW> {
    let settings = ParamsAdamW { beta2: 0.99, weight_decay: 0.0, ..Default::default() };
    Ok(AdamW::new(model.vars(), settings)?)
}

/// Rises over the first tenth of the steps, then falls to a tenth of its peak.
fn scheduled(peak: f64, step: usize, steps: usize) -> f64 {
    let rise = (steps / 10).max(1);
    let fallen = step.saturating_sub(rise) as f64 / (steps - rise).max(1) as f64;
    peak * ((step + 1) as f64 / rise as f64).min(1.0 - 0.9 * fallen)
}

/// Evaluations lie evenly over the steps; the last step always has one.
fn is_evaluated(step: usize, settings: &Settings) -> bool {
    let count = |step| step * settings.evaluations / settings.steps;
    count(step) > count(step - 1)
}

/// The mean negative log-probability of the answers' tokens.
fn mean_loss(logits: &Tensor, pack: &Pack) -> Result<Tensor> {
    let tokens = pack.labels.iter().filter(|&&label| label != IGNORED).count();
    Ok((token_log_probs(logits, &pack.labels)?.sum_all()? / -(tokens as f64))?)
}

/// All chosen answers of a batch, then all rejected ones.
fn pack_pairs(pairs: &[SequencePair], batch: &[usize]) -> Result<Pack> {
    let chosen = batch.iter().map(|&index| &pairs[index].chosen);
    let rejected = batch.iter().map(|&index| &pairs[index].rejected);
    Pack::new(chosen.chain(rejected))
}

fn pair_log_probs(model: &Model, pairs: &[SequencePair]) -> Result<Vec<PairLogProbs>> {
    let mut result = Vec::with_capacity(pairs.len());
    for chunk in pairs.chunks(EVALUATION_PAIRS) {
        let pack = pack_pairs(chunk, &(0..chunk.len()).collect::<Vec<_>>())?;
        let log_probs = token_log_probs(&model.logits(&pack)?, &pack.labels)?.to_vec1::<f32>()?;
        let sequences: Vec<Vec<f32>> =
            pack.packing.ranges().map(|rows| log_probs[rows].to_vec()).collect();
        let (chosen, rejected) = sequences.split_at(chunk.len());
        result.extend(chosen.iter().zip(rejected).map(|(chosen, rejected)| PairLogProbs {
            chosen: chosen.clone(),
            rejected: rejected.clone(),
        }));
    }
    Ok(result)
}

/// Endless batches of record indices, shuffled anew each time all were seen.
struct Batches {
    random: StdRng,
    order: Vec<usize>,
    next: usize,
    size: usize,
}

impl Batches {
    fn new(records: usize, size: usize, seed: u64) -> Self {
        let order: Vec<usize> = (0..records).collect();
        Self { random: StdRng::seed_from_u64(seed), next: records, order, size }
    }

    fn next_batch(&mut self) -> Vec<usize> {
        (0..self.size).map(|_| self.next_index()).collect()
    }

    fn next_index(&mut self) -> usize {
        if self.next == self.order.len() {
            self.order.shuffle(&mut self.random);
            self.next = 0;
        }
        self.next += 1;
        self.order[self.next - 1]
    }
}
