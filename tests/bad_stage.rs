//! Stages called by hand, for callers that own the memory: what does not fit is refused.

use prefuse::batch::{Advantages, Groups, Labels, Logits, Pairs};
use prefuse::objectives::{Dpo, Nll, Ranking, Reinforce, SimPo};
use prefuse::stages::{
    LogProbs, Objective, ObjectiveOutputs, RankingOutputs, SequenceSums, TokenAdvantages,
    TokenGrads, TokenInputs, TokenObjective, TokenObjectiveGrads, TokenObjectiveOutputs,
    TokenOutputs, Tokens, Totals, TotalsMut, UnitScale,
};
use prefuse::{Backend, Buffer, Cpu, DType, Reference, Sequences, SliceMut, Term, stages};

use crate::backends::{backends, fast_backends};
use crate::common::{Placed, batch, ready, refused};

/// Shapes of the stages themselves, for callers that own the memory.
#[test]
fn stages() {
    for backend in fast_backends() {
        let backend = &*backend;
        let (data, ids) = (Placed::new(backend, &[0.5_f32; 12]), Placed::new(backend, &[0_i64; 4]));
        let (logits, labels) = (data.logits(4, 3), Labels::from_slice(ids.slice()).unwrap());
        let scratch = backend.log_probs_scratch(4, 3);
        let run = |lengths: [usize; 4], dtype: DType, scratch: usize| {
            let numbers = |dtype, len| backend.allocate(dtype, len).unwrap();
            let mut buffers = [0, 1, 2].map(|i| numbers(dtype, lengths[i]));
            let [log_probs, maximum, log_sum] = buffers.each_mut().map(Buffer::slice_mut);
            let mut argmax = numbers(DType::I64, lengths[3]);
            let mut scratch = numbers(DType::F64, scratch);
            let argmax = Some(argmax.slice_mut());
            let outputs = TokenOutputs { argmax, ..TokenOutputs::new(log_probs, maximum, log_sum) };
            let tokens = Tokens::new(&labels, None)?;
            LogProbs::new(backend, logits, tokens, 1.0, outputs, scratch.slice_mut()).map(|_| ())
        };
        assert!(run([4; 4], DType::F32, scratch).is_ok());
        refused(run([3, 4, 4, 4], DType::F32, scratch), "log_probs: expected length 4, got 3");
        refused(run([4, 5, 4, 4], DType::F32, scratch), "maximum: expected length 4, got 5");
        refused(run([4, 4, 0, 4], DType::F32, scratch), "log_sum: expected length 4, got 0");
        refused(run([4, 4, 4, 1], DType::F32, scratch), "argmax: expected length 4, got 1");
        refused(run([4; 4], DType::F16, scratch), "log_probs: expected f32, got f16");
        if scratch > 0 {
            refused(
                run([4; 4], DType::F32, scratch - 1),
                &format!("scratch of log_probs: expected length {scratch}, got {}", scratch - 1),
            );
        }
    }
}

/// Sizes beyond memory are sizes, not a panic.
#[test]
fn scratch_saturates() {
    for backend in backends() {
        let most = usize::MAX;
        for size in [[most, 1], [1, most], [most, most], [31, most]] {
            backend.log_probs_scratch(size[0], size[1]);
            backend.token_loss_scratch(size[0], size[1], &[]);
        }
        assert!(backend.ranking_scratch(most) == 0 || backend.ranking_scratch(most) == most);
        backend.objective_scratch(most);
    }
}

