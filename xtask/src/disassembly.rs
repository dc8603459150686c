//! What the compiler made of the hot loops, in the machine code of sm_90: instructions for each
//! logit, the widths of the memory accesses, local memory. `kernels` says what the budget is: at
//! full bandwidth about 13 instructions for each bf16 logit that is read.

mod count;
mod flow;
mod listing;

use std::fmt::Write;
use std::path::Path;

use crate::kernels::{self, aligned};
use crate::process::{Result, command, text};
use crate::toolchain::Toolchain;
use count::Counts;
use flow::Flow;
use listing::Function;

const ARCHITECTURE: &str = "sm_90";

/// What a kernel's best loop may cost; it moves 16 bytes at a time.
struct Bound {
    /// Of the kernel's name.
    prefix: &'static str,
    /// For each logit, on the main path.
    instructions: f64,
    /// It also writes.
    stores: bool,
}

const BOUNDS: [Bound; 2] = [
    Bound { prefix: "log_probs", instructions: 8.0, stores: false },
    Bound { prefix: "logit_grads", instructions: 10.0, stores: true },
];

/// A loop that touches logits.
struct Hot {
    line: u32,
    /// What an iteration executes unless something rare happens.
    main: Counts,
    /// With every side block.
    all: Counts,
}

/// Prints the table, and fails where a bound is broken.
pub fn report(toolchain: &Toolchain) -> Result<()> {
    let mut rows = vec![head()];
    let mut broken = String::new();
    for compiled in kernels::compile(toolchain, &[ARCHITECTURE])? {
        for function in disassemble(toolchain, &compiled.path)? {
            let loops = hot_loops(&function);
            rows.extend(loops.iter().map(|hot| row(&function.name, hot)));
            if let Err(reason) = check(&function, &loops) {
                writeln!(broken, "{}.cu: {}: {reason}", compiled.file, function.name)?;
            }
        }
    }
    println!("{}", aligned(&rows));
    if broken.is_empty() { Ok(()) } else { Err(broken.into()) }
}

fn disassemble(toolchain: &Toolchain, cubin: &Path) -> Result<Vec<Function>> {
    let listing = text(command(&toolchain.nvdisasm).args(["-c", "-g"]).arg(cubin))?;
    Ok(listing::parse(&listing))
}

/// The innermost loops that take exponentials of what they load, or load 16 bytes at a time.
fn hot_loops(function: &Function) -> Vec<Hot> {
    let flow = Flow::new(function);
    let counts: Vec<Counts> = flow.blocks.iter().map(|b| Counts::new(function, b)).collect();
    let all = |of: &flow::Loop| of.body.iter().map(|&block| counts[block]).sum::<Counts>();
    let mut loops = flow.loops();
    loops.retain(|of| {
        let all = all(of);
        let loads = all.loads.any() || all.shared_loads.any();
        all.loads.wide() || (loads && all.logits() > 0)
    });
    let innermost = loops.iter().filter(|of| {
        !loops.iter().any(|other| other.entrance != of.entrance && other.body.is_subset(&of.body))
    });
    let hot = innermost.map(|of| Hot {
        line: function.code[flow.blocks[of.entrance].instructions.start].line,
        main: flow.main_path(of, &counts),
        all: all(of),
    });
    hot.collect()
}

/// The best of the loops with 16-byte accesses is held to the bound of the kernel; the others serve
/// rows that are not aligned.
fn check(function: &Function, loops: &[Hot]) -> std::result::Result<(), String> {
    if function.code.iter().any(|instruction| matches!(instruction.class(), "LDL" | "STL")) {
        return Err("uses local memory".to_owned());
    }
    let bound = BOUNDS.iter().find(|bound| function.name.starts_with(bound.prefix));
    let Some(bound) = bound else { return Ok(()) };
    let wide = loops.iter().filter(|hot| {
        let main = &hot.main;
        main.logits() > 0 && main.loads.wide() && (!bound.stores || main.stores.wide())
    });
    let best = wide.map(|hot| hot.main.per_logit()).min_by(f64::total_cmp);
    match best {
        None => Err(format!(
            "no loop loads{} 16 bytes at a time",
            if bound.stores { " and stores" } else { "" }
        )),
        Some(best) if best > bound.instructions => {
            Err(format!("{best:.2} instructions for each logit, {} allowed", bound.instructions))
        }
        Some(_) => Ok(()),
    }
}

fn head() -> Vec<String> {
    let mut head: Vec<String> =
        ["loop", "logits", "per logit", "all", "loads", "stores", "shared loads"]
            .map(str::to_owned)
            .into();
    head.extend(Counts::default().classes().keys().map(|&class| class.to_owned()));
    head
}

fn row(name: &str, Hot { line, main, all }: &Hot) -> Vec<String> {
    let per_logit = |counts: &Counts| {
        if main.logits() == 0 {
            return counts.total.to_string();
        }
        format!("{:.2}", f64::from(counts.total) / f64::from(main.logits()))
    };
    let mut row = vec![format!("{name}, line {line}"), main.logits().to_string()];
    row.extend([per_logit(main), per_logit(all)]);
    row.extend([main.loads, main.stores, main.shared_loads].map(count::Widths::text));
    row.extend(main.classes().values().map(u32::to_string));
    row
}
