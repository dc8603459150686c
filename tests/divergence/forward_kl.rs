//! The forward KL where every probability is small, which the CPU has a form of its own for.

use prefuse::stages::TokenDivergence;
use prefuse::{Backend, Element};

use super::case::{Case, Into, Source};
use super::compare;
use crate::backends::composed_backends;
use crate::common::{exact, normal, rng};
use crate::each_dtype;

/// Students near their teacher over many columns of which none is likely, and one likely column in some rows; with a
/// distance between the two, with temperatures alike and not.
fn unlikely<T: Element>(vocab: usize, apart: f64, temperatures: [f64; 2]) -> Case<T, T> {
    let tokens = 6;
    let mut rng = rng(vocab as u64 + 3);
    let mut teacher: Vec<f64> = (0..tokens * vocab).map(|_| 1.5 * normal(&mut rng)).collect();
    let mut student: Vec<T> =
        teacher.iter().map(|x| T::from_f64(x + 0.1 * normal(&mut rng) + apart)).collect();
    for (row, column) in [(1, 0), (3, vocab / 2), (4, vocab - 1)] {
        teacher[row * vocab + column] = 14.0;
        if row != 3 {
            student[row * vocab + column] = T::from_f64(13.0 + apart);
        }
    }
    // Both exclude the one, the teacher alone the other.
    for (column, both) in [(vocab / 3, true), (vocab / 3 + 1, false)] {
        teacher[2 * vocab + column] = f64::NEG_INFINITY;
        if both {
            student[2 * vocab + column] = T::from_f64(f64::NEG_INFINITY);
        }
    }
    let teacher = teacher.into_iter().map(T::from_f64).collect();
    Case {
        student,
        vocab,
        source: Source::one(teacher, vocab),
        divergence: TokenDivergence::ForwardKl,
        temperatures,
        ids: vec![0; tokens],
        weights: None,
        upstream: vec![1.0, -0.7, 1e-3, 3.0, 1e-8, 0.3],
    }
}

/// What a gradient is multiplied by, and where it goes, leaves a divergence its bits.
#[test]
fn small_probabilities() {
    fn body<T: Element>(backend: &dyn Backend) {
        for (vocab, apart, temperatures) in
            [(1000, 0.0, [1.0, 1.0]), (2100, 2.0, [0.7, 0.7]), (333, 40.0, [1.0, 2.0])]
        {
            let mut case: Case<T, T> = unlikely(vocab, apart, temperatures);
            let what = format!("{backend:?} {} {vocab}", T::DTYPE);
            let got = case.run(backend, Into::Buffer);
            compare(&what, &case, &got, &case.truth());
            let bits = |values: &[f64]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            let values = bits(&got.values);
            for into in [Into::Place, Into::Sum] {
                assert_eq!(bits(&case.run(backend, into).values), values, "{what} {into:?}");
            }
            case.upstream.iter_mut().for_each(|upstream| *upstream *= -0.9);
            assert_eq!(bits(&case.run(backend, Into::Buffer).values), values, "{what}");
            assert_eq!(bits(&case.run(backend, Into::Nowhere).values), values, "{what}");
        }
    }
    for backend in composed_backends() {
        each_dtype!(&*backend, body);
    }
}

/// A teacher that is the student but for a constant: the forward KL is 0 to the rounding of logarithms of sums, and its
/// gradient to that of a probability.
#[test]
fn a_teacher_of_the_student_and_a_constant() {
    fn body<T: Element>(backend: &dyn Backend) {
        for (vocab, temperature) in [(1024, 1.0), (2100, 2.0), (333, 0.7)] {
            let mut rng = rng(vocab as u64);
            // Sums that no type rounds.
            let student: Vec<f64> =
                (0..6 * vocab).map(|_| (2.0 * normal(&mut rng)).round() / 4.0).collect();
            let of = |constant: f64| -> Vec<T> {
                student.iter().map(|x| T::from_f64(x + constant)).collect()
            };
            let case = Case {
                student: of(0.0),
                vocab,
                source: Source::one(of(-2.75), vocab),
                divergence: TokenDivergence::ForwardKl,
                temperatures: [temperature; 2],
                ids: vec![0; 6],
                weights: None,
                upstream: vec![1.0; 6],
            };
            let got = case.run(backend, Into::Buffer);
            let what = format!("{backend:?} {} {vocab}", T::DTYPE);
            let ulp = f64::from(f32::EPSILON);
            assert!(got.values.iter().all(|x| x.abs() <= ulp), "{what}: {:?}", got.values);
            for (row, grads) in exact(&got.grads).chunks(vocab).enumerate() {
                let sum: f64 =
                    student[row * vocab..][..vocab].iter().map(|x| (x / temperature).exp()).sum();
                for (grad, x) in grads.iter().zip(&student[row * vocab..]) {
                    let p = (x / temperature).exp() / sum;
                    assert!((grad * temperature).abs() <= 4.0 * ulp * p, "{what}: {grad} of {p}");
                }
            }
        }
    }
    for backend in composed_backends() {
        each_dtype!(&*backend, body);
    }
}

