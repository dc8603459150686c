//! Stages called by hand, for callers that own the memory: what does not fit is refused.

use prefuse::batch::{Advantages, Groups, Labels, Logits, Pairs};
use prefuse::objectives::{Dpo, Nll, Ranking, Reinforce, SimPo};
use prefuse::stages::{
    LogProbs, Objective, ObjectiveOutputs, RankingOutputs, TokenInputs, TokenObjective,
    TokenObjectiveOutputs, TokenOutputs, Tokens, Totals,
};
use prefuse::{Backend, Cpu, DType, Reference, Sequences, Slice, SliceMut, Term, stages};

use crate::common::{batch, ready, refused};

/// Shapes of the stages themselves, for callers that own the memory.
#[test]
fn stages() {
    let backend = Cpu::new();
    let data = [0.5_f32; 12];
    let logits = Logits::new(&data, 4, 3).unwrap();
    let labels = Labels::new(&[0; 4][..]);
    let scratch = backend.log_probs_scratch(4, 3);
    let run = |lengths: [usize; 4], dtype: DType, scratch: usize| {
        let mut buffers: Vec<_> =
            lengths[..3].iter().map(|&len| backend.allocate(dtype, len).unwrap()).collect();
        let mut scratch = backend.allocate(DType::F64, scratch).unwrap();
        let mut argmax = vec![0_i64; lengths[3]];
        let [log_probs, maximum, log_sum] = &mut buffers[..] else { panic!() };
        let [log_probs, maximum, log_sum]: [SliceMut<'_>; 3] =
            [log_probs.slice_mut(), maximum.slice_mut(), log_sum.slice_mut()];
        let argmax = Some(SliceMut::new(&mut argmax));
        let outputs = TokenOutputs { argmax, ..TokenOutputs::new(log_probs, maximum, log_sum) };
        let tokens = Tokens::new(&labels, None)?;
        LogProbs::new(&backend, logits, tokens, 1.0, outputs, scratch.slice_mut()).map(|_| ())
    };
    assert!(run([4; 4], DType::F32, scratch).is_ok());
    refused(run([3, 4, 4, 4], DType::F32, scratch), "log_probs: expected length 4, got 3");
    refused(run([4, 5, 4, 4], DType::F32, scratch), "maximum: expected length 4, got 5");
    refused(run([4, 4, 0, 4], DType::F32, scratch), "log_sum: expected length 4, got 0");
    refused(run([4, 4, 4, 1], DType::F32, scratch), "argmax: expected length 4, got 1");
    refused(run([4; 4], DType::F16, scratch), "log_probs: expected f32, got f16");
    refused(
        run([4; 4], DType::F32, scratch - 1),
        &format!("scratch of log_probs: expected length {scratch}, got {}", scratch - 1),
    );
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
    let backend = Cpu::new();
    let batch = batch(&[0; 4], &[0, 2, 4])
        .and_then(|batch| batch.with_pairs(Pairs::halves(1)?))
        .and_then(|batch| batch.with_groups(Groups::new(vec![0, 1], &[2])?))
        .and_then(|batch| batch.with_scores(&[1.0, 0.0]))
        .and_then(|batch| batch.with_advantages(Advantages::per_sequence(&[1.0, -1.0])?))
        .unwrap();
    let term = |term: Term| term.resolve(&batch).unwrap().place(&backend, &batch).unwrap();
    let pairs = term(Term::pairs(SimPo::new(2.0, 1.0)));
    let sequences = term(Term::sequences(Nll::new(), Sequences::All));
    let tokens = term(Term::tokens(Reinforce::new(), Sequences::All));
    let groups = term(Term::groups(Ranking::pro()));
    let packing = batch.packing().place(&backend).unwrap();
    let numbers = [1.0; 4];
    let of = |len: usize| Slice::new(&numbers[..len]);
    let totals = Totals { sums: of(2), tokens: of(2), weights: of(2) };

    for (term, name) in [(&tokens, "Reinforce"), (&groups, "Pro")] {
        let (mut losses, mut rewards, mut value) = ([7.0; 2], [7.0; 4], [7.0]);
        let mut scratch = [7.0; 2];
        let outputs = ObjectiveOutputs {
            losses: SliceMut::new(&mut losses[..term.term().units()]),
            rewards: SliceMut::new(&mut rewards[..2 * term.term().units()]),
            value: SliceMut::new(&mut value),
            grads: None,
        };
        refused(
            Objective::new(&backend, term, (totals, None), outputs, SliceMut::new(&mut scratch)),
            &format!("{name}: expected a term over sequences or pairs, got one over other units"),
        );
    }
    for (term, name) in [(&pairs, "SimPo"), (&sequences, "Nll"), (&groups, "Pro")] {
        let mut losses = [7.0; 2];
        let losses = SliceMut::new(&mut losses[..term.term().units()]);
        let outputs = TokenObjectiveOutputs { losses, grads: None };
        let inputs = TokenInputs {
            log_probs: of(4),
            old: None,
            reference: None,
            entropy: None,
            advantages: None,
        };
        let of_tokens = (Tokens::new(batch.labels(), None).unwrap(), &packing);
        refused(
            TokenObjective::new(&backend, term, of_tokens, (inputs, of(2)), outputs),
            &format!("{name}: expected a term over tokens, got one over other units"),
        );
    }
    for (term, name) in [(&pairs, "SimPo"), (&sequences, "Nll"), (&tokens, "Reinforce")] {
        let (mut losses, mut scratch) = ([7.0; 2], [7.0; 2]);
        let losses = SliceMut::new(&mut losses[..term.term().units()]);
        let outputs = RankingOutputs { losses, grads: None };
        let scratch = SliceMut::new(&mut scratch);
        refused(
            stages::Ranking::new(&backend, term, (totals, None), outputs, scratch),
            &format!("{name}: expected a term over groups, got one over other units"),
        );
    }
}
