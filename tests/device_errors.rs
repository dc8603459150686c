//! Bad inputs on a device: kernels find them, nothing is written from then on, and the error comes where
//! the host next waits. One is taken; then all is well again.

use prefuse::batch::{
    Advantages, Batch, Groups, Labels, Logits, LogitsMut, Packing, Pairs, ReferenceLogProbs,
    Weights,
};
use prefuse::objectives::{Dpo, Nll, Ranking, Reinforce};
use prefuse::stages::{
    LogProbs, LogitGrads, Objective, ObjectiveOutputs, Ranking as OfGroups, RankingOutputs,
    RowStatistics, SampledTokens, SequenceSums, TokenAdvantages, TokenGrads, TokenInputs,
    TokenLoss, TokenLossOutputs, TokenObjective, TokenObjectiveGrads, TokenObjectiveOutputs,
    TokenOutputs, TokenUpstream, Tokens, Totals, TotalsMut, UnitScale,
};
use prefuse::{
    Backend, Cpu, Cuda, DType, Element, Error, Loss, MaskedRows, RowOptions, Sequences, Target,
    Term, Upstream, token_log_probs,
};

use crate::backends::devices;
use crate::common::{Placed, ready, refused};
use crate::each_dtype;

/// Rows, and a vocabulary of each launch shape.
const TOKENS: usize = 6;
const VOCABS: [usize; 3] = [5, 4099, 17_409];

/// Several bad tokens, the lowest first.
const BAD: [(usize, i64); 3] = [(2, -7), (4, 1 << 40), (5, -1)];

fn ids(bad: &[(usize, i64)]) -> Vec<i64> {
    let mut ids = vec![0, -100, 1, 2, 3, 4];
    bad.iter().for_each(|&(token, label)| ids[token] = label);
    ids
}

/// Every buffer that a stage writes, with a value that none of them computes.
struct Outputs {
    tokens: [Placed; 4],
    argmax: Placed,
    scratch: Placed,
}

impl Outputs {
    fn new(cuda: &Cuda, vocab: usize) -> Self {
        Self {
            tokens: [(); 4].map(|()| Placed::new(cuda, &[77.0_f32; TOKENS])),
            argmax: Placed::new(cuda, &[77_i64; TOKENS]),
            scratch: Placed::new(cuda, &vec![77.0_f64; cuda.log_probs_scratch(TOKENS, vocab)]),
        }
    }

    fn log_probs(&mut self, cuda: &Cuda, logits: Logits<'_>, tokens: Tokens<'_>) {
        let [log_probs, maximum, log_sum, entropy] = self.tokens.each_mut().map(Placed::slice_mut);
        let (entropy, argmax) = (Some(entropy), Some(self.argmax.slice_mut()));
        let outputs =
            TokenOutputs { entropy, argmax, ..TokenOutputs::new(log_probs, maximum, log_sum) };
        let scratch = self.scratch.slice_mut();
        cuda.log_probs(LogProbs::new(cuda, logits, tokens, 1.0, outputs, scratch).unwrap())
            .unwrap();
    }

    fn logit_grads(&self, cuda: &Cuda, target: Target<'_>, tokens: Tokens<'_>) {
        let [log_probs, maximum, log_sum, entropy] = self.tokens.each_ref().map(Placed::slice);
        let upstream = TokenUpstream { log_probs, entropy: Some((log_probs, entropy)) };
        let statistics = RowStatistics { maximum, log_sum };
        let masked = MaskedRows::Zero;
        cuda.logit_grads(
            LogitGrads::new(cuda, target, tokens, 1.0, statistics, upstream, masked).unwrap(),
        )
        .unwrap();
    }

    fn check_untouched(&self) {
        let Self { tokens, argmax, scratch } = self;
        let all = tokens.iter().chain([argmax, scratch]);
        assert!(all.flat_map(|buffer| buffer.slice().to_vec().unwrap()).all(|x| x == 77.0));
    }
}

