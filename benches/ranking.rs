//! Stage 3 over groups: members that a ranking evaluates in a second, gradient included.
#![allow(missing_docs, clippy::unwrap_used)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use prefuse::objectives::{Ranking, Response};

fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ranking");
    for size in [4, 64] {
        let members: Vec<Response> = (0..size)
            .map(|member| {
                Response::new(-f64::from(member % 7) - 20.0, 30.0)
                    .with_reference(-22.0)
                    .with_score(-f64::from(member))
            })
            .collect();
        let mut grads = vec![0.0; members.len()];
        group.throughput(Throughput::Elements(members.len() as u64));
        for ranking in [
            Ranking::plackett_luce(0.1),
            Ranking::pro(),
            Ranking::info_nca(0.1, 1.0),
            Ranking::nca(0.1, 1.0),
            Ranking::know_pat(),
            Ranking::lipo_lambda(0.1),
        ] {
            let mut run = || ranking.evaluate(&members, &mut grads);
            assert!(run() > 0.0);
            let name = format!("{} of {size}", ranking.name());
            group.bench_function(name, |bencher| bencher.iter(&mut run));
        }
    }
    group.finish();
}

criterion_group!(group, benches);
criterion_main!(group);
