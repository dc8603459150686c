//! The results as a picture: one panel a metric, one line a method, bands for the spread.

use std::fmt::Write;

use crate::loss::Method;
use crate::notes::counted;
use crate::results::{Metric, Results, Spread, course, methods};

const WIDTH: f64 = 1096.0;
const HEIGHT: f64 = 380.0;
const PANEL_WIDTH: f64 = 272.0;
const PANEL_HEIGHT: f64 = 216.0;
const PANEL_TOP: f64 = 108.0;
const FIRST_PANEL: f64 = 62.0;
const PANEL_DISTANCE: f64 = 350.0;

const PANELS: [(Metric, &str, &str); 3] = [
    (Metric::Margin, "Preference margin", "nats over the start"),
    (Metric::Accuracy, "Accuracy", "% of pairs with a margin above 0"),
    (Metric::FactualInRejected, "True sentences in rejected answers", "log-prob per token, change"),
];

const STYLE: &str = "\
text { font-family: system-ui, -apple-system, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif; \
font-size: 12px; fill: #52525b } \
.title { font-size: 17px; font-weight: 600; fill: #18181b } \
.panel { font-size: 13px; font-weight: 600; fill: #18181b } \
.grid { stroke: #e4e4e7; stroke-width: 1 } \
.axis { stroke: #a1a1aa; stroke-width: 1 } \
.line { fill: none; stroke-width: 2.25; stroke-linejoin: round; stroke-linecap: round } \
.value { font-size: 11px; font-weight: 600 }";

/// The picture as an SVG document that needs nothing from outside.
pub fn render(results: &Results) -> String {
    let seeds = results.settings.seeds;
    let spread = if seeds > 1 {
        format!("mean and standard deviation over {seeds} seeds")
    } else {
        "one seed".to_string()
    };
    let names: Vec<_> = methods(&results.runs).into_iter().map(Method::name).collect();
    let title = format!("{} from the same SFT start", names.join(" and "));
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         width=\"{WIDTH}\" height=\"{HEIGHT}\" role=\"img\">\n<title>{title}</title>\n\
         <style>{STYLE}</style>\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    text(&mut svg, 20.0, 34.0, "class=\"title\"", &title);
    let subtitle = format!("{}, {spread}", counted(results.held_out_pairs, "held-out pair"));
    text(&mut svg, 20.0, 56.0, "", &subtitle);
    legend(&mut svg, &methods(&results.runs));
    for (index, (metric, name, unit)) in PANELS.into_iter().enumerate() {
        let left = FIRST_PANEL + PANEL_DISTANCE * index as f64;
        let lines: Vec<Line> = methods(&results.runs)
            .into_iter()
            .map(|method| Line::new(method, metric, course(&results.runs, method, metric)))
            .filter(|line| !line.points.is_empty())
            .collect();
        text(&mut svg, left, PANEL_TOP - 26.0, "class=\"panel\"", name);
        text(&mut svg, left, PANEL_TOP - 10.0, "", unit);
        match Frame::around(left, &lines) {
            Some(frame) => panel(&mut svg, &frame, &lines),
            None => text(&mut svg, left, PANEL_TOP + 60.0, "", "no labelled sentences"),
        }
    }
    svg.push_str("</svg>\n");
    svg
}

fn color(method: Method) -> &'static str {
    match method {
        Method::Dpo => "#ea580c",
        Method::MaskDpo => "#2563eb",
    }
}

/// A method's way through one metric.
struct Line {
    method: Method,
    points: Vec<(f64, Spread)>,
}

impl Line {
    fn new(method: Method, metric: Metric, course: Vec<(usize, Spread)>) -> Self {
        let scale = if metric == Metric::Accuracy { 100.0 } else { 1.0 };
        // No pair has a margin at the start, which is not the same as every pair being wrong.
        let skipped = usize::from(metric == Metric::Accuracy);
        let scaled = |(step, spread): (usize, Spread)| {
            let deviation = spread.deviation.map(|deviation| deviation * scale);
            (step as f64, Spread { mean: spread.mean * scale, deviation })
        };
        Self { method, points: course.into_iter().skip(skipped).map(scaled).collect() }
    }
}

fn low(spread: &Spread) -> f64 {
    spread.mean - spread.deviation.unwrap_or(0.0)
}

fn high(spread: &Spread) -> f64 {
    spread.mean + spread.deviation.unwrap_or(0.0)
}

/// Maps steps and values to the picture.
struct Frame {
    left: f64,
    steps: f64,
    bottom: f64,
    top: f64,
    ticks: Vec<f64>,
    decimals: usize,
}

impl Frame {
    fn around(left: f64, lines: &[Line]) -> Option<Self> {
        let spreads = || lines.iter().flat_map(|line| line.points.iter());
        let bottom = spreads().map(|(_, spread)| low(spread)).reduce(f64::min)?;
        let top = spreads().map(|(_, spread)| high(spread)).reduce(f64::max)?;
        let steps = spreads().map(|&(step, _)| step).reduce(f64::max)?;
        let distance = tick_distance(top - bottom);
        let first = (bottom / distance).floor();
        let count = (top / distance).ceil() - first;
        let ticks: Vec<f64> =
            (0..=count as usize).map(|index| (first + index as f64) * distance).collect();
        let decimals = (-distance.log10().floor()).max(0.0) as usize;
        Some(Self { left, steps, bottom: ticks[0], top: *ticks.last()?, ticks, decimals })
    }

    fn x(&self, step: f64) -> f64 {
        self.left + step / self.steps.max(1.0) * PANEL_WIDTH
    }

