//! What stages ask of a device, seen by a driver in between: launches and nothing else; and what becomes
//! of rows where a grid has fewer blocks than rows.

use std::ffi::c_void;
use std::sync::{Arc, Mutex};

use half::bf16;
use prefuse::batch::{
    Advantages, Batch, Groups, Labels, Packing, Pairs, ReferenceLogProbs, Weights,
};
use prefuse::cuda::{Device, Driver, LaunchShape, Mapped};
use prefuse::objectives::{Dpo, KlPenalty, Nll, Ranking, Reinforce, SimPo};
use prefuse::{
    Backend, Cuda, DType, Error, Loss, MaskedRows, RowOptions, Sequences, Slice, Target, Term,
    Upstream, token_log_probs,
};
use prefuse_emulator::Emulator;

use crate::backends::emulators;
use crate::common::{Placed, bits, labels, logits};
use crate::divergence::Into;
use crate::mixed_log_probs::case as mixture;
use crate::sparse_divergence::{Case as Sparse, case as sparse};

/// Writes down what is called, and can take blocks away.
#[derive(Debug)]
struct Watched {
    emulator: Emulator,
    calls: Arc<Mutex<Vec<String>>>,
    least_blocks: bool,
}

impl Watched {
    fn said(&self, call: &str) {
        self.calls.lock().unwrap().push(call.to_owned());
    }
}

// SAFETY: the emulator's promises, and fewer blocks are what every kernel allows.
unsafe impl Driver for Watched {
    fn device(&self) -> &Device {
        self.emulator.device()
    }

    fn allocate(&self, bytes: usize) -> Result<u64, Error> {
        self.said("allocate");
        self.emulator.allocate(bytes)
    }

    unsafe fn free(&self, address: u64) {
        // SAFETY: the caller's promise.
        unsafe { self.emulator.free(address) }
    }

    fn allocate_mapped(&self, bytes: usize) -> Result<Mapped, Error> {
        self.said("allocate_mapped");
        self.emulator.allocate_mapped(bytes)
    }

    unsafe fn free_mapped(&self, memory: Mapped) {
        // SAFETY: the caller's promise.
        unsafe { self.emulator.free_mapped(memory) }
    }

    unsafe fn upload(&self, to: u64, from: &[u8]) -> Result<(), Error> {
        self.said("upload");
        // SAFETY: the caller's promise.
        unsafe { self.emulator.upload(to, from) }
    }

    unsafe fn download(&self, to: &mut [u8], from: u64) -> Result<(), Error> {
        self.said("download");
        // SAFETY: the caller's promise.
        unsafe { self.emulator.download(to, from) }
    }

    unsafe fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<(), Error> {
        self.said("copy");
        // SAFETY: the caller's promise.
        unsafe { self.emulator.copy(to, from, bytes) }
    }

    unsafe fn zero(&self, address: u64, bytes: usize) -> Result<(), Error> {
        self.said("zero");
        // SAFETY: the caller's promise.
        unsafe { self.emulator.zero(address, bytes) }
    }

    unsafe fn launch(
        &self,
        kernel: &str,
        mut shape: LaunchShape,
        arguments: &mut [*mut c_void],
    ) -> Result<(), Error> {
        self.said(kernel);
        if self.least_blocks {
            // A row in parts takes that many blocks, its kernel's second argument.
            let in_parts = kernel.contains("_part_") || kernel.contains("_grads_block_");
            // SAFETY: an int32, which outlives the call.
            let parts = if in_parts { unsafe { *arguments[1].cast::<i32>() as u32 } } else { 1 };
            shape.grid = shape.cluster.max(parts);
        }
        // SAFETY: the caller's promise.
        unsafe { self.emulator.launch(kernel, shape, arguments) }
    }

    fn synchronize(&self) -> Result<(), Error> {
        self.said("synchronize");
        self.emulator.synchronize()
    }
}

fn watched(emulator: Emulator, least_blocks: bool) -> (Cuda, Arc<Mutex<Vec<String>>>) {
    let calls = Arc::new(Mutex::new(vec![]));
    let driver = Watched { emulator, calls: calls.clone(), least_blocks };
    (Cuda::with_driver(Box::new(driver)).unwrap(), calls)
}

