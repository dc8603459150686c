//! What `against_copy` measures: the row stages and losses, a copy of the same tensors, and the floor under them.

use std::time::{Duration, Instant};

use prefuse::batch::{
    Advantages, Batch, Labels, Logits, LogitsMut, Packing, Pairs, ReferenceLogProbs,
};
use prefuse::objectives::{Dpo, PpoClip};
use prefuse::stages::{
    Divergence, DivergenceOutputs, StudentTarget, Teacher, TokenDivergence, Tokens,
};
use prefuse::{
    Backend, Cpu, Element, Loss, MaskedRows, RowOptions, Sequences, Slice, SliceMut, Target, Term,
    TokenLogProbs, Upstream, token_log_probs,
};
use rayon::prelude::*;

use crate::common;

/// Something to measure, and what it cannot be faster than: all of those moves of bytes, or that many exponentials
/// for each logit in registers.
pub struct Work {
    pub name: &'static str,
    pub moves: &'static [&'static str],
    pub exponentials: u32,
}

const fn work(name: &'static str, moves: &'static [&'static str], exponentials: u32) -> Work {
    Work { name, moves, exponentials }
}

pub const COPY: &str = "copy";
pub const EXPONENTIALS: &str = "exponentials";
const READ: &str = "read";
const UPDATE: &str = "update in place";
const COPY_HALF_MORE: &str = "copy of one and a half";

/// A divergence takes two exponentials of each pair of logits for the sums and two for the columns, of which
/// that of Jensen and Shannon has two sweeps.
pub const WORK: [Work; 18] = [
    work(COPY, &[], 0),
    work(READ, &[], 0),
    work(UPDATE, &[], 0),
    work(COPY_HALF_MORE, &[], 0),
    work(EXPONENTIALS, &[], 0),
    work("log_probs", &[READ], 1),
    work("log_probs, half masked", &[], 0),
    work("log_probs, entropy and argmax", &[READ], 1),
    work("logit_grads in place", &[UPDATE], 1),
    work("logit_grads in place, half masked", &[], 0),
    work("logit_grads in place, half masked already zero", &[], 0),
    work("logit_grads out of place", &[COPY], 1),
    work("logit_grads out of place, entropy", &[COPY], 1),
    work("token loss and gradient in one visit", &[UPDATE], 2),
    work("DPO loss and gradient", &[READ, UPDATE], 2),
    work("forward KL", &[READ, READ], 2),
    work("forward KL and gradient", &[COPY_HALF_MORE], 2),
    work("Jensen-Shannon and gradient", &[COPY_HALF_MORE], 6),
];

pub struct Bench<T> {
    pub cpu: Cpu,
    pub tokens: usize,
    pub vocab: usize,
    data: Vec<T>,
    /// As long; a divergence reads both and writes the gradient.
    teacher: Vec<T>,
    buffer: Vec<T>,
    /// Half as long: with it a copy reads and writes, out of as much memory, what a divergence does.
    spare: Vec<T>,
    labels: Labels<'static>,
    half_labels: Labels<'static>,
    forward: TokenLogProbs,
    half_forward: TokenLogProbs,
    upstream: Vec<f32>,
    dpo: Loss<'static>,
    ppo: Loss<'static>,
}

/// The policy's log-probs as they were, somewhere near.
fn near(tokens: usize, shift: f64) -> ReferenceLogProbs<'static> {
    let values: Vec<f32> = (0..tokens).map(|t| (-12.0 + shift * (t as f64).sin()) as f32).collect();
    ReferenceLogProbs::per_token(&values)
}