/// Stages 1 and 4, in place and not, of every launch shape: nothing is written, and the error names the
/// lowest token. `poll` finds it too.
#[test]
fn a_bad_label_writes_nothing() {
    fn body<T: Element>(backend: &dyn Backend, cuda: &Cuda, vocab: usize) {
        let expected = |label| Error::Label { token: 2, label, vocab, ignore: -100 };
        let data = vec![T::from_f64(0.5); TOKENS * vocab];
        let (mut logits, mut grads) = (Placed::new(backend, &data), Placed::new(backend, &data));
        let mut outputs = Outputs::new(cuda, vocab);
        for bad in [&BAD[..], &[(2, vocab as i64)], &[(2, i64::MIN)]] {
            let ids = Placed::new(backend, &ids(bad));
            let labels = Labels::from_slice(ids.slice()).unwrap();
            let tokens = Tokens::new(&labels, None).unwrap();
            outputs.log_probs(cuda, logits.logits(TOKENS, vocab), tokens);
            assert_eq!(cuda.check(), Err(expected(bad[0].1)));
            let target = Target::OutOfPlace {
                logits: logits.logits(TOKENS, vocab),
                grads: grads.target(TOKENS, vocab),
            };
            outputs.logit_grads(cuda, target, tokens);
            assert_eq!(grads.slice().to_vec(), Err(expected(bad[0].1)));
            outputs.logit_grads(cuda, Target::InPlace(logits.target(TOKENS, vocab)), tokens);
            while let Ok(()) = cuda.poll() {}
            assert_eq!(cuda.check(), Ok(()), "taken once");
            outputs.check_untouched();
            let untouched =
                |placed: &Placed| placed.slice().to_vec().unwrap().iter().all(|&x| x == 0.5);
            assert!(untouched(&grads) && untouched(&logits));
        }
        // And then the same buffers are written.
        let ids = Placed::new(backend, &ids(&[]));
        let labels = Labels::from_slice(ids.slice()).unwrap();
        outputs.log_probs(cuda, logits.logits(TOKENS, vocab), Tokens::new(&labels, None).unwrap());
        let Outputs { tokens, argmax, .. } = &outputs;
        let all = tokens.iter().chain([argmax]).flat_map(|buffer| buffer.slice().to_vec().unwrap());
        assert!(all.into_iter().all(|x| x != 77.0), "every element is written");
        let expected = -(vocab as f64).ln();
        let got = tokens[0].slice().to_vec().unwrap();
        assert!((got[0] - expected).abs() < 1e-5 && got[1] == 0.0, "{got:?} for {expected}");
    }
    for cuda in devices() {
        for vocab in VOCABS {
            each_dtype!(&cuda as &dyn Backend, body, &cuda, vocab);
        }
    }
}

/// Of bad tokens that different warps look at, and one thread in turn, the lowest is named.
#[test]
fn the_lowest_token_is_named() {
    for cuda in devices() {
        let tokens = 2100;
        let logits = Placed::new(&cuda, &vec![0.5_f32; 2 * tokens]);
        for bad in [&[40, 1030, 1055, 2099][..], &[1030, 1300], &[2099]] {
            let mut ids = vec![1; tokens];
            bad.iter().for_each(|&token| ids[token] = token as i64);
            let (labels, plain) = (Labels::new(ids), RowOptions::default());
            token_log_probs(&cuda, logits.logits(tokens, 2), &labels, None, plain).unwrap();
            let (token, label) = (bad[0], bad[0] as i64);
            assert_eq!(cuda.check(), Err(Error::Label { token, label, vocab: 2, ignore: -100 }));
        }
    }
}

/// A weight that is no number, and which of the two is named where a token has both.
#[test]
fn a_bad_weight_writes_nothing() {
    for cuda in devices() {
        let logits = Placed::new(&cuda, &[0.5_f32; TOKENS * 5]);
        let mut outputs = Outputs::new(&cuda, 5);
        let mut run = |ids: &[i64], weights: [f32; TOKENS]| {
            let (ids, weights) = (Placed::new(&cuda, ids), Placed::new(&cuda, &weights));
            let labels = Labels::from_slice(ids.slice()).unwrap();
            let weights = Weights::from_slice(weights.slice()).unwrap();
            let tokens = Tokens::new(&labels, Some(&weights)).unwrap();
            outputs.log_probs(&cuda, logits.logits(TOKENS, 5), tokens);
            cuda.check()
        };
        let infinity = f32::NEG_INFINITY;
        // That of an ignored token is one, too.
        let weights = [1.0, f32::NAN, infinity, 1.0, 1.0, 1.0];
        let message = "weight of token 1: expected a finite number, got NaN";
        refused(run(&ids(&[]), weights), message);
        let weights = [1.0, 1.0, infinity, 1.0, f32::NAN, 1.0];
        let message = "weight of token 2: expected a finite number, got -inf";
        refused(run(&ids(&[(3, 9)]), weights), message);
        let message = "label of token 2: expected 0 to 4 or the ignore value -100, got -7";
        refused(run(&ids(&BAD), weights), message);
        outputs.check_untouched();
        let works = run_again(&cuda).iter().all(|got| (got + 5_f64.ln()).abs() < 1e-6);
        assert!(works, "once it was taken");
    }
}

