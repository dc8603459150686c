//! What can be wrong with an input: facts with both sides named.

use crate::{batch::GroupsError, element::DType};
use crate::{stages::SparseTeacherError, token_log_probs::RowOptions};

/// The result of every fallible call of the crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call was refused. Nothing that the caller owns was written; after a device's own error
/// ([`Driver`](Self::Driver)) the contents of its memory are not defined.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// A buffer whose length does not fit the others.
    #[error("{what}: expected length {expected}, got {got}")]
    Length {
        /// Which buffer.
        what: &'static str,
        /// The length that fits.
        expected: usize,
        /// The length found.
        got: usize,
    },
    /// A range beyond a buffer.
    #[error("part of a buffer: expected a range within its {len} elements, got {start}..{end}")]
    Part {
        /// Elements of the buffer.
        len: usize,
        /// First element found.
        start: usize,
        /// End found.
        end: usize,
    },
    /// A term that is the mean of nothing.
    #[error("{objective}: expected at least 1 unit, got 0")]
    NoUnits {
        /// The objective's name.
        objective: &'static str,
    },
    /// Rows that would overlap.
    #[error("row stride: expected at least the vocabulary {vocab}, got {got}")]
    RowStride {
        /// Entries of one row.
        vocab: usize,
        /// The stride found.
        got: usize,
    },
    /// A shape whose number of elements does not fit in memory.
    #[error("{what}: {rows} rows of {stride} elements overflow the address space")]
    TooLarge {
        /// Which matrix.
        what: &'static str,
        /// Rows.
        rows: usize,
        /// Elements from one row to the next.
        stride: usize,
    },
    /// Logits of an element type that the backend does not take.
    #[error(
        "logits: the {backend} backend takes {expected:?}, got {got}{}",
        if *got == DType::F64 { "; Reference takes f64" } else { "" }
    )]
    LogitsType {
        /// The backend's name.
        backend: &'static str,
        /// The types that it takes.
        expected: &'static [DType],
        /// The type found.
        got: DType,
    },
    /// An element type that differs from its companion's.
    #[error("{what}: expected {expected}, got {got}")]
    DataType {
        /// Which buffer.
        what: &'static str,
        /// What fits.
        expected: &'static str,
        /// What was found.
        got: DType,
    },
    /// Memory that the backend does not reach.
    #[error("{what}: expected {expected}, got {got}")]
    Place {
        /// Which buffer.
        what: &'static str,
        /// What the backend reaches.
        expected: &'static str,
        /// Where the buffer lies.
        got: &'static str,
    },
    /// Device memory that no element of this type starts at.
    #[error(
        "device memory: expected an address that is a multiple of {expected}, got {address:#x}"
    )]
    Alignment {
        /// Bytes of an element.
        expected: usize,
        /// The address found.
        address: u64,
    },
    /// A stage that was made for another backend.
    #[error("stage: expected one made for the {expected} backend, got one for {got}")]
    OtherBackend {
        /// The backend that was asked to run it.
        expected: &'static str,
        /// The backend that it was made for.
        got: &'static str,
    },
    /// Another thread took an error of this backend during a forward call; it may be this call's.
    #[error(
        "forward: expected a backend of this thread's own, got one whose error another thread took"
    )]
    ErrorTaken,
    /// A term that was resolved against another batch.
    #[error("term: expected one resolved against this batch, got one of another")]
    OtherBatch,
    /// Log-probs of other row options than the loss's.
    #[error("log-probs: expected those of {expected:?}, got those of {got:?}")]
    RowOptions {
        /// What the loss asks of each row.
        expected: RowOptions,
        /// What the log-probs were computed with.
        got: RowOptions,
    },
    /// A forward result of another loss.
    #[error("forward: expected a result of this loss, got one of another")]
    OtherLoss,
    /// A gradient by logits that hold one already.
    #[error("logits: expected those of the forward call, got a gradient written in place")]
    Overwritten,
    /// A count that no memory holds.
    #[error("{what}: expected a number that fits in memory, got {got}")]
    OutOfMemory {
        /// What is counted.
        what: &'static str,
        /// The count.
        got: usize,
    },
    /// A matrix of another shape than its companion's.
    #[error("{what}: expected shape {expected:?}, got {got:?}")]
    Shape {
        /// Which matrix.
        what: &'static str,
        /// `[tokens, vocab]` that fits.
        expected: [usize; 2],
        /// `[tokens, vocab]` found.
        got: [usize; 2],
    },
    /// `cu_seqlens` that does not begin at the first token.
    #[error("cu_seqlens: expected to start at 0, got {got}")]
    CuSeqlensStart {
        /// The first entry.
        got: i64,
    },
    /// `cu_seqlens` that goes back.
    #[error("cu_seqlens[{index}]: expected at least {previous}, the entry before it, got {got}")]
    CuSeqlensDecrease {
        /// Position of the entry.
        index: usize,
        /// The entry before it.
        previous: i64,
        /// The entry.
        got: i64,
    },
    /// `cu_seqlens` that covers more or fewer tokens than there are labels.
    #[error("cu_seqlens: expected to end at the number of tokens {tokens}, got {got}")]
    CuSeqlensEnd {
        /// Labels in the batch.
        tokens: usize,
        /// The last entry.
        got: usize,
    },
    /// A label that names no vocabulary entry and is not the ignore value.
    #[error(
        "label of token {token}: expected 0 to {} or the ignore value {ignore}, got {label}",
        vocab - 1
    )]
    Label {
        /// The first such token.
        token: usize,
        /// Its label.
        label: i64,
        /// Entries of the vocabulary.
        vocab: usize,
        /// The value that marks ignored tokens.
        ignore: i64,
    },
    /// A number given for a token that is NaN or infinite.
    #[error("{input} of token {token}: expected a finite number, got {got}")]
    TokenInput {
        /// `weight` or `entropy`.
        input: &'static str,
        /// The first such token.
        token: usize,
        /// The number found.
        got: f64,
    },
    /// A pair that names a sequence beyond the pack.
    #[error("{role} of pair {pair}: expected a sequence below {sequences}, got {got}")]
    PairIndex {
        /// `chosen` or `rejected`.
        role: &'static str,
        /// Position of the pair.
        pair: usize,
        /// Sequences in the pack.
        sequences: usize,
        /// The index found.
        got: usize,
    },
    /// A pair of one sequence with itself.
    #[error("pair {pair}: expected two different sequences, got {sequence} twice")]
    PairOfSame {
        /// Position of the pair.
        pair: usize,
        /// The sequence.
        sequence: usize,
    },
    /// A number given for each pair that lies outside its domain.
    #[error("{input} of pair {pair}: expected {expected}, got {got:?}")]
    PairInput {
        /// Which number.
        input: &'static str,
        /// Position of the pair.
        pair: usize,
        /// The domain.
        expected: &'static str,
        /// The number found.
        got: f64,
    },
    /// A number given for each pair that the objective does not look at.
    #[error(
        "{input} of pair {pair}: {objective} does not use it, expected the neutral {neutral}, got {got:?}"
    )]
    UnusedInput {
        /// The objective's name.
        objective: &'static str,
        /// Which number.
        input: &'static str,
        /// The first pair with another value.
        pair: usize,
        /// The value that changes nothing.
        neutral: f64,
        /// The value found.
        got: f64,
    },
    /// An entry of a list that names a sequence beyond the pack.
    #[error("sequence of {what} {position}: expected below {sequences}, got {got}")]
    SequenceIndex {
        /// `selection` or `sentence`.
        what: &'static str,
        /// Position in the list.
        position: usize,
        /// Sequences in the pack.
        sequences: usize,
        /// The index found.
        got: usize,
    },
    /// A sentence that is not a part of its sequence.
    #[error(
        "sentence {sentence}: expected a range within the {tokens} tokens of sequence {sequence}, got {start}..{end}"
    )]
    SentenceRange {
        /// Position of the sentence in the list.
        sentence: usize,
        /// The sequence that it names.
        sequence: usize,
        /// Tokens of that sequence.
        tokens: usize,
        /// First token found.
        start: usize,
        /// End found.
        end: usize,
    },
    /// Two sentences that share a token.
    #[error(
        "sentence {sentence}: overlaps an earlier sentence at token {token} of sequence {sequence}"
    )]
    SentenceOverlap {
        /// Position of the later sentence in the list.
        sentence: usize,
        /// Its sequence.
        sequence: usize,
        /// The first shared token.
        token: usize,
    },
    /// A sequence with two roles, where its weights or its reference differ by role.
    #[error("sequence {sequence}: expected one role in all pairs, got chosen and rejected")]
    TwoRoles {
        /// The sequence.
        sequence: usize,
    },
    /// A sequence of which its pairs say different things.
    #[error("sequence {sequence}: expected one {what}, got {first} and {second}")]
    Conflict {
        /// `pair` or `common length`.
        what: &'static str,
        /// The sequence.
        sequence: usize,
        /// What its first pair says.
        first: usize,
        /// What a later pair says.
        second: usize,
    },
    /// What is not in its list.
    #[error("{what} of {unit} {position}: expected a number below {count}, got {got}")]
    Index {
        /// `annotator` or `prompt`.
        what: &'static str,
        /// `pair` or `sequence`.
        unit: &'static str,
        /// Position of the pair or sequence.
        position: usize,
        /// Entries of the list.
        count: usize,
        /// The number found.
        got: usize,
    },
    /// Less than there has to be: tokens, pairs, terms and the like.
    #[error("{what}: expected at least {expected}, got {got}")]
    TooFew {
        /// What is counted.
        what: &'static str,
        /// The least count.
        expected: usize,
        /// The count found.
        got: usize,
    },
    /// A term that looks at something that the batch does not have.
    #[error("{objective}: expected a batch with {what}, got none")]
    Missing {
        /// The objective's name.
        objective: &'static str,
        /// What it looks at: `pairs`, `reference log-probs`, `scores` or the like.
        what: &'static str,
    },
    /// Numbers in the batch that no term looks at.
    #[error("{what}: expected a term that uses them, got none")]
    Unused {
        /// What they are.
        what: &'static str,
    },
    /// A selection, a reduction or another input of a kind that the objective or the stage does not take.
    #[error("{objective}: expected {expected}, got {got}")]
    Selection {
        /// What takes it: an objective's name or a stage's input.
        objective: &'static str,
        /// What it can take.
        expected: &'static str,
        /// What was given.
        got: &'static str,
    },
    /// A sequence that a term over tokens selects twice.
    #[error("{objective}: expected each sequence once, got sequence {got} again at {position}")]
    SequenceTwice {
        /// The objective's name.
        objective: &'static str,
        /// Position in the selection.
        position: usize,
        /// The sequence.
        got: usize,
    },
    /// Groups that are none.
    #[error(transparent)]
    Groups(#[from] GroupsError),
    /// Entries of a sparse teacher that are none.
    #[error(transparent)]
    SparseTeacher(#[from] SparseTeacherError),
    /// A selected pair that the batch does not have.
    #[error(
        "{objective}: expected selection {position} below {pairs}, the number of pairs, got {got}"
    )]
    PairSelection {
        /// The objective's name.
        objective: &'static str,
        /// Position in the selection.
        position: usize,
        /// Pairs in the batch.
        pairs: usize,
        /// The index found.
        got: usize,
    },
    /// A number given for a sequence, outside its domain.
    #[error("{input} of sequence {sequence}: expected {expected}, got {got:?}")]
    SequenceInput {
        /// Which number.
        input: &'static str,
        /// The sequence.
        sequence: usize,
        /// The domain.
        expected: &'static str,
        /// The number found.
        got: f64,
    },
    /// A batch that lacks what is needed, or that was made for something else.
    #[error("batch: expected {expected}, got {got}")]
    BatchKind {
        /// What is needed.
        expected: &'static str,
        /// What was given.
        got: &'static str,
    },
    /// Reference sums and token weights that need not belong together.
    #[error(
        "reference sums: expected {expected}, got {got}; per_sequence is for batches without token weights, per_sequence_weighted says that the batch's weights went into the sums"
    )]
    ReferenceWeights {
        /// How the batch weighs tokens.
        expected: &'static str,
        /// How the reference was declared.
        got: &'static str,
    },
    /// An objective's parameter outside its domain.
    #[error("{parameter} of {objective}: expected {expected}, got {got:?}")]
    Parameter {
        /// The objective's name.
        objective: &'static str,
        /// The parameter.
        parameter: &'static str,
        /// The domain.
        expected: &'static str,
        /// The value found.
        got: f64,
    },
    /// A scalar option outside its domain.
    #[error("{what}: expected {expected}, got {got:?}")]
    Scalar {
        /// Which option.
        what: &'static str,
        /// The domain.
        expected: &'static str,
        /// The value found.
        got: f64,
    },
    /// No CUDA driver on this machine.
    #[error("CUDA driver: {reason}; install NVIDIA's driver; the CPU backend needs none")]
    NoDriver {
        /// What the search for the library came to.
        reason: String,
    },
    /// A CUDA driver that shows no device.
    #[error(
        "CUDA device: the driver shows none; check nvidia-smi and CUDA_VISIBLE_DEVICES; the CPU backend needs none"
    )]
    NoDevice,
    /// A device number beyond those that the driver shows.
    #[error("CUDA device: expected a number below the {devices} that the driver shows, got {got}")]
    DeviceOrdinal {
        /// Devices that the driver shows.
        devices: usize,
        /// The number found.
        got: usize,
    },
    /// A build of the crate without CUDA kernels.
    #[error(
        "CUDA kernels: this build has none, {reason}; install a CUDA 13 compiler, for example pip install \"cuda-toolkit[nvcc,crt,nvvm,cccl,cudart]==13.0.2\", set NVCC to its nvcc and build again (PREFUSE_NVCC=require makes a missing nvcc a build error)"
    )]
    KernelsNotBuilt {
        /// Why the build script left them out.
        reason: &'static str,
    },
    /// A CUDA driver that is older than the kernels.
    #[error(
        "CUDA driver: expected CUDA {}.{} or later for kernels built for {built}, got {}.{} (device of compute capability {}.{}); update the driver",
        needed.0, needed.1, driver.0, driver.1, capability.0, capability.1
    )]
    DriverTooOld {
        /// The CUDA version that the driver supports, major and minor.
        driver: (u32, u32),
        /// The CUDA version that is needed.
        needed: (u32, u32),
        /// Compute capability of the device.
        capability: (u32, u32),
        /// What the kernels were built for.
        built: &'static str,
    },
    /// Kernels that were not built for this device, under a driver that is new enough.
    #[error(
        "CUDA kernels: built for {built}, which a device of compute capability {}.{} does not run under a driver for CUDA {}.{} ({message}); build again with PREFUSE_CUDA_ARCHS=\"{}{}\", capability 8.0 is the least",
        capability.0, capability.1, driver.0, driver.1, capability.0, capability.1
    )]
    NoKernelsForDevice {
        /// The CUDA version that the driver supports, major and minor.
        driver: (u32, u32),
        /// Compute capability of the device.
        capability: (u32, u32),
        /// What the kernels were built for.
        built: &'static str,
        /// What the driver said.
        message: String,
    },
    /// Everything else that the CUDA driver refuses.
    #[error("{call}: {message}")]
    Driver {
        /// The function of the driver.
        call: &'static str,
        /// What it said.
        message: String,
    },
}
