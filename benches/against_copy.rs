//! The row stages against a copy of the same tensor on the same threads, in turn, minimum of N:
//! `cargo bench --bench against_copy [-- ROWS]`. The copy's buffer is ready, so no page faults are
//! counted; each tensor was touched shortly before, so a last-level cache that holds it serves it.
//!
//! With `-- --serve TYPE ROWS FILE` it takes the logits from a file, runs what it reads from standard input
//! (`copy`, `log_probs`, ..; its first line lists them) once each, and answers in nanoseconds and with the
//! bytes that were allocated at most meanwhile; `benches/against_torch.py` alternates that with torch.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::io::{BufRead, Read, Write};
use std::time::{Duration, Instant};

use common::{VOCAB, labels, logits};
use half::{bf16, f16};
use peak_alloc::PeakAlloc;
use prefuse::batch::{Labels, Logits, LogitsMut};
use prefuse::stages::{
    Divergence, DivergenceOutputs, StudentTarget, Teacher, TokenDivergence, Tokens,
};
use prefuse::{
    Backend, Cpu, Element, MaskedRows, RowOptions, SimdLevel, Slice, SliceMut, Target,
    TokenLogProbs, token_log_probs,
};
use rayon::prelude::*;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Rows where none are asked for.
const TOKENS: usize = 256;
const ROUNDS: usize = 30;

const WORK: [&str; 12] = [
    "copy",
    "log_probs",
    "log_probs, half masked",
    "log_probs, entropy and argmax",
    "logit_grads in place",
    "logit_grads in place, half masked",
    "logit_grads in place, half masked already zero",
    "logit_grads out of place",
    "logit_grads out of place, entropy",
    "copy of one and a half",
    "forward KL and gradient",
    "Jensen-Shannon and gradient",
];

struct Bench<T> {
    cpu: Cpu,
    tokens: usize,
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
}

impl<T: Element> Bench<T> {
    fn new(cpu: Cpu, tokens: usize, data: Vec<T>) -> Self {
        let [labels, half_labels] = [false, true].map(|half| labels(tokens, VOCAB, half));
        let options = RowOptions::default().with_entropy();
        let view = Logits::new(&data, tokens, VOCAB).unwrap();
        let forward = token_log_probs(&cpu, view, &labels, None, options).unwrap();
        let half_forward = token_log_probs(&cpu, view, &half_labels, None, options).unwrap();
        let upstream = (0..tokens).map(|token| (token + 1) as f32).collect();
        let buffer = data.clone();
        let spare = data[..data.len() / 2].to_vec();
        let teacher = data.iter().map(|x| T::from_f64(0.8 * x.to_f64())).collect();
        Self {
            cpu,
            tokens,
            data,
            teacher,
            buffer,
            spare,
            labels,
            half_labels,
            forward,
            half_forward,
            upstream,
        }
    }

    fn run(&mut self, work: &str) -> Duration {
        if work.contains("in place") {
            self.copy();
        }
        let start = Instant::now();
        let plain = RowOptions::default();
        match work {
            "copy" => self.copy(),
            "copy of one and a half" => {
                self.copy();
                let half = self.data.len() / 2;
                copy(&self.teacher[..half], &mut self.spare);
            }
            "forward KL and gradient" => self.divergence(TokenDivergence::ForwardKl),
            "Jensen-Shannon and gradient" => {
                self.divergence(TokenDivergence::JensenShannon { beta: 0.5 });
            }
            "log_probs" => self.log_probs(&self.labels, plain),
            "log_probs, half masked" => self.log_probs(&self.half_labels, plain),
            "log_probs, entropy and argmax" => {
                self.log_probs(&self.labels, plain.with_entropy().with_argmax());
            }
            _ => self.logit_grads(work),
        }
        start.elapsed()
    }

    fn copy(&mut self) {
        copy(&self.data, &mut self.buffer);
    }

    fn divergence(&mut self, divergence: TokenDivergence) {
        let [logits, teacher] =
            [&self.data, &self.teacher].map(|data| Logits::new(data, self.tokens, VOCAB).unwrap());
        let grads = LogitsMut::new(&mut self.buffer, self.tokens, VOCAB).unwrap();
        let target = Target::OutOfPlace { logits, grads };
        let mut values = vec![0.0_f32; self.tokens];
        let mut scratch = vec![0.0_f64; self.cpu.divergence_scratch(self.tokens, VOCAB)];
        let outputs = DivergenceOutputs {
            values: SliceMut::new(&mut values),
            student_entropy: None,
            teacher_entropy: None,
        };
        let stage = Divergence::new(
            &self.cpu,
            (StudentTarget::Written(target, MaskedRows::Zero), Teacher::new(teacher)),
            (divergence, [1.0; 2]),
            Tokens::new(&self.labels, None).unwrap(),
            (outputs, Some(Slice::new(&self.upstream))),
            SliceMut::new(&mut scratch),
        );
        self.cpu.divergence(stage.unwrap()).unwrap();
    }

