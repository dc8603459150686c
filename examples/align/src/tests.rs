//! What the mask does in training.

use clap::Parser;

use crate::args::{Args, Settings};
use crate::compare;
use crate::data::Data;
use crate::results::{Metric, Spread, differences};

fn quick(seeds: &str) -> (Data, Settings) {
    let args = Args::parse_from(["align", "--quick", "--seeds", seeds]);
    let settings = args.settings();
    (Data::load(&args, &settings).expect("built-in data"), settings)
}

/// Only the sign of the mean is asserted: how large the effect is depends on data and steps.
#[test]
fn the_mask_spares_true_sentences_in_rejected_answers() {
    let (data, settings) = quick("2");
    let runs = compare(&data, &settings).expect("a quick run");
    let differences = differences(&runs, Metric::FactualInRejected);
    assert_eq!(differences.len(), 2);
    assert!(Spread::of(&differences).expect("two values").mean > 0.0, "{differences:?}");
}

#[test]
fn a_run_that_diverges_stops() {
    let args =
        Args::parse_from(["align", "--quick", "--sft-steps", "1", "--learning-rate", "1e30"]);
    let settings = args.settings();
    let data = Data::load(&args, &settings).expect("built-in data");
    let error = compare(&data, &settings).expect_err("a divergence").to_string();
    assert!(error.starts_with("seed 0, DPO step "), "{error}");
    assert!(error.ends_with("; lower --learning-rate"), "{error}");
}
