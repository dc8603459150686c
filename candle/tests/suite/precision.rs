//! In every element type: no further from the truth in f64 than candle's composed operations in
//! that type, but for a bound that is argued here.

use candle_core::{DType, Tensor};
use prefuse_candle::preference_loss;

use crate::Outcome;
use crate::composed;
use crate::example::{Kind, TOKENS, VOCAB, grad, values, variable};

/// What one rounding to `dtype` moves: relative to the number, and at least.
fn rounding(dtype: DType) -> (f64, f64) {
    match dtype {
        DType::BF16 => (2_f64.powi(-8), 0.0),
        DType::F16 => (2_f64.powi(-11), 2_f64.powi(-25)),
        DType::F32 => (2_f64.powi(-24), 0.0),
        _ => (2_f64.powi(-53), 0.0),
    }
}

/// What the numbers before that rounding may be off by. The log-probs of the example are below 8
/// and computed in f32: half a step (2^-22) each for the log-sum and for themselves. Four of them
/// meet in a pair, with a slope of at most 1.2 each, so the loss is off by less than 2^-18; and so
/// is each entry of the gradient, a slope that moves by less than the loss, times a probability
/// that moves by 2^-21 of itself. f64 has 29 more bits, of which the composed truth takes one.
fn slack(dtype: DType) -> f64 {
    if dtype == DType::F64 { 2_f64.powi(-46) } else { 2_f64.powi(-18) }
}

#[track_caller]
fn assert_as_close(ours: &Tensor, theirs: &Tensor, truth: &Tensor, slack: f64) -> Outcome {
    let (relative, absolute) = rounding(ours.dtype());
    let (ours, theirs, truth) = (values(ours)?, values(theirs)?, values(truth)?);
    for (index, &truth) in truth.iter().enumerate() {
        let (ours, theirs) = ((ours[index] - truth).abs(), (theirs[index] - truth).abs());
        let bound = theirs + relative * truth.abs() + absolute + slack;
        assert!(ours <= bound, "{index}: off by {ours}, bound {bound}, truth {truth}");
    }
    Ok(())
}

fn check(kind: Kind, dtype: DType) -> Outcome {
    let logits = variable(1, &[TOKENS, VOCAB], dtype)?;
    let (truth, true_grads) = composed::truth(kind, &logits)?;
    let theirs = composed::loss(kind, &logits)?;
    let ours = preference_loss(&logits, &kind.loss()?)?.loss;
    let loss_dtype = if dtype == DType::F64 { DType::F64 } else { DType::F32 };
    assert_eq!((ours.dims(), ours.dtype()), (&[][..], loss_dtype));
    assert_as_close(&ours, &theirs, &truth, slack(dtype))?;

    let (ours, theirs) = (grad(&ours, &logits)?, grad(&theirs, &logits)?);
    assert_eq!((ours.dims(), ours.dtype()), (logits.dims(), dtype));
    assert_as_close(&ours, &theirs, &true_grads, slack(dtype))
}

#[test]
fn every_dtype_is_as_close_to_the_truth_as_composed_operations() -> Outcome {
    for kind in Kind::ALL {
        for dtype in [DType::F64, DType::F32, DType::F16, DType::BF16] {
            check(kind, dtype)?;
        }
    }
    Ok(())
}

#[test]
fn forward_holds_the_values_behind_the_loss() -> Outcome {
    let logits = variable(1, &[TOKENS, VOCAB], DType::F64)?;
    let result = preference_loss(&logits, &Kind::SimPoNll.loss()?)?;
    let forward = &result.forward;
    assert_eq!(forward.terms().len(), 2);
    let sum: f64 = forward.terms().iter().map(|term| term.value).sum();
    assert_eq!(sum, result.loss.to_scalar::<f64>()?);
    assert!(forward.metrics().is_some());
    let expected = values(&composed::log_probs(&logits)?)?;
    let mask = Kind::SimPoNll.mask();
    for (token, got) in forward.tokens().log_probs().to_vec()?.into_iter().enumerate() {
        assert!((got - expected[token] * mask[token]).abs() < 1e-13);
    }
    Ok(())
}
