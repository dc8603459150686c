//! The softmax of a row as a small state: one per block, merged in index order in f64.
//!
//! With z_v = (x_v - m)/T and m the maximum, sum_v exp(z_v) = 1 + `excess`: the largest logit
//! contributes exactly 1, and keeping the rest apart from it is what lets a log-prob of -1e-9 have
//! six digits instead of being 0.

/// One block of [`BLOCK`](crate::cpu::rows::BLOCK) columns; depends on nothing but these columns
/// and the temperature.
///
/// A block of -inf has `maximum` -inf and `excess` -1, i.e. a sum of 0. A block with NaN is NaN
/// throughout, one with +inf has `maximum` +inf and the rest NaN.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct BlockState {
    pub maximum: f32,
    /// sum_v exp(z_v) - 1.
    pub excess: f64,
    /// sum_v exp(z_v) z_v, or 0 where moments were not asked for.
    pub weighted: f64,
    /// sum_v exp(z_v)^2 - 1, likewise.
    pub squares: f64,
}

impl BlockState {
    /// No columns at all.
    pub const EMPTY: Self =
        Self { maximum: f32::NEG_INFINITY, excess: -1.0, weighted: 0.0, squares: -1.0 };

    /// NaN in every sum.
    pub const fn nan(maximum: f32) -> Self {
        Self { maximum, excess: f64::NAN, weighted: f64::NAN, squares: f64::NAN }
    }

    fn total(&self) -> f64 {
        1.0 + self.excess
    }

    /// Both under the larger maximum. With d = (smaller maximum - larger maximum)/T <= 0 the
    /// smaller one's sums become e^d S, e^d (W + d S) and e^2d Q; its S and Q count its own largest
    /// element, the larger one's do not.
    fn merge(self, other: Self, inverse_temperature: f64) -> Self {
        let (high, low) = if other.maximum > self.maximum { (other, self) } else { (self, other) };
        if low.maximum == f32::NEG_INFINITY {
            // Nothing to add; and -inf - -inf would be NaN.
            return high;
        }
        let shift = (f64::from(low.maximum) - f64::from(high.maximum)) * inverse_temperature;
        let factor = shift.exp();
        Self {
            maximum: high.maximum,
            excess: high.excess + factor * low.total(),
            weighted: high.weighted + factor * (low.weighted + shift * low.total()),
            squares: high.squares + factor * factor * (1.0 + low.squares),
        }
    }
}

/// A sum below this loses the digits of what is beside its largest element: that lies in the rounding of the 1 that
/// the element adds to a lane.
const PEAKED: f64 = 2.5;

impl BlockState {
    /// Whether the sum is to be made again without its largest elements, see [`PeakState`](super::rows::PeakState).
    pub fn is_peaked(&self) -> bool {
        self.maximum != f32::NEG_INFINITY && self.total() < PEAKED
    }
}

/// The blocks of one row so far: the first that holds the maximum, and the others together. They only add to its
/// sum, so its digits alone can be lost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowBlocks {
    peak: BlockState,
    others: BlockState,
    inverse_temperature: f64,
    count: usize,
    peak_block: usize,
}

impl RowBlocks {
    pub const fn new(inverse_temperature: f64) -> Self {
        let [peak, others] = [BlockState::EMPTY; 2];
        Self { peak, others, inverse_temperature, count: 0, peak_block: 0 }
    }

    /// Appends the next block. f64 addition does not associate: blocks must come in index order,
    /// one by one.
    pub fn push(&mut self, block: BlockState) {
        let is_first_nan = block.maximum.is_nan() && !self.peak.maximum.is_nan();
        let raises = is_first_nan || block.maximum > self.peak.maximum;
        let below = if raises { std::mem::replace(&mut self.peak, block) } else { block };
        if raises {
            self.peak_block = self.count;
        }
        self.count += 1;
        self.others = self.others.merge(below, self.inverse_temperature);
    }

    /// Replaces the block that holds the maximum.
    pub fn set_peak(&mut self, block: BlockState) {
        self.peak = block;
    }

    pub fn merged(&self) -> RowState {
        let Self { peak, others, inverse_temperature, peak_block, .. } = *self;
        // A NaN is above nothing.
        let merged = match peak.maximum.is_nan() {
            true => peak,
            false => peak.merge(others, inverse_temperature),
        };
        RowState { merged, inverse_temperature, peak_block }
    }
}

/// The softmax of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct RowState {
    merged: BlockState,
    inverse_temperature: f64,
    peak_block: usize,
}

impl RowState {
    pub fn is_peaked(&self) -> bool {
        self.merged.is_peaked()
    }

    pub fn inverse_temperature(&self) -> f64 {
        self.inverse_temperature
    }

    /// m, not scaled by the temperature; NaN if the row has one.
    pub fn maximum(&self) -> f32 {
        self.merged.maximum
    }

    /// Index of the first block that holds the maximum (or a NaN): the only one that can hold the
    /// argmax.
    pub fn peak_block(&self) -> usize {
        self.peak_block
    }

    /// sum_v exp(z_v) - 1; -1 for a row of -inf.
    pub fn excess(&self) -> f64 {
        self.merged.excess
    }

    /// sum_v exp(z_v) z_v, if the blocks were computed for it.
    pub fn weighted(&self) -> f64 {
        self.merged.weighted
    }

    /// ln sum_v exp(z_v) >= 0. NaN for a row with NaN or +inf, or of -inf alone.
    pub fn log_sum(&self) -> f64 {
        if self.merged.maximum == f32::NEG_INFINITY {
            return f64::NAN;
        }
        self.merged.excess.ln_1p()
    }

    /// Log-prob of the column with this logit. A row of -inf gives NaN, as torch does.
    pub fn log_prob(&self, logit: f32) -> f64 {
        (f64::from(logit) - f64::from(self.merged.maximum)) * self.inverse_temperature
            - self.log_sum()
    }

    /// -sum_v p_v ln p_v, if the blocks were computed for it.
    pub fn entropy(&self) -> f64 {
        self.log_sum() - self.merged.weighted / self.merged.total()
    }
    /// ln sum_v p_v^2, if the blocks were computed for it.
    pub fn log_sum_squares(&self) -> f64 {
        self.merged.squares.ln_1p() - 2.0 * self.log_sum()
    }
}
