//! Stage `sparse_divergence`: the columns that a token's teacher does not list are swept block by block, once
//! for their sum of exponentials and once for the gradient. What is listed is f64, entry by entry.
//!
//! With r their probability, `w` the measure's of one entry (see `divergence`) and u the softmax over them
//! alone, the others' gradient is `u (w - r sum w)`: neither r nor a column's q = r u has to be a number that
//! f32 has.

use std::ops::Range;

use rayon::prelude::*;

use super::blocks::{Ahead, Block, Row, blocks, next};
use super::gradient::{Factor, canonical};
use super::probabilities::{Probabilities, Times};
use super::simd::Simd;
use super::softmax::Softmax;
use super::student::{Results, Student, Tokens};
use crate::error::Result;
use crate::objectives::scalar::product;
use crate::reference::divergence::entropy;
use crate::stages::{MOST_ENTRIES, Measure, SparseDivergence, SparseTeacher};

pub(super) fn sparse_divergence(simd: Simd, stage: SparseDivergence<'_>) -> Result<()> {
    let SparseDivergence { backend, student, teacher, measure, temperature, upstream, .. } = stage;
    let ([count, columns], tokens) = (student.logits().shape().size(), stage.tokens.host()?);
    tokens.check(columns)?;
    let ids = teacher.ids.host::<i64>()?;
    let counted = (0..count).into_par_iter().filter(|&t| tokens.counted_label(t).is_some());
    let none_seen = || vec![false; columns];
    let checked =
        counted.map_init(none_seen, |seen, token| teacher.check_entries(ids, token, seen));
    checked.find_first(Result::is_err).unwrap_or(Ok(()))?;
    let entropies = stage.outputs.entropies();
    let inverse_temperature = 1.0 / temperature;
    let rows = Rows { simd, columns, teacher, ids, measure, inverse_temperature, entropies };
    let tokens = Tokens { backend: backend.name, tokens, columns, upstream };
    tokens.each(student, (stage.outputs, stage.scratch), |(): &mut (), visited| {
        rows.token(visited.token, visited.student, visited.upstream)
    })
}

struct Rows<'a> {
    simd: Simd,
    columns: usize,
    teacher: SparseTeacher<'a>,
    ids: &'a [i64],
    measure: Measure,
    inverse_temperature: f64,
    /// Which are asked for, of student and teacher.
    entropies: [bool; 2],
}

impl Rows<'_> {
    fn token(&self, token: usize, student: &mut Student<'_>, upstream: f64) -> Results {
        let mut listed = Listed::new(&self.teacher, self.columns, self.ids, token);
        let row = student.logits();
        let others = Softmax::read(
            self.simd,
            |columns| row.bytes(columns),
            (self.columns, self.inverse_temperature),
            self.entropies[0],
            |columns, block| self.read_others(row, columns, &listed, block),
        );
        listed.place(row, &others, self.inverse_temperature);
        let bins = if listed.count == self.columns { listed.count } else { listed.count + 1 };
        let (mut value, mut sum, mut w) = (0.0, 0.0, [0.0; BINS]);
        for (bin, w) in w[..bins].iter_mut().enumerate() {
            let [term, by_student] = self.measure.term(listed.log_q[bin], listed.log_p[bin]);
            (value, sum, *w) = (value + term, sum + by_student, by_student);
        }
        if upstream != 0.0 && student.grads().is_some() {
            let factor = |bin: usize| upstream * (w[bin] - listed.log_q[bin].exp() * sum);
            if value.is_nan() || !sum.is_finite() {
                student.fail(self.columns);
            } else {
                let of_others = if bins > listed.count { factor(listed.count) } else { 0.0 };
                self.gradient(student, &listed, &others, (of_others, factor));
            }
        }
        let of_teacher = if self.entropies[1] { entropy(&listed.log_p[..bins]) } else { 0.0 };
        [value, listed.entropy(&others), of_teacher]
    }

    /// A block in which the listed columns are -inf, and its maximum.
    fn read_others(
        &self,
        row: Row<'_>,
        columns: Range<usize>,
        listed: &Listed,
        block: &mut Block,
    ) -> f32 {
        let maximum = row.widen(self.simd, columns.clone(), block);
        let entries = listed.among(&columns);
        if entries.is_empty() {
            return maximum;
        }
        for &column in &listed.columns[entries] {
            block.set(column - columns.start, f32::NEG_INFINITY);
        }
        block.maximum(self.simd)
    }

    /// `factor` is the gradient by a listed entry's logit, and by all others' together, at temperature 1.
    fn gradient(
        &self,
        student: &mut Student<'_>,
        listed: &Listed,
        others: &Softmax,
        (of_others, factor): (f64, impl Fn(usize) -> f64),
    ) {
        let Self { simd, columns: all, inverse_temperature, .. } = *self;
        let log_sum = if others.is_empty() { 0.0 } else { others.log_sum() };
        let maximum = others.scale().maximum;
        let (mut block, mut grads_block) = (Block::new(), Block::new());
        for columns in blocks(all) {
            let row = student.logits();
            self.read_others(row, columns.clone(), listed, &mut block);
            let from = (-log_sum, inverse_temperature);
            simd.run(Probabilities::new(block.chunks_mut(), maximum, from));
            let next = next(&columns, all);
            let grads = student.grads_apart().map_or(&[][..], |grads| grads.bytes(next.clone()));
            simd.run(Times {
                from: block.chunks(),
                to: grads_block.like(&block),
                factor: Factor::new(of_others, inverse_temperature),
                ahead: Ahead([row.bytes(next), grads, &[]]),
            });
            for entry in listed.among(&columns) {
                let grad = factor(entry) * inverse_temperature;
                grads_block.set(listed.columns[entry] - columns.start, canonical(grad as f32));
            }
            if let Some((grads, add)) = student.grads() {
                grads.write(simd, columns, &grads_block, add);
            }
        }
    }
}