    fn y(&self, value: f64) -> f64 {
        let height = (self.top - self.bottom).max(f64::MIN_POSITIVE);
        PANEL_TOP + (self.top - value) / height * PANEL_HEIGHT
    }
}

/// A distance of 1, 2 or 5 times a power of ten that gives four to eight ticks.
fn tick_distance(range: f64) -> f64 {
    let rough = (range / 5.0).max(1e-6);
    let power = 10f64.powf(rough.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .map(|factor| factor * power)
        .into_iter()
        .find(|&d| d >= rough)
        .unwrap_or(10.0 * power)
}

fn panel(svg: &mut String, frame: &Frame, lines: &[Line]) {
    axes(svg, frame);
    for line in lines {
        band(svg, frame, line);
    }
    for line in lines {
        let points: Vec<_> =
            line.points.iter().map(|(step, spread)| (*step, spread.mean)).collect();
        let path = path(frame, &points);
        let color = color(line.method);
        let _ = writeln!(svg, "<polyline class=\"line\" stroke=\"{color}\" points=\"{path}\"/>");
        for (step, mean) in points {
            let (x, y) = (frame.x(step), frame.y(mean));
            let _ =
                writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.75\" fill=\"{color}\"/>");
        }
    }
    end_values(svg, frame, lines);
}

fn axes(svg: &mut String, frame: &Frame) {
    let (left, right) = (frame.left, frame.left + PANEL_WIDTH);
    for &tick in &frame.ticks {
        let y = frame.y(tick);
        let class = if tick == 0.0 { "axis" } else { "grid" };
        let _ = writeln!(
            svg,
            "<line class=\"{class}\" x1=\"{left:.1}\" x2=\"{right:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>"
        );
        // Adding zero turns -0 into 0.
        let label = minus(&format!("{:.*}", frame.decimals, tick + 0.0));
        text(svg, left - 8.0, y + 4.0, "text-anchor=\"end\"", &label);
    }
    let y = PANEL_TOP + PANEL_HEIGHT + 18.0;
    for step in [0.0, frame.steps] {
        text(svg, frame.x(step), y, "text-anchor=\"middle\"", &format!("{step}"));
    }
    text(svg, frame.x(frame.steps / 2.0), y, "text-anchor=\"middle\"", "steps");
}

fn band(svg: &mut String, frame: &Frame, line: &Line) {
    if line.points.iter().all(|(_, spread)| spread.deviation.is_none()) {
        return;
    }
    let above = line.points.iter().map(|(step, spread)| (*step, high(spread)));
    let below = line.points.iter().rev().map(|(step, spread)| (*step, low(spread)));
    let path = path(frame, &above.chain(below).collect::<Vec<_>>());
    let color = color(line.method);
    let _ = writeln!(svg, "<polygon fill=\"{color}\" fill-opacity=\"0.16\" points=\"{path}\"/>");
}

/// The last value of each line beside its end, moved apart where the ends lie close.
fn end_values(svg: &mut String, frame: &Frame, lines: &[Line]) {
    let mut ends: Vec<_> = lines
        .iter()
        .filter_map(|line| line.points.last().map(|(_, spread)| (line.method, spread.mean)))
        .collect();
    ends.sort_by(|a, b| b.1.total_cmp(&a.1));
    let mut lowest = f64::NEG_INFINITY;
    for (method, mean) in ends {
        let y = (frame.y(mean) + 4.0).max(lowest + 13.0);
        lowest = y;
        let attributes = format!("class=\"value\" style=\"fill: {}\"", color(method));
        let value = minus(&format!("{:.*}", frame.decimals + 1, mean));
        text(svg, frame.left + PANEL_WIDTH + 7.0, y, &attributes, &value);
    }
}

fn legend(svg: &mut String, methods: &[Method]) {
    let mut right = WIDTH - 20.0;
    for &method in methods.iter().rev() {
        let left = right - 28.0 - 7.5 * method.name().len() as f64;
        let color = color(method);
        let _ = writeln!(
            svg,
            "<rect x=\"{left:.1}\" y=\"24\" width=\"20\" height=\"4\" rx=\"2\" fill=\"{color}\"/>"
        );
        text(svg, left + 27.0, 31.0, "style=\"font-size: 13px; fill: #18181b\"", method.name());
        right = left - 18.0;
    }
}

fn path(frame: &Frame, points: &[(f64, f64)]) -> String {
    let point = |&(step, value): &(f64, f64)| format!("{:.1},{:.1}", frame.x(step), frame.y(value));
    points.iter().map(point).collect::<Vec<_>>().join(" ")
}

fn text(svg: &mut String, x: f64, y: f64, attributes: &str, content: &str) {
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" {attributes}>{content}</text>");
}

/// A proper minus sign.
fn minus(number: &str) -> String {
    number.replace('-', "−")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_numbers() {
        for (range, distance) in [(10.0, 2.0), (0.3, 0.1), (47.0, 10.0), (1.7, 0.5)] {
            assert!((tick_distance(range) - distance).abs() < 1e-9, "{range}");
        }
        assert!(tick_distance(0.0) > 0.0);
    }

    #[test]
    fn a_frame_holds_every_band() {
        let spread = |mean| Spread { mean, deviation: Some(1.0) };
        let points = vec![(0.0, spread(0.0)), (80.0, spread(12.0))];
        let line = Line { method: Method::Dpo, points };
        let frame = Frame::around(50.0, &[line]).expect("a frame");
        assert!(frame.bottom <= -1.0 && frame.top >= 13.0);
        assert_eq!((frame.x(0.0), frame.x(80.0)), (50.0, 50.0 + PANEL_WIDTH));
        assert!(Frame::around(50.0, &[]).is_none());
    }
}
