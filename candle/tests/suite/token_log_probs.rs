//! Differentiable log-probs and entropies.

use candle_core::{DType, Device, Result, Tensor};
use prefuse::RowOptions;
use prefuse::batch::{Labels, Weights};
use prefuse_candle::token_log_probs;

use crate::Outcome;
use crate::composed;
use crate::example::{
    Kind, LABELS, SEQUENCES, TOKENS, VOCAB, assert_close, grad, noise, values, variable,
};

const TEMPERATURE: f64 = 0.7;

fn labels() -> Labels<'static> {
    Labels::new(LABELS.to_vec())
}

/// Random factors of both signs, some of them 0.
fn factors(seed: u64, dtype: DType) -> Result<Tensor> {
    let mut factors = noise(seed, TOKENS, 2.0);
    (factors[1], factors[6]) = (0.0, 0.0);
    Tensor::new(factors, &Device::Cpu)?.to_dtype(dtype)
}

fn masked(values: &Tensor, mask: &[f64]) -> Result<Tensor> {
    values * Tensor::new(mask, &Device::Cpu)?.to_dtype(values.dtype())?
}

#[test]
fn values_and_gradients_are_those_of_composed_operations() -> Outcome {
    for (dtype, bound) in [(DType::F64, 1e-13), (DType::F32, 5e-6)] {
        let logits = variable(11, &[TOKENS, VOCAB], dtype)?;
        let mask = Kind::Dpo.mask();
        let scaled = (logits.as_tensor() / TEMPERATURE)?;
        let expected = masked(&composed::log_probs(&scaled)?, &mask)?;
        let log_softmax = composed::log_softmax(&scaled)?;
        let entropies = masked(&(log_softmax.exp()? * &log_softmax)?.sum(1)?.neg()?, &mask)?;

        let options = RowOptions::default().with_temperature(TEMPERATURE);
        let plain = token_log_probs(&logits, &labels(), None, options)?;
        assert!(plain.entropies.is_none() && plain.argmax.is_none());
        assert!(plain.log_sum_squares.is_none());
        let full = token_log_probs(&logits, &labels(), None, options.with_entropy())?;
        let ours = full.entropies.ok_or("no entropies")?;
        assert_close(&plain.log_probs, &expected, bound)?;
        assert_close(&full.log_probs, &expected, bound)?;
        assert_close(&ours, &entropies, bound)?;

        let (by_log_prob, by_entropy) = (factors(12, dtype)?, factors(13, dtype)?);
        let weighted = |values: &Tensor| (values * &by_log_prob)?.sum_all();
        let both = |log_probs: &Tensor, entropies: &Tensor| -> Result<Tensor> {
            weighted(log_probs)? + (entropies * &by_entropy)?.sum_all()?
        };
        let got = grad(&weighted(&plain.log_probs)?, &logits)?;
        assert_close(&got, &grad(&weighted(&expected)?, &logits)?, bound)?;
        let got = grad(&both(&full.log_probs, &ours)?, &logits)?;
        assert_close(&got, &grad(&both(&expected, &entropies)?, &logits)?, bound)?;
    }
    Ok(())
}

#[test]
fn half_precision_logits_have_f32_log_probs() -> Outcome {
    for (dtype, rounding) in [(DType::BF16, 2_f64.powi(-9)), (DType::F16, 2_f64.powi(-12))] {
        let logits = variable(14, &[SEQUENCES, 3, VOCAB], dtype)?;
        let exact = candle_core::Var::from_tensor(&logits.to_dtype(DType::F64)?)?;
        let options = RowOptions::default();
        let ours = token_log_probs(&logits, &labels(), None, options)?.log_probs;
        let truth = token_log_probs(&exact, &labels(), None, options)?.log_probs;
        assert_eq!((ours.dims(), ours.dtype()), (&[TOKENS][..], DType::F32));
        assert_close(&ours, &truth, 2_f64.powi(-21))?;
        // No entry is above 1, where one rounding moves by at most half the step below 1.
        let (ours, truth) = (grad(&ours.sum_all()?, &logits)?, grad(&truth.sum_all()?, &exact)?);
        assert_close(&ours, &truth, rounding + 2_f64.powi(-20))?;
    }
    Ok(())
}

#[test]
fn squares_of_the_probabilities() -> Outcome {
    for (dtype, bound) in [(DType::F32, 4e-6), (DType::F64, 1e-13)] {
        let logits = variable(17, &[TOKENS, VOCAB], dtype)?;
        let options = RowOptions::default().with_temperature(0.7).with_log_sum_squares();
        let got = token_log_probs(&logits, &labels(), None, options)?;
        assert!(got.entropies.is_none() && got.argmax.is_none());
        let scaled = (logits.to_dtype(DType::F64)? / 0.7)?;
        let expected = composed::log_softmax(&scaled)?.exp()?.sqr()?.sum(1)?.log()?;
        let got = got.log_sum_squares.ok_or("no squares")?;
        for (token, expected) in expected.to_vec1::<f64>()?.into_iter().enumerate() {
            let expected = if LABELS[token] == Labels::IGNORE { 0.0 } else { expected };
            assert!((got[token] - expected).abs() < bound, "{}, not {expected}", got[token]);
        }
    }
    Ok(())
}

#[test]
fn tokens_of_weight_0_do_not_count_and_weights_do_not_scale() -> Outcome {
    let logits = variable(15, &[TOKENS, VOCAB], DType::F32)?;
    let mut weights = [2.5_f32; TOKENS];
    weights[3] = 0.0;
    let weights = Weights::new(&weights[..])?;
    let options = RowOptions::default().with_argmax();
    let some = token_log_probs(&logits, &labels(), Some(&weights), options)?;
    let all = token_log_probs(&logits, &labels(), None, options)?;
    let (some_values, mut all_values) = (values(&some.log_probs)?, values(&all.log_probs)?);
    all_values[3] = 0.0;
    assert_eq!(some_values, all_values);
    let grads = values(&grad(&some.log_probs.sum_all()?, &logits)?)?;
    assert!(grads[3 * VOCAB..4 * VOCAB].iter().all(|&grad| grad == 0.0));
    let argmax = some.argmax.ok_or("no argmax")?;
    let expected = logits.argmax(1)?.to_vec1::<u32>()?;
    for (token, &index) in argmax.iter().enumerate() {
        let counts = LABELS[token] != Labels::IGNORE && token != 3;
        assert_eq!(index, if counts { i64::from(expected[token]) } else { -1 });
    }
    Ok(())
}
