//! A small causal transformer: pre-norm blocks, learned positions, separate output head.

use candle_core::{D, DType, Device, Result, Tensor, Var};
use candle_nn::ops::softmax;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::sequences::Pack;

/// The sizes of a model.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub vocabulary: usize,
    pub max_tokens: usize,
    pub width: usize,
    pub heads: usize,
    pub layers: usize,
}

/// The trainable matrices, in the order in which they were made.
struct Parameters {
    random: StdRng,
    vars: Vec<Var>,
}

impl Parameters {
    /// A uniformly drawn matrix with the given standard deviation.
    fn matrix(&mut self, rows: usize, columns: usize, deviation: f64) -> Result<Tensor> {
        let bound = (deviation * 3f64.sqrt()) as f32;
        let draw = |_| self.random.random_range(-bound..bound);
        let values: Vec<f32> = (0..rows * columns).map(draw).collect();
        self.add(Tensor::from_vec(values, (rows, columns), &Device::Cpu)?)
    }

    /// A `[inputs, outputs]` matrix that keeps the scale of its inputs, times `gain`.
    fn linear(&mut self, inputs: usize, outputs: usize, gain: f64) -> Result<Tensor> {
        self.matrix(inputs, outputs, gain / (inputs as f64).sqrt())
    }

    fn ones(&mut self, length: usize) -> Result<Tensor> {
        self.add(Tensor::ones(length, DType::F32, &Device::Cpu)?)
    }

    fn add(&mut self, values: Tensor) -> Result<Tensor> {
        let var = Var::from_tensor(&values)?;
        let tensor = var.as_tensor().clone();
        self.vars.push(var);
        Ok(tensor)
    }
}

struct Block {
    attention_norm: Tensor,
    query_key_value: Tensor,
    attention_out: Tensor,
    feed_norm: Tensor,
    feed_in: Tensor,
    feed_out: Tensor,
}

/// Reads token ids, returns logits.
pub struct Model {
    shape: Shape,
    tokens: Tensor,
    positions: Tensor,
    blocks: Vec<Block>,
    norm: Tensor,
    head: Tensor,
    vars: Vec<Var>,
}

impl Model {
    /// A model with weights drawn from `seed`.
    pub fn new(shape: Shape, seed: u64) -> Result<Self> {
        let width = shape.width;
        let residual_gain = 1.0 / (2.0 * shape.layers as f64).sqrt();
        let mut parameters = Parameters { random: StdRng::seed_from_u64(seed), vars: Vec::new() };
        let tokens = parameters.matrix(shape.vocabulary, width, 0.1)?;
        let positions = parameters.matrix(shape.max_tokens, width, 0.1)?;
        let mut blocks = Vec::new();
        for _ in 0..shape.layers {
            blocks.push(Block {
                attention_norm: parameters.ones(width)?,
                query_key_value: parameters.linear(width, 3 * width, 1.0)?,
                attention_out: parameters.linear(width, width, residual_gain)?,
                feed_norm: parameters.ones(width)?,
                feed_in: parameters.linear(width, 4 * width, 1.0)?,
                feed_out: parameters.linear(4 * width, width, residual_gain)?,
            });
        }
        let norm = parameters.ones(width)?;
        let head = parameters.linear(width, shape.vocabulary, 0.5)?;
        Ok(Self { shape, tokens, positions, blocks, norm, head, vars: parameters.vars })
    }

    /// The trainable variables, for an optimizer.
    pub fn vars(&self) -> Vec<Var> {
        self.vars.clone()
    }

    /// A second model with the same weights, trained on its own from here.
    pub fn duplicate(&self) -> Result<Self> {
        let copy = Self::new(self.shape, 0)?;
        for (target, source) in copy.vars.iter().zip(&self.vars) {
            target.set(source.as_tensor())?;
        }
        Ok(copy)
    }

    /// The `[tokens, vocab]` logits of a pack.
    pub fn logits(&self, pack: &Pack) -> Result<Tensor> {
        let (sequences, longest) = pack.inputs.dims2()?;
        let width = self.shape.width;
        let ids = pack.inputs.flatten_all()?;
        let tokens = self.tokens.index_select(&ids, 0)?.reshape((sequences, longest, width))?;
        let positions = self.positions.narrow(0, 0, longest)?;
        let mut hidden = tokens.broadcast_add(&positions)?.reshape((sequences * longest, width))?;
        let mask = causal_mask(longest)?;
        for block in &self.blocks {
            let normed = rms_norm(&hidden, &block.attention_norm)?;
            let mixed = self.attention(block, &normed, &mask, sequences)?;
            hidden = (hidden + mixed)?;
            let normed = rms_norm(&hidden, &block.feed_norm)?;
            let fed = normed.matmul(&block.feed_in)?.relu()?.matmul(&block.feed_out)?;
            hidden = (hidden + fed)?;
        }
        // Padding ends here: the head sees the rows of the pack alone.
        let rows = hidden.index_select(&pack.positions, 0)?;
        rms_norm(&rows, &self.norm)?.matmul(&self.head)
    }

    fn attention(
        &self,
        block: &Block,
        hidden: &Tensor,
        mask: &Tensor,
        sequences: usize,
    ) -> Result<Tensor> {
        let Shape { width, heads, .. } = self.shape;
        let (rows, head_width) = (hidden.dim(0)?, width / heads);
        let split = hidden
            .matmul(&block.query_key_value)?
            .reshape((sequences, rows / sequences, 3, heads, head_width))?
            .permute((2, 0, 3, 1, 4))?
            .contiguous()?;
        let query = (split.get(0)? * (head_width as f64).powf(-0.5))?;
        let (key, value) = (split.get(1)?, split.get(2)?);
        let scores = query.matmul(&key.t()?)?.broadcast_add(mask)?;
        let mixed = softmax(&scores, D::Minus1)?.matmul(&value)?;
        mixed.transpose(1, 2)?.reshape((rows, width))?.matmul(&block.attention_out)
    }
}

/// Composed of plain operations: candle-nn's fused norm has no backward pass.
fn rms_norm(hidden: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let scale = (hidden.sqr()?.mean_keepdim(D::Minus1)? + 1e-5)?.sqrt()?.recip()?;
    hidden.broadcast_mul(&scale)?.broadcast_mul(weight)
}

/// 0 where a position may look, a large negative number where it may not.
fn causal_mask(length: usize) -> Result<Tensor> {
    let entry = |index| if index % length > index / length { -1e9f32 } else { 0.0 };
    let values = (0..length * length).map(entry).collect();
    Tensor::from_vec(values, (length, length), &Device::Cpu)
}
