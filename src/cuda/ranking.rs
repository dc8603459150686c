//! Stage 3 over groups: the launch of `kernels/ranking.cu`.

use super::context::Context;
use super::{address, launch, start, upstream};
use crate::error::Result;
use crate::memory::Slice;
use crate::objectives::{Constants, RankingKind, RankingValue, Reduction};
use crate::stages::Ranking;

/// Twin of `RankingArguments` in the kernel.
#[repr(C)]
#[derive(Debug)]
struct Arguments {
    members: u64,
    offsets: u64,
    groups: i64,
    kind: i64,
    of: i64,
    factor: f64,
    temperature: f64,
    policy: u64,
    tokens: u64,
    reference: u64,
    scores: u64,
    weight: u64,
    values: u64,
    largest: u64,
    sums: u64,
    losses: u64,
    grads: u64,
    divisor: f64,
    scale: f64,
    group_upstream: u64,
    error: u64,
}

/// f64 numbers: the value of each member, and two more that the kind of ranking keeps of each.
pub(super) fn scratch(members: usize) -> usize {
    members.saturating_mul(3)
}

pub(super) fn ranking(context: &Context, stage: Ranking<'_>) -> Result<()> {
    let term = stage.term.term();
    let (Some(tables), Some((ranking, _))) = (stage.term.tables(), term.ranking()) else {
        unreachable!("the constructor checked it, and a placed term has tables")
    };
    let members = term.all_members().len();
    let scratch = stage.scratch.as_slice();
    let part = |index: usize| {
        let part = scratch.part(index * members..(index + 1) * members);
        part.map(Slice::address)
    };
    let grads = stage.outputs.grads.as_ref();
    let (all, group_upstream) = upstream(grads.map(|(_, scale)| *scale));
    let or_null = |values: Option<Slice<'_>>| values.map_or(0, Slice::address);
    let arguments = Arguments {
        members: tables.members.slice().address(),
        offsets: or_null(tables.groups.as_ref().map(crate::memory::Buffer::slice)),
        groups: term.units() as i64,
        kind: match ranking.kind {
            RankingKind::PlackettLuce => 0,
            RankingKind::RewardGaps => 1,
            RankingKind::CrossEntropy => 2,
            RankingKind::KnowPat(Constants::Paper) => 3,
            RankingKind::KnowPat(Constants::Code) => 4,
            RankingKind::LipoLambda(Constants::Paper) => 5,
            RankingKind::LipoLambda(Constants::Code) => 6,
            RankingKind::Nca => 7,
        },
        of: match ranking.of {
            RankingValue::Sum => 0,
            RankingValue::Average => 1,
            RankingValue::LogRatio => 2,
        },
        factor: ranking.scale,
        temperature: ranking.temperature,
        policy: stage.policy.sums.address(),
        tokens: stage.policy.tokens.address(),
        reference: or_null(stage.reference),
        scores: or_null(tables.scores.as_ref().map(crate::memory::Buffer::slice)),
        weight: or_null(tables.inputs[3].as_ref().map(crate::memory::Buffer::slice)),
        values: part(0)?,
        largest: part(1)?,
        sums: part(2)?,
        losses: address(&stage.outputs.losses),
        grads: grads.map_or(0, |(grads, _)| address(grads)),
        divisor: match term.reduction() {
            // Known on the device alone.
            Reduction::TokenMean => 0.0,
            _ => term.divisor(0.0),
        },
        scale: all * term.weight(),
        group_upstream,
        error: context.slot()[0],
    };
    let _turn = context.turn();
    // SAFETY: the kernel takes these arguments; the stage's constructor checked every length, members
    // and offsets are those of checked groups, and each sequence is in one of them.
    unsafe { start(context, "ranking", launch::ranking(term.units()), &arguments, None) }
}
