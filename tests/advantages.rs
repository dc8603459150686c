//! Statistics of groups and pairs of samples, by what has to hold for any input.

use prefuse::batch::{Batch, Pairs, ReferenceLogProbs};
use prefuse::objectives::P3o;
use prefuse::statistics::*;
use prefuse::{Reference, ScalarLoss, Slice, Term, Upstream};

use crate::statistics::{close, random};

/// Of each group the mean is 0 and, with no epsilon, the deviation 1; the order of the sequences does not
/// enter but for rounding.
#[test]
fn group_advantages_are_standard() {
    let rewards = random(1, 24);
    let prompts: Vec<usize> = (0..24).map(|sequence| sequence * 7 % 5).collect();
    let spread = Spread::Group { epsilon: 0.0 };
    let settings = GroupAdvantages { spread, ..GroupAdvantages::default() };
    let advantages = settings.of(&rewards, &prompts).unwrap();
    let of = |prompt: usize| advantages.iter().zip(&prompts).filter(move |(_, p)| **p == prompt);
    for prompt in 0..5 {
        let group: Moments = of(prompt).map(|(&advantage, _)| advantage).collect();
        close(group.mean() + 1.0, 1.0);
        close(group.unbiased_std(), 1.0);
    }
    let reversed = |values: &[f64]| values.iter().rev().copied().collect::<Vec<_>>();
    let backwards: Vec<usize> = prompts.iter().rev().copied().collect();
    let other = settings.of(&reversed(&rewards), &backwards).unwrap();
    reversed(&other).iter().zip(&advantages).for_each(|(&got, &expected)| close(got, expected));
    // Leave-one-out is the mean's difference, times the count over the count less 1.
    let spread = Spread::One;
    let mean = GroupAdvantages { spread, ..GroupAdvantages::default() };
    let rloo = GroupAdvantages { baseline: Baseline::LeaveOneOut, ..mean };
    let [mean, rloo] = [mean, rloo].map(|settings| settings.of(&rewards, &prompts).unwrap());
    for (sequence, prompt) in prompts.iter().enumerate() {
        let count = prompts.iter().filter(|other| *other == prompt).count() as f64;
        close(rloo[sequence], mean[sequence] * count / (count - 1.0));
    }
}

/// A response that is alone, alone in its batch, and groups in which all rewards are equal, by what stands
/// in torch's trainers.
#[test]
fn groups_of_one_and_without_spread() {
    let epsilon = 0.5;
    let spreads = [
        Spread::One,
        Spread::Group { epsilon },
        Spread::GroupPopulation { epsilon },
        Spread::Batch { epsilon },
    ];
    for baseline in [Baseline::Mean, Baseline::LeaveOneOut] {
        for spread in spreads {
            let of = |singleton, rewards: &[f64], prompts: &[usize]| {
                GroupAdvantages { baseline, spread, singleton }.of(rewards, prompts).unwrap()
            };
            assert_eq!(of(Singleton::Zero, &[3.0], &[0]), [0.0]);
            let divisor = if spread == Spread::One { 1.0 } else { 1.5 };
            assert_eq!(of(Singleton::Reward, &[3.0], &[0]), [3.0 / divisor]);
            // 0.1 has no exact multiples: a mean that rounds would leave a rest.
            assert_eq!(of(Singleton::Zero, &[0.1; 7], &[4; 7]), [0.0; 7]);
            assert_eq!(of(Singleton::Zero, &[], &[]), [0.0; 0]);
        }
    }
    let spread = Spread::Group { epsilon: 0.0 };
    let settings = GroupAdvantages { spread, ..GroupAdvantages::default() };
    assert_eq!(settings.of(&[0.3, 0.3, 0.3, 5.0], &[1, 1, 1, 0]).unwrap(), [0.0; 4]);
    let verl = GroupAdvantages {
        spread: Spread::Group { epsilon: 1e-6 },
        singleton: Singleton::Reward,
        ..GroupAdvantages::default()
    };
    close(verl.of(&[2.0, 1.0, 1.0], &[0, 1, 1]).unwrap()[0], 2.0 / (1.0 + 1e-6));
}

#[test]
fn ranks_of_extremes() {
    let scores = [f64::INFINITY, 0.0, f64::NEG_INFINITY, -0.0];
    for (ties, expected) in [
        (Ties::Ordinal, [1.0, 2.0, 4.0, 3.0]),
        (Ties::Min, [1.0, 2.0, 4.0, 2.0]),
        (Ties::Max, [1.0, 3.0, 4.0, 3.0]),
        (Ties::Average, [1.0, 2.5, 4.0, 2.5]),
        (Ties::Dense, [1.0, 2.0, 3.0, 2.0]),
    ] {
        assert_eq!(ranks(&scores, ties).unwrap(), expected, "{ties:?}");
        assert_eq!(ranks(&[], ties).unwrap(), [0.0; 0]);
    }
}

/// Before the policy has moved all ratios are 1: V1, V2 and V3 have the same gradient, `-D / 2` of the mean
/// over pairs and its negative. A constant in the rewards of a prompt adds nothing, and far ratios are held.
#[test]
fn p3o_on_policy() {
    let (policy, reference, rewards) = (random(1, 4), random(2, 4), random(3, 4));
    let pairs = Pairs::halves(2).unwrap();
    let settings = P3oAdvantages { beta: 0.3, ..P3oAdvantages::default() };
    let separate = settings.separate(&pairs, &policy, &policy, &reference, &rewards).unwrap();
    assert_eq!(
        separate,
        settings.by_token(&pairs, &policy, &policy, &reference, &rewards).unwrap()
    );
    for (pair, &(first, second)) in pairs.indices().iter().enumerate() {
        let log_ratio = |sequence: usize| policy[sequence] - reference[sequence];
        let kl = 0.3 * (log_ratio(first) - log_ratio(second));
        close(separate[first], rewards[first] - rewards[second] - kl);
        assert_eq!(separate[second], -separate[first], "{pair}");
    }
    let joint = settings.joint(&pairs, &policy, &policy, &reference, &rewards).unwrap();
    let batch = Batch::of_sequences(4)
        .and_then(|batch| batch.with_reference(ReferenceLogProbs::per_sequence(&reference)))
        .and_then(|batch| batch.with_pairs(joint))
        .unwrap();
    let loss = ScalarLoss::new(batch, [Term::pairs(P3o::new(0.2))]).unwrap();
    let forward = loss.forward(&Reference::new(), Slice::new(&policy), None).unwrap();
    let grads = forward.grads(&Reference::new(), Upstream::Loss(1.0)).unwrap();
    for (grad, advantage) in grads.iter().zip(&separate) {
        close(*grad, -advantage / 2.0 / 2.0);
    }
    let raised: Vec<f64> = rewards.iter().map(|reward| reward + 10.0).collect();
    let other = settings.separate(&pairs, &policy, &policy, &reference, &raised).unwrap();
    other.iter().zip(&separate).for_each(|(&got, &expected)| {
        approx::assert_relative_eq!(got, expected, epsilon = 1e-13);
    });
    let far = [-1e4, 0.0, 0.0, 1e4];
    let old = [0.0; 4];
    let held = P3oAdvantages { beta: 0.0, ..settings };
    let got = held.separate(&pairs, &far, &old, &reference, &[1.0, 1.0, 0.0, 0.0]).unwrap();
    [1.0, 10.0, -0.1, -1.0].into_iter().zip(got).for_each(|(expected, got)| close(got, expected));
}