/// Entries of a token, and one of all that is not listed.
const BINS: usize = MOST_ENTRIES + 1;

/// What a token's teacher lists, in order of its columns; after these entries comes that of all others.
struct Listed {
    count: usize,
    columns: [usize; MOST_ENTRIES],
    log_p: [f64; BINS],
    log_q: [f64; BINS],
}

impl Listed {
    fn new(teacher: &SparseTeacher<'_>, vocab: usize, ids: &[i64], token: usize) -> Self {
        let (count, first) = (teacher.entries, token * teacher.entries);
        let mut sorted = [(0, 0); MOST_ENTRIES];
        let sorted = &mut sorted[..count];
        for (entry, at) in sorted.iter_mut().zip(first..) {
            *entry = (ids[at] as usize, at);
        }
        sorted.sort_unstable();
        let mut listed =
            Self { count, columns: [0; MOST_ENTRIES], log_p: [0.0; BINS], log_q: [0.0; BINS] };
        for (entry, &(column, at)) in sorted.iter().enumerate() {
            listed.columns[entry] = column;
            listed.log_p[entry] = teacher.log_probs.get(at);
        }
        listed.log_p[count] = teacher.normalise(&mut listed.log_p[..count], vocab);
        listed
    }

    /// The entries whose columns are among these.
    fn among(&self, columns: &Range<usize>) -> Range<usize> {
        let before = |limit: usize| self.columns[..self.count].partition_point(|&c| c < limit);
        before(columns.start)..before(columns.end)
    }

    /// Finds the student's log-probs. What all exponentials are beside the largest comes without its 1: a
    /// confident row keeps its digits.
    fn place(&mut self, row: Row<'_>, others: &Softmax, inverse_temperature: f64) {
        let (columns, log_q) = (&self.columns[..self.count], &mut self.log_q);
        for (log_q, &column) in log_q.iter_mut().zip(columns) {
            *log_q = row.get(column);
        }
        let of_others = f64::from(others.scale().maximum);
        let first = if others.is_empty() { f64::NEG_INFINITY } else { of_others };
        let (mut largest, mut maximum) = (self.count, first);
        for (entry, &x) in log_q[..self.count].iter().enumerate() {
            if x > maximum {
                (largest, maximum) = (entry, x);
            }
        }
        for z in &mut log_q[..self.count] {
            *z = (*z - maximum) * inverse_temperature;
        }
        log_q[self.count] = match others.is_empty() {
            true => f64::NEG_INFINITY,
            false => (of_others - maximum) * inverse_temperature + others.log_sum(),
        };
        let bins = &mut log_q[..=self.count];
        let excess = |(bin, z): (usize, &f64)| match bin == largest {
            true => z.exp_m1(),
            false => z.exp(),
        };
        let log_sum = bins.iter().enumerate().map(excess).sum::<f64>().ln_1p();
        // Logits of -inf alone are no distribution.
        let log_sum = if maximum == f64::NEG_INFINITY { f64::NAN } else { log_sum };
        bins.iter_mut().for_each(|z| *z -= log_sum);
    }

    /// The student's entropy, whose sum over the others is their own entropy and that of their bin.
    fn entropy(&self, others: &Softmax) -> f64 {
        let within = if others.is_empty() { 0.0 } else { others.entropy() };
        let bins = &self.log_q[..=self.count];
        entropy(bins) + product(bins[self.count].exp(), within)
    }
}
