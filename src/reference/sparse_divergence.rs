//! The divergence from a teacher that lists some entries of each token's distribution: over these and one
//! that stands for all others. `w` is that of `divergence`, where a column that is not listed has its share
//! of the others' `w`.

use super::divergence::{Row, entropy, log_softmax, write};
use super::log_probs::scores;
use crate::error::Result;
use crate::objectives::scalar::product;
use crate::stages::SparseDivergence;

pub(crate) fn sparse_divergence(mut stage: SparseDivergence<'_>) -> Result<()> {
    let [count, vocab] = stage.student.logits().shape().size();
    let tokens = stage.tokens.host()?;
    tokens.check(vocab)?;
    let ids = stage.teacher.ids.host::<i64>()?;
    let counted = |&token: &usize| tokens.counted_label(token).is_some();
    let mut seen = vec![false; vocab];
    (0..count)
        .filter(counted)
        .try_for_each(|token| stage.teacher.check_entries(ids, token, &mut seen))?;
    for token in 0..count {
        let row = counted(&token).then(|| row(&stage, ids, token));
        stage.outputs.set(token, row.as_ref().map_or([0.0; 3], |row| row.results));
        let upstream = stage.upstream.map_or(0.0, |upstream| upstream.get(token));
        write(&mut stage.student, token, upstream, row);
    }
    Ok(())
}

fn row(stage: &SparseDivergence<'_>, ids: &[i64], token: usize) -> Row {
    let SparseDivergence { student, teacher, measure, temperature, .. } = stage;
    let log_q = log_softmax(&scores(student.logits(), token), *temperature);
    let k = teacher.entries;
    let mut log_p: Vec<f64> =
        (0..k).map(|entry| teacher.log_probs.get(token * k + entry)).collect();
    let log_remainder = teacher.normalise(&mut log_p, log_q.len());
    log_p.push(log_remainder);
    let mut place = vec![k; log_q.len()];
    let listed = ids[token * k..][..k].iter().map(|&id| id as usize);
    listed.clone().enumerate().for_each(|(entry, id)| place[id] = entry);
    let others = || log_q.iter().zip(&place).filter(|(_, place)| **place == k).map(|(x, _)| *x);
    // Their probability may be none that f64 has.
    let maximum = others().fold(f64::NEG_INFINITY, f64::max);
    let anchor = if maximum == f64::NEG_INFINITY { 0.0 } else { maximum };
    let log_others = anchor + others().map(|log_q| (log_q - anchor).exp()).sum::<f64>().ln();
    let log_bins: Vec<f64> = listed.map(|id| log_q[id]).chain([log_others]).collect();
    // Where all columns are listed nothing is left for others, on either side.
    let bins = if k == log_q.len() { k } else { k + 1 };
    let both = log_bins.iter().zip(&log_p).take(bins);
    let terms: Vec<_> = both.map(|(&log_q, &log_p)| measure.term(log_q, log_p)).collect();
    let value: f64 = terms.iter().map(|[value, _]| value).sum();
    let sum: f64 = terms.iter().map(|[_, w]| w).sum();
    // Infinite, it has no gradient.
    let sum = if sum.is_finite() { sum } else { f64::NAN };
    let grad = |(log_q, &place): (&f64, &usize)| {
        let log_share = if place < k { 0.0 } else { log_q - log_others };
        let share = if *log_q == f64::NEG_INFINITY && place == k { 0.0 } else { log_share.exp() };
        (product(terms[place][1], share) - log_q.exp() * sum) / temperature
    };
    let results = [value, entropy(&log_q), entropy(&log_p[..bins])];
    Row { results, grads: log_q.iter().zip(&place).map(grad).collect() }
}
