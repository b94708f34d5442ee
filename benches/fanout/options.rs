//! The command line.

use std::path::PathBuf;

const HELP: &str = "\
usage: fanout [OPTIONS]
  --runs N         Run each kind N times and report the median [default: 15]
  --only A,B       Run only these parts: callbacks, flood, channels, coalesce,
                   workers, subscribers, queued, latency
  --smoke          Run everything with small sizes, as a test; the numbers mean
                   nothing
  --out DIRECTORY  Write the results into results.csv and results.md there, in
                   place of those of an earlier run";

/// The parts of the bench.
pub const PARTS: [&str; 8] = ["callbacks", "flood", "channels", "coalesce", "workers", SUBSCRIBERS, QUEUED, LATENCY];
pub const SUBSCRIBERS: &str = "subscribers";
pub const QUEUED: &str = "queued";
pub const LATENCY: &str = "latency";

#[derive(Debug)]
pub struct Options {
    pub runs: usize,
    pub only: Vec<String>,
    pub smoke: bool,
    pub out: Option<PathBuf>,
}

impl Options {
    pub fn read(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self { runs: 15, only: Vec::new(), smoke: false, out: None };
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} takes a value\n{HELP}"));
            match word.as_str() {
                // cargo passes this to every bench
                "--bench" => {}
                "--runs" => {
                    let runs = value()?.parse().ok().filter(|runs| *runs > 0);
                    options.runs = runs.ok_or_else(|| format!("--runs takes a positive number\n{HELP}"))?;
                }
                "--only" => options.only = value()?.split(',').map(str::to_owned).collect(),
                "--smoke" => (options.smoke, options.runs) = (true, 1),
                "--out" => options.out = Some(value()?.into()),
                _ => return Err(format!("unknown option: {word}\n{HELP}")),
            }
        }
        match options.only.iter().find(|part| !PARTS.contains(&part.as_str())) {
            Some(part) => Err(format!("unknown part: {part}\n{HELP}")),
            None => Ok(options),
        }
    }

    pub fn wants(&self, part: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == part)
    }
}