/// Log-probs of two rows, to see that the device works.
fn run_again(cuda: &Cuda) -> [f64; 2] {
    let logits = Placed::new(cuda, &[0.5_f32; 10]);
    let labels = Labels::new(&[0, 4]);
    let ours = token_log_probs(cuda, logits.logits(2, 5), &labels, None, RowOptions::default());
    ours.unwrap().log_probs().to_vec().unwrap().try_into().unwrap()
}

/// What was enqueued after a failed call, with inputs of its own that are good, writes nothing either:
/// all stages, until the error is taken.
#[test]
fn later_calls_write_nothing() {
    for cuda in devices() {
        let logits = Placed::new(&cuda, &[0.5_f32; TOKENS * 5]);
        let (good, bad) = (Placed::new(&cuda, &ids(&[])), Placed::new(&cuda, &ids(&BAD)));
        let [good, bad] = [&good, &bad].map(|ids| Labels::from_slice(ids.slice()).unwrap());
        let [good, bad] = [&good, &bad].map(|labels| Tokens::new(labels, None).unwrap());
        let mut outputs = Outputs::new(&cuda, 5);
        let mut grads = Placed::new(&cuda, &[77.0_f32; TOKENS * 5]);
        let mut totals = [(); 3].map(|()| Placed::new(&cuda, &[77.0_f64; 2]));
        let batch = ready();
        let packing = Packing::new(&[0, 3, 6]).unwrap().place(&cuda).unwrap();
        let term = Term::pairs(Dpo::new(0.1)).resolve(&batch).unwrap();
        let term = term.place(&cuda, &batch).unwrap();
        let mut losses = [1, 2, 1].map(|len| Placed::new(&cuda, &vec![77.0_f64; len]));
        let mut sequence_grads = Placed::new(&cuda, &[77.0_f64; 2]);
        let scratch = vec![77.0_f64; cuda.objective_scratch(2).max(cuda.ranking_scratch(2))];
        let mut scratch = Placed::new(&cuda, &scratch);
        let others = ready()
            .with_groups(Groups::consecutive(&[2]).unwrap())
            .and_then(|batch| batch.with_advantages(Advantages::per_sequence(&[1.0, -1.0])?))
            .unwrap();
        let of_others = |term: Term| term.resolve(&others).unwrap().place(&cuda, &others).unwrap();
        let groups = of_others(Term::groups(Ranking::plackett_luce(0.1)));
        let single = [of_others(Term::tokens(Reinforce::new(), Sequences::All))];
        let advantages = Placed::new(&cuda, &[1.0, -1.0]);
        let mut of_visit =
            cuda.allocate(DType::F64, cuda.token_loss_scratch(TOKENS, 5, &single)).unwrap();

        outputs.log_probs(&cuda, logits.logits(TOKENS, 5), bad);
        outputs.log_probs(&cuda, logits.logits(TOKENS, 5), good);
        let [sums, tokens, weights] = totals.each_mut().map(Placed::slice_mut);
        let to = TotalsMut { sums, tokens, weights };
        let from = outputs.tokens[0].slice();
        let stage = SequenceSums::new(&cuda, from, good, &packing, to).unwrap();
        cuda.sequence_sums(stage).unwrap();
        let [sums, tokens, weights] = totals.each_ref().map(Placed::slice);
        let [losses_to, rewards, value] = losses.each_mut().map(Placed::slice_mut);
        let to = ObjectiveOutputs {
            losses: losses_to,
            rewards,
            value,
            grads: Some((sequence_grads.slice_mut(), UnitScale::Reduced(1.0))),
        };
        let inputs = (Totals { sums, tokens, weights }, Some(sums));
        let stage = Objective::new(&cuda, &term, inputs, to, scratch.slice_mut()).unwrap();
        cuda.objective(stage).unwrap();
        let to = RankingOutputs {
            losses: losses[0].slice_mut(),
            grads: Some((sequence_grads.slice_mut(), UnitScale::Reduced(1.0))),
        };
        let stage = OfGroups::new(&cuda, &groups, inputs, to, scratch.slice_mut()).unwrap();
        cuda.ranking(stage).unwrap();
        let advantages = Some(TokenAdvantages::Sequences(advantages.slice()));
        let (known, by_token) = outputs.tokens.split_at_mut(1);
        let given = TokenInputs {
            log_probs: known[0].slice(),
            old: None,
            reference: None,
            entropy: None,
            advantages,
        };
        let by = TokenObjectiveGrads { log_probs: by_token[0].slice_mut(), entropy: None };
        let to = TokenObjectiveOutputs {
            losses: losses[1].slice_mut(),
            grads: Some((by, UnitScale::Reduced(1.0))),
        };
        let stage = TokenObjective::new(&cuda, &single[0], (good, &packing), (given, tokens), to);
        cuda.token_objective(stage.unwrap()).unwrap();
        let [log_probs, maximum, log_sum, by_log_prob] =
            outputs.tokens.each_mut().map(Placed::slice_mut);
        let to = TokenLossOutputs {
            rows: TokenOutputs::new(log_probs, maximum, log_sum),
            grads: TokenObjectiveGrads { log_probs: by_log_prob, entropy: None },
        };
        let target =
            Target::OutOfPlace { logits: logits.logits(TOKENS, 5), grads: grads.target(TOKENS, 5) };
        let known = SampledTokens { old: None, reference: None, advantages };
        let stage = TokenLoss::new(
            &cuda,
            (target, MaskedRows::Zero, 1.0),
            (good, &packing),
            (&single, &[UnitScale::Reduced(1.0)]),
            (known, tokens),
            to,
            of_visit.slice_mut(),
        );
        cuda.token_loss(stage.unwrap()).unwrap();
        let from = sequence_grads.slice();
        let to = outputs.tokens[1].slice_mut();
        let stage = TokenGrads::new(&cuda, from, good, &packing, to).unwrap();
        cuda.token_grads(stage).unwrap();
        let (logits, grads_to) = (logits.logits(TOKENS, 5), grads.target(TOKENS, 5));
        outputs.logit_grads(&cuda, Target::OutOfPlace { logits, grads: grads_to }, good);

        let expected = Error::Label { token: 2, label: -7, vocab: 5, ignore: -100 };
        assert_eq!(cuda.check(), Err(expected));
        outputs.check_untouched();
        let others = totals.iter().chain(&losses).chain([&sequence_grads, &scratch, &grads]);
        for buffer in others {
            assert!(buffer.slice().to_vec().unwrap().iter().all(|&x| x == 77.0));
        }
        outputs.log_probs(&cuda, logits, good);
        assert_eq!(cuda.check(), Ok(()));
        assert!(outputs.tokens[0].slice().to_vec().unwrap()[0] < 0.0);
    }
}

