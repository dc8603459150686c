//! The command line.

use std::path::PathBuf;

use clap::Parser;
use clap::value_parser;

/// Trains a small causal transformer from one SFT start with DPO and with Mask-DPO, and compares
/// them on held-out pairs.
#[derive(Debug, Clone, Parser)]
#[command(version)]
pub struct Args {
    /// Preference records, one JSON object a line; the built-in ones if not given
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,

    /// Records to evaluate on; the last 20 % of FILE if not given
    #[arg(long, value_name = "FILE", requires = "data")]
    pub held_out: Option<PathBuf>,

    /// One seed and few steps: shows that everything runs, not more
    #[arg(long)]
    pub quick: bool,

    /// Number of seeds [default: 3, with --quick 1]
    #[arg(long, value_name = "N", value_parser = value_parser!(u64).range(1..=100))]
    pub seeds: Option<u64>,

    /// Folder for align.svg and align.json
    #[arg(long, value_name = "DIR", default_value = "target/align")]
    pub out: PathBuf,

    /// Steps of supervised fine-tuning before the comparison [default: 500, with --quick 100]
    #[arg(long, value_name = "N", value_parser = steps, allow_negative_numbers = true)]
    pub sft_steps: Option<u64>,

    /// Steps of DPO and of Mask-DPO [default: 160, with --quick 30]
    #[arg(long, value_name = "N", value_parser = steps, allow_negative_numbers = true)]
    pub steps: Option<u64>,

    /// How strongly the policy is held to the reference
    #[arg(long, default_value_t = 0.1, value_parser = beta, allow_negative_numbers = true)]
    pub beta: f64,

    /// Peak learning rate of DPO and of Mask-DPO
    #[arg(long, value_name = "RATE", default_value_t = 8e-4)]
    #[arg(value_parser = positive, allow_negative_numbers = true)]
    pub learning_rate: f64,

    /// Use at most this many records of FILE for training
    #[arg(long, value_name = "N", default_value_t = 2000)]
    #[arg(value_parser = value_parser!(u64).range(1..))]
    pub max_records: u64,

    /// Shorten prompt and answer to this many tokens
    #[arg(long, value_name = "N", default_value_t = 192)]
    #[arg(value_parser = value_parser!(u64).range(8..=4096))]
    pub max_tokens: u64,
}

/// Everything that a run depends on besides its data.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Settings {
    pub seeds: u64,
    pub sft_steps: usize,
    pub steps: usize,
    /// Held-out evaluations in the course of the steps, after the one at the start.
    pub evaluations: usize,
    pub pairs_per_step: usize,
    pub beta: f64,
    pub sft_learning_rate: f64,
    pub learning_rate: f64,
    pub max_records: usize,
    pub max_tokens: usize,
    pub width: usize,
    pub heads: usize,
    pub layers: usize,
}

impl Args {
    pub fn settings(&self) -> Settings {
        let pick = |given: Option<u64>, full, quick| {
            given.unwrap_or(if self.quick { quick } else { full })
        };
        Settings {
            seeds: pick(self.seeds, 3, 1),
            sft_steps: pick(self.sft_steps, 500, 100) as usize,
            steps: pick(self.steps, 160, 30) as usize,
            evaluations: if self.quick { 2 } else { 5 },
            pairs_per_step: 8,
            beta: self.beta,
            sft_learning_rate: 5e-3,
            learning_rate: self.learning_rate,
            max_records: self.max_records as usize,
            max_tokens: self.max_tokens as usize,
            width: 96,
            heads: 2,
            layers: 2,
        }
    }
}

fn steps(text: &str) -> Result<u64, String> {
    const ERROR: &str = "must be a whole number from 1 to 10000000";
    text.parse().ok().filter(|steps| (1..=10_000_000).contains(steps)).ok_or_else(|| ERROR.into())
}

/// In the domain of the library's objectives.
fn beta(text: &str) -> Result<f64, String> {
    let beta: f64 = text.parse().map_err(|_| "not a number".to_string())?;
    let in_domain = (1e-30..=1e30).contains(&beta);
    if in_domain { Ok(beta) } else { Err("must be a number from 1e-30 to 1e30".to_string()) }
}

fn positive(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "not a number".to_string())?;
    if number.is_finite() && number > 0.0 { Ok(number) } else { Err("must be above 0".to_string()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_outside_their_domain_are_told_it() {
        let beta = "must be a number from 1e-30 to 1e30";
        let steps = "must be a whole number from 1 to 10000000";
        for (option, value, problem) in [
            ("--beta", "-1", beta),
            ("--beta", "0", beta),
            ("--beta", "1e31", beta),
            ("--beta", "NaN", beta),
            ("--steps", "0", steps),
            ("--steps", "-1", steps),
            ("--sft-steps", "10000001", steps),
            ("--learning-rate", "-1", "must be above 0"),
        ] {
            let error = Args::try_parse_from(["align", option, value]).expect_err(value);
            assert!(error.to_string().contains(problem), "{option} {value}: {error}");
        }
        let args = Args::parse_from(["align", "--beta", "1e-30", "--steps", "10000000"]);
        assert_eq!((args.beta, args.steps), (1e-30, Some(10_000_000)));
    }
}
