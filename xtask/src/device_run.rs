//! What `run.sh` of a bundle runs on the GPU machine: each part with a log, and one `results.json`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};

use crate::process::{Result, text};

/// Seconds that a part may take; a kernel that hangs would keep the machine otherwise.
const LIMIT: &str = "500";

/// The tools of compute-sanitizer, and what each is told.
const SANITIZERS: [(&str, &[&str]); 4] = [
    ("memcheck", &[]),
    ("racecheck", &["--racecheck-report", "all"]),
    ("initcheck", &[]),
    ("synccheck", &[]),
];

/// Tests that launch every kernel, by parts of their names.
const SANITIZED: [&str; 6] =
    ["log_probs", "sequence_sums", "objective", "ranking", "logit_grads", "cuda"];

/// Tests of offsets beyond 32 bits, which take most of a card's memory.
const LARGE: &str = "large_offsets";

/// Where a bundle lies, and where its results go.
struct Run {
    bundle: PathBuf,
    out: PathBuf,
    only: Vec<String>,
    parts: Vec<Value>,
    failed: usize,
}

/// What came of a part.
enum Outcome {
    Passed(Value),
    Skipped(&'static str),
    Failed(Value),
}

/// `device-run BUNDLE [--out FOLDER] [--only PART]...`
pub fn run(options: &[&str]) -> Result<()> {
    let [bundle, options @ ..] = options else { return Err("device-run needs the bundle".into()) };
    let mut run = Run {
        bundle: PathBuf::from(bundle),
        out: Path::new(bundle).join("results"),
        only: Vec::new(),
        parts: Vec::new(),
        failed: 0,
    };
    for option in options.chunks(2) {
        match option {
            ["--out", folder] => run.out = std::path::absolute(folder)?,
            ["--only", part] => run.only.push((*part).to_owned()),
            other => return Err(format!("no option `{}`", other.join(" ")).into()),
        }
    }
    fs::create_dir_all(&run.out)?;
    let mut results = facts(&run.bundle);
    println!("{}", serde_json::to_string_pretty(&results)?);
    run.tests()?;
    run.sanitizers()?;
    let large = ["--include-ignored", "--test-threads=1", LARGE];
    let mut command = run.all_tests(&large);
    run.part(LARGE, |log| tests_outcome(&mut command, log))?;
    run.bench()?;
    let missing = run.only.iter().find(|only| !run.parts.iter().any(|part| part["name"] == **only));
    if let Some(missing) = missing {
        return Err(format!("no part `{missing}`").into());
    }
    results["parts"] = run.parts.into();
    let path = run.out.join("results.json");
    fs::write(&path, serde_json::to_string_pretty(&results)? + "\n")?;
    println!("{}", path.display());
    if run.failed > 0 { Err(format!("{} parts failed", run.failed).into()) } else { Ok(()) }
}

/// What a result means nothing without. A program that is not there leaves null.
fn facts(bundle: &Path) -> Value {
    let said = |program: &str, arguments: &[&str]| {
        let text = text(Command::new(program).args(arguments)).ok()?;
        Some(text.trim().to_owned())
    };
    let query =
        "--query-gpu=name,driver_version,compute_cap,memory.total,clocks.max.sm,clocks.max.memory";
    let gpus = said("nvidia-smi", &[query, "--format=csv,noheader,nounits"]).map(|text| {
        let gpus = text.lines().map(|line| {
            let fields: Vec<&str> = line.split(',').map(str::trim).collect();
            let field = |index: usize| fields.get(index).copied();
            json!({
                "name": field(0), "driver": field(1), "capability": field(2),
                "memory_mib": field(3), "sm_clock_mhz": field(4), "memory_clock_mhz": field(5),
            })
        });
        gpus.collect::<Vec<_>>()
    });
    json!({
        "date": said("date", &["-u", "+%Y-%m-%dT%H:%M:%SZ"]),
        "commit": fs::read_to_string(bundle.join("commit.txt")).ok().map(|text| text.trim().to_owned()),
        "gpus": gpus,
    })
}

impl Run {
    fn binary(&self, name: &str) -> PathBuf {
        self.bundle.join("bin").join(name)
    }

    /// A command that is stopped when it takes too long.
    fn limited(&self, arguments: &[&Path]) -> Command {
        let mut command = Command::new("timeout");
        command.args(["--kill-after=10", LIMIT]).args(arguments).current_dir(&self.bundle);
        command
    }

    fn all_tests(&self, arguments: &[&str]) -> Command {
        let mut command = self.limited(&[&self.binary("all")]);
        command.args(arguments);
        command
    }

    fn tests(&mut self) -> Result<()> {
        let mut command = self.all_tests(&["--skip", LARGE]);
        self.part("tests", |log| tests_outcome(&mut command, log))
    }

