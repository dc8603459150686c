//! What a sparse teacher may not list, and what the stage refuses.

use prefuse::batch::Labels;
use prefuse::stages::{
    DivergenceOutputs, Remainder, SparseDivergence, SparseTeacher, StudentTarget, TokenDivergence,
    Tokens,
};
use prefuse::{Cpu, DType, MaskedRows, Reference, Slice, Target};

use super::{Case, case};
use crate::backends::backends;
use crate::common::{Placed, refused};
use crate::divergence::Into;

/// Of several the first token's first; tokens that do not count may list anything.
#[test]
fn bad_entries() {
    for backend in backends() {
        let mut case: Case<f32, f32> = case(TokenDivergence::ForwardKl, Remainder::Bin, [6, 40, 4]);
        case.entries[3 * 4] = 99;
        case.log_probs[3 * 4 + 1] = f32::NAN;
        case.run(&*backend, Into::Buffer).unwrap();
        case.entries[5 * 4] = -1;
        refused(
            case.run(&*backend, Into::Place),
            "teacher's ids of token 5: expected 0 to 39, got -1",
        );
        case.log_probs[4 * 4 + 1] = 0.5;
        refused(
            case.run(&*backend, Into::Place),
            "teacher's log-probs of token 4: expected at most 0, got 0.5",
        );
        case.entries[2 * 4 + 3] = case.entries[2 * 4];
        let message = format!(
            "teacher's ids of token 2: expected each once, got {} again",
            case.entries[2 * 4]
        );
        refused(case.run(&*backend, Into::Place), &message);
        case.entries[1] = 40;
        refused(
            case.run(&*backend, Into::Place),
            "teacher's ids of token 0: expected 0 to 39, got 40",
        );
    }
}

#[test]
fn shapes_and_types() {
    let (ids, log_probs) = ([0_i64, 1, 2, 1], [-1.0_f32; 4]);
    let (ids, log_probs) = (Slice::new(&ids), Slice::new(&log_probs));
    let new = |ids, log_probs, k| SparseTeacher::new(ids, log_probs, k, Remainder::Bin);
    refused(new(log_probs, log_probs, 2), "teacher's ids: expected i64, got f32");
    refused(new(ids, ids, 2), "teacher's log-probs: expected f16, bf16, f32 or f64, got i64");
    refused(
        new(ids, log_probs, 0),
        "entries of a sparse teacher: expected a number from 1 to 1024, got 0.0",
    );
    refused(
        new(ids, log_probs, 1025),
        "entries of a sparse teacher: expected a number from 1 to 1024, got 1025.0",
    );
    refused(new(ids, log_probs, 3), "teacher's ids: expected length 6, got 4");
    let half = log_probs.part(0..2).unwrap();
    refused(new(ids, half, 2), "teacher's log-probs: expected length 4, got 2");
    let base: Case<f32, f32> = case(TokenDivergence::ForwardKl, Remainder::Bin, [6, 3, 2]);
    let backend = Reference::new();
    let clip = (0.0, 1.0);
    let advantage =
        Case { divergence: TokenDivergence::ExpectedAdvantage { beta: 1.0, clip }, ..base.clone() };
    refused(
        advantage.run(&backend, Into::Buffer),
        "an expected advantage: expected logits of the whole vocabulary, got a sparse teacher",
    );
    let cold = Case { temperature: f64::NAN, ..base.clone() };
    refused(
        cold.run(&backend, Into::Buffer),
        "temperature of the student: expected a number from 1e-30 to 1e30, got NaN",
    );
    let double: Case<f32, f64> = case(TokenDivergence::ForwardKl, Remainder::Bin, [6, 3, 2]);
    refused(
        double.run(&Cpu::new(), Into::Buffer),
        "teacher's log-probs: expected f16, bf16 or f32, got f64",
    );
    let narrow = Case { student: vec![0.0; 6], vocab: 1, ..base };
    refused(
        narrow.run(&backend, Into::Buffer),
        "entries of a sparse teacher: expected at most 1, the vocabulary, got 2",
    );
}

/// Bad entries are found before anything is written.
#[test]
fn bad_entries_write_nothing() {
    for backend in backends() {
        let divergence = (TokenDivergence::ForwardKl, 1.0);
        let mut student = Placed::new(&*backend, &[0.5_f32, 1.0, 1.5, 2.0]);
        let [mut values, mut entropy] = [(); 2].map(|()| Placed::new(&*backend, &[7.0_f32; 2]));
        let upstream = Placed::new(&*backend, &[1.0_f32; 2]);
        let [labels, entries] =
            [[0_i64, 1], [1, 2]].map(|numbers| Placed::new(&*backend, &numbers));
        let log_probs = Placed::new(&*backend, &[-1.0_f32; 2]);
        let teacher =
            SparseTeacher::new(entries.slice(), log_probs.slice(), 1, Remainder::Bin).unwrap();
        let of_labels = Labels::from_slice(labels.slice()).unwrap();
        let needed = backend.sparse_divergence_scratch(2, 2);
        let mut scratch = backend.allocate(DType::F64, needed).unwrap();
        let target = Target::InPlace(student.target(2, 2));
        let outputs = DivergenceOutputs {
            values: values.slice_mut(),
            student_entropy: Some(entropy.slice_mut()),
            teacher_entropy: None,
        };
        let stage = SparseDivergence::new(
            &*backend,
            (StudentTarget::Written(target, MaskedRows::Zero), teacher),
            divergence,
            Tokens::new(&of_labels, None).unwrap(),
            (outputs, Some(upstream.slice())),
            scratch.slice_mut(),
        );
        let found = backend.sparse_divergence(stage.unwrap());
        let found = found.and_then(|()| scratch.slice().to_vec().map(|_| ()));
        refused(found, "teacher's ids of token 1: expected 0 to 1, got 2");
        assert_eq!(student.read::<f32>(), [0.5, 1.0, 1.5, 2.0], "{backend:?}");
        assert_eq!(values.read::<f32>(), [7.0; 2], "{backend:?}");
        assert_eq!(entropy.read::<f32>(), [7.0; 2], "{backend:?}");
    }
}
