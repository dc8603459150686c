//! Stage 2: bytes of log-probs, labels and weights read in a second.
#![allow(missing_docs, clippy::unwrap_used)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use prefuse::batch::{Labels, Packing, Weights};
use prefuse::stages::{SequenceSums, Tokens, TotalsMut};
use prefuse::{Backend, Cpu, SliceMut};

fn benches(criterion: &mut Criterion) {
    let (sequences, length) = (64, 1024);
    let count = sequences * length;
    let log_probs: Vec<f32> = (0..count).map(|t| -((t % 17) as f32)).collect();
    let (labels, weights) = (Labels::new(vec![1; count]), Weights::new(vec![0.5; count]).unwrap());
    let packing = Packing::padded(sequences, length).unwrap().place(&Cpu::new()).unwrap();
    let mut outputs = [vec![0.0; sequences], vec![0.0; sequences], vec![0.0; sequences]];
    let mut run = || {
        let [sums, tokens, weighted] = outputs.each_mut().map(|output| SliceMut::new(output));
        let totals = TotalsMut { sums, tokens, weights: weighted };
        let tokens = Tokens::new(&labels, Some(&weights)).unwrap();
        let cpu = Cpu::new();
        let stage = SequenceSums::new(&cpu, log_probs[..].into(), tokens, &packing, totals);
        cpu.sequence_sums(stage.unwrap()).unwrap();
        outputs[0][0]
    };
    let expected: f32 = log_probs[..length].iter().sum();
    assert_eq!(run(), f64::from(expected) / 2.0);
    let mut group = criterion.benchmark_group("sequence_sums");
    group.throughput(Throughput::Bytes(count as u64 * (4 + 8 + 4)));
    group.bench_function("64 sequences of 1024", |bencher| bencher.iter(&mut run));
    group.finish();
}

criterion_group!(group, benches);
criterion_main!(group);
