//! What is refused, and how it is said.

use prefuse::batch::{Logits, LogitsMut};
use prefuse::stages::{
    Divergence, DivergenceOutputs, StudentTarget, Teacher, TokenDivergence, Tokens,
};
use prefuse::{DType, Reference, Slice, SliceMut, Target};

use super::case::{Case, Into, Source};
use crate::backends::backends;
use crate::common::refused;

fn small() -> Case<f32, f32> {
    Case {
        student: vec![0.0; 6],
        vocab: 3,
        source: Source::one(vec![0.5; 6], 3),
        divergence: TokenDivergence::ForwardKl,
        temperatures: [1.0, 1.0],
        ids: vec![0, 1],
        weights: None,
        upstream: vec![1.0, 1.0],
    }
}

#[test]
fn parameters() {
    use TokenDivergence as D;
    let backend = Reference::new();
    let refuses = |divergence, message: &str| {
        refused(Case { divergence, ..small() }.try_run(&backend, Into::Buffer), message);
    };
    refuses(
        D::SymmetricKl { reverse: 1.5 },
        "share of the reverse KL: expected a number from 0 to 1, got 1.5",
    );
    refuses(
        D::JensenShannon { beta: f64::NAN },
        "beta of a Jensen-Shannon divergence: expected a number from 0 to 1, got NaN",
    );
    refuses(
        D::SkewForwardKl { alpha: -0.1 },
        "alpha of a skew KL: expected a number from 0 to 1, got -0.1",
    );
    refuses(
        D::SkewReverseKl { alpha: 2.0 },
        "alpha of a skew KL: expected a number from 0 to 1, got 2.0",
    );
    refuses(
        D::ExpectedAdvantage { beta: 0.0, clip: (0.0, 1.0) },
        "beta of an advantage: expected a finite number above 0, got 0.0",
    );
    refuses(
        D::ExpectedAdvantage { beta: 0.1, clip: (1.0, 0.0) },
        "upper limit of an advantage: expected at least the lower one, got 0.0",
    );
    for (temperatures, whose) in [([0.0, 1.0], "student"), ([1.0, 0.0], "teacher")] {
        refused(
            Case { temperatures, ..small() }.try_run(&backend, Into::Buffer),
            &format!("temperature of the {whose}: expected a number from 1e-30 to 1e30, got 0.0"),
        );
    }
}

#[test]
fn teachers() {
    let data = [0.0_f32; 6];
    let logits = Logits::new(&data, 2, 3).unwrap();
    let wide = Logits::new(&data, 1, 6).unwrap();
    refused(Teacher::combination(&[]), "logits of a combination: expected at least 1, got 0");
    refused(
        Teacher::combination(&[(1.0, logits); 4]),
        "a combination: expected logits of 1 to 3 models, got those of more",
    );
    refused(
        Teacher::combination(&[(1.0, logits), (f64::NAN, logits)]),
        "coefficient of a combination: expected 0 or a normal f32, got NaN",
    );
    refused(
        Teacher::combination(&[(1.0, logits), (1.0, wide)]),
        "logits of a combination: expected shape [2, 3], got [1, 6]",
    );
    refused(
        Teacher::align_distil(logits, logits, (0.0, 1.0)),
        "beta of AlignDistil: expected a finite number above 0, got 0.0",
    );
    refused(
        Teacher::align_distil(logits, logits, (0.1, f64::INFINITY)),
        "ratio of AlignDistil: expected a finite number above 0, got inf",
    );
    let mut case = small();
    case.source.parts = vec![(1.0, vec![0.5; 6]), (-1.0, vec![0.5; 6])];
    case.source.adaptive = Some((0.1, 10.0, false));
    case.divergence = TokenDivergence::ExpectedAdvantage { beta: 0.1, clip: (0.0, 1.0) };
    refused(
        case.try_run(&Reference::new(), Into::Buffer),
        "an expected advantage: expected a combination of logits, got AlignDistil's teacher",
    );
}