    fn sanitizers(&mut self) -> Result<()> {
        let sanitizer = sanitizer();
        for (tool, options) in SANITIZERS {
            let Some(sanitizer) = &sanitizer else {
                self.part(tool, |_| Ok(Outcome::Skipped("no compute-sanitizer")))?;
                continue;
            };
            let mut command = self.limited(&[sanitizer]);
            command.args(["--tool", tool, "--error-exitcode", "9"]).args(options);
            command.arg(self.binary("all")).args(SANITIZED);
            command.args(["--skip", LARGE, "--skip", "large_vocabularies"]);
            // Those have a driver of their own, which is no device.
            command.args(["--skip", "cuda_driver", "--test-threads=1"]);
            command.env("PREFUSE_SMALL", "1");
            self.part(tool, |log| tests_outcome(&mut command, log))?;
        }
        Ok(())
    }

    /// The bench writes its own results, which become a part of these.
    fn bench(&mut self) -> Result<()> {
        let (binary, json) = (self.binary("on_device"), self.out.join("bench.json"));
        let mut command = self.limited(&[&binary]);
        command.arg("--json").arg(&json);
        self.part("bench", |log| {
            if !binary.exists() {
                return Ok(Outcome::Skipped("the bundle has no bench on_device"));
            }
            if !logged(&mut command, log)? {
                return Ok(Outcome::Failed(tail(log)));
            }
            Ok(Outcome::Passed(serde_json::from_str(&fs::read_to_string(&json)?)?))
        })
    }

    fn part(&mut self, name: &str, work: impl FnOnce(&Path) -> Result<Outcome>) -> Result<()> {
        if !self.only.is_empty() && !self.only.iter().any(|only| only == name) {
            return Ok(());
        }
        println!("== {name}");
        let log = self.out.join(format!("{name}.log"));
        let start = Instant::now();
        // What cannot even start has failed; the other parts still have something to say.
        let outcome = work(&log).unwrap_or_else(|error| Outcome::Failed(error.to_string().into()));
        let seconds = start.elapsed().as_secs_f64();
        let (status, detail) = match outcome {
            Outcome::Passed(detail) => ("passed", detail),
            Outcome::Skipped(reason) => ("skipped", reason.into()),
            Outcome::Failed(detail) => {
                self.failed += 1;
                ("failed", detail)
            }
        };
        println!("== {name}: {status}, {seconds:.0} s\n{}", serde_json::to_string_pretty(&detail)?);
        self.parts.push(json!({
            "name": name, "status": status, "seconds": seconds, "detail": detail,
        }));
        Ok(())
    }
}

/// compute-sanitizer from PATH or the toolkit's folder, if it runs.
fn sanitizer() -> Option<PathBuf> {
    let candidates =
        ["compute-sanitizer", "/usr/local/cuda/bin/compute-sanitizer"].map(PathBuf::from);
    candidates.into_iter().find(|path| text(Command::new(path).arg("--version")).is_ok())
}

/// Runs a command with its output in a file; whether it succeeded.
fn logged(command: &mut Command, log: &Path) -> Result<bool> {
    let file = File::create(log)?;
    let status = command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).status()?;
    Ok(status.success())
}

fn tests_outcome(command: &mut Command, log: &Path) -> Result<Outcome> {
    let success = logged(command, log)?;
    let said = String::from_utf8_lossy(&fs::read(log)?).into_owned();
    let summary = summary(&said);
    Ok(match (success, summary["passed"].as_u64()) {
        (true, Some(0) | None) => Outcome::Skipped("no test of that name"),
        (true, Some(_)) => Outcome::Passed(summary),
        (false, _) => Outcome::Failed(json!({ "summary": summary, "log": tail(log) })),
    })
}

/// The counts in the output of a test binary, which of its tests failed, and what a sanitizer found.
fn summary(said: &str) -> Value {
    let counts = said.lines().rev().find_map(|line| line.strip_prefix("test result: "));
    let count = |what: &str| {
        let part = counts?.split([';', '.']).find_map(|part| part.trim().strip_suffix(what))?;
        part.trim().parse::<u64>().ok()
    };
    let failed = said.lines().filter_map(|line| {
        line.strip_prefix("test ")?.strip_suffix(" ... FAILED").map(str::to_owned)
    });
    let sanitizer = said.lines().rev().find(|line| line.contains(" SUMMARY: "));
    json!({
        "passed": count(" passed"),
        "failed": count(" failed"),
        "ignored": count(" ignored"),
        "failures": failed.collect::<Vec<_>>(),
        "sanitizer": sanitizer.map(|line| line.trim_matches(['=', ' '])),
    })
}

/// The last lines of a log.
fn tail(log: &Path) -> Value {
    let said = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let said = said.unwrap_or_default();
    let lines: Vec<&str> = said.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n").into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn test_output_is_understood() {
        let said = "running 3 tests
test a::b ... ok
test a::c ... FAILED
test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.10s
========= ERROR SUMMARY: 2 errors
";
        let expected = json!({
            "passed": 1, "failed": 1, "ignored": 1, "failures": ["a::c"],
            "sanitizer": "ERROR SUMMARY: 2 errors",
        });
        assert_eq!(super::summary(said), expected);
    }
}
