//! How many threads run a kernel: a pure function of sizes, type and device. No shape changes a bit of
//! the result, only who computes what.

use super::driver::{Device, LaunchShape};
use crate::batch::MOST_PARTS;
use crate::element::DType;

/// Columns that one state of stage 1 stands for; SEGMENT in kernels/include/softmax.cuh.
pub(crate) const SEGMENT: usize = 1024;

/// Bytes of such a state.
pub(crate) const STATE_BYTES: usize = 16;

/// Rows of up to this many segments are a warp's; ROWS_SEGMENTS in kernels/include/shapes.cuh.
const ROWS_SEGMENTS: usize = 4;

/// Warps of a block that has a row each; ROWS_WARPS in the kernels.
const ROWS_WARPS: usize = 8;

/// States beyond this many do not fit the shared memory that every block may have (48 KB).
const SHARED_STATES: usize = 48 * 1024 / STATE_BYTES;

/// Warps of a block in stage 1. Four blocks of 8 are as many threads as two of 16, and one that waits
/// for its row's first loads or merges its states leaves three that keep memory busy.
const WARPS: usize = 8;

/// What comes before the states in the shared memory of kernels/token_loss.cu.
const NEWS_BYTES: usize = 64;

/// Blocks that fill a multiprocessor in stage 1: 256 threads of 64 registers, four times.
const RESIDENT_BLOCKS: usize = 4;

/// The same of the cluster's kernel, which takes more registers.
const RESIDENT_CLUSTER_BLOCKS: usize = 2;

/// Blocks for each multiprocessor from which stage 4 splits rows no further: 3 are resident, and after
/// 16 waves a last one that is half empty costs 3 %.
const GRADS_BLOCKS: usize = 48;

/// The most blocks of a grid, so that 32 bits hold the threads of all; rows go round where they are
/// more.
const MAX_GRID: usize = 1 << 22;

/// Who computes the states of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogProbsShape {
    /// A warp, several rows to a block.
    Rows(LaunchShape),
    /// A block.
    Block(LaunchShape),
    /// The blocks of a cluster.
    Cluster(LaunchShape),
    /// So many blocks that leave states in memory, and a second launch that merges them.
    Part(LaunchShape, usize, LaunchShape),
}

/// | rows | segments of 1024 columns | shape |
/// |---|---|---|
/// | any | up to 4 | a warp a row |
/// | any | 5 to 8: there is one block's work | a block a row |
/// | four for each multiprocessor, or more; two, where there are clusters | 9 to 4096 | a block a row |
/// | fewer, and the largest cluster for each fills the device | 9 to 4096 | a cluster a row |
/// | fewer still, or a device without clusters | 9 or more | a row in parts |
/// | any | more than 4096 | a row in parts |
pub(crate) fn log_probs(device: &Device, tokens: usize, vocab: usize) -> LogProbsShape {
    with_slots(device, 0, tokens, vocab)
}

/// The same where each warp has so many bytes of shared memory besides; states that leave no room for them go
/// to memory.
fn with_slots(device: &Device, slot: usize, tokens: usize, vocab: usize) -> LogProbsShape {
    let segments = vocab.div_ceil(SEGMENT);
    let slots = WARPS * slot;
    if segments <= ROWS_SEGMENTS {
        let shared = slots + ROWS_WARPS * ROWS_SEGMENTS * STATE_BYTES;
        return LogProbsShape::Rows(shape(tokens.div_ceil(ROWS_WARPS), 32 * ROWS_WARPS, 1, shared));
    }
    let threads = 32 * WARPS;
    let shared = segments.saturating_mul(STATE_BYTES).saturating_add(slots);
    // Blocks for each row that fill the device; no warp without a segment.
    let split = |resident: usize| {
        let wanted = (resident * device.processors as usize).div_ceil(tokens.max(1));
        wanted.min(segments.div_ceil(WARPS)).max(1)
    };
    let (parts, cluster) = (split(RESIDENT_BLOCKS), split(RESIDENT_CLUSTER_BLOCKS));
    let most = device.cluster as usize;
    let fits = segments <= SHARED_STATES && shared <= most_shared(device);
    if !fits || parts > 1 && (most < 2 || cluster > most) {
        let rows = tokens.min(MAX_GRID / parts);
        let merge = shape(tokens.div_ceil(ROWS_WARPS), 32 * ROWS_WARPS, 1, 0);
        return LogProbsShape::Part(shape(rows * parts, threads, 1, slots), parts, merge);
    }
    if parts > 1 && cluster > 1 {
        let cluster = 1 << cluster.ilog2();
        let rows = tokens.min(MAX_GRID / cluster);
        return LogProbsShape::Cluster(shape(rows * cluster, threads, cluster, shared));
    }
    LogProbsShape::Block(shape(tokens, threads, 1, shared))
}

