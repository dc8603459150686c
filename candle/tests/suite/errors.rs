//! Bad input is an error that says what is wrong and what to do.

use candle_core::{DType, Device, Tensor};
use prefuse::batch::{Batch, Labels, Packing};
use prefuse::objectives::Nll;
use prefuse::{Loss, RowOptions, Sequences, Term};
use prefuse_candle::{preference_loss, token_log_probs};

use crate::Outcome;
use crate::example::{Kind, LABELS, SEQUENCES, TOKENS, VOCAB, variable};

/// Both functions refuse `logits`, and the message says each of `facts`.
#[track_caller]
fn assert_refused(logits: &Tensor, loss: &Loss<'_>, facts: &[&str]) {
    let labels = loss.batch().labels();
    let by_loss = preference_loss(logits, loss).map(|_| ());
    let by_tokens = token_log_probs(logits, labels, None, RowOptions::default()).map(|_| ());
    for result in [by_loss, by_tokens] {
        let message = result.expect_err("refused").to_string();
        for fact in facts {
            assert!(message.contains(fact), "{fact:?} not in {message:?}");
        }
    }
}

#[test]
fn layouts_that_need_a_copy_are_refused_with_advice() -> Outcome {
    let loss = Kind::Dpo.loss()?;
    let matrix = variable(1, &[TOKENS, VOCAB], DType::F32)?;
    let transposed = variable(1, &[VOCAB, TOKENS], DType::F32)?.t()?;
    let broadcast = matrix.narrow(0, 0, 1)?.broadcast_as((TOKENS, VOCAB))?;
    let shorter = variable(1, &[SEQUENCES, 4, VOCAB], DType::F32)?.narrow(1, 0, 3)?;
    for logits in [&transposed, &broadcast, &shorter] {
        assert_refused(logits, &loss, &[".contiguous()", "strides"]);
        preference_loss(&logits.contiguous()?, &loss)?;
    }
    Ok(())
}

#[test]
fn wrong_ranks_shapes_and_types_are_refused() -> Outcome {
    let loss = Kind::Dpo.loss()?;
    let device = &Device::Cpu;
    let scalar = Tensor::new(1_f32, device)?;
    assert_refused(&scalar, &loss, &["rank 2 or more", "scalar"]);
    let flat = Tensor::zeros(TOKENS * VOCAB, DType::F32, device)?;
    assert_refused(&flat, &loss, &["rank 2 or more", "[132]"]);
    let short = Tensor::zeros((TOKENS - 1, VOCAB), DType::F32, device)?;
    assert_refused(&short, &loss, &["rows of logits", "11", "12"]);
    let integers = Tensor::zeros((TOKENS, VOCAB), DType::I64, device)?;
    assert_refused(&integers, &loss, &["expected f32, f16, bf16 or f64", "i64"]);
    for shape in [[0, VOCAB], [TOKENS, 0]] {
        assert_refused(&Tensor::zeros(&shape, DType::F32, device)?, &loss, &["at least 1"]);
    }
    Ok(())
}

#[test]
fn labels_outside_the_vocabulary_are_refused() -> Outcome {
    for label in [VOCAB as i64, -1, i64::MAX, i64::MIN] {
        let mut labels = LABELS;
        labels[4] = label;
        let batch = Batch::new(Labels::new(&labels[..]), Packing::padded(SEQUENCES, 3)?)?;
        let loss = Loss::new(batch, [Term::sequences(Nll::new(), Sequences::All)])?;
        for dtype in [DType::F64, DType::F32, DType::F16, DType::BF16] {
            let logits = variable(1, &[TOKENS, VOCAB], dtype)?;
            assert_refused(&logits, &loss, &["label of token 4", &label.to_string()]);
        }
    }
    Ok(())
}

#[test]
fn upstream_gradients_that_are_not_finite_are_refused() -> Outcome {
    let logits = variable(1, &[TOKENS, VOCAB], DType::F32)?;
    let loss = preference_loss(&logits, &Kind::Dpo.loss()?)?.loss;
    let error = (loss * f64::INFINITY)?.backward().map(|_| ()).expect_err("refused");
    assert!(error.to_string().contains("upstream gradient"), "{error}");
    Ok(())
}
