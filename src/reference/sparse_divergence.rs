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
    (0..count)
        .filter(counted)
        .try_for_each(|token| stage.teacher.check_entries(ids, token, vocab))?;
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
    let log_remainder = teacher.normalise(&mut log_p);
    log_p.push(log_remainder);
    let mut place = vec![k; log_q.len()];
    let listed = ids[token * k..][..k].iter().map(|&id| id as usize);
    listed.clone().enumerate().for_each(|(entry, id)| place[id] = entry);
    let others = log_q.iter().zip(&place).filter(|(_, place)| **place == k);
    let remainder: f64 = others.map(|(log_q, _)| log_q.exp()).sum();
    let log_bins: Vec<f64> = listed.map(|id| log_q[id]).chain([remainder.ln()]).collect();
    // Where all columns are listed nothing is left for others, on either side.
    let bins = if k == log_q.len() { k } else { k + 1 };
    let both = log_bins.iter().zip(&log_p).take(bins);
    let terms: Vec<_> = both.map(|(&log_q, &log_p)| measure.term(log_q, log_p)).collect();
    let value: f64 = terms.iter().map(|[value, _]| value).sum();
    let sum: f64 = terms.iter().map(|[_, w]| w).sum();
    let grad = |(log_q, &place): (&f64, &usize)| {
        let (q, w) = (log_q.exp(), terms[place][1]);
        let share = if place < k { 1.0 } else { product(q, 1.0 / remainder) };
        let w = product(w, share);
        (w - q * sum) / temperature
    };
    let results = [value, entropy(&log_q), entropy(&log_p[..bins])];
    Row { results, grads: log_q.iter().zip(&place).map(grad).collect() }
}
