//! Memory beyond the logits and their gradient is a few numbers for each token, in a process of its
//! own because it counts every allocation.
#![allow(missing_docs, clippy::unwrap_used)]

use half::bf16;
use peak_alloc::PeakAlloc;
use prefuse::batch::{Batch, Labels, LogitsMut, Packing, Pairs, ReferenceLogProbs};
use prefuse::objectives::Dpo;
use prefuse::{Cpu, Loss, MaskedRows, Term, Upstream};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Bytes for each token: log-prob, maximum, log-sum and their gradient in f32; five f64 results of
/// a row before they are rounded.
const PER_TOKEN: usize = 4 * 4 + 5 * 8;

/// Bytes for each pair and sequence, rayon's queues, and vectors of a few entries.
const FIXED: usize = 64 * 1024;

#[test]
fn beyond_inputs_and_gradient_it_is_per_token() {
    for (tokens, vocab) in [(64, 32_000), (512, 32_000), (8192, 1000)] {
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
