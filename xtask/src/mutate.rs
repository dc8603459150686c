//! `cargo xtask mutate`: takes each barrier, fence and wait out of the kernels, one at a time, and
//! runs the tests over the emulator in race mode. A mutant that they do not notice is either a gap in
//! the tests or a barrier too many.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::process::Result;

/// Calls without a value; a mutant does nothing instead.
const CALLS: &[&str] = &[
    "__syncthreads",
    "__syncwarp",
    "__threadfence",
    "__threadfence_block",
    "__threadfence_system",
    "cluster_sync",
    "cp_async_wait",
    "mbarrier_wait",
    "named_barrier",
];

/// Barriers that vote; a mutant has the thread's own vote instead.
const VOTES: &[&str] = &["__syncthreads_and", "__syncthreads_count", "__syncthreads_or"];

/// What the emulator's reports start with.
const REPORTS: &[&str] = &[
    "data race",
    "uninitialised shared memory",
    "cluster at",
    "out of bounds",
    "deadlock",
    "livelock",
    "mbarrier",
    "divergent barrier",
    "warp mask",
    "named barrier",
];

/// The tests of the emulator itself run kernels of their own.
const OTHER_TESTS: &[&str] = &["self_test", "prefuse_emulator"];

/// One call taken out of one file.
struct Mutant {
    /// Below the folder of the kernels.
    file: PathBuf,
    line: usize,
    call: String,
    text: String,
}

enum Outcome {
    Noticed(String),
    Unnoticed,
    NotCompiled,
}

/// Mutates the files whose names contain `filter`.
pub fn run(filter: Option<&str>) -> Result<()> {
    let kernels = Path::new("kernels").canonicalize()?;
    let mutants = all_mutants(&kernels, filter.unwrap_or(""))?;
    let tests = test_programs()?;
    if tests.is_empty() {
        return Err("prefuse-emulator has no tests over the kernels of the crate".into());
    }
    let bench = Bench::new(&kernels)?;
    let start = Instant::now();
    if !bench.build()? {
        return Err("the kernels do not compile".into());
    }
    if let Some(output) = bench.first_failure(&tests, Duration::from_secs(3600))? {
        return Err(format!("the tests fail without any mutation:\n{output}").into());
    }
    // A mutant may run for ever, and slower machines have busy hours.
    let limit = 10 * start.elapsed() + Duration::from_secs(60);
    println!("{} mutants", mutants.len());
    let mut unnoticed = 0;
    for mutant in &mutants {
        let start = Instant::now();
        let outcome = bench.check(mutant, &tests, limit)?;
        let (word, why) = match outcome {
            Outcome::Noticed(why) => ("noticed", why),
            Outcome::Unnoticed => ("UNNOTICED", String::new()),
            Outcome::NotCompiled => ("NOT COMPILED", String::new()),
        };
        unnoticed += usize::from(word != "noticed");
        let place = format!("{}:{}", mutant.file.display(), mutant.line);
        let seconds = start.elapsed().as_secs_f64();
        println!("{place:32} {:40} {word} in {seconds:.0} s  {why}", mutant.call);
    }
    println!("mutants: {} noticed, {unnoticed} not", mutants.len() - unnoticed);
    if unnoticed == 0 { Ok(()) } else { Err("a barrier is missed by no test".into()) }
}

/// A copy of the kernels, and the library that is built from it.
struct Bench {
    kernels: PathBuf,
    library: PathBuf,
}

impl Bench {
    fn new(kernels: &Path) -> Result<Self> {
        let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or("target".into());
        let folder = PathBuf::from(target).join("mutants");
        let copy = folder.join("kernels");
        if copy.exists() {
            fs::remove_dir_all(&copy)?;
        }
        fs::create_dir_all(copy.join("include"))?;
        for file in sources(kernels)? {
            fs::copy(kernels.join(&file), copy.join(&file))?;
        }
        let folder = folder.canonicalize()?;
        Ok(Self { kernels: folder.join("kernels"), library: folder.join("kernels.so") })
    }

    /// False where the compiler refuses.
    fn build(&self) -> Result<bool> {
        // In the profile of the test programs, so that object files are shared with them.
        let status = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "-p", "prefuse-emulator", "--lib", "--profile", "test"])
            .env("PREFUSE_EMULATOR", "race")
            .env("PREFUSE_EMULATOR_KERNELS", &self.kernels)
            .env("PREFUSE_EMULATOR_SHARED", &self.library)
            .stderr(Stdio::null())
            .status()?;
        Ok(status.success())
    }

    fn check(&self, mutant: &Mutant, tests: &[PathBuf], limit: Duration) -> Result<Outcome> {
        let path = self.kernels.join(&mutant.file);
        let original = fs::read(&path)?;
        fs::write(&path, &mutant.text)?;
        let outcome = if self.build()? {
            match self.first_failure(tests, limit)? {
                Some(output) => Outcome::Noticed(summary(&output)),
                None => Outcome::Unnoticed,
            }
        } else {
            Outcome::NotCompiled
        };
        fs::write(&path, original)?;
        Ok(outcome)
    }

    /// The output of the first test program that fails, or takes too long.
    fn first_failure(&self, tests: &[PathBuf], limit: Duration) -> Result<Option<String>> {
        for test in tests {
            let log = self.library.with_extension("log");
            let output = fs::File::create(&log)?;
            let mut child = Command::new(test)
                .current_dir("tests/emulator")
                .env("PREFUSE_EMULATOR_LIBRARY", &self.library)
                .env("RUST_BACKTRACE", "0")
                .stdout(output.try_clone()?)
                .stderr(output)
                .spawn()?;
            let start = Instant::now();
            let failed = loop {
                if let Some(status) = child.try_wait()? {
                    break !status.success();
                }
                if start.elapsed() > limit {
                    child.kill()?;
                    child.wait()?;
                    return Ok(Some("takes too long".to_owned()));
                }
                std::thread::sleep(Duration::from_millis(20));
            };
            if failed {
                return Ok(Some(String::from_utf8_lossy(&fs::read(&log)?).into_owned()));
            }
        }
        Ok(None)
    }
}