/// Everything that the stage's constructor looks at.
#[test]
fn shapes_and_types() {
    let backend = Reference::new();
    let labels = prefuse::batch::Labels::new(&[0, 1][..]);
    let data = [0.0_f32; 6];
    let double = [0.0_f64; 9];
    let call = |teacher: Logits<'_>, grads: usize, upstream: Option<&[f32]>, values: usize| {
        let mut grads = vec![0.0_f32; 2 * grads];
        let mut values = vec![0.0_f32; values];
        let vocab = grads.len() / 2;
        let student = match vocab {
            0 => StudentTarget::Values(Logits::new(&data, 2, 3).unwrap()),
            _ => StudentTarget::Added {
                logits: Logits::new(&data, 2, 3).unwrap(),
                grads: LogitsMut::new(&mut grads, 2, vocab).unwrap(),
            },
        };
        let outputs = DivergenceOutputs {
            values: SliceMut::new(&mut values),
            student_entropy: None,
            teacher_entropy: None,
        };
        Divergence::new(
            &backend,
            (student, Teacher::new(teacher)),
            (TokenDivergence::ForwardKl, [1.0, 1.0]),
            Tokens::new(&labels, None)?,
            (outputs, upstream.map(Slice::new)),
            SliceMut::new(&mut [0.0_f64; 0]),
        )
        .map(|_| ())
    };
    let teacher = Logits::new(&data, 2, 3).unwrap();
    let by = Some(&[1.0_f32, 1.0][..]);
    call(teacher, 3, by, 2).unwrap();
    call(teacher, 0, None, 2).unwrap();
    refused(
        call(Logits::new(&double, 3, 3).unwrap(), 3, by, 2),
        "rows of teacher logits: expected length 2, got 3",
    );
    refused(call(teacher, 2, by, 2), "logits gradient: expected shape [2, 3], got [2, 2]");
    refused(call(teacher, 3, by, 3), "divergences: expected length 2, got 3");
    refused(
        call(teacher, 3, Some(&[1.0]), 2),
        "upstream gradient by divergences: expected length 2, got 1",
    );
    refused(
        call(teacher, 3, None, 2),
        "a target that takes a gradient: expected upstream gradient by divergences, got none",
    );
    refused(
        call(teacher, 0, by, 2),
        "upstream gradient by divergences: expected a target that takes a gradient, got StudentTarget::Values",
    );
}

/// A label outside the vocabulary is an error before anything is written, although nothing else is asked
/// of it.
#[test]
fn bad_labels_write_nothing() {
    for backend in backends() {
        let case = Case { ids: vec![0, 3], ..small() };
        let mut values = crate::common::Placed::new(&*backend, &[7.0_f32; 2]);
        let mut student = crate::common::Placed::new(&*backend, &case.student);
        let teacher = crate::common::Placed::new(&*backend, &case.source.parts[0].1);
        let ids = crate::common::Placed::new(&*backend, &case.ids);
        let upstream = crate::common::Placed::new(&*backend, &[1.0_f32; 2]);
        let labels = prefuse::batch::Labels::from_slice(ids.slice()).unwrap();
        let needed = backend.divergence_scratch(2, 3);
        let mut scratch = backend.allocate(DType::F64, needed).unwrap();
        let result = Divergence::new(
            &*backend,
            (
                StudentTarget::Written(
                    Target::InPlace(student.target(2, 3)),
                    prefuse::MaskedRows::Zero,
                ),
                Teacher::new(teacher.logits(2, 3)),
            ),
            (TokenDivergence::ForwardKl, [1.0, 1.0]),
            Tokens::new(&labels, None).unwrap(),
            (
                DivergenceOutputs {
                    values: values.slice_mut(),
                    student_entropy: None,
                    teacher_entropy: None,
                },
                Some(upstream.slice()),
            ),
            scratch.slice_mut(),
        )
        .and_then(|stage| backend.divergence(stage));
        let found = result.and_then(|()| values.slice().read::<f32>().map(|_| ()));
        refused(found, "label of token 1: expected 0 to 2 or the ignore value -100, got 3");
        assert_eq!(values.read::<f32>(), [7.0; 2], "{backend:?}");
        assert_eq!(student.read::<f32>(), [0.0; 6], "{backend:?}");
    }
}