fn run(backend: &dyn Backend, vocab: usize) -> (Vec<u64>, Vec<bf16>) {
    let tokens = 11;
    let data = logits::<bf16>(3, tokens, vocab);
    let ids = labels(3, &data, vocab);
    let (labels, options) = (Labels::new(&ids[..]), RowOptions::default().with_argmax());
    let mut placed = Placed::new(backend, &data);
    let ours =
        token_log_probs(backend, placed.logits(tokens, vocab), &labels, None, options).unwrap();
    let grads = Placed::new(backend, &vec![0.7_f32; tokens]);
    let target = Target::InPlace(placed.target(tokens, vocab));
    let grads = (grads.slice(), None);
    ours.logit_grads(backend, target, (&labels, None), grads, MaskedRows::Zero).unwrap();
    (bits(&ours), placed.read())
}

/// Those of one visit: a row that does not count and one without a gradient among them.
fn visit(backend: &dyn Backend) -> (Vec<u64>, Vec<bf16>) {
    let (tokens, vocab) = (6, 33_024);
    let data = logits::<bf16>(4, tokens, vocab);
    let ids = labels(4, &data, vocab);
    let packing = Packing::new(&[0, 2, 3, 6]).unwrap();
    let batch = Batch::new(Labels::new(&ids[..]), packing)
        .and_then(|batch| batch.with_advantages(Advantages::per_sequence(&[1.0, 0.0, -1.0])?))
        .unwrap();
    let loss = Loss::new(batch, [Term::tokens(Reinforce::new(), Sequences::All)]).unwrap();
    let mut placed = Placed::new(backend, &data);
    let (target, upstream) = (Target::InPlace(placed.target(tokens, vocab)), Upstream::Loss(1.0));
    let forward =
        loss.forward_with_logit_grads(backend, target, upstream, MaskedRows::Zero).unwrap();
    (bits(forward.tokens()), placed.read())
}

#[test]
fn rows_of_a_visit_go_round() {
    let one_processor = || emulators().into_iter().filter(|e| e.device().processors == 1);
    for (plain, least) in one_processor().zip(one_processor()) {
        let ((plain, calls), (least, _)) = (watched(plain, false), watched(least, true));
        assert_eq!(visit(&least), visit(&plain));
        assert!(calls.lock().unwrap().iter().any(|call| call == "token_loss_cluster_bf16"));
    }
}

/// Rows go round where a grid has fewer blocks than rows, as it has beyond 2^22 blocks. 3000 columns are
/// three states, which three lanes read while the first is about to write those of the next row.
#[test]
fn rows_go_round() {
    for vocab in [33, 3000, 17_409, 140_000] {
        for (plain, least) in emulators().into_iter().zip(emulators()) {
            let (plain, _) = watched(plain, false);
            let (least, _) = watched(least, true);
            assert_eq!(run(&least, vocab), run(&plain, vocab), "{}, {vocab}", plain.device().1);
        }
    }
}

/// The same of what a row has in shared memory between its two visits.
#[test]
fn rows_of_sparse_teachers_go_round() {
    use prefuse::stages::{Remainder, TokenDivergence};
    for vocab in [33, 3000, 140_000] {
        let case: Sparse<bf16, f32> =
            sparse(TokenDivergence::ReverseKl, Remainder::Bin, [11, vocab, 20]);
        let run = |cuda: Cuda| {
            let found = case.run(&cuda, Into::Place).unwrap();
            let bits = found.numbers.concat().iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            (bits, found.grads.iter().map(|x| x.to_bits()).collect::<Vec<_>>())
        };
        for (plain, least) in emulators().into_iter().zip(emulators()) {
            assert_eq!(run(watched(least, true).0), run(watched(plain, false).0), "{vocab}");
        }
    }
}

/// The same of a combination's segments, and of the warps that have a row of its gradients.
#[test]
fn rows_of_mixtures_go_round() {
    for vocab in [33, 3000, 17_409, 140_000] {
        let case = mixture(&[1.5, -0.5], &[DType::BF16, DType::F32], [11, vocab], 1.0);
        for (plain, least) in emulators().into_iter().zip(emulators()) {
            let run = |emulator, least| case.run(&watched(emulator, least).0).bits();
            assert_eq!(run(least, true), run(plain, false), "{vocab}");
        }
    }
}