/// Kernels read log-probs and write their gradients as what stage 1 of the backend writes.
#[test]
fn types_of_log_probs() {
    for backend in backends() {
        let backend = &*backend;
        let takes_f64 = backend.dtypes().contains(&DType::F64);
        let placed = |dtype| backend.allocate(dtype, 4).unwrap();
        let ids = Placed::new(backend, &[0_i64; 4]);
        let labels = Labels::from_slice(ids.slice()).unwrap();
        let tokens = Tokens::new(&labels, None).unwrap();
        let batch = batch(&[0; 4], &[0, 2, 4])
            .and_then(|batch| batch.with_advantages(Advantages::per_sequence(&[1.0, -1.0])?))
            .unwrap();
        let packing = batch.packing().place(backend).unwrap();
        let term = Term::tokens(Reinforce::new(), Sequences::All).resolve(&batch).unwrap();
        let term = term.place(backend, &batch).unwrap();
        let advantages = Placed::new(backend, &[1.0, -1.0]);
        let numbers = || [(); 3].map(|()| Placed::new(backend, &[7.0_f64; 2]));
        let objective = |dtype| {
            let (log_probs, mut grads, [mut losses, counts, _]) =
                (placed(dtype), placed(dtype), numbers());
            let inputs = TokenInputs {
                log_probs: log_probs.slice(),
                old: None,
                reference: None,
                entropy: None,
                advantages: Some(TokenAdvantages::Sequences(advantages.slice())),
            };
            let by = TokenObjectiveGrads { log_probs: grads.slice_mut(), entropy: None };
            let grads = Some((by, UnitScale::Reduced(1.0)));
            let outputs = TokenObjectiveOutputs { losses: losses.slice_mut(), grads };
            let inputs = (inputs, counts.slice());
            TokenObjective::new(backend, &term, (tokens, &packing), inputs, outputs).map(|_| ())
        };
        let sums = |dtype| {
            let (log_probs, mut totals) = (placed(dtype), numbers());
            let [sums, counts, weights] = totals.each_mut().map(Placed::slice_mut);
            let totals = TotalsMut { sums, tokens: counts, weights };
            SequenceSums::new(backend, log_probs.slice(), tokens, &packing, totals).map(|_| ())
        };
        let token_grads = |dtype| {
            let ([from, ..], mut to) = (numbers(), placed(dtype));
            TokenGrads::new(backend, from.slice(), tokens, &packing, to.slice_mut()).map(|_| ())
        };
        assert!(
            [objective(DType::F32), sums(DType::F32), token_grads(DType::F32)]
                .iter()
                .all(Result::is_ok)
        );
        assert!(sums(DType::F64).is_ok());
        let own = if takes_f64 { "f32 or f64" } else { "f32" };
        for dtype in [DType::F64, DType::F16, DType::I64] {
            if takes_f64 && dtype == DType::F64 {
                assert!(objective(dtype).is_ok() && token_grads(dtype).is_ok());
                continue;
            }
            refused(objective(dtype), &format!("log_probs: expected {own}, got {dtype}"));
            refused(token_grads(dtype), &format!("token grads: expected {own}, got {dtype}"));
        }
        for dtype in [DType::F16, DType::I64] {
            refused(sums(dtype), &format!("log_probs: expected f32 or f64, got {dtype}"));
        }
    }
}

/// A stage runs on the backend that it was made for.
#[test]
fn stages_of_another_backend() {
    let data = [0.5_f64; 12];
    let labels = Labels::new(&[0; 4][..]);
    let mut buffers = [[7.0_f64; 4]; 3];
    let [log_probs, maximum, log_sum] = buffers.each_mut().map(|output| SliceMut::new(output));
    let outputs = TokenOutputs::new(log_probs, maximum, log_sum);
    let (logits, tokens) = (Logits::new(&data, 4, 3).unwrap(), Tokens::new(&labels, None).unwrap());
    let mut single = [0.0_f32; 64];
    let wrong = SliceMut::new(&mut single);
    let mut other = [[7.0_f64; 4]; 3];
    let [a, b, c] = other.each_mut().map(|output| SliceMut::new(output));
    let again = TokenOutputs::new(a, b, c);
    refused(
        LogProbs::new(&Reference::new(), logits, tokens, 1.0, again, wrong),
        "scratch of log_probs: expected f64, got f32",
    );
    let mut scratch = [0.0_f64; 0];
    let scratch = SliceMut::new(&mut scratch);
    let stage = LogProbs::new(&Reference::new(), logits, tokens, 1.0, outputs, scratch).unwrap();
    refused(
        Cpu::new().log_probs(stage),
        "stage: expected one made for the cpu backend, got one for reference",
    );
    assert_eq!(buffers, [[7.0; 4]; 3]);
}