/// f64 numbers of memory for the states of rows in parts.
pub(crate) fn log_probs_scratch(device: &Device, tokens: usize, vocab: usize) -> usize {
    scratch_of(log_probs(device, tokens, vocab), tokens, vocab)
}

fn scratch_of(shape: LogProbsShape, tokens: usize, vocab: usize) -> usize {
    match shape {
        LogProbsShape::Part(..) => {
            let states = tokens.saturating_mul(vocab.div_ceil(SEGMENT));
            states.saturating_mul(STATE_BYTES).div_ceil(8)
        }
        _ => 0,
    }
}

/// Bytes of shared memory for a warp's segment of a combination of logits, which are `vectors` of 16 bytes for
/// each lane: none where all coefficients are 0, but the kernels ask where it is.
fn mixture_slot(vectors: usize) -> usize {
    vectors.max(1) * 32 * 16
}

/// As [`log_probs`], of the segments of a combination.
pub(crate) fn mixed_log_probs(
    device: &Device,
    vectors: usize,
    tokens: usize,
    vocab: usize,
) -> LogProbsShape {
    with_slots(device, mixture_slot(vectors), tokens, vocab)
}

/// f64 numbers of memory for the states of rows in parts; of the largest slots, since of smaller ones no more
/// rows are.
pub(crate) fn mixed_log_probs_scratch(device: &Device, tokens: usize, vocab: usize) -> usize {
    let vectors = MOST_PARTS * SEGMENT * 4 / (32 * 16);
    scratch_of(mixed_log_probs(device, vectors, tokens, vocab), tokens, vocab)
}

/// A warp a row up to 4096 columns, as many rows to a block as it has warps; beyond, the warps of one block or
/// more, until each multiprocessor has 48. Returns the warps of a row too.
pub(crate) fn mixed_logit_grads(
    device: &Device,
    vectors: usize,
    tokens: usize,
    vocab: usize,
) -> (LaunchShape, usize) {
    let segments = vocab.div_ceil(SEGMENT);
    let wanted = (GRADS_BLOCKS * device.processors as usize).div_ceil(tokens.max(1));
    let blocks = wanted.min(segments.div_ceil(ROWS_WARPS)).max(1);
    let warps = if segments <= ROWS_SEGMENTS { 1 } else { blocks * ROWS_WARPS };
    let grid = tokens.saturating_mul(warps).div_ceil(ROWS_WARPS);
    let shared = ROWS_WARPS * mixture_slot(vectors);
    (shape(grid, 32 * ROWS_WARPS, 1, shared), warps)
}

/// Who has a row of the gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogitGradsShape {
    /// A warp, several rows to a block.
    Rows(LaunchShape),
    /// So many blocks.
    Block(LaunchShape, usize),
}

/// A warp a row up to 4096 columns; beyond, one block or as many as there are tiles of 4 vectors for
/// each thread, until each multiprocessor has 48.
pub(crate) fn logit_grads(
    device: &Device,
    dtype: DType,
    tokens: usize,
    vocab: usize,
) -> LogitGradsShape {
    if vocab <= ROWS_SEGMENTS * SEGMENT {
        return LogitGradsShape::Rows(shape(tokens.div_ceil(ROWS_WARPS), 32 * ROWS_WARPS, 1, 0));
    }
    let tile = 256 * 4 * 16 / dtype.size();
    let wanted = (GRADS_BLOCKS * device.processors as usize).div_ceil(tokens.max(1));
    let parts = wanted.min(vocab.div_ceil(tile)).max(1);
    let rows = tokens.min(MAX_GRID / parts);
    LogitGradsShape::Block(shape(rows * parts, 256, 1, 0), parts)
}