/// Four sequences, two pairs.
fn losses(labels: &Labels<'static>, tokens: usize) -> [Loss<'static>; 2] {
    let batch = || {
        let packing = Packing::padded(4, tokens / 4).unwrap();
        Batch::new(labels.clone(), packing).unwrap()
    };
    let pairs = batch()
        .with_reference(near(tokens, -0.3))
        .and_then(|batch| batch.with_pairs(Pairs::halves(2)?))
        .unwrap();
    let dpo = Loss::new(pairs, [Term::pairs(Dpo::new(0.1))]).unwrap();
    let sampled = batch()
        .with_old(near(tokens, 0.2))
        .and_then(|batch| batch.with_advantages(Advantages::per_sequence(&[1., -1., 0.5, -0.5])?))
        .unwrap();
    let ppo = Term::tokens(PpoClip::new(0.2, 0.28), Sequences::All);
    [dpo, Loss::new(sampled, [ppo]).unwrap()]
}

impl<T: Element> Bench<T> {
    /// `tokens` is a multiple of four.
    pub fn new(cpu: Cpu, [tokens, vocab]: [usize; 2], data: Vec<T>) -> Self {
        let [labels, half_labels] = [false, true].map(|half| common::labels(tokens, vocab, half));
        let options = RowOptions::default().with_entropy();
        let view = Logits::new(&data, tokens, vocab).unwrap();
        let forward = token_log_probs(&cpu, view, &labels, None, options).unwrap();
        let half_forward = token_log_probs(&cpu, view, &half_labels, None, options).unwrap();
        let upstream = (0..tokens).map(|token| (token + 1) as f32).collect();
        let buffer = data.clone();
        let spare = data[..data.len() / 2].to_vec();
        let teacher = data.iter().map(|x| T::from_f64(0.8 * x.to_f64())).collect();
        let [dpo, ppo] = losses(&labels, tokens);
        Self {
            cpu,
            tokens,
            vocab,
            data,
            teacher,
            buffer,
            spare,
            labels,
            half_labels,
            forward,
            half_forward,
            upstream,
            dpo,
            ppo,
        }
    }

    pub fn bytes(&self) -> usize {
        size_of_val(&self.data[..])
    }

    /// How long it takes once, without the copy of the logits that it then overwrites.
    pub fn run(&mut self, work: &str) -> Duration {
        if work.contains("in place") || work.contains("token loss") || work.contains("DPO") {
            self.copy();
        }
        let start = Instant::now();
        let plain = RowOptions::default();
        let row = self.vocab * T::DTYPE.size();
        match work {
            COPY => self.copy(),
            READ => {
                std::hint::black_box(self.cpu.floor_read(bytemuck::cast_slice(&self.data), row));
            }
            UPDATE => self.cpu.floor_update(bytemuck::cast_slice_mut(&mut self.buffer), row),
            COPY_HALF_MORE => {
                self.copy();
                let half = self.data.len() / 2;
                copy(&self.teacher[..half], &mut self.spare, self.vocab);
            }
            EXPONENTIALS => {
                std::hint::black_box(self.cpu.floor_exponentials(self.tokens, self.vocab));
            }
            "forward KL" => self.divergence(TokenDivergence::ForwardKl, false),
            "forward KL and gradient" => self.divergence(TokenDivergence::ForwardKl, true),
            "Jensen-Shannon and gradient" => {
                self.divergence(TokenDivergence::JensenShannon { beta: 0.5 }, true);
            }
            "log_probs" => self.log_probs(&self.labels, plain),
            "log_probs, half masked" => self.log_probs(&self.half_labels, plain),
            "log_probs, entropy and argmax" => {
                self.log_probs(&self.labels, plain.with_entropy().with_argmax());
            }
            "token loss and gradient in one visit" => {
                let logits = LogitsMut::new(&mut self.buffer, self.tokens, self.vocab).unwrap();
                let (target, upstream) = (Target::InPlace(logits), Upstream::Loss(1.0));
                let masked = MaskedRows::Zero;
                self.ppo.forward_with_logit_grads(&self.cpu, target, upstream, masked).unwrap();
            }
            "DPO loss and gradient" => {
                let logits = LogitsMut::new(&mut self.buffer, self.tokens, self.vocab).unwrap();
                let (upstream, masked) = (Upstream::Loss(1.0), MaskedRows::Zero);
                let forward = self.dpo.forward(&self.cpu, logits.view()).unwrap();
                self.dpo
                    .logit_grads_in_place(&self.cpu, forward, logits, upstream, masked)
                    .unwrap();
            }
            _ => self.logit_grads(work),
        }
        start.elapsed()
    }

