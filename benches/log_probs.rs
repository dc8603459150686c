//! Stage 1: bytes of logits read in a second.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::{labels, logits};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use prefuse::batch::Logits;
use prefuse::{Cpu, Element, RowOptions, token_log_probs};

fn bench<T: Element>(criterion: &mut Criterion, tokens: usize, vocab: usize) {
    let (data, labels) = (logits::<T>(tokens, vocab), labels(tokens, vocab, false));
    let view = Logits::new(&data, tokens, vocab).unwrap();
    let (cpu, plain) = (Cpu::new(), RowOptions::default());
    let mut group = criterion.benchmark_group(format!("log_probs/{}/{tokens}x{vocab}", T::DTYPE));
    group.throughput(Throughput::Bytes((data.len() * T::DTYPE.size()) as u64));
    for (name, options) in [("plain", plain), ("entropy", plain.with_entropy().with_argmax())] {
        let run = || token_log_probs(&cpu, view, &labels, None, options).unwrap();
        assert!(run().log_probs().to_vec().unwrap().iter().all(|&x| x < 0.0 && x > -40.0));
        group.bench_function(name, |bencher| bencher.iter(run));
    }
    group.finish();
}

fn benches(criterion: &mut Criterion) {
    each_shape!(bench, criterion);
}

criterion_group! { name = group; config = Criterion::default().sample_size(20); targets = benches }
criterion_main!(group);
