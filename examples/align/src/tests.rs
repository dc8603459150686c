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
