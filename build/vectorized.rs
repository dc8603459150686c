//! What `objective!` calls, where only the objectives' text is looked at; the crate's own is in
//! `src/cpu/objective.rs`.

use crate::objectives::{Evaluation, Objective, Unit};

pub fn evaluate_vectorized<U: Unit, O: Objective<U>>(
    objective: &O,
    units: &[U],
    evaluations: &mut [Evaluation<U>],
    evaluate: impl FnOnce(&O, &[U], &mut [Evaluation<U>]),
) {
    evaluate(objective, units, evaluations);
}
