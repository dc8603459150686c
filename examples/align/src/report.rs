//! The results as text.

use std::fmt::Write;

use crate::notes::counted;
use crate::results::{Metric, Results, Spread, Summary, differences, methods};

const LABEL: usize = 42;
const COLUMN: usize = 17;

/// The table that ends a run, with its notes.
pub fn render(results: &Results) -> String {
    let mut text = String::new();
    let (seeds, steps) = (results.settings.seeds, results.settings.steps);
    let spread = if seeds > 1 {
        format!("mean ± standard deviation over {seeds} seeds")
    } else {
        "one seed".to_string()
    };
    let pairs = counted(results.held_out_pairs, "held-out pair");
    line(&mut text, &format!("{pairs} after {steps} steps, {spread}"));
    line(&mut text, "");
    line(&mut text, &header(results));
    let mut headed = false;
    for metric in Metric::ALL {
        let lines: Vec<_> =
            results.summary.iter().filter(|summary| summary.metric == metric).collect();
        if let Some(first) = lines.first() {
            if metric.is_change() && !headed {
                line(&mut text, "log-probability per token, and its change");
                headed = true;
            }
            line(&mut text, &row(metric, first, &lines));
        }
    }
    for note in conclusion(results).iter().chain(&results.notes) {
        line(&mut text, "");
        line(&mut text, note);
    }
    text
}

fn line(text: &mut String, line: &str) {
    text.push_str(line.trim_end());
    text.push('\n');
}

fn header(results: &Results) -> String {
    let mut header = format!("{:LABEL$}{:>COLUMN$}", "", "SFT start");
    for method in methods(&results.runs) {
        // Writing to a string cannot fail.
        let _ = write!(header, "{:>COLUMN$}", method.name());
    }
    header
}

fn row(metric: Metric, first: &Summary, methods: &[&Summary]) -> String {
    let start = match metric {
        Metric::Margin => "0".to_string(),
        Metric::Accuracy => "-".to_string(),
        _ => format!("{:.3}", first.start.mean),
    };
    let mut row = format!("{:LABEL$}{start:>COLUMN$}", label(metric));
    for method in methods {
        let _ = write!(row, "{:>COLUMN$}", figure(metric, method.end));
    }
    row
}

fn label(metric: Metric) -> &'static str {
    match metric {
        Metric::Margin => "margin over the start, nats",
        Metric::Accuracy => "pairs with a margin above 0",
        Metric::FactualInRejected => "  true sentences in rejected answers",
        Metric::NonFactualInRejected => "  false sentences in rejected answers",
        Metric::FactualInChosen => "  true sentences in chosen answers",
    }
}

fn figure(metric: Metric, spread: Spread) -> String {
    let format = |value: f64, signed: bool| match (metric, signed) {
        (Metric::Margin, true) => format!("{value:+.2}"),
        (Metric::Margin, false) => format!("{value:.2}"),
        (Metric::Accuracy, _) => format!("{:.1} %", 100.0 * value),
        (_, true) => format!("{value:+.3}"),
        (_, false) => format!("{value:.3}"),
    };
    match spread.deviation {
        Some(deviation) => {
            let mean = format(spread.mean, true);
            format!("{} ± {}", mean.trim_end_matches(" %"), format(deviation, false))
        }
        None => format(spread.mean, true),
    }
}

/// What the mask changes for the sentences it is there for, whichever way it came out.
fn conclusion(results: &Results) -> Option<String> {
    let differences = differences(&results.runs, Metric::FactualInRejected);
    let spread = Spread::of(&differences)?;
    let direction = if spread.mean >= 0.0 { "more" } else { "less" };
    let by_seed: Vec<_> = differences.iter().map(|value| format!("{value:+.3}")).collect();
    Some(format!(
        "After Mask-DPO the true sentences in rejected answers are {direction} likely than after \
         DPO,\nby {:.3} nats per token in the mean (seed by seed {}).",
        spread.mean.abs(),
        by_seed.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::Method;
    use crate::results::tests::run;
    use crate::results::{Run, summarize};
    use clap::Parser;

    fn results(runs: Vec<Run>, seeds: u64) -> Results {
        let mut settings = crate::args::Args::parse_from(["align"]).settings();
        settings.seeds = seeds;
        Results {
            data: "built-in".to_string(),
            training_pairs: 8,
            held_out_pairs: 4,
            vocabulary: 300,
            notes: vec!["A note.".to_string()],
            settings,
            summary: summarize(&runs),
            runs,
        }
    }

    #[test]
    fn both_methods_stand_side_by_side() {
        let runs = vec![
            run(Method::Dpo, 0, 0.5),
            run(Method::MaskDpo, 0, 0.75),
            run(Method::Dpo, 1, 0.25),
            run(Method::MaskDpo, 1, 0.25),
        ];
        let text = render(&results(runs, 2));
        assert!(text.contains("SFT start              DPO         Mask-DPO\n"), "{text}");
        assert!(text.contains("+3.75 ± 1.77     +5.00 ± 3.54\n"), "{text}");
        assert!(text.contains("37.5 ± 17.7 %    50.0 ± 35.4 %\n"), "{text}");
        assert!(text.contains("-2.000   +0.375 ± 0.177   +0.500 ± 0.354\n"), "{text}");
        assert!(text.contains("more likely"), "{text}");
        assert!(text.contains("by 0.125 nats per token in the mean (seed by seed +0.250, +0.000)"));
        assert!(text.ends_with("\nA note.\n"));
    }

    #[test]
    fn a_result_against_the_mask_is_said_as_well() {
        let runs = vec![run(Method::Dpo, 0, 0.5), run(Method::MaskDpo, 0, 0.25)];
        assert!(render(&results(runs, 1)).contains("less likely than after DPO,\nby 0.250"));
    }

    #[test]
    fn the_first_sentence_figures_have_the_heading() {
        let heading = "log-probability per token, and its change\n";
        let mut alone = run(Method::Dpo, 0, 0.5);
        let text = render(&results(vec![alone.clone()], 1));
        assert!(text.contains(&format!("{heading}  true sentences in rejected")), "{text}");
        assert_eq!(text.matches(heading).count(), 1);
        for point in &mut alone.points {
            point.measures.factual_in_rejected = None;
        }
        let text = render(&results(vec![alone.clone()], 1));
        assert!(text.contains(&format!("{heading}  true sentences in chosen")), "{text}");
        for point in &mut alone.points {
            point.measures.factual_in_chosen = None;
        }
        assert!(!render(&results(vec![alone], 1)).contains(heading));
    }

    #[test]
    fn a_single_pair_is_singular() {
        let mut results = results(vec![run(Method::Dpo, 0, 0.5)], 1);
        results.held_out_pairs = 1;
        assert!(render(&results).starts_with("1 held-out pair after 160 steps"));
    }

    #[test]
    fn dpo_alone_has_one_column_and_no_spread() {
        let text = render(&results(vec![run(Method::Dpo, 0, 0.5)], 1));
        assert!(text.contains("one seed"), "{text}");
        assert!(!text.contains("Mask-DPO"), "{text}");
        assert!(text.contains(" 50.0 %\n") && !text.contains('±'), "{text}");
    }
}
