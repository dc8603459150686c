//! How near log-probs are to the correctly rounded ones.

use super::*;

/// Rows that are adversaries of a sum of exponentials: one or two far above, each a little above the next, all
/// about equal, spread over all that f32's exponentials have, and with a common offset.
fn adversaries(columns: usize) -> Vec<Vec<f32>> {
    let noise: Vec<f32> = row(Kind::Normal, columns, 11);
    let of = |x: &dyn Fn(usize) -> f32| (0..columns).map(x).collect::<Vec<f32>>();
    let mut rows = vec![
        of(&|v| -0.01 * v as f32),
        of(&|v| -((v * 7919 % columns) as f32) * 87.0 / columns as f32),
        of(&|v| 1e-3 * noise[v]),
        of(&|v| 1e4 + noise[v]),
        of(&|v| if v % 2 == 0 { f32::NEG_INFINITY } else { noise[v] }),
    ];
    // The others larger in size than the maximum.
    for depth in [7.3, 20.3, 45.9, 64.5] {
        rows.push(of(&|v| if v == columns / 3 { 1.305_919_6 } else { noise[v] / 3.0 - depth }));
    }
    for gap in [1.0, 3.0, 7.0, 12.3, 16.7, 25.1, 50.3, 77.7] {
        rows.push(of(&|v| if v == columns / 3 { gap + 12.0 } else { noise[v] / 3.0 }));
        rows.push(of(&|v| {
            if v % (columns / 2) == columns / 4 { gap + 12.0 } else { noise[v] / 3.0 }
        }));
    }
    rows
}

/// Beside the correctly rounded result. The log-sum is within an ulp of the sum's relative error, and the label's
/// distance is exact.
#[test]
fn log_probs_are_within_two_ulps() {
    for simd in levels().filter(|simd| simd.level() != SimdLevel::Baseline) {
        let mut worst = 0.0_f64;
        for columns in [2, 64, 1000, 4099, 32_000] {
            for (kind, x) in adversaries(columns).into_iter().enumerate() {
                for temperature in [1.0, 0.7] {
                    let exact = Exact::new(&x, 1.0 / temperature);
                    let state = simd.row_state(&x, 1.0 / temperature, false);
                    for label in [0, 1, columns / 3, columns / 2, columns - 1] {
                        if !exact.log_p[label].is_finite() {
                            continue;
                        }
                        let (got, want) = (state.log_prob(x[label]) as f32, exact.log_p[label]);
                        let nearest = want as f32;
                        let ulp = f64::from(nearest.abs().next_up()) - f64::from(nearest.abs());
                        // Every exponential below the cutoff may be lost.
                        let lost = columns as f64 * 1.1 * f64::from(f32::MIN_POSITIVE);
                        let off = (f64::from(got) - f64::from(nearest)).abs() - lost;
                        let ulps = off.max(0.0) / ulp;
                        assert!(ulps <= 2.0, "row {kind} of {columns}, {label}: {got} {want}");
                        worst = worst.max(ulps);
                    }
                }
            }
        }
        println!("{:?}: worst {worst} ulps", simd.level());
    }
}