fn loss() -> Loss<'static> {
    let batch = Batch::new(Labels::new(vec![1; 8]), Packing::padded(4, 2).unwrap())
        .and_then(|batch| batch.with_weights(Weights::new(vec![0.5; 8]).unwrap()))
        .and_then(|batch| batch.with_reference(ReferenceLogProbs::per_token(&[-1.0_f32; 8])))
        .and_then(|batch| batch.with_pairs(Pairs::halves(2).unwrap()))
        .and_then(|batch| batch.with_groups(Groups::consecutive(&[2, 2])?))
        .unwrap();
    let nll = Term::sequences(Nll::new(), Sequences::Chosen);
    let groups = Term::groups(Ranking::plackett_luce(0.1));
    let kl = Term::tokens(KlPenalty::new(), Sequences::All);
    Loss::new(batch, [Term::pairs(Dpo::new(0.1)), nll, groups, kl]).unwrap()
}

/// Once memory is there, the backward is launches of the kernels: nothing is waited for, nothing of the
/// host's is read. (What allocates is the loss, not its stages.)
#[test]
fn a_backward_waits_for_nothing() {
    let (cuda, calls) = watched(emulators().remove(0), false);
    let data = logits::<bf16>(1, 8, 40);
    let mut placed = Placed::new(&cuda, &data);
    let loss = loss();
    let forward = loss.forward(&cuda, placed.logits(8, 40)).unwrap();
    calls.lock().unwrap().clear();
    let (target, upstream) = (placed.target(8, 40), Upstream::Loss(1.0));
    loss.logit_grads_in_place(&cuda, forward, target, upstream, MaskedRows::Zero).unwrap();
    let calls = calls.lock().unwrap().clone();
    let kernels: Vec<_> =
        calls.iter().filter(|call| !["allocate", "zero"].contains(&call.as_str())).collect();
    assert_eq!(
        kernels,
        [
            "objective_Pair_Dpo",
            "objective_Sequence_Nll",
            "ranking",
            "token_grads_f32",
            "objective_Token_KlPenalty",
            "check_tokens",
            "logit_grads_rows_bf16",
        ]
    );
}