/// A loss whose labels are on the device: its forward call waits, and so returns the error. Labels of
/// the host are found in the same way.
#[test]
fn a_loss_returns_the_error() {
    for cuda in devices() {
        let data = Placed::new(&cuda, &[0.5_f32; TOKENS * 5]);
        let logits = data.logits(TOKENS, 5);
        let forward = |labels: Labels<'_>| {
            let batch = Batch::new(labels, Packing::padded(2, 3).unwrap())
                .and_then(|b| b.with_reference(ReferenceLogProbs::per_token(&[-1.0; TOKENS])))
                .and_then(|batch| batch.with_pairs(Pairs::halves(1).unwrap()))
                .unwrap();
            let nll = Term::sequences(Nll::new(), Sequences::All);
            let loss = Loss::new(batch, [Term::pairs(Dpo::new(0.1)), nll]).unwrap();
            loss.forward(&cuda, logits).map(|forward| forward.loss())
        };
        let message = "label of token 2: expected 0 to 4 or the ignore value 7, got -7";
        let bad = Placed::new(&cuda, &ids(&[(1, 7), BAD[0]]));
        let labels = || Labels::from_slice(bad.slice()).unwrap().with_ignore(7);
        refused(forward(labels()), message);
        refused(forward(Labels::new(ids(&[(1, 7), BAD[0]])).with_ignore(7)), message);
        let good = Placed::new(&cuda, &ids(&[]));
        let on_device = forward(Labels::from_slice(good.slice()).unwrap()).unwrap();
        assert_eq!(on_device, forward(Labels::new(ids(&[]))).unwrap());
        // A copy on the host is checked by what reads it.
        refused(labels().into_owned().map(forward).unwrap(), message);
    }
}

