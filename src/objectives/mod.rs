//! One file per loss: paper, formula, gradient. This file is the list of them.
//!
//! Nothing here knows dtypes, devices, vocabularies or the rest of the crate. To add a loss: write
//! its file with [`objective!`](crate::objective), name it below, and the tests that iterate over
//! [`pair_objectives`] and [`sequence_objectives`] check its gradient, its extremes and its text.

mod dpo;
mod hinge;
mod ipo;
mod nll;
mod objective;
mod reduction;
mod robust;
pub mod scalar;
mod sim_po;
mod units;

pub use dpo::Dpo;
pub use hinge::Hinge;
pub use ipo::Ipo;
pub use nll::Nll;
pub use objective::{
    BELOW_HALF, Domain, Evaluation, FINITE, Inputs, Objective, POSITIVE, Parameter, ParameterError,
    SWITCH, Source, UP_TO_HALF,
};
pub use reduction::{LossSum, Reduction};
pub use robust::Robust;
pub use sim_po::SimPo;
pub use units::{Pair, PerPair, PerSequence, Response, Sequence, Unit};

use std::sync::Arc;

/// Every objective on pairs, with each of its options in use.
pub fn pair_objectives() -> Vec<Arc<dyn Objective<Pair>>> {
    vec![
        Arc::new(Dpo::new(0.1)),
        Arc::new(Dpo::new(0.1).with_label_smoothing(0.2)),
        Arc::new(Robust::new(0.1, 0.2)),
        Arc::new(Ipo::new(0.1)),
        Arc::new(Ipo::new(0.1).with_length_normalized(true)),
        Arc::new(Hinge::new(0.1)),
        Arc::new(SimPo::new(2.0, 1.0)),
        Arc::new(SimPo::new(2.0, 1.0).with_label_smoothing(0.1)),
    ]
}

/// Every objective on single sequences, with each of its options in use.
pub fn sequence_objectives() -> Vec<Arc<dyn Objective<Sequence>>> {
    vec![Arc::new(Nll::new()), Arc::new(Nll::new().with_length_normalized(true))]
}

/// CUDA C++ of every objective of the lists, for `kernels/objective.cu` to compile: a struct and its
/// `evaluate` each, then a line `OBJECTIVE(name, unit, per-response)`.
#[doc(hidden)]
pub fn cuda_source() -> String {
    use std::collections::BTreeMap;
    let mut types = BTreeMap::new();
    fn add<U: Unit>(types: &mut BTreeMap<&str, String>, objectives: &[Arc<dyn Objective<U>>]) {
        let [unit, per_response] = U::NAMES;
        for objective in objectives {
            if let Some(source) = objective.source() {
                let (name, body) = (objective.name(), source.cuda(&**objective));
                types.insert(name, format!("{body}\nOBJECTIVE({name}, {unit}, {per_response})\n"));
            }
        }
    }
    add(&mut types, &pair_objectives());
    add(&mut types, &sequence_objectives());
    types.into_values().collect::<Vec<_>>().join("\n")
}
