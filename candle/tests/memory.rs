//! No copy of the logits beyond the gradient, in a process of its own because it counts every
//! allocation.

use candle_core::{DType, Device, Var};
use peak_alloc::PeakAlloc;
use prefuse::batch::{Batch, Labels, Packing, Pairs};
use prefuse::objectives::SimPo;
use prefuse::{Loss, Term};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const TOKENS: usize = 128;
const VOCAB: usize = 32_000;

/// Per token 56 bytes, and what rayon, candle and vectors of a few entries take.
const FIXED: usize = 128 * 1024;

#[test]
fn forward_copies_nothing_and_backward_makes_the_gradient() -> Result<(), candle_core::Error> {
    let batch = Batch::new(Labels::new(vec![5; TOKENS]), packing()?)
        .and_then(|batch| batch.with_pairs(Pairs::halves(1)?));
    let terms = [Term::pairs(SimPo::new(2.0, 0.5))];
    let loss = batch.and_then(|batch| Loss::new(batch, terms)).map_err(candle_core::Error::wrap)?;
    let logits = Var::ones((TOKENS, VOCAB), DType::BF16, &Device::Cpu)?;
    let gradient = TOKENS * VOCAB * DType::BF16.size_in_bytes();
    prefuse_candle::preference_loss(&logits, &loss)?;

    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let result = prefuse_candle::preference_loss(&logits, &loss)?;
    let forward = MEMORY.peak_usage() - before;
    assert!(forward <= FIXED, "{forward} bytes in the forward");

    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let grads = result.loss.backward()?;
    let backward = MEMORY.peak_usage() - before;
    // Candle adds the gradient to zeros of its own, and the sum is a third tensor.
    assert!(backward <= 3 * gradient + FIXED, "{backward} bytes for a gradient of {gradient}");
    assert!(grads.get(&logits).is_some());
    Ok(())
}

fn packing() -> Result<Packing, candle_core::Error> {
    Packing::padded(2, TOKENS / 2).map_err(candle_core::Error::wrap)
}