    fn log_probs(&self, labels: &Labels<'_>, options: RowOptions) {
        let logits = Logits::new(&self.data, self.tokens, VOCAB).unwrap();
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
        let out = LogitsMut::new(&mut self.buffer, self.tokens, VOCAB).unwrap();
        let logits = Logits::new(&self.data, self.tokens, VOCAB).unwrap();
        let target = match work.contains("in place") {
            true => Target::InPlace(out),
            false => Target::OutOfPlace { logits, grads: out },
        };
        let upstream = Slice::new(&self.upstream);
        let upstream = (upstream, work.contains("entropy").then_some(upstream));
        forward.logit_grads(&self.cpu, target, (labels, None), upstream, masked).unwrap();
    }

    fn check(&mut self) {
        for work in
            ["logit_grads in place", "forward KL and gradient", "Jensen-Shannon and gradient"]
        {
            self.run(work);
            self.check_gradient();
        }
    }

    fn check_gradient(&self) {
        for row in [0, self.tokens - 1] {
            let grads = &self.buffer[row * VOCAB..][..VOCAB];
            let sum: f64 = grads.iter().map(|grad| grad.to_f64()).sum();
            // bf16 rounds each of its elements by up to 2^-9, whose absolute values sum to 2.
            assert!(sum.abs() < 1e-2 * f64::from(self.upstream[row]), "a row sums to 0: {sum}");
        }
    }

    fn report(&mut self) {
        self.check();
        let mut best = [Duration::MAX; WORK.len()];
        for _ in 0..ROUNDS {
            for (best, work) in best.iter_mut().zip(WORK) {
                *best = self.run(work).min(*best);
            }
        }
        let bytes = (self.data.len() * T::DTYPE.size()) as f64;
        println!(
            "\n{} [{}, {VOCAB}] {:?}, {} threads, minimum of {ROUNDS} rounds in turn; the copy moves {:.1} GB/s",
            T::DTYPE,
            self.tokens,
            self.cpu.simd(),
            rayon::current_num_threads(),
            2.0 * bytes / best[0].as_secs_f64() / 1e9,
        );
        for (best_of_work, work) in best.iter().zip(WORK) {
            let ratio = best_of_work.as_secs_f64() / best[0].as_secs_f64();
            println!(
                "{work:48} {:8.2} ms {ratio:6.2} of the copy",
                best_of_work.as_secs_f64() * 1e3
            );
        }
    }

    fn serve(&mut self) {
        self.check();
        println!("{}", WORK.join("\t"));
        for line in std::io::stdin().lock().lines() {
            let before = MEMORY.current_usage();
            MEMORY.reset_peak_usage();
            let nanoseconds = self.run(line.unwrap().trim()).as_nanos();
            println!("{nanoseconds} {}", MEMORY.peak_usage() - before);
            std::io::stdout().flush().unwrap();
        }
    }
}

fn copy<T: Element>(from: &[T], to: &mut [T]) {
    let rows = to.par_chunks_mut(VOCAB).zip(from.par_chunks(VOCAB));
    rows.for_each(|(to, from)| to.copy_from_slice(from));
}

fn read<T: Element>(path: &str, tokens: usize) -> Vec<T> {
    let mut data = vec![T::zeroed(); tokens * VOCAB];
    let mut file = std::fs::File::open(path).unwrap();
    file.read_exact(bytemuck::cast_slice_mut(&mut data)).unwrap();
    data
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let given = |name: &str| arguments.iter().any(|argument| argument == name);
    let tokens = arguments.iter().find_map(|argument| argument.parse().ok()).unwrap_or(TOKENS);
    if given("--serve") {
        let path = arguments.last().unwrap();
        match given("f32") {
            true => Bench::<f32>::new(Cpu::new(), tokens, read(path, tokens)).serve(),
            false => Bench::<bf16>::new(Cpu::new(), tokens, read(path, tokens)).serve(),
        }
        return;
    }
    for cpu in SimdLevel::ALL.into_iter().rev().filter_map(Cpu::with_simd) {
        Bench::<bf16>::new(cpu, tokens, logits(tokens, VOCAB)).report();
        Bench::<f32>::new(cpu, tokens, logits(tokens, VOCAB)).report();
        Bench::<f16>::new(cpu, tokens, logits(tokens, VOCAB)).report();
    }
}