/// Bytes of shared memory for a block where `blocks` of them are to fit a multiprocessor.
fn share(device: &Device, blocks: usize) -> usize {
    ((device.shared as usize + 1024) / blocks).saturating_sub(1024)
}

/// The most that a launch asks for beyond the 48 KB of every block.
pub(crate) fn most_shared(device: &Device) -> usize {
    share(device, 1).max(SHARED_STATES * STATE_BYTES)
}

/// The cluster that has a row on chip: the smallest of which three blocks fit a multiprocessor, else two; for
/// few rows the largest that leaves each warp a segment. `None` where a block could not load while another
/// one computes, where there is not a segment for each warp, or where so few rows leave half of the device
/// idle, which stages that split rows would fill.
pub(crate) fn token_loss(
    device: &Device,
    dtype: DType,
    tokens: usize,
    vocab: usize,
) -> Option<LaunchShape> {
    let segments = vocab.div_ceil(SEGMENT);
    let most = (device.cluster as usize).min(segments / WARPS);
    let room = |cluster: usize| {
        let mine = segments.div_ceil(cluster * WARPS) * WARPS;
        let row = mine.saturating_mul(SEGMENT * dtype.size());
        row.saturating_add(segments * STATE_BYTES + NEWS_BYTES)
    };
    let clusters = || [1, 2, 4, 8].into_iter().filter(|&cluster| cluster <= most);
    let fits = |blocks: usize| clusters().find(|&cluster| room(cluster) <= share(device, blocks));
    let smallest = fits(3).or_else(|| fits(2))?;
    let processors = device.processors as usize;
    let fills =
        |cluster: &usize| *cluster >= smallest && tokens.saturating_mul(*cluster) >= processors;
    let cluster = clusters().find(fills).or_else(|| clusters().next_back())?;
    if tokens.saturating_mul(2 * cluster) < processors {
        return None;
    }
    let rows = tokens.min(MAX_GRID / cluster);
    Some(shape(rows * cluster, 32 * WARPS, cluster, room(cluster)))
}

/// What a warp of kernels/divergence.cu knows of its row, the sums that a sweep takes of a segment, and the
/// segments of which they are in shared memory at a time; twins of the numbers in the kernel.
const WARP_ROW_BYTES: usize = 128;
const MOST_SUMS: usize = 6;
const TILE: usize = 256;

/// The warps of its blocks: of three blocks on a multiprocessor, of two, and of one.
const DIVERGENCE_WARPS: [(usize, usize); 3] = [(3, 8), (2, 8), (1, 24)];

/// The cluster that has a row of student and teacher, which are `vectors` of 16 bytes for each lane and
/// segment, and the segments that each of its warps has on chip.
///
/// | a row | cluster | on chip |
/// |---|---|---|
/// | fits three blocks of a multiprocessor, or two, or one | the smallest that does | all of it |
/// | fits none | one block | a segment of each warp; every sweep reads the row again |
///
/// Of few rows, the largest cluster that leaves each warp a segment, and fills the device no more than once.
pub(crate) fn divergence(
    device: &Device,
    vectors: usize,
    tokens: usize,
    columns: usize,
) -> (LaunchShape, usize) {
    let segments = columns.div_ceil(SEGMENT);
    let most = (device.cluster as usize).min(segments.div_ceil(WARPS));
    let clusters = || [1, 2, 4, 8].into_iter().filter(|&cluster| cluster <= most.max(1));
    let sums = 2 * MOST_SUMS * 4 * segments.min(TILE);
    let room = |warps: usize, slots: usize| {
        (warps * WARP_ROW_BYTES + sums)
            .saturating_add((warps * slots * 32 * 16).saturating_mul(vectors))
    };
    let on_chip = |cluster: usize, warps: usize| {
        let slots = segments.div_ceil(cluster * warps);
        // No more warps than fill their slots.
        let warps = segments.div_ceil(cluster * slots);
        (room(warps, slots), warps, slots)
    };
    let fits = |(blocks, warps): (usize, usize)| {
        clusters()
            .find(|&cluster| on_chip(cluster, warps).0 <= share(device, blocks))
            .map(|cluster| (cluster, warps))
    };
    let smallest = DIVERGENCE_WARPS.into_iter().find_map(fits);
    let (least, warps) = smallest.unwrap_or((1, WARPS));
    let processors = device.processors as usize;
    let fills = |&cluster: &usize| cluster >= least && tokens.saturating_mul(cluster) >= processors;
    let cluster = clusters().find(fills).or_else(|| clusters().next_back()).unwrap_or(least);
    let (shared, warps, slots) = match smallest {
        Some(_) => on_chip(cluster, warps),
        None => {
            let fits = |&warps: &usize| room(warps, 1) <= share(device, 1);
            let warps = (1..=WARPS).rev().find(fits).unwrap_or(1);
            (room(warps, 1), warps, 1)
        }
    };
    let rows = tokens.min(MAX_GRID / cluster);
    (shape(rows * cluster, 32 * warps, cluster, shared), slots)
}

