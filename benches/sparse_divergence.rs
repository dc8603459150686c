//! Divergences of a student from the listed entries of a teacher, with the student's gradient in a buffer of
//! its own, beside a copy of the student's logits, which moves as many bytes.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::{VOCAB, labels, logits};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use half::bf16;
use prefuse::batch::{Labels, Logits, LogitsMut};
use prefuse::stages::{
    DivergenceOutputs, Remainder, SparseDivergence, SparseTeacher, StudentTarget, TokenDivergence,
    Tokens,
};
use prefuse::{Backend, Cpu, Element, MaskedRows, Slice, SliceMut, Target};
use rayon::prelude::*;

const TOKENS: usize = 256;

const DIVERGENCES: [(&str, TokenDivergence); 3] = [
    ("forward KL", TokenDivergence::ForwardKl),
    ("reverse KL", TokenDivergence::ReverseKl),
    ("Jensen-Shannon", TokenDivergence::JensenShannon { beta: 0.5 }),
];

/// Entries of a teacher's file: few, and the most that there are.
const ENTRIES: [usize; 2] = [64, 1024];

struct Rows<T> {
    student: Vec<T>,
    grads: Vec<T>,
    ids: Vec<i64>,
    log_probs: Vec<f32>,
    labels: Labels<'static>,
    values: Vec<f32>,
    upstream: Vec<f32>,
    scratch: Vec<f64>,
}

impl<T: Element> Rows<T> {
    /// Entries spread over the row, in no order, with 9/10 of the probability.
    fn new(cpu: &Cpu, entries: usize) -> Self {
        let student = logits::<T>(TOKENS, VOCAB);
        let id = |at: usize| ((at * 7919) % entries * (VOCAB / entries)) as i64;
        Self {
            grads: student.clone(),
            student,
            ids: (0..TOKENS * entries).map(id).collect(),
            log_probs: vec![(0.9 / entries as f32).ln(); TOKENS * entries],
            labels: labels(TOKENS, VOCAB, false),
            values: vec![0.0; TOKENS],
            upstream: vec![1.0; TOKENS],
            scratch: vec![0.0; cpu.sparse_divergence_scratch(TOKENS, VOCAB)],
        }
    }

    fn run(&mut self, cpu: &Cpu, divergence: TokenDivergence) {
        let logits = Logits::new(&self.student, TOKENS, VOCAB).unwrap();
        let grads = LogitsMut::new(&mut self.grads, TOKENS, VOCAB).unwrap();
        let target = Target::OutOfPlace { logits, grads };
        let teacher = SparseTeacher::new(
            Slice::new(&self.ids),
            Slice::new(&self.log_probs),
            self.ids.len() / TOKENS,
            Remainder::Bin,
        );
        let outputs = DivergenceOutputs {
            values: SliceMut::new(&mut self.values),
            student_entropy: None,
            teacher_entropy: None,
        };
        let stage = SparseDivergence::new(
            cpu,
            (StudentTarget::Written(target, MaskedRows::Zero), teacher.unwrap()),
            (divergence, 1.0),
            Tokens::new(&self.labels, None).unwrap(),
            (outputs, Some(Slice::new(&self.upstream))),
            SliceMut::new(&mut self.scratch),
        );
        cpu.sparse_divergence(stage.unwrap()).unwrap();
    }

    fn copy(&mut self) {
        let rows = self.grads.par_chunks_mut(VOCAB).zip(self.student.par_chunks(VOCAB));
        rows.for_each(|(to, from)| to.copy_from_slice(from));
    }

    fn check(&self) {
        assert!(self.values.iter().all(|&x| x > 0.05 && x < 20.0), "{:?}", self.values);
        let sum: f64 = self.grads[..VOCAB].iter().map(|grad| grad.to_f64()).sum();
        assert!(sum.abs() < 1e-2, "a row sums to 0: {sum}");
    }
}

fn bench<T: Element + PartialEq>(criterion: &mut Criterion) {
    let cpu = Cpu::new();
    let mut group = criterion.benchmark_group(format!("sparse_divergence/{}", T::DTYPE));
    group.sample_size(20);
    for entries in ENTRIES {
        let mut rows = Rows::<T>::new(&cpu, entries);
        group.throughput(Throughput::Bytes((2 * rows.student.len() * T::DTYPE.size()) as u64));
        for (name, divergence) in DIVERGENCES {
            rows.run(&cpu, divergence);
            rows.check();
            group.bench_function(format!("{name}, {entries} entries"), |bencher| {
                bencher.iter(|| rows.run(&cpu, divergence));
            });
        }
        group.bench_function(format!("copy, beside {entries}"), |bencher| {
            bencher.iter(|| rows.copy());
        });
        assert!(rows.grads[..VOCAB] == rows.student[..VOCAB]);
    }
    group.finish();
}

fn benches(criterion: &mut Criterion) {
    bench::<f32>(criterion);
    bench::<bf16>(criterion);
}

criterion_group!(group, benches);
criterion_main!(group);
