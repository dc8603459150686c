//! What the compiler made of the hot loops, in the machine code of sm_90: instructions for each
//! logit, the widths of the memory accesses, local memory. `kernels` says what the budget is: at
//! full bandwidth about 13 instructions for each bf16 logit that is read.

mod count;
mod flow;
mod listing;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;
use std::rc::Rc;

use crate::kernels::{self, Compiled, aligned};
use crate::process::{self, Result, command, text};
use crate::toolchain::Toolchain;
use count::Counts;
use flow::Flow;
use listing::Function;

const ARCHITECTURE: &str = "sm_90";

/// What a kernel's loop may cost where rows are aligned; it moves 16 bytes at a time.
struct Bound {
    /// Every kernel of this file is held to it, but for the exempt ones.
    file: &'static str,
    exempt: &'static [&'static str],
    /// For each logit, on the main path.
    instructions: f64,
    /// Where the kernel's name says that it has the entropy.
    with_entropy: f64,
    /// It also writes.
    stores: bool,
}

const BOUNDS: [Bound; 4] = [
    Bound {
        file: "log_probs",
        // Reads the states of rows, not logits.
        exempt: &["log_probs_merge"],
        instructions: 8.0,
        with_entropy: 11.5,
        stores: false,
    },
    Bound {
        file: "logit_grads",
        exempt: &[],
        instructions: 10.0,
        with_entropy: 13.0,
        stores: true,
    },
    // Of its two loops the one that writes; the other is that of log_probs.
    Bound {
        file: "token_loss",
        exempt: &["token_factors"],
        instructions: 10.0,
        with_entropy: 13.0,
        stores: true,
    },
    // Of its loops the one that writes and adds nothing.
    Bound {
        file: "sparse_divergence",
        exempt: &[],
        instructions: 10.0,
        with_entropy: 10.0,
        stores: true,
    },
];

/// A loop that touches logits.
struct Hot {
    /// Where its source begins.
    source: Rc<str>,
    /// What an iteration executes unless something rare happens.
    main: Counts,
    /// It loads 16 bytes at a time, one exponential for each logit.
    aligned: bool,
    /// With every side block.
    all: Counts,
}

/// Prints the table, and fails where a bound is broken.
pub fn report(toolchain: &Toolchain) -> Result<()> {
    let compiled = kernels::compile(toolchain, &[ARCHITECTURE])?;
    let (mut rows, mut broken) = (vec![head()], String::new());
    for reported in process::parallel(&compiled, |compiled| report_file(toolchain, compiled))? {
        let (of_file, broken_here) = reported?;
        rows.extend(of_file);
        broken += &broken_here;
    }
    println!("{}", aligned(&rows));
    if broken.is_empty() { Ok(()) } else { Err(broken.into()) }
}

/// The rows of a file's kernels, and which bounds they break.
fn report_file(toolchain: &Toolchain, compiled: &Compiled) -> Result<(Vec<Vec<String>>, String)> {
    let Compiled { file, cubin, .. } = compiled;
    let (mut rows, mut broken) = (Vec::new(), String::new());
    for function in disassemble(toolchain, cubin)? {
        // The scalar stages touch no logits, and have more ways through their loops than one can list.
        let visits_logits = BOUNDS.iter().any(|bound| bound.file == file);
        let loops = if visits_logits { hot_loops(&function) } else { vec![] };
        rows.extend(loops.iter().map(|hot| row(&function.name, hot)));
        if let Err(reason) = check(file, &function, &loops) {
            writeln!(broken, "{file}.cu: {}: {reason}", function.name)?;
        }
    }
    Ok((rows, broken))
}

fn disassemble(toolchain: &Toolchain, cubin: &Path) -> Result<Vec<Function>> {
    let listing = text(command(&toolchain.nvdisasm).args(["-c", "-g"]).arg(cubin))?;
    Ok(listing::parse(&listing))
}

/// The loops that take exponentials of what they load. Hot loops inside a loop are no part of it;
/// what is left of it, such as the edges of a row in the loop over rows, is hot only where it works
/// through whole vectors.
fn hot_loops(function: &Function) -> Vec<Hot> {
    let flow = Flow::new(function);
    let counts: Vec<Counts> = flow.blocks.iter().map(|b| Counts::new(function, b)).collect();
    let mut loops = flow.loops();
    // Inner loops come before those around them.
    loops.sort_by_key(|of| of.body.len());
    let mut inner = BTreeSet::new();
    let mut hot = Vec::new();
    for mut of in loops {
        let around = !of.body.is_disjoint(&inner);
        of.body = of.body.difference(&inner).copied().collect();
        let all: Counts = of.body.iter().map(|&block| counts[block]).sum();
        // No way through it has more, and the search for ways is what takes time.
        if all.logits() == 0 || !(all.loads.any() || all.shared_loads.any()) {
            continue;
        }
        let (main, aligned) = main_path(&flow.paths(&of, &counts), bytes_per_logit(&function.name));
        let loads = main.loads.any() || main.shared_loads.any();
        if main.logits() == 0 || !loads || (around && !aligned) {
            continue;
        }
        let first = &function.code[flow.blocks[of.entrance].instructions.start];
        let source = Rc::clone(&first.source);
        hot.push(Hot { source, main, aligned, all });
        inner.extend(of.body);
    }
    hot
}

