//! Candle keeps the graph of gradients under an environment variable that each thread reads once,
//! so the check runs in a process of its own.

use std::process::Command;

use candle_core::DType;
use prefuse_candle::preference_loss;

use crate::Outcome;
use crate::example::{Kind, TOKENS, VOCAB, grad, variable};

const KEEP: &str = "CANDLE_GRAD_DO_NOT_DETACH";

#[test]
#[ignore = "run by second_derivatives_are_refused"]
fn in_a_process_that_keeps_gradient_graphs() -> Outcome {
    assert!(std::env::var(KEEP).is_ok());
    let logits = variable(1, &[TOKENS, VOCAB], DType::F32)?;
    let first = grad(&preference_loss(&logits, &Kind::Dpo.loss()?)?.loss, &logits)?;
    let error = first.sqr()?.sum_all()?.backward().map(|_| ()).expect_err("refused");
    assert!(error.to_string().contains("prefuse-preference-loss-gradient"), "{error}");
    Ok(())
}

#[test]
fn second_derivatives_are_refused() -> Outcome {
    let test = "second_derivative::in_a_process_that_keeps_gradient_graphs";
    let output = Command::new(std::env::current_exe()?)
        .args(["--exact", test, "--ignored"])
        .env(KEEP, "1")
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    Ok(())
}
