//! Memory beyond the logits and their gradient is a few numbers for each token, in a process of its
//! own because it counts every allocation.
#![allow(missing_docs, clippy::unwrap_used)]

use std::sync::Mutex;

use half::bf16;
use peak_alloc::PeakAlloc;
use prefuse::batch::{
    Batch, Combination, Labels, Logits, LogitsMut, Packing, Pairs, ReferenceLogProbs,
};
use prefuse::objectives::Dpo;
use prefuse::stages::{LogProbs, StudentTarget, Teacher, TokenDivergence, TokenOutputs, Tokens};
use prefuse::{
    Backend, Cpu, Distillation, Loss, MaskedRows, Slice, SliceMut, Target, Term, Upstream,
    mixed_token_log_probs,
};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Bytes for each token: log-prob, maximum, log-sum and their gradient in f32; five f64 results of
/// a row before they are rounded.
const PER_TOKEN: usize = 4 * 4 + 5 * 8;

/// Bytes for each pair and sequence, rayon's queues, vectors of a few entries, and the scratch of
/// fewer than 32 rows that are split over threads: three f64 numbers for each 4096 columns.
const FIXED: usize = 64 * 1024;

/// The counts are of the whole process, so the tests take turns.
static TURN: Mutex<()> = Mutex::new(());

#[test]
fn beyond_inputs_and_gradient_it_is_per_token() {
    let _turn = TURN.lock();
    for (tokens, vocab) in [(8, 262_144), (64, 32_000), (512, 32_000), (8192, 1000)] {
        let mut data = vec![bf16::ONE; tokens * vocab];
        let (labels, reference) = (vec![5_i64; tokens], vec![-1.0_f32; tokens]);
        let batch = Batch::new(Labels::new(&labels[..]), Packing::padded(2, tokens / 2).unwrap())
            .and_then(|batch| batch.with_reference(ReferenceLogProbs::per_token(&reference)))
            .and_then(|batch| batch.with_pairs(Pairs::halves(1).unwrap()))
            .unwrap();
        let loss = Loss::new(batch, [Term::pairs(Dpo::new(0.1))]).unwrap();
        let mut run = || {
            let logits = LogitsMut::new(&mut data, tokens, vocab).unwrap();
            let forward = loss.forward(&Cpu::new(), logits.view()).unwrap();
            let (upstream, masked) = (Upstream::Loss(1.0), MaskedRows::Zero);
            loss.logit_grads_in_place(&Cpu::new(), forward, logits, upstream, masked).unwrap();
        };
        // Starts rayon's threads, whose stacks are not the stages'.
        run();
        let before = MEMORY.current_usage();
        MEMORY.reset_peak_usage();
        run();
        let used = MEMORY.peak_usage() - before;
        let bound = PER_TOKEN * tokens + FIXED;
        assert!(used <= bound, "{used} bytes for {tokens} tokens, expected at most {bound}");
    }
}

/// The same of a distillation: divergence, its upstream gradient and two entropies in f32, three f64
/// results of a row.
#[test]
fn distillation_is_per_token_too() {
    let _turn = TURN.lock();
    let per_token = 4 * 4 + 3 * 8;
    for (tokens, vocab) in [(8, 262_144), (64, 32_000), (512, 32_000), (8192, 1000)] {
        let teacher: Vec<bf16> =
            (0..tokens * vocab).map(|i| if i % 3 == 0 { bf16::ONE } else { bf16::ZERO }).collect();
        let teacher = Teacher::new(Logits::new(&teacher, tokens, vocab).unwrap());
        let mut data = vec![bf16::ONE; tokens * vocab];
        let labels = Labels::new(vec![5_i64; tokens]);
        let batch = Batch::new(labels, Packing::padded(2, tokens / 2).unwrap()).unwrap();
        let mut run = |divergence| {
            let distillation = Distillation::new(batch.clone(), divergence).unwrap();
            let target = Target::InPlace(LogitsMut::new(&mut data, tokens, vocab).unwrap());
            let target = StudentTarget::Written(target, MaskedRows::Zero);
            let found =
                distillation.forward_with_logit_grads(&Cpu::new(), target, &teacher, 1.0).unwrap();
            assert!(found.loss() > 0.0);
        };
        run(TokenDivergence::ForwardKl);
        for divergence in [
            TokenDivergence::ForwardKl,
            TokenDivergence::ReverseKl,
            TokenDivergence::TotalVariation,
        ] {
            let before = MEMORY.current_usage();
            MEMORY.reset_peak_usage();
            run(divergence);
            let used = MEMORY.peak_usage() - before;
            // A copy of the labels goes with the batch.
            let bound = (per_token + 8) * tokens + FIXED;
            assert!(used <= bound, "{used} bytes for {tokens} tokens, expected at most {bound}");
        }
    }
}

