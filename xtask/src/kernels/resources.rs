//! What ptxas says of each kernel, as tables.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;

use serde_json::{Value, json};

use super::occupancy::occupancy;
use super::{ARCHITECTURES, Compiled};
use crate::process::Result;

/// What a function takes on one architecture, as `ptxas -v` has it.
#[derive(Default, Debug, PartialEq)]
struct Usage {
    registers: u32,
    barriers: u32,
    shared: u32,
    stack: u32,
    spill_stores: u32,
    spill_loads: u32,
}

impl Usage {
    /// Local memory is device memory: what lies there costs traffic.
    fn local(&self) -> bool {
        self.stack + self.spill_stores + self.spill_loads > 0
    }
}

/// A kernel, or a function that was not inlined.
#[derive(Default)]
struct Function {
    file: String,
    /// `__launch_bounds__`: threads of a block, and blocks of a multiprocessor, 0 for none.
    threads: u32,
    blocks: u32,
    usage: BTreeMap<&'static str, Usage>,
}

impl Function {
    fn occupancy(&self, architecture: &str) -> Option<f64> {
        let usage = self.usage.get(architecture).filter(|_| self.threads > 0)?;
        occupancy(architecture, usage.registers, usage.shared, self.threads)
    }
}

/// Every function of every file.
pub struct Table {
    functions: BTreeMap<String, Function>,
}

impl Table {
    pub fn new(compiled: &[Compiled]) -> Result<Self> {
        let mut functions = BTreeMap::<String, Function>::new();
        for Compiled { file, architecture, ptx, log, .. } in compiled {
            for (name, threads, blocks) in launch_bounds(&fs::read_to_string(ptx)?) {
                let function = functions.entry(name).or_default();
                (function.threads, function.blocks) = (threads, blocks);
            }
            for (name, usage) in usages(log) {
                let function = functions.entry(name).or_default();
                function.file.clone_from(file);
                function.usage.insert(architecture, usage);
            }
        }
        Ok(Self { functions })
    }

    /// Fails on spills and stack frames.
    pub fn check(&self) -> Result<()> {
        let mut message = String::new();
        for (name, function) in &self.functions {
            for (architecture, usage) in function.usage.iter().filter(|(_, usage)| usage.local()) {
                let Usage { stack, spill_stores, spill_loads, .. } = usage;
                writeln!(
                    message,
                    "{}.cu: {name} on {architecture} uses local memory: {stack} bytes of stack, \
                     {spill_stores} bytes of spill stores, {spill_loads} of spill loads",
                    function.file
                )?;
            }
        }
        if message.is_empty() { Ok(()) } else { Err(message.into()) }
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let mut head = vec!["kernel".to_owned(), "threads".to_owned()];
        head.extend(ARCHITECTURES.map(str::to_owned));
        head.extend(["static shared", "local"].map(str::to_owned));
        let mut rows = vec![head];
        for (name, function) in &self.functions {
            let bounds = match (function.threads, function.blocks) {
                (0, _) => "any".to_owned(),
                (threads, 0) => threads.to_string(),
                (threads, blocks) => format!("{threads} x {blocks}"),
            };
            let mut row = vec![name.clone(), bounds];
            for architecture in ARCHITECTURES {
                let registers = function.usage.get(architecture).map_or(0, |usage| usage.registers);
                let share = function.occupancy(architecture);
                let share = share.map_or(String::new(), |o| format!(", {:.0} %", 100.0 * o));
                row.push(format!("{registers}{share}"));
            }
            let most = |of: fn(&Usage) -> u32| function.usage.values().map(of).max().unwrap_or(0);
            row.push(most(|usage| usage.shared).to_string());
            row.push(most(|u| u.stack.max(u.spill_stores).max(u.spill_loads)).to_string());
            rows.push(row);
        }
        rows
    }

    /// For a terminal.
    pub fn text(&self) -> String {
        aligned(&self.rows())
    }

    pub fn markdown(&self) -> String {
        let mut text =
            "Registers of a thread, and the warps in use as far as registers, threads and \
             static shared memory\nlimit them, at the threads of a block (and blocks of a \
             multiprocessor) that `__launch_bounds__` states;\nshared and local memory in bytes. \
             Made by `cargo xtask kernels --write`.\n\n"
                .to_owned();
        for (index, row) in self.rows().iter().enumerate() {
            text += &format!("| {} |\n", row.join(" | "));
            if index == 0 {
                text += &format!("|{}\n", "---|".repeat(row.len()));
            }
        }
        text
    }

