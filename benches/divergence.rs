//! Divergences of a student from a teacher, with the student's gradient in a buffer of its own, beside a
//! copy that moves as many bytes: two tensors read, one written.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::{VOCAB, labels, logits};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use half::bf16;
use prefuse::batch::{Labels, Logits, LogitsMut};
use prefuse::stages::{
    Divergence, DivergenceOutputs, StudentTarget, Teacher, TokenDivergence, Tokens,
};
use prefuse::{Backend, Cpu, Element, MaskedRows, Slice, SliceMut, Target};
use rayon::prelude::*;

const TOKENS: usize = 256;

const DIVERGENCES: [(&str, TokenDivergence); 4] = [
    ("forward KL", TokenDivergence::ForwardKl),
    ("reverse KL", TokenDivergence::ReverseKl),
    ("Jensen-Shannon", TokenDivergence::JensenShannon { beta: 0.5 }),
    ("total variation", TokenDivergence::TotalVariation),
];

struct Rows<T> {
    student: Vec<T>,
    teacher: Vec<T>,
    grads: Vec<T>,
    labels: Labels<'static>,
    values: Vec<f32>,
    upstream: Vec<f32>,
    scratch: Vec<f64>,
}

impl<T: Element> Rows<T> {
    fn new(cpu: &Cpu) -> Self {
        let student = logits::<T>(TOKENS, VOCAB);
        let near = |(i, x): (usize, &T)| T::from_f64(x.to_f64() + (i as f64).sin());
        let teacher = student.iter().enumerate().map(near).collect();
        Self {
            grads: student.clone(),
            student,
            teacher,
            labels: labels(TOKENS, VOCAB, false),
            values: vec![0.0; TOKENS],
            upstream: vec![1.0; TOKENS],
            scratch: vec![0.0; cpu.divergence_scratch(TOKENS, VOCAB)],
        }
    }

    fn run(&mut self, cpu: &Cpu, divergence: TokenDivergence, gradient: bool) {
        let logits = Logits::new(&self.student, TOKENS, VOCAB).unwrap();
        let grads = LogitsMut::new(&mut self.grads, TOKENS, VOCAB).unwrap();
        let student = match gradient {
            true => {
                let target = Target::OutOfPlace { logits, grads };
                StudentTarget::Written(target, MaskedRows::Zero)
            }
            false => StudentTarget::Values(logits),
        };
        let teacher = Teacher::new(Logits::new(&self.teacher, TOKENS, VOCAB).unwrap());
        let outputs = DivergenceOutputs {
            values: SliceMut::new(&mut self.values),
            student_entropy: None,
            teacher_entropy: None,
        };
        let stage = Divergence::new(
            cpu,
            (student, teacher),
            (divergence, [1.0; 2]),
            Tokens::new(&self.labels, None).unwrap(),
            (outputs, gradient.then(|| Slice::new(&self.upstream))),
            SliceMut::new(&mut self.scratch),
        );
        cpu.divergence(stage.unwrap()).unwrap();
    }

    /// One and a half tensors.
    fn copy(&mut self) {
        let half = &self.teacher[..TOKENS / 2 * VOCAB];
        let rows = self.grads.par_chunks_mut(VOCAB).zip(self.student.par_chunks(VOCAB));
        rows.for_each(|(to, from)| to.copy_from_slice(from));
        let rows = self.grads.par_chunks_mut(VOCAB).zip(half.par_chunks(VOCAB));
        rows.for_each(|(to, from)| to.copy_from_slice(from));
    }

    fn check(&self) {
        assert!(self.values.iter().all(|&x| x > 0.05 && x < 0.7), "{:?}", self.values);
        let sum: f64 = self.grads[..VOCAB].iter().map(|grad| grad.to_f64()).sum();
        assert!(sum.abs() < 1e-2, "a row sums to 0: {sum}");
    }
}

fn bench<T: Element + PartialEq>(criterion: &mut Criterion) {
    let cpu = Cpu::new();
    let mut rows = Rows::<T>::new(&cpu);
    let mut group = criterion.benchmark_group(format!("divergence/{}", T::DTYPE));
    group.sample_size(20);
    group.throughput(Throughput::Bytes((3 * rows.student.len() * T::DTYPE.size()) as u64));
    for (name, divergence) in DIVERGENCES {
        rows.run(&cpu, divergence, true);
        rows.check();
        let run = |rows: &mut Rows<T>| rows.run(&cpu, divergence, true);
        group.bench_function(name, |bencher| bencher.iter(|| run(&mut rows)));
    }
    let forward = TokenDivergence::ForwardKl;
    group.bench_function("forward KL, no gradient", |bencher| {
        bencher.iter(|| rows.run(&cpu, forward, false));
    });
    group.bench_function("copy", |bencher| bencher.iter(|| rows.copy()));
    assert!(rows.grads[..VOCAB].iter().zip(&rows.teacher).all(|(a, b)| a == b));
    group.finish();
}

fn benches(criterion: &mut Criterion) {
    bench::<f32>(criterion);
    bench::<bf16>(criterion);
}

criterion_group!(group, benches);
criterion_main!(group);