/// The size of the element type that a kernel's name has in it.
fn bytes_per_logit(name: &str) -> Option<u32> {
    name.split('_').find_map(|part| match part {
        "f64" => Some(8),
        "f32" => Some(4),
        "f16" | "bf16" => Some(2),
        _ => None,
    })
}

/// The shortest way through a loop with one exponential for each logit that is loaded, and whether
/// the loads are of 16 bytes. Where there is none, the shortest with the fewest exponentials, but
/// some.
fn main_path(paths: &[Counts], bytes_per_logit: Option<u32>) -> (Counts, bool) {
    let size = bytes_per_logit.unwrap_or(0);
    let loads_once = paths
        .iter()
        .filter(|path| path.logits() > 0 && loads_once(path, paths, size))
        .min_by(|a, b| a.per_logit().total_cmp(&b.per_logit()));
    let fewest = || paths.iter().min_by_key(|path| (path.logits() == 0, path.exps, path.total));
    let aligned = |path: &Counts| (path.loads + path.shared_loads).wide() == path.logits() * size;
    let main = loads_once.or_else(fewest).copied().unwrap_or_default();
    (main, loads_once.is_some_and(aligned))
}

/// The loads are those of the logits, and less than a vector besides. Rows that are not aligned may
/// load twice the data, and exponentials may be taken twice; together they would look right, but then
/// another way takes fewer exponentials of the same loads.
fn loads_once(path: &Counts, paths: &[Counts], size: u32) -> bool {
    let loads = path.loads + path.shared_loads;
    let (bytes, logits) = (loads.wide() + loads.narrow(), path.logits() * size);
    let twice = paths.iter().any(|other| {
        let loads = (other.loads, other.shared_loads) == (path.loads, path.shared_loads);
        loads && other.logits() > 0 && other.logits() < path.logits()
    });
    (logits..logits + 16).contains(&bytes) && !twice
}

/// The best of the aligned loops is held to the kernel's bound; the others serve other rows.
fn check(file: &str, function: &Function, loops: &[Hot]) -> std::result::Result<(), String> {
    if function.code.iter().any(|instruction| matches!(instruction.class(), "LDL" | "STL")) {
        return Err("uses local memory".to_owned());
    }
    let exempt = |name: &&str| function.name.starts_with(*name);
    let bound = BOUNDS.iter().find(|bound| bound.file == file && !bound.exempt.iter().any(exempt));
    let Some(bound) = bound else { return Ok(()) };
    let entropy = ["entropy", "moments"].iter().any(|extra| function.name.contains(extra));
    let allowed = if entropy { bound.with_entropy } else { bound.instructions };
    // What is loaded is stored again, in vectors of the same size.
    let stored = |main: &Counts| !bound.stores || main.stores.wide() >= main.loads.wide();
    let aligned = loops.iter().filter(|hot| hot.aligned && stored(&hot.main));
    match aligned.map(|hot| hot.main.per_logit()).min_by(f64::total_cmp) {
        None => Err(format!(
            "no loop loads{} 16 bytes at a time and takes one exponential for each logit",
            if bound.stores { " and stores" } else { "" }
        )),
        Some(best) if best > allowed => {
            Err(format!("{best:.2} instructions for each logit, {allowed} allowed"))
        }
        Some(_) => Ok(()),
    }
}

fn head() -> Vec<String> {
    let mut head: Vec<String> =
        ["loop", "logits", "per logit", "all", "aligned", "loads", "stores", "shared loads"]
            .map(str::to_owned)
            .into();
    head.extend(Counts::default().classes().keys().map(|&class| class.to_owned()));
    head
}

fn row(name: &str, Hot { source, main, aligned, all }: &Hot) -> Vec<String> {
    let per_logit =
        |counts: &Counts| format!("{:.2}", f64::from(counts.total) / f64::from(main.logits()));
    let mut row = vec![format!("{name}, {source}"), main.logits().to_string()];
    row.extend([per_logit(main), per_logit(all)]);
    row.push(if *aligned { "yes" } else { "" }.to_owned());
    row.extend([main.loads, main.stores, main.shared_loads].map(count::Widths::text));
    row.extend(main.classes().values().map(u32::to_string));
    row
}