/// A term resolved against one batch does not run on another.
#[test]
fn terms_of_another_batch() {
    let term = Term::pairs(Dpo::new(0.1)).resolve(&ready()).unwrap();
    let bare = batch(&[0; 4], &[0, 4]).unwrap();
    refused(
        term.place(&Cpu::new(), &bare),
        "term: expected one resolved against this batch, got one of another",
    );
}

/// Each form of stage 3 has kernels of its own: a term of another form would be read as what it is not.
#[test]
fn terms_of_another_form() {
    for backend in backends() {
        other_forms(&*backend);
    }
}

fn other_forms(backend: &dyn Backend) {
    let batch = batch(&[0; 4], &[0, 2, 4])
        .and_then(|batch| batch.with_pairs(Pairs::halves(1)?))
        .and_then(|batch| batch.with_groups(Groups::new(vec![0, 1], &[2])?))
        .and_then(|batch| batch.with_scores(&[1.0, 0.0]))
        .and_then(|batch| batch.with_advantages(Advantages::per_sequence(&[1.0, -1.0])?))
        .unwrap();
    let term = |term: Term| term.resolve(&batch).unwrap().place(backend, &batch).unwrap();
    let pairs = term(Term::pairs(SimPo::new(2.0, 1.0)));
    let sequences = term(Term::sequences(Nll::new(), Sequences::All));
    let tokens = term(Term::tokens(Reinforce::new(), Sequences::All));
    let groups = term(Term::groups(Ranking::pro()));
    let packing = batch.packing().place(backend).unwrap();
    let of_2 = Placed::new(backend, &[1.0_f64; 2]);
    let log_probs = Placed::new(backend, &[1.0_f32; 4]);
    let place = |len: usize| Placed::new(backend, &vec![7.0_f64; len]);
    let ids = Placed::new(backend, &[0_i64; 4]);
    let labels = Labels::from_slice(ids.slice()).unwrap();
    let totals = Totals { sums: of_2.slice(), tokens: of_2.slice(), weights: of_2.slice() };

    for (term, name) in [(&tokens, "Reinforce"), (&groups, "Pro")] {
        let units = term.term().units();
        let (mut losses, mut rewards, mut value) = (place(units), place(2 * units), place(1));
        let mut scratch = place(8);
        let outputs = ObjectiveOutputs {
            losses: losses.slice_mut(),
            rewards: rewards.slice_mut(),
            value: value.slice_mut(),
            grads: None,
        };
        refused(
            Objective::new(backend, term, (totals, None), outputs, scratch.slice_mut()),
            &format!("{name}: expected a term over sequences or pairs, got one over other units"),
        );
    }
    for (term, name) in [(&pairs, "SimPo"), (&sequences, "Nll"), (&groups, "Pro")] {
        let mut losses = place(term.term().units());
        let outputs = TokenObjectiveOutputs { losses: losses.slice_mut(), grads: None };
        let inputs = TokenInputs {
            log_probs: log_probs.slice(),
            old: None,
            reference: None,
            entropy: None,
            advantages: None,
        };
        let of_tokens = (Tokens::new(&labels, None).unwrap(), &packing);
        refused(
            TokenObjective::new(backend, term, of_tokens, (inputs, of_2.slice()), outputs),
            &format!("{name}: expected a term over tokens, got one over other units"),
        );
    }
    for (term, name) in [(&pairs, "SimPo"), (&sequences, "Nll"), (&tokens, "Reinforce")] {
        let (mut losses, mut scratch) = (place(term.term().units()), place(8));
        let outputs = RankingOutputs { losses: losses.slice_mut(), grads: None };
        refused(
            stages::Ranking::new(backend, term, (totals, None), outputs, scratch.slice_mut()),
            &format!("{name}: expected a term over groups, got one over other units"),
        );
    }
}
