//! `docs/papers.md`: every paper of the source list, and the call that gives its loss. The calls of the
//! table are the expressions that run here.

mod rows;

use prefuse::batch::{
    Batch, Groups, Labels, LogitsMut, Packing, Pairs, ReferenceLogProbs, Sentence,
};
use prefuse::{Backend, Cpu, Loss, MaskedRows, Reference, Result, ScalarLoss, Slice, Upstream};

use crate::common::root;

/// A paper, and its calls as they are written.
pub struct Row {
    pub name: &'static str,
    pub trains: &'static str,
    pub certainty: &'static str,
    pub calls: Vec<&'static str>,
    pub run: fn() -> Result<()>,
}

/// What the calls are made of: 6 sequences of a pack, pairs and groups of them, rewards of a model.
pub struct Given {
    pub labels: Labels<'static>,
    pub packing: Packing,
    /// Labels, packing, and reference log-probs of each token.
    pub batch: Batch<'static>,
    /// The same without what a token needs: one reward for each sequence.
    pub rewards: Batch<'static>,
    pub pairs: Pairs<'static>,
    pub groups: Groups<'static>,
    /// By token: log-probs of the policy and of other models.
    pub policy: Vec<f32>,
    pub reference: Vec<f32>,
    pub aligned: Vec<f32>,
    /// By sequence, best first in each group.
    pub scores: Vec<f64>,
    /// By pair.
    pub gaps: Vec<f64>,
    pub sentences: Vec<Sentence>,
}

impl Given {
    pub fn new() -> Self {
        let packing = Packing::new(&[0, 5, 8, 13, 17, 23, 24]).unwrap();
        let ids: Vec<i64> = (0..24).map(|t| if t % 7 == 6 { -100 } else { t % 9 }).collect();
        let labels = Labels::new(ids);
        let values = |step: usize| (0..24).map(|t| -((t * step % 11) as f32) / 4.0 - 0.5).collect();
        let (policy, reference, aligned): (Vec<f32>, Vec<f32>, Vec<f32>) =
            (values(3), values(5), values(7));
        let batch = Batch::new(labels.clone(), packing.clone())
            .and_then(|batch| batch.with_reference(ReferenceLogProbs::per_token(&reference)))
            .unwrap();
        Self {
            labels,
            packing,
            batch,
            rewards: Batch::of_sequences(6).unwrap(),
            pairs: Pairs::new(vec![(0, 2), (3, 4)]).unwrap(),
            groups: Groups::consecutive(&[3, 3]).unwrap(),
            policy,
            reference,
            aligned,
            scores: vec![0.9, 0.5, 0.1, 0.8, 0.4, 0.3],
            gaps: vec![1.5, -0.25],
            sentences: vec![Sentence::new(0, 0..3, true), Sentence::new(2, 1..4, false)],
        }
    }
}

/// A loss that a call makes, run to its gradient.
pub trait Made {
    fn run(&self) -> Result<()>;
}

impl Made for Loss<'_> {
    fn run(&self) -> Result<()> {
        for backend in [&Cpu::new() as &dyn Backend, &Reference::new()] {
            let mut data: Vec<f32> = (0..24 * 9).map(|i| ((i * 37 % 101) as f32) / 25.0).collect();
            let logits = LogitsMut::new(&mut data, 24, 9)?;
            let forward = self.forward(backend, logits.view())?;
            assert!(forward.loss().is_finite());
            let upstream = Upstream::Loss(1.0);
            self.logit_grads_in_place(backend, forward, logits, upstream, MaskedRows::Zero)?;
            assert!(data.iter().all(|x| x.is_finite()) && data.iter().any(|&x| x != 0.0));
        }
        Ok(())
    }
}

impl Made for ScalarLoss<'_> {
    fn run(&self) -> Result<()> {
        let rewards = [0.5, 1.5, -0.25, 2.0, 0.75, -1.0];
        for backend in [&Cpu::new() as &dyn Backend, &Reference::new()] {
            let forward = self.forward(backend, Slice::new(&rewards), None)?;
            assert!(forward.loss().is_finite());
            let grads = forward.grads(backend, Upstream::Loss(1.0))?;
            assert!(grads.iter().any(|&x| x != 0.0));
        }
        Ok(())
    }
}

const HEAD: &str = "\
# Papers

Every paper that this crate was planned from, what it trains with, and the call that gives it. The calls are
compiled and run by a test ([`tests/papers`](../tests/papers/rows.rs)), which also writes this table. They are
made of:

- `batch`: labels, packing and reference log-probs of six sequences; `rewards`: a batch of six sequences
  without tokens, `Batch::of_sequences(6)`;
- `pairs`, `groups`: which sequences are compared; `labels`, `packing`: those of the batch;
- `policy`, `reference`, `aligned`: log-probs by token; `scores`: numbers by sequence; `gaps`: by pair.

*Certainty* says where the formula was read: in the authors' code, in the paper, in somebody else's notes; or
that it is reconstructed from an abstract. What is *to come* needs a part that the crate does not have yet.

| paper | trains with | call | certainty |
|---|---|---|---|
";

fn table(rows: &[Row]) -> String {
    let mut text = HEAD.to_owned();
    for row in rows {
        let call = |call: &&str| {
            let line = call.split_whitespace().collect::<Vec<_>>().join(" ");
            let line = line.strip_prefix("{ ").and_then(|l| l.strip_suffix(" }")).unwrap_or(&line);
            format!("`{}`", line.replace('|', "\\|"))
        };
        let calls: Vec<String> = row.calls.iter().map(call).collect();
        let [name, trains] = [row.name, row.trains].map(|text| text.replace('|', "\\|"));
        text += &format!("| {name} | {trains} | {} | {} |\n", calls.join("<br>"), row.certainty);
    }
    text
}

#[test]
fn every_call_runs() {
    for row in rows::rows() {
        (row.run)().unwrap_or_else(|error| panic!("{}: {error}", row.name));
    }
}

#[test]
fn the_table_is_that_of_the_rows() {
    let (path, table) = (root().join("docs/papers.md"), table(&rows::rows()));
    if std::env::var_os("PREFUSE_WRITE_DOCS").is_some() {
        std::fs::write(&path, &table).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == table, "docs/papers.md is stale: PREFUSE_WRITE_DOCS=1 cargo test papers");
}

/// The source list has 15 papers on losses and kernels, 20 with an objective of their own, and 21 that use
/// an existing one or none.
#[test]
fn no_paper_is_left_out() {
    let mut names: Vec<&str> = rows::rows().iter().map(|row| row.name).collect();
    assert_eq!(names.len(), 15 + 20 + 21);
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 15 + 20 + 21);
}
