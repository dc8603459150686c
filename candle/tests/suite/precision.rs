//! In every element type: no further from the truth in f64 than candle's composed operations in
//! that type, but for a bound that is argued here.

use candle_core::DType;
use prefuse_candle::preference_loss;

use crate::Outcome;
use crate::composed;
use crate::example::{Kind, TOKENS, VOCAB, grad, values, variable};

/// Half the relative distance between neighbours, and half the absolute one near 0.
fn rounding(dtype: DType) -> (f64, f64) {
    match dtype {
        DType::BF16 => (2_f64.powi(-9), 0.0),
        DType::F16 => (2_f64.powi(-12 + 1), 2_f64.powi(-25)),
        DType::F32 => (2_f64.powi(-24), 0.0),
        _ => (2_f64.powi(-53), 0.0),
    }
}

/// What the values before the last rounding may be off by. The examples' log-probs are below 8
/// and kept in f32 (half a step: 2^-22); at most 4 of them meet in a pair, with a slope of at most
/// 1.2 each, so the loss is off by less than 2^-19, and so is each entry of a row's gradient,
/// whose slope moves by a quarter of that and whose probability by 2^-22 of itself. f64 keeps 29
/// more bits, of which candle's own f64 takes some.
fn slack(dtype: DType) -> f64 {
    if dtype == DType::F64 { 2_f64.powi(-46) } else { 2_f64.powi(-19) }
}

fn check(kind: Kind, dtype: DType) -> Outcome {
    let logits = variable(1, &[TOKENS, VOCAB], dtype)?;
    let (loss, by_logits) = composed::truth(kind, &logits)?;
    let theirs = composed::loss(kind, &logits)?;
    let ours = preference_loss(&logits, &kind.loss()?)?.loss;
    let values_dtype = if dtype == DType::F64 { DType::F64 } else { DType::F32 };
    assert_eq!((ours.dims(), ours.dtype()), (&[][..], values_dtype));
    let our_grads = grad(&ours, &logits)?;
    assert_eq!((our_grads.dims(), our_grads.dtype()), (logits.dims(), dtype));

    let ours = [values(&ours)?, values(&our_grads)?].concat();
    let theirs = [values(&theirs)?, values(&grad(&theirs, &logits)?)?].concat();
    let truth = [values(&loss)?, values(&by_logits)?].concat();
    let (relative, absolute) = rounding(dtype);
    for (index, &truth) in truth.iter().enumerate() {
        let (ours, theirs) = ((ours[index] - truth).abs(), (theirs[index] - truth).abs());
        let bound = theirs + relative * truth.abs() + absolute + slack(dtype);
        assert!(ours <= bound, "{kind:?} {dtype:?} {index}: {ours} > {bound} for {truth}");
    }
    Ok(())
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
    for (token, got) in forward.tokens().log_probs().to_f64().into_iter().enumerate() {
        assert!((got - expected[token] * mask[token]).abs() < 1e-13);
    }
    Ok(())
}