/// The forward KL keeps exponentials of a row, on every thread and once for all: 2 MiB however long the row is.
#[test]
fn kept_exponentials_are_bounded() {
    let _turn = TURN.lock();
    let (tokens, vocab) = (8, 600_000);
    let teacher: Vec<bf16> =
        (0..tokens * vocab).map(|i| if i % 3 == 0 { bf16::ONE } else { bf16::ZERO }).collect();
    let teacher = Teacher::new(Logits::new(&teacher, tokens, vocab).unwrap());
    let mut data = vec![bf16::ONE; tokens * vocab];
    let batch =
        Batch::new(Labels::new(vec![5_i64; tokens]), Packing::padded(2, tokens / 2).unwrap());
    let distillation = Distillation::new(batch.unwrap(), TokenDivergence::ForwardKl).unwrap();
    // Threads of its own, which keep nothing yet.
    let threads = 2;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.broadcast(|_| ());
    let mut run = || {
        let before = MEMORY.current_usage();
        MEMORY.reset_peak_usage();
        let target = Target::InPlace(LogitsMut::new(&mut data, tokens, vocab).unwrap());
        let target = StudentTarget::Written(target, MaskedRows::Zero);
        pool.install(|| {
            distillation.forward_with_logit_grads(&Cpu::new(), target, &teacher, 1.0).unwrap()
        });
        MEMORY.peak_usage() - before
    };
    let (first, again) = (run(), run());
    assert!(first <= threads * (2 << 20) + FIXED, "{first} bytes");
    assert!(first > 2 << 20, "{first} bytes: nothing was kept");
    assert!(again <= FIXED, "{again} bytes");
}

/// The same of several models' logits: log-prob and log-sum in f32, the maximum in f64, three f64 results of a
/// row, and the label of what counted.
#[test]
fn mixed_logits_are_per_token_too() {
    let _turn = TURN.lock();
    let per_token = 2 * 4 + 8 + 3 * 8 + 8;
    for (tokens, vocab) in [(8, 262_144), (64, 32_000), (512, 32_000), (8192, 1000)] {
        let data = vec![bf16::ONE; tokens * vocab];
        let logits = Logits::new(&data, tokens, vocab).unwrap();
        let mixture = Combination::new(&[(1.5, logits), (-0.5, logits)]).unwrap();
        let mut grads = [data.clone(), data.clone()];
        let (ids, upstream) = (vec![5_i64; tokens], vec![1.0_f32; tokens]);
        let labels = Labels::new(&ids[..]);
        let mut run = || {
            let found = mixed_token_log_probs(&Cpu::new(), &mixture, &labels, None, 1.0).unwrap();
            let to = grads.iter_mut().map(|grads| LogitsMut::new(grads, tokens, vocab).ok());
            let (both, tokens) = ((&mixture, to.collect()), (&labels, None));
            let (upstream, masked) = (Slice::new(&upstream), MaskedRows::Zero);
            found.logit_grads(&Cpu::new(), both, tokens, upstream, masked).unwrap();
        };
        run();
        let before = MEMORY.current_usage();
        MEMORY.reset_peak_usage();
        run();
        let used = MEMORY.peak_usage() - before;
        let bound = per_token * tokens + FIXED;
        assert!(used <= bound, "{used} bytes for {tokens} tokens, expected at most {bound}");
    }
}

/// The stages themselves allocate nothing but what rayon needs to hand out its tasks.
#[test]
fn stages_allocate_nothing() {
    let _turn = TURN.lock();
    let (tokens, vocab) = (512, 4099);
    let data = vec![bf16::ONE; tokens * vocab];
    let ids = vec![5_i64; tokens];
    let labels = Labels::new(&ids);
    let cpu = Cpu::new();
    let mut buffers = [vec![0.0_f32; tokens], vec![0.0_f32; tokens], vec![0.0_f32; tokens]];
    let mut scratch = vec![0.0_f64; cpu.log_probs_scratch(tokens, vocab)];
    let mut run = || {
        let [log_probs, maximum, log_sum] = buffers.each_mut().map(|buffer| SliceMut::new(buffer));
        let outputs = TokenOutputs::new(log_probs, maximum, log_sum);
        let (logits, counted) = (Logits::new(&data, tokens, vocab), Tokens::new(&labels, None));
        let (logits, counted) = (logits.unwrap(), counted.unwrap());
        let scratch = SliceMut::new(&mut scratch);
        let stage = LogProbs::new(&cpu, logits, counted, 1.0, outputs, scratch).unwrap();
        let before = MEMORY.current_usage();
        MEMORY.reset_peak_usage();
        cpu.log_probs(stage).unwrap();
        MEMORY.peak_usage() - before
    };
    run();
    let used = run();
    assert!(used <= 4096, "{used} bytes");
}
