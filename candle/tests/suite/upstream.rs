//! The loss inside a larger one, and backward more than once.

use candle_core::{DType, Tensor};
use prefuse_candle::preference_loss;

use crate::Outcome;
use crate::composed;
use crate::example::{Kind, TOKENS, VOCAB, assert_close, grad, values, variable};

/// Upstream gradient `-3 + 2 loss`, and a second way to the logits.
fn larger(loss: &Tensor, logits: &Tensor) -> candle_core::Result<Tensor> {
    (((loss * -3.0)? + loss.sqr()?)? + logits.sqr()?.mean_all()?)? * 1.0
}

#[test]
fn loss_is_used_twice_and_scaled() -> Outcome {
    for (dtype, bound) in [(DType::F64, 1e-13), (DType::F32, 1e-5)] {
        for kind in Kind::ALL {
            let logits = variable(6, &[TOKENS, VOCAB], dtype)?;
            let ours = larger(&preference_loss(&logits, &kind.loss()?)?.loss, &logits)?;
            let composed = larger(&composed::loss(kind, &logits)?, &logits)?;
            assert_close(&grad(&ours, &logits)?, &grad(&composed, &logits)?, bound)?;
        }
    }
    Ok(())
}

#[test]
fn two_losses_share_logits() -> Outcome {
    let logits = variable(7, &[TOKENS, VOCAB], DType::F64)?;
    let [first, second] = [Kind::Dpo, Kind::SimPoNll];
    let ours = (preference_loss(&logits, &first.loss()?)?.loss
        + preference_loss(&logits, &second.loss()?)?.loss)?;
    let composed = (composed::loss(first, &logits)? + composed::loss(second, &logits)?)?;
    Ok(assert_close(&grad(&ours, &logits)?, &grad(&composed, &logits)?, 1e-13)?)
}

#[test]
fn two_backward_calls_give_the_same_bits() -> Outcome {
    for dtype in [DType::F64, DType::F32, DType::F16, DType::BF16] {
        let logits = variable(8, &[TOKENS, VOCAB], dtype)?;
        let loss = preference_loss(&logits, &Kind::MaskDpo.loss()?)?.loss;
        let first = values(&grad(&loss, &logits)?)?;
        assert!(first.iter().any(|&grad| grad != 0.0));
        assert_eq!(first, values(&grad(&loss, &logits)?)?);
    }
    Ok(())
}

#[test]
fn rows_that_do_not_count_get_exactly_0_whatever_they_hold() -> Outcome {
    let kind = Kind::MaskDpo;
    let counts = kind.mask();
    let column = counts.iter().map(|&mask| if mask == 0. { f32::NAN } else { 0. });
    let column = Tensor::from_iter(column, &candle_core::Device::Cpu)?.unsqueeze(1)?;
    let logits = variable(9, &[TOKENS, VOCAB], DType::F32)?;
    let logits = candle_core::Var::from_tensor(&logits.broadcast_add(&column)?)?;
    let grads = values(&grad(&preference_loss(&logits, &kind.loss()?)?.loss, &logits)?)?;
    for (row, &mask) in grads.chunks(VOCAB).zip(&counts) {
        assert!(row.iter().all(|&grad| if mask == 0. { grad == 0. } else { grad.is_finite() }));
    }
    Ok(())
}

#[test]
fn tensors_without_variables_have_no_backward() -> Outcome {
    let logits = variable(8, &[TOKENS, VOCAB], DType::F32)?.detach();
    let loss = preference_loss(&logits, &Kind::Dpo.loss()?)?.loss;
    assert!(loss.backward()?.get(&logits).is_none());
    Ok(())
}
