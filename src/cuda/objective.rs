//! Stage 3: the launch of `kernels/objective.cu`. An objective that is not compiled there is evaluated on the
//! host, which waits for the sums and hands the results back.

use std::ptr::null_mut;
use std::sync::OnceLock;

use super::context::Context;
use super::{LaunchShape, address, launch, pointer, start, upstream};
use crate::error::Result;
use crate::memory::{Buffer, Slice, SliceMut};
use crate::objectives::{AnyObjective, Evaluated, Layout, Reduction, Source, objectives};
use crate::placed::Tables;
use crate::stages::{Objective, Totals, UnitInputs};

/// Twin of `UnitsArguments` in the kernel.
#[repr(C)]
#[derive(Debug)]
struct UnitsArguments {
    members: u64,
    units: i64,
    policy: u64,
    reference: u64,
    tokens: u64,
    token_weights: u64,
    scores: u64,
    beta: u64,
    margin: u64,
    soft_label: u64,
    weight: u64,
    losses: u64,
    rewards: u64,
    unit_grads: u64,
    error: u64,
}

/// Twin of `ReduceArguments` in the kernel.
#[repr(C)]
#[derive(Debug)]
struct ReduceArguments {
    losses: u64,
    unit_grads: u64,
    units: i64,
    members: u64,
    responses: i64,
    tokens: u64,
    divisor: f64,
    weight: f64,
    value: u64,
    grads: u64,
    sequences: i64,
    uses_offsets: u64,
    uses: u64,
    upstream: f64,
    unit_upstream: u64,
    error: u64,
}

/// f64 numbers for the gradients of the responses of each unit.
pub(super) fn scratch(members: usize) -> usize {
    members
}

pub(super) fn objective(context: &Context, mut stage: Objective<'_>) -> Result<()> {
    let Some(tables) = stage.term.tables() else {
        unreachable!("a term placed on a device has tables")
    };
    let compiled = stage.term.term().objective().and_then(Compiled::of);
    if compiled.is_none() {
        evaluate_on_host(&mut stage)?;
    }
    let _turn = context.turn();
    let all = reduce_arguments(context, &stage, tables);
    if let Some(compiled) = compiled {
        return run_units(context, &stage, tables, compiled, &all);
    }
    // SAFETY: the kernel takes these arguments; the stage's constructor checked every length, and the
    // members are those of the batch.
    unsafe { start(context, "objective_reduce", launch::objective(), &all, None) }
}

/// What a kernel was compiled from.
#[derive(PartialEq)]
struct Text {
    layout: Layout,
    unit: &'static str,
    name: &'static str,
    /// The fields of the kernel's parameters, in order.
    parameters: Vec<&'static str>,
    source: Source,
}

impl Text {
    /// And the values of the parameters, which are those of the fields: an objective's own answers may
    /// differ from one call to the next.
    fn of(objective: &AnyObjective) -> Option<(Self, Vec<f64>)> {
        let (parameters, values) = objective.parameters().into_iter().unzip();
        let ([unit, _], name) = (objective.unit(), objective.name());
        let (layout, source) = (objective.layout(), objective.source()?);
        Some((Self { layout, unit, name, parameters, source }, values))
    }
}

/// The kernel of an objective whose text was compiled, and its parameters.
pub(super) struct Compiled {
    kernel: String,
    parameters: Vec<f64>,
}

impl Compiled {
    pub fn of(objective: &AnyObjective) -> Option<Self> {
        static TEXTS: OnceLock<Vec<Text>> = OnceLock::new();
        let texts = TEXTS.get_or_init(|| {
            objectives().iter().filter_map(Text::of).map(|(text, _)| text).collect()
        });
        let (text, parameters) = Text::of(objective)?;
        let kernel = format!("objective_{}_{}", text.unit, text.name);
        texts.contains(&text).then_some(Self { kernel, parameters })
    }

    /// The parameters, in the order of the kernel's struct.
    pub fn parameters(self) -> Vec<f64> {
        self.parameters
    }