    fn copy(&mut self) {
        copy(&self.data, &mut self.buffer, self.vocab);
    }

    fn divergence(&mut self, divergence: TokenDivergence, with_gradient: bool) {
        let [logits, teacher] = [&self.data, &self.teacher]
            .map(|data| Logits::new(data, self.tokens, self.vocab).unwrap());
        let grads = LogitsMut::new(&mut self.buffer, self.tokens, self.vocab).unwrap();
        let target = Target::OutOfPlace { logits, grads };
        let student = match with_gradient {
            true => StudentTarget::Written(target, MaskedRows::Zero),
            false => StudentTarget::Values(logits),
        };
        let upstream = with_gradient.then(|| Slice::new(&self.upstream));
        let mut values = vec![0.0_f32; self.tokens];
        let mut scratch = vec![0.0_f64; self.cpu.divergence_scratch(self.tokens, self.vocab)];
        let outputs = DivergenceOutputs {
            values: SliceMut::new(&mut values),
            student_entropy: None,
            teacher_entropy: None,
        };
        let stage = Divergence::new(
            &self.cpu,
            (student, Teacher::new(teacher)),
            (divergence, [1.0; 2]),
            Tokens::new(&self.labels, None).unwrap(),
            (outputs, upstream),
            SliceMut::new(&mut scratch),
        );
        self.cpu.divergence(stage.unwrap()).unwrap();
    }

    fn log_probs(&self, labels: &Labels<'_>, options: RowOptions) {
        let logits = Logits::new(&self.data, self.tokens, self.vocab).unwrap();
        token_log_probs(&self.cpu, logits, labels, None, options).unwrap();
    }

    fn logit_grads(&mut self, work: &str) {
        let half = work.contains("half masked");
        let (labels, forward) = match half {
            true => (&self.half_labels, &self.half_forward),
            false => (&self.labels, &self.forward),
        };
        let masked = match work.contains("already zero") {
            true => MaskedRows::AlreadyZero,
            false => MaskedRows::Zero,
        };
        let out = LogitsMut::new(&mut self.buffer, self.tokens, self.vocab).unwrap();
        let logits = Logits::new(&self.data, self.tokens, self.vocab).unwrap();
        let target = match work.contains("in place") {
            true => Target::InPlace(out),
            false => Target::OutOfPlace { logits, grads: out },
        };
        let upstream = Slice::new(&self.upstream);
        let upstream = (upstream, work.contains("entropy").then_some(upstream));
        forward.logit_grads(&self.cpu, target, (labels, None), upstream, masked).unwrap();
    }

    /// That what is measured is right.
    pub fn check(&mut self) {
        for work in
            ["logit_grads in place", "forward KL and gradient", "Jensen-Shannon and gradient"]
        {
            self.run(work);
            self.check_gradient();
        }
    }

    fn check_gradient(&self) {
        for row in [0, self.tokens - 1] {
            let grads = &self.buffer[row * self.vocab..][..self.vocab];
            let sum: f64 = grads.iter().map(|grad| grad.to_f64()).sum();
            // bf16 rounds each of its elements by up to 2^-9, whose absolute values sum to 2.
            assert!(sum.abs() < 1e-2 * f64::from(self.upstream[row]), "a row sums to 0: {sum}");
        }
    }
}

fn copy<T: Element>(from: &[T], to: &mut [T], vocab: usize) {
    let rows = to.par_chunks_mut(vocab).zip(from.par_chunks(vocab));
    rows.for_each(|(to, from)| to.copy_from_slice(from));
}