/// The programs of `cargo test` that run the crate's kernels.
fn test_programs() -> Result<Vec<PathBuf>> {
    let output = Command::new(env!("CARGO"))
        .args(["test", "--no-run", "-p", "prefuse-emulator", "--message-format", "json"])
        .env("PREFUSE_EMULATOR", "race")
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err("the tests do not compile".into());
    }
    let text = String::from_utf8(output.stdout)?;
    let mark = "\"executable\":\"";
    let paths = text.lines().filter_map(|line| {
        let start = line.find(mark)? + mark.len();
        Some(PathBuf::from(&line[start..start + line[start..].find('"')?]))
    });
    let is_other = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        OTHER_TESTS.iter().any(|other| name.starts_with(&format!("{other}-")))
    };
    Ok(paths.filter(|path| !is_other(path)).collect())
}

/// The first report in a test program's output, up to the end of its line, which is escaped where
/// the report was printed as an error's fields.
fn summary(output: &str) -> String {
    let starts = REPORTS.iter().filter_map(|report| output.find(report));
    let Some(start) = starts.min() else { return "wrong values".to_owned() };
    let report = output[start..].lines().next().unwrap_or_default();
    report.split("\\n").next().unwrap_or_default().to_owned()
}

/// `*.cu` and `include/*.cuh`, below the folder.
fn sources(kernels: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for (folder, extension) in [("", "cu"), ("include", "cuh")] {
        for entry in fs::read_dir(kernels.join(folder))? {
            let name = entry?.file_name();
            if Path::new(&name).extension().is_some_and(|found| found == extension) {
                files.push(Path::new(folder).join(name));
            }
        }
    }
    files.sort();
    Ok(files)
}

fn all_mutants(kernels: &Path, filter: &str) -> Result<Vec<Mutant>> {
    let mut mutants = Vec::new();
    for file in sources(kernels)? {
        // The emulator has its own twin of that one.
        if file.ends_with("ptx.cuh") || !file.to_string_lossy().contains(filter) {
            continue;
        }
        let text = fs::read_to_string(kernels.join(&file))?;
        for (start, end, replacement) in calls(&text) {
            mutants.push(Mutant {
                file: file.clone(),
                line: text[..start].matches('\n').count() + 1,
                call: text[start..end].to_owned(),
                text: format!("{}{replacement}{}", &text[..start], &text[end..]),
            });
        }
    }
    Ok(mutants)
}

/// Where calls start and end, and what stands there in a mutant.
fn calls(text: &str) -> Vec<(usize, usize, String)> {
    let is_name = |c: char| c == '_' || c.is_ascii_alphanumeric();
    let mut found = Vec::new();
    let mut position = 0;
    while let Some(offset) = text[position..].find(is_name) {
        let start = position + offset;
        let length = text[start..].find(|c| !is_name(c)).unwrap_or(text.len() - start);
        let name = &text[start..start + length];
        position = start + length;
        let line = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        if text[line..start].contains("//") {
            continue;
        }
        let (call, vote) = (CALLS.contains(&name), VOTES.contains(&name));
        if let Some((open, close)) = parentheses(text, position).filter(|_| call || vote) {
            let replacement = if call {
                "((void)0)".to_owned()
            } else {
                format!("(({}) != 0)", &text[open + 1..close])
            };
            found.push((start, close + 1, replacement));
        }
    }
    found
}

/// The parentheses of a call whose name ends at the position, maybe with template arguments.
fn parentheses(text: &str, after_name: usize) -> Option<(usize, usize)> {
    let mut open = after_name;
    if text[open..].starts_with('<') {
        open += text[open..].find('>')? + 1;
    }
    let mut depth = 0;
    for (offset, c) in text[open..].char_indices() {
        depth += i32::from(c == '(') - i32::from(c == ')');
        if depth == 0 {
            return (offset > 0).then_some((open, open + offset));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::calls;

    fn mutated(text: &str) -> Vec<String> {
        let mutant = |(start, end, with): (usize, usize, String)| {
            format!("{}{with}{}", &text[..start], &text[end..])
        };
        calls(text).into_iter().map(mutant).collect()
    }

    #[test]
    fn each_call_by_itself() {
        let text = "__syncthreads(); // __syncthreads();\nif (f(x)) __syncwarp(mask(0));";
        assert_eq!(
            mutated(text),
            [
                "((void)0); // __syncthreads();\nif (f(x)) __syncwarp(mask(0));",
                "__syncthreads(); // __syncthreads();\nif (f(x)) ((void)0);",
            ]
        );
    }

    #[test]
    fn votes_and_templates() {
        assert_eq!(mutated("return __syncthreads_or(a < b);"), ["return ((a < b) != 0);"]);
        assert_eq!(mutated("cp_async_wait<1>();"), ["((void)0);"]);
        assert!(mutated("my__syncthreads(); int __syncthreads = 0;").is_empty());
    }
}