    pub fn json(&self) -> Result<String> {
        let kernels = self.functions.iter().map(|(name, function)| {
            let usage = function.usage.iter().map(|(architecture, usage)| {
                let value = json!({
                    "registers": usage.registers,
                    "barriers": usage.barriers,
                    "static_shared": usage.shared,
                    "stack": usage.stack,
                    "spill_stores": usage.spill_stores,
                    "spill_loads": usage.spill_loads,
                    "occupancy": function.occupancy(architecture),
                });
                ((*architecture).to_owned(), value)
            });
            json!({
                "name": name,
                "file": format!("{}.cu", function.file),
                "threads": function.threads,
                "blocks": function.blocks,
                "usage": usage.collect::<serde_json::Map<_, _>>(),
            })
        });
        let value = json!({ "kernels": kernels.collect::<Vec<Value>>() });
        Ok(serde_json::to_string_pretty(&value)? + "\n")
    }
}

/// Columns of equal width, the first to the left.
pub fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let cells = |column| rows.iter().filter_map(move |row: &Vec<String>| row.get(column));
    let widths: Vec<usize> = (0..columns)
        .map(|c| cells(c).map(|cell| cell.chars().count()).max().unwrap_or(0))
        .collect();
    let lines = rows.iter().map(|row| {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
            if column == 0 { format!("{cell:width$}") } else { format!("{cell:>width$}") }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The functions in what `ptxas -v` says.
fn usages(log: &str) -> Vec<(String, Usage)> {
    let mut found: Vec<(String, Usage)> = Vec::new();
    for line in log.lines() {
        if let Some((_, name)) = line.split_once("Function properties for ") {
            found.push((name.trim().to_owned(), Usage::default()));
        } else if let Some((_, usage)) = found.last_mut() {
            for (number, what) in line.split(',').filter_map(quantity) {
                match what {
                    "registers" => usage.registers = number,
                    "barriers" => usage.barriers = number,
                    "bytes smem" => usage.shared = number,
                    "bytes stack frame" => usage.stack = number,
                    "bytes spill stores" => usage.spill_stores = number,
                    "bytes spill loads" => usage.spill_loads = number,
                    _ => {}
                }
            }
        }
    }
    found
}

/// The number in `ptxas info : Used 31 registers`, and what it counts.
fn quantity(part: &str) -> Option<(u32, &str)> {
    let start = part.find(|c: char| c.is_ascii_digit())?;
    let (number, what) = part[start..].split_once(' ')?;
    Some((number.parse().ok()?, what.trim()))
}

/// The entries of PTX text, with the threads of a block and the blocks of a multiprocessor.
fn launch_bounds(ptx: &str) -> Vec<(String, u32, u32)> {
    let mut found: Vec<(String, u32, u32)> = Vec::new();
    for line in ptx.lines() {
        let numbers = |text: &str| {
            text.split(',')
                .filter_map(|number| number.trim().parse::<u32>().ok())
                .collect::<Vec<_>>()
        };
        if let Some((_, name)) = line.split_once(".entry ") {
            let name = name.trim_end_matches(['(', ')', ' ']);
            found.push((name.to_owned(), 0, 0));
        } else if let (Some((_, threads, blocks)), Some((directive, rest))) =
            (found.last_mut(), line.split_once(' '))
        {
            match directive {
                ".maxntid" => *threads = numbers(rest).iter().product(),
                ".minnctapersm" => *blocks = numbers(rest).iter().sum(),
                _ => {}
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{Usage, launch_bounds, usages};

    #[test]
    fn ptxas_is_understood() {
        let log = "ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'many' for 'sm_80'
ptxas info    : Function properties for many
    408 bytes stack frame, 404 bytes spill stores, 400 bytes spill loads
ptxas info    : Used 32 registers, used 1 barriers, 408 bytes cumulative stack size, 364 bytes cmem[0]
ptxas info    : Compile time = 24.059 ms
ptxas info    : Compiling entry function 'smem' for 'sm_80'
ptxas info    : Function properties for smem
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 12 registers, used 1 barriers, 1332 bytes smem, 364 bytes cmem[0]
";
        let many = Usage {
            registers: 32,
            barriers: 1,
            shared: 0,
            stack: 408,
            spill_stores: 404,
            spill_loads: 400,
        };
        assert!(many.local());
        let smem = Usage { registers: 12, barriers: 1, shared: 1332, ..Usage::default() };
        assert_eq!(usages(log), [("many".to_owned(), many), ("smem".to_owned(), smem)]);
    }

    #[test]
    fn launch_bounds_are_found() {
        let ptx = ".visible .entry many(
\t.param .u64 many_param_0
)
.maxntid 512, 2, 1
.minnctapersm 2
{
.visible .entry none()
{
";
        let expected = [("many".to_owned(), 1024, 2), ("none".to_owned(), 0, 0)];
        assert_eq!(launch_bounds(ptx), expected);
    }
}