    /// # Safety
    /// As for [`start`](super::start), the kernel being that of a unit of the arguments' kind; `last` comes
    /// after the parameters, if the kernel has such an argument.
    pub unsafe fn start<A, L>(
        mut self,
        context: &Context,
        shape: LaunchShape,
        arguments: &A,
        last: Option<&L>,
    ) -> Result<()> {
        if self.parameters.is_empty() {
            // An empty struct is one byte.
            self.parameters.push(0.0);
        }
        let parameters = self.parameters.as_mut_ptr().cast();
        let mut list = [pointer(arguments), parameters, last.map_or(null_mut(), pointer)];
        let count = if last.is_some() { 3 } else { 2 };
        // SAFETY: the caller's promise; the objective's struct is its parameters in order.
        unsafe { context.driver().launch(&self.kernel, shape, &mut list[..count]) }
    }
}

fn run_units(
    context: &Context,
    stage: &Objective<'_>,
    tables: &Tables,
    compiled: Compiled,
    all: &ReduceArguments,
) -> Result<()> {
    let units = stage.term.term().units();
    let or_null = |values: &Option<Buffer>| values.as_ref().map_or(0, |x| x.slice().address());
    let [beta, margin, soft_label, weight] = tables.inputs.each_ref().map(or_null);
    let uses_reference = stage.term.term().uses_reference();
    let arguments = UnitsArguments {
        members: tables.members.slice().address(),
        units: units as i64,
        policy: stage.policy.sums.address(),
        reference: stage.reference.filter(|_| uses_reference).map_or(0, Slice::address),
        tokens: stage.policy.tokens.address(),
        token_weights: stage.policy.weights.address(),
        scores: or_null(&tables.scores),
        beta,
        margin,
        soft_label,
        weight,
        losses: address(&stage.outputs.losses),
        rewards: address(&stage.outputs.rewards),
        unit_grads: address(&stage.scratch),
        error: context.slot()[0],
    };
    // SAFETY: the kernel takes these arguments; the stage's constructor checked that the term is over
    // responses and every length, and the members are those of the batch.
    unsafe { compiled.start(context, launch::objective(), &arguments, Some(all)) }
}

/// Waits for the sums, and leaves losses, rewards and unit gradients where the kernel would.
fn evaluate_on_host(stage: &mut Objective<'_>) -> Result<()> {
    let read = |values: Slice<'_>| values.read::<f64>();
    let Totals { sums, tokens, weights } = stage.policy;
    let (sums, tokens, weights) = (read(sums)?, read(tokens)?, read(weights)?);
    let reference = stage.reference.map(read).transpose()?;
    let policy = Totals {
        sums: Slice::new(&sums),
        tokens: Slice::new(&tokens),
        weights: Slice::new(&weights),
    };
    let term = stage.term.term();
    let inputs = UnitInputs::new(term, (policy, reference.as_deref().map(Slice::new)))?;
    let units = inputs.units();
    let (mut losses, mut rewards) = (vec![0.0; units], vec![0.0; 2 * units]);
    let mut grads = vec![0.0; stage.scratch.len()];
    let to = Evaluated { losses: &mut losses, rewards: &mut rewards, grads: &mut grads };
    inputs.evaluate_all(0, to);
    let write = |to: &mut SliceMut<'_>, from: &[f64]| to.copy_from(Slice::new(from));
    write(&mut stage.outputs.losses, &losses)?;
    write(&mut stage.outputs.rewards, &rewards)?;
    write(&mut stage.scratch, &grads)
}

fn reduce_arguments(context: &Context, stage: &Objective<'_>, tables: &Tables) -> ReduceArguments {
    let (term, outputs) = (stage.term.term(), &stage.outputs);
    let units = term.units();
    let grads = outputs.grads.as_ref();
    let (upstream, unit_upstream) = upstream(grads.map(|(_, scale)| *scale));
    ReduceArguments {
        losses: address(&outputs.losses),
        unit_grads: address(&stage.scratch),
        units: units as i64,
        members: tables.members.slice().address(),
        responses: term.members_of_unit() as i64,
        tokens: stage.policy.tokens.address(),
        divisor: match term.reduction() {
            // Known on the device alone.
            Reduction::TokenMean => 0.0,
            _ => term.divisor(0.0),
        },
        weight: term.weight(),
        value: address(&outputs.value),
        grads: grads.map_or(0, |(grads, _)| address(grads)),
        sequences: stage.term.sequences() as i64,
        uses_offsets: tables.uses_offsets.slice().address(),
        uses: tables.uses.slice().address(),
        upstream,
        unit_upstream,
        error: context.slot()[0],
    }
}