/// One block: the slot has to be written before the next kernel.
pub(crate) fn check_tokens() -> LaunchShape {
    shape(1, 1024, 1, 32 * 8)
}

/// Columns of which kernels mark the listed ones at a time; WINDOW in kernels/include/listed.cuh.
const SPARSE_WINDOW: usize = 1 << 17;

/// Bytes of what comes before those marks in the shared memory of kernels/sparse_divergence.cu.
const SPARSE_SHARED: usize = 15_440;

/// Threads of that kernel's largest block, and of all on a multiprocessor: 80 registers each.
const SPARSE_THREADS: usize = 768;

/// Bytes of rows at once of which a second visit finds much in the second-level cache: 40 MB on an A100, 50
/// on an H100, and what is written takes its part.
const CACHED: usize = 36 << 20;

/// Bytes of a bit for each column of a window.
fn sparse_marks(vocab: usize) -> usize {
    vocab.min(SPARSE_WINDOW).next_multiple_of(SEGMENT) / 8
}

/// A block a row.
pub(crate) fn check_sparse_ids(tokens: usize, vocab: usize) -> LaunchShape {
    shape(tokens, 256, 1, 16 + sparse_marks(vocab))
}

/// One block: the slot has to be written before the next kernel.
pub(crate) fn report_sparse_ids() -> LaunchShape {
    shape(1, 1024, 1, 32 * 8)
}

/// A block a row: three, two or one for each multiprocessor, which have [`SPARSE_THREADS`] together. As many
/// as have a row each and as their rows fit the cache; no warp is without a segment.
pub(crate) fn sparse_divergence(
    device: &Device,
    dtype: DType,
    tokens: usize,
    vocab: usize,
) -> LaunchShape {
    let row = vocab.saturating_mul(dtype.size());
    let suits = |blocks: &usize| {
        let rows = blocks * device.processors as usize;
        tokens >= rows && row.saturating_mul(rows) <= CACHED
    };
    let blocks = [3, 2].into_iter().find(suits).unwrap_or(1);
    let most = 32 * vocab.div_ceil(SEGMENT).max(WARPS);
    let threads = (SPARSE_THREADS / blocks).min(most);
    shape(tokens, threads, 1, SPARSE_SHARED + sparse_marks(vocab))
}

/// A block a sequence.
pub(crate) fn sequence_sums(sequences: usize) -> LaunchShape {
    shape(sequences, 256, 1, 8 * 8)
}

/// A thread a token.
pub(crate) fn token_grads(tokens: usize) -> LaunchShape {
    shape(tokens.div_ceil(256), 256, 1, 0)
}

/// One block, which evaluates all units and sums over them.
pub(crate) fn objective() -> LaunchShape {
    shape(1, 256, 1, 9 * 8)
}

/// A block a sequence.
pub(crate) fn token_objective(sequences: usize) -> LaunchShape {
    shape(sequences, 256, 1, 9 * 8)
}

/// A block a group.
pub(crate) fn ranking(groups: usize) -> LaunchShape {
    shape(groups, 256, 1, 13 * 8)
}

fn shape(grid: usize, block: usize, cluster: usize, shared: usize) -> LaunchShape {
    let [grid, block, cluster, shared] =
        [grid.min(MAX_GRID), block, cluster, shared].map(|size| size as u32);
    LaunchShape { grid, block, cluster, shared }
}

#[cfg(test)]
mod tests;
