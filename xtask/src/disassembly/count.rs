//! What a stretch of machine code is made of.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::iter::Sum;
use std::ops::Add;

use super::flow::Block;
use super::listing::{Function, Instruction};

/// Exponentials are taken vector by vector; what is left over rescales sums.
const SMALLEST_VECTOR: u32 = 4;

/// Numbers of instructions, by what they do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub total: u32,
    /// `MUFU.EX2`.
    pub exps: u32,
    /// The special-function unit's others.
    pub special: u32,
    pub float: u32,
    pub convert: u32,
    pub bits: u32,
    pub integer: u32,
    pub shuffle: u32,
    pub branch: u32,
    pub local: u32,
    pub loads: Widths,
    pub stores: Widths,
    /// From shared memory.
    pub shared_loads: Widths,
}

/// Exponentials, global loads, loads from shared memory.
pub type Work = (u32, Widths, Widths);

/// Accesses by their bytes for each thread: 1, 2, 4, 8, 16, 32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Widths([u32; 6]);

impl Widths {
    fn one(instruction: &Instruction) -> Self {
        let mut widths = Self::default();
        widths.0[instruction.width().ilog2() as usize] = 1;
        widths
    }

    pub fn any(self) -> bool {
        self.0.iter().any(|&number| number > 0)
    }

    /// Bytes moved by accesses of at least 16 bytes.
    pub fn wide(self) -> u32 {
        16 * self.0[4] + 32 * self.0[5]
    }

    /// Bytes moved by smaller accesses.
    pub fn narrow(self) -> u32 {
        (0..4).map(|log| self.0[log] << log).sum()
    }

    /// `4 x 16` for four accesses of 16 bytes.
    pub fn text(self) -> String {
        let mut text = String::new();
        for (log, number) in self.0.iter().enumerate().rev().filter(|&(_, &number)| number > 0) {
            let separator = if text.is_empty() { "" } else { ", " };
            let _ = write!(text, "{separator}{number} x {}", 1 << log);
        }
        text
    }
}

impl Add for Widths {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] + other.0[i]))
    }
}

impl Counts {
    pub fn new(function: &Function, block: &Block) -> Self {
        function.code[block.instructions.clone()].iter().map(Self::one).sum()
    }

    fn one(instruction: &Instruction) -> Self {
        let mut counts = Self { total: 1, ..Self::default() };
        match instruction.class() {
            "MUFU" if instruction.is("EX2") => counts.exps = 1,
            "MUFU" => counts.special = 1,
            "LDG" | "LD" => counts.loads = Widths::one(instruction),
            "STG" | "ST" => counts.stores = Widths::one(instruction),
            "LDS" => counts.shared_loads = Widths::one(instruction),
            "LDL" | "STL" => counts.local = 1,
            "FADD" | "FMUL" | "FFMA" | "FMNMX" | "FMNMX3" | "FSETP" | "FSEL" | "FSET" | "HFMA2"
            | "HADD2" | "HMUL2" | "HMNMX2" | "VHMNMX" | "FADD2" | "FMUL2" | "FFMA2" => {
                counts.float = 1;
            }
            "F2F" | "F2FP" | "F2I" | "I2F" | "I2FP" => counts.convert = 1,
            "PRMT" | "SHF" | "LOP3" | "PLOP3" | "SEL" | "MOV" | "R2UR" | "UMOV" => counts.bits = 1,
            "IMAD" | "IADD3" | "IADD" | "VIADD" | "LEA" | "ISETP" | "IMNMX" | "VIMNMX"
            | "VIMNMX3" | "UIADD3" | "ULEA" | "UISETP" | "UIMAD" => counts.integer = 1,
            "SHFL" => counts.shuffle = 1,
            "BRA" | "BSSY" | "BSYNC" | "EXIT" | "CALL" | "WARPSYNC" => counts.branch = 1,
            _ => {}
        }
        counts
    }

    /// One exponential each.
    pub fn logits(&self) -> u32 {
        self.exps / SMALLEST_VECTOR * SMALLEST_VECTOR
    }

    /// What tells one way through a loop from another. Not its stores: what matters of them is those of
    /// the shortest way.
    pub fn work(&self) -> Work {
        (self.exps, self.loads, self.shared_loads)
    }

    pub fn per_logit(&self) -> f64 {
        f64::from(self.total) / f64::from(self.logits())
    }

    /// The classes that a table shows, and how many instructions are in each.
    pub fn classes(&self) -> BTreeMap<&'static str, u32> {
        let sum = |widths: Widths| widths.0.iter().sum();
        let mut classes = BTreeMap::from([
            ("exp", self.exps),
            ("special", self.special),
            ("float", self.float),
            ("convert", self.convert),
            ("bits", self.bits),
            ("integer", self.integer),
            ("shuffle", self.shuffle),
            ("branch", self.branch),
            ("global", sum(self.loads) + sum(self.stores)),
            ("shared", sum(self.shared_loads)),
        ]);
        let known: u32 = classes.values().sum();
        classes.insert("other", self.total - known);
        classes
    }
}

impl Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            total: self.total + other.total,
            exps: self.exps + other.exps,
            special: self.special + other.special,
            float: self.float + other.float,
            convert: self.convert + other.convert,
            bits: self.bits + other.bits,
            integer: self.integer + other.integer,
            shuffle: self.shuffle + other.shuffle,
            branch: self.branch + other.branch,
            local: self.local + other.local,
            loads: self.loads + other.loads,
            stores: self.stores + other.stores,
            shared_loads: self.shared_loads + other.shared_loads,
        }
    }
}

impl Sum for Counts {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::default(), Add::add)
    }
}