/// A column that the student excludes and the teacher hardly knows is infinitely far, whatever the upstream.
#[test]
fn infinite_for_every_upstream() {
    fn body<T: Element>(backend: &dyn Backend) {
        let mut case: Case<T, T> = unlikely(1000, 0.0, [1.0, 1.0]);
        for row in [0, 5] {
            case.student[row * 1000 + 77] = T::from_f64(f64::NEG_INFINITY);
            case.source.parts[0].1[row * 1000 + 77] = T::from_f64(-70.0);
        }
        for upstream in [1e-7, 1e-3, 1.0, -3e3] {
            case.upstream = vec![upstream; 6];
            let got = case.run(backend, Into::Buffer);
            let what = format!("{backend:?} {} {upstream}", T::DTYPE);
            compare(&what, &case, &got, &case.truth());
            assert!([0, 5].iter().all(|&row| got.values[row] == f64::INFINITY), "{what}");
        }
    }
    for backend in composed_backends() {
        each_dtype!(&*backend, body);
    }
}

/// A teacher of fewer columns, in the middle of a block: the gradient of the student's others is 0.
#[test]
fn a_shorter_teacher() {
    fn body<T: Element>(backend: &dyn Backend) {
        let (vocab, shorter) = (9000, 8500);
        let mut case: Case<T, T> = unlikely(vocab, 0.0, [1.0, 1.0]);
        let rows = case.source.parts[0].1.chunks(vocab);
        let teacher = rows.flat_map(|row| row[..shorter].to_vec()).collect();
        case.source = Source::one(teacher, shorter);
        for into in [Into::Buffer, Into::Place] {
            let got = case.run(backend, into);
            let what = format!("{backend:?} {} {into:?}", T::DTYPE);
            compare(&what, &case, &got, &case.truth());
            for grads in exact(&got.grads).chunks(vocab) {
                assert!(grads[shorter..].iter().all(|&grad| grad == 0.0), "{what}");
            }
        }
    }
    for backend in composed_backends() {
        each_dtype!(&*backend, body);
    }
}

/// Rows of several blocks of 4096 columns, which the CPU sums and keeps by the block: one that begins with what is
/// excluded, one that the teacher excludes, one that both do, one whose likeliest columns are far above its first, and
/// what is beyond 64 of them.
#[test]
fn blocks_of_every_kind() {
    fn body<T: Element>(backend: &dyn Backend) {
        const BLOCK: usize = 4096;
        for (vocab, temperatures) in
            [(6 * BLOCK + 100, [1.0, 1.0]), (6 * BLOCK, [2.0, 0.7]), (65 * BLOCK + 33, [1.0, 1.0])]
        {
            let mut case: Case<T, T> = unlikely(vocab, 0.5, temperatures);
            let excluded = T::from_f64(f64::NEG_INFINITY);
            let [student, teacher] = [&mut case.student, &mut case.source.parts[0].1];
            for row in 0..6 {
                let mut exclude = |side: usize, columns: std::ops::Range<usize>| {
                    let side = if side == 0 { &mut *student } else { &mut *teacher };
                    side[row * vocab..][columns].fill(excluded);
                };
                exclude(0, BLOCK..BLOCK + 64);
                exclude(1, BLOCK..BLOCK + 70);
                exclude(1, 2 * BLOCK..3 * BLOCK);
                exclude(0, 3 * BLOCK..4 * BLOCK);
                exclude(1, 3 * BLOCK..4 * BLOCK);
                if row == 5 {
                    // All that is left of the teacher.
                    exclude(1, 0..4 * BLOCK);
                }
                for column in [100, 2000, 4095] {
                    student[row * vocab + 4 * BLOCK + column] = T::from_f64(17.0);
                    teacher[row * vocab + 4 * BLOCK + column] = T::from_f64(16.5);
                }
            }
            let what = format!("{backend:?} {} {vocab}", T::DTYPE);
            let got = case.run(backend, Into::Buffer);
            compare(&what, &case, &got, &case.truth());
            let nowhere = case.run(backend, Into::Nowhere);
            assert!(
                got.values.iter().zip(&nowhere.values).all(|(a, b)| a.to_bits() == b.to_bits())
            );
        }
    }
    for backend in composed_backends() {
        each_dtype!(&*backend, body);
    }
}