/// A stage with memory of the caller is launches alone, so it can be captured in a graph.
#[test]
fn stages_only_launch() {
    use prefuse::stages::{
        LogProbs, LogitGrads, Objective, ObjectiveOutputs, Ranking as OfGroups, RankingOutputs,
        RowStatistics, SampledTokens, SequenceSums, TokenAdvantages, TokenGrads, TokenInputs,
        TokenLoss, TokenLossOutputs, TokenObjective, TokenObjectiveGrads, TokenObjectiveOutputs,
        TokenOutputs, TokenUpstream, Tokens, Totals, TotalsMut, UnitScale,
    };
    for emulator in emulators() {
        let (cuda, calls) = watched(emulator, false);
        let (tokens, vocab) = (6, 140_000);
        let data = logits::<bf16>(1, tokens, vocab);
        let mut placed = Placed::new(&cuda, &data);
        let ids = Placed::new(&cuda, &vec![5_i64; tokens]);
        let labels = Labels::from_slice(ids.slice()).unwrap();
        let counted = Tokens::new(&labels, None).unwrap();
        let packing = Packing::padded(2, 3).unwrap();
        let batch = Batch::new(Labels::new(vec![5; tokens]), packing.clone())
            .and_then(|batch| batch.with_pairs(Pairs::halves(1)?))
            .and_then(|batch| batch.with_groups(Groups::consecutive(&[2])?))
            .and_then(|batch| batch.with_advantages(Advantages::per_sequence(&[1.0, -1.0])?))
            .unwrap();
        let of_tokens = Term::tokens(Reinforce::new(), Sequences::All);
        let of_pairs = Term::pairs(SimPo::new(2.0, 0.5));
        let [pairs, groups, single] = [of_pairs, Term::groups(Ranking::know_pat()), of_tokens]
            .map(|term| term.resolve(&batch).unwrap().place(&cuda, &batch).unwrap());
        let single = [single];
        let advantages = Placed::new(&cuda, &[1.0, -1.0]);
        let advantages = Some(TokenAdvantages::Sequences(advantages.slice()));
        let packing = packing.place(&cuda).unwrap();
        let numbers = |dtype, len| cuda.allocate(dtype, len).unwrap();
        let mut rows = [(); 3].map(|()| numbers(DType::F32, tokens));
        let mut totals = [(); 3].map(|()| numbers(DType::F64, 2));
        let mut scratch = numbers(DType::F64, cuda.log_probs_scratch(tokens, vocab));
        let mut by_token = numbers(DType::F32, tokens);
        let mut of_terms = [1, 2, 1].map(|len| numbers(DType::F64, len));
        let mut of_sequences = [(); 2].map(|()| numbers(DType::F64, 2));
        let needed = [
            cuda.objective_scratch(2),
            cuda.ranking_scratch(2),
            cuda.token_loss_scratch(tokens, vocab, &single),
        ];
        let mut of_stage = numbers(DType::F64, needed.into_iter().max().unwrap());
        calls.lock().unwrap().clear();

        let [log_probs, maximum, log_sum] = rows.each_mut().map(|row| row.slice_mut());
        let outputs = TokenOutputs::new(log_probs, maximum, log_sum);
        let logits = placed.logits(tokens, vocab);
        let stage = LogProbs::new(&cuda, logits, counted, 1.0, outputs, scratch.slice_mut());
        cuda.log_probs(stage.unwrap()).unwrap();
        let [sums, counts, weights] = totals.each_mut().map(|total| total.slice_mut());
        let totals_mut = TotalsMut { sums, tokens: counts, weights };
        let [log_probs, maximum, log_sum] = rows.each_ref().map(|row| row.slice());
        let stage = SequenceSums::new(&cuda, log_probs, counted, &packing, totals_mut);
        cuda.sequence_sums(stage.unwrap()).unwrap();
        let [sums, counts, weights] = totals.each_ref().map(|total| total.slice());
        let known = (Totals { sums, tokens: counts, weights }, None);
        let [losses, rewards, value] = of_terms.each_mut().map(|numbers| numbers.slice_mut());
        let grads = Some((of_sequences[0].slice_mut(), UnitScale::Reduced(1.0)));
        let outputs = ObjectiveOutputs { losses, rewards, value, grads };
        let stage = Objective::new(&cuda, &pairs, known, outputs, of_stage.slice_mut());
        cuda.objective(stage.unwrap()).unwrap();
        let grads = Some((of_sequences[0].slice_mut(), UnitScale::Reduced(1.0)));
        let outputs = RankingOutputs { losses: of_terms[0].slice_mut(), grads };
        let stage = OfGroups::new(&cuda, &groups, known, outputs, of_stage.slice_mut());
        cuda.ranking(stage.unwrap()).unwrap();
        let inputs =
            TokenInputs { log_probs, old: None, reference: None, entropy: None, advantages };
        let by = TokenObjectiveGrads { log_probs: by_token.slice_mut(), entropy: None };
        let losses = of_sequences[1].slice_mut();
        let outputs = TokenObjectiveOutputs { losses, grads: Some((by, UnitScale::Reduced(1.0))) };
        let (of, inputs) = ((counted, &packing), (inputs, counts));
        let stage = TokenObjective::new(&cuda, &single[0], of, inputs, outputs);
        cuda.token_objective(stage.unwrap()).unwrap();
        let from: Slice<'_> = totals[0].slice();
        let stage = TokenGrads::new(&cuda, from, counted, &packing, by_token.slice_mut());
        cuda.token_grads(stage.unwrap()).unwrap();
        let upstream = TokenUpstream { log_probs: by_token.slice(), entropy: None };
        let target = Target::InPlace(placed.target(tokens, vocab));
        let statistics = RowStatistics { maximum, log_sum };
        let masked = MaskedRows::Zero;
        let stage = LogitGrads::new(&cuda, target, counted, 1.0, statistics, upstream, masked);
        cuda.logit_grads(stage.unwrap()).unwrap();
        let [log_probs, maximum, log_sum] = rows.each_mut().map(|row| row.slice_mut());
        let stage = TokenLoss::new(
            &cuda,
            (Target::InPlace(placed.target(tokens, vocab)), masked, 1.0),
            (counted, &packing),
            (&single, &[UnitScale::Reduced(1.0)]),
            (SampledTokens { old: None, reference: None, advantages }, counts),
            TokenLossOutputs {
                rows: TokenOutputs::new(log_probs, maximum, log_sum),
                grads: TokenObjectiveGrads { log_probs: by_token.slice_mut(), entropy: None },
            },
            of_stage.slice_mut(),
        );
        cuda.token_loss(stage.unwrap()).unwrap();

        // To zero memory is enqueued like a launch, and captured like one.
        let calls = calls.lock().unwrap().clone();
        let others = calls.iter().filter(|call| !call.contains('_') && *call != "zero");
        assert_eq!(others.filter(|call| *call != "ranking").count(), 0, "{calls:?}");
        assert!(calls.len() >= 12 && !calls.contains(&"allocate_mapped".to_owned()));
    }
}