/// Reference log-probs, labels and weights that are on the device already, and a gradient from there,
/// have the bits of those that are copied.
#[test]
fn inputs_on_the_device() {
    for cuda in devices() {
        let data = Placed::new(&cuda, &crate::common::logits::<f32>(1, TOKENS, 5));
        let (ids, weights) = (ids(&[]), [1.0_f32, 2.0, 0.0, -0.5, 1.0, 1.0]);
        let reference = [-1.0_f32, -2.0, -3.0, -0.5, -1.5, -2.5];
        let placed = (
            Placed::new(&cuda, &ids),
            Placed::new(&cuda, &weights),
            Placed::new(&cuda, &reference),
        );
        let run = |labels: Labels<'_>, weights: Weights<'_>, reference: ReferenceLogProbs<'_>| {
            let batch = Batch::new(labels, Packing::padded(2, 3).unwrap())
                .and_then(|batch| batch.with_weights(weights))
                .and_then(|batch| batch.with_reference(reference))
                .and_then(|batch| batch.with_pairs(Pairs::halves(1).unwrap()))
                .unwrap();
            let loss = Loss::new(batch, [Term::pairs(Dpo::new(0.1))]).unwrap();
            let logits = data.logits(TOKENS, 5);
            let forward = loss.forward(&cuda, logits).unwrap();
            let mut grads = Placed::poisoned::<f32>(&cuda, TOKENS * 5);
            let (target, one) = ((logits, grads.target(TOKENS, 5)), Upstream::Loss(1.0));
            loss.logit_grads(&cuda, &forward, target, one, MaskedRows::Zero).unwrap();
            (
                forward.loss().to_bits(),
                grads.slice().to_vec().unwrap().into_iter().map(f64::to_bits).collect::<Vec<_>>(),
            )
        };
        let host = run(
            Labels::new(&ids[..]),
            Weights::new(&weights[..]).unwrap(),
            ReferenceLogProbs::per_token(&reference),
        );
        let device = run(
            Labels::from_slice(placed.0.slice()).unwrap(),
            Weights::from_slice(placed.1.slice()).unwrap(),
            ReferenceLogProbs::from_slice(placed.2.slice()).unwrap(),
        );
        assert_eq!(host, device);
    }
}

/// Memory that a backend does not reach is refused, both sides named.
#[test]
fn memory_of_others() {
    for (cuda, other) in devices().into_iter().zip(devices()) {
        let (here, there) =
            (Placed::new(&cuda, &[0.5_f32; 10]), Placed::new(&other, &[0.5_f32; 10]));
        let host = [0.5_f32; 10];
        let labels = Labels::new(&[0, 1]);
        let run = |backend: &dyn Backend, logits| {
            token_log_probs(backend, logits, &labels, None, RowOptions::default())
        };
        assert!(run(&cuda, here.logits(2, 5)).is_ok());
        assert!(run(&cuda.clone(), here.logits(2, 5)).is_ok(), "copies are the same backend");
        refused(
            run(&cuda, there.logits(2, 5)),
            "logits: expected memory of this backend, got memory of another backend",
        );
        refused(
            run(&cuda, Logits::new(&host, 2, 5).unwrap()),
            "logits: expected memory of this backend, got host memory",
        );
        refused(
            run(&Cpu::new(), here.logits(2, 5)),
            "logits: expected host memory, got device memory",
        );
        let ids = Placed::new(&other, &[0_i64, 1]);
        let labels = Labels::from_slice(ids.slice()).unwrap();
        let plain = RowOptions::default();
        refused(
            token_log_probs(&cuda, here.logits(2, 5), &labels, None, plain),
            "labels: expected memory of this backend, got memory of another backend",
        );
        let factors = Placed::new(&other, &[1.0_f32; 2]);
        let weights = Weights::from_slice(factors.slice()).unwrap();
        let labels = Labels::new(&[0, 1]);
        refused(
            token_log_probs(&cuda, here.logits(2, 5), &labels, Some(&weights), plain),
            "token weights: expected memory of this backend, got memory of another backend",
        );
        let ours = run(&cuda, here.logits(2, 5)).unwrap();
        let mut grads = [7.0_f32; 10];
        let factors = Placed::new(&cuda, &[1.0_f32; 2]);
        let grads_view = LogitsMut::new(&mut grads, 2, 5).unwrap();
        let target = Target::OutOfPlace { logits: here.logits(2, 5), grads: grads_view };
        let upstream = (factors.slice(), None);
        refused(
            ours.logit_grads(&cuda, target, (&labels, None), upstream, MaskedRows::Zero),
            "logits gradient: expected memory of this backend, got host memory",
        );
        refused(here.slice().host::<f32>(), "buffer: expected host memory, got device memory");
        let mut copy = cuda.allocate(DType::F32, 10).unwrap();
        refused(
            copy.slice_mut().copy_from(there.slice()),
            "copied buffer: expected memory of this backend, got memory of another backend",
        );
        copy.slice_mut().copy_from(here.slice()).unwrap();
        assert_eq!(copy.slice().read::<f32>().unwrap(), host);
        // An address that no element starts at.
        // SAFETY: refused before anything is read.
        let slice = unsafe { cuda.from_raw(DType::F32, 0x1002, 1) };
        refused(slice, "device memory: expected an address that is a multiple of 4, got 0x1002");
    }
}
