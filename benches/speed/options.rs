//! The command line.

use std::path::PathBuf;

const HELP: &str = "\
usage: speed [OPTIONS]
  --runs N          Run each client N times in each cell, or 3 N times where
                    results vary more, and report the median [default: 5]
  --only A,B        Run only these scenarios: S1 to S6, poll, S1-TLS, S2-TLS,
                    S3-TLS
  --kinds A,B       Run only these kinds of client
  --smoke           Run everything with small sizes, in seconds; the numbers
                    mean nothing
  --tcp             Use TCP on 127.0.0.1 instead of Unix sockets; TLS always
                    uses TCP
  --peers PROGRAM   Client program for tokio-postgres and sqlx
  --libpq PROGRAM   Client program for libpq
  --earlier PROGRAM Earlier build of this bench, whose clients run as well
  --out DIRECTORY   Directory for results.csv and results.md";

#[derive(Debug)]
pub struct Options {
    pub runs: usize,
    pub only: Vec<String>,
    pub kinds: Vec<String>,
    pub smoke: bool,
    pub tcp: bool,
    pub peers: Option<PathBuf>,
    pub libpq: Option<PathBuf>,
    pub earlier: Option<PathBuf>,
    pub out: Option<PathBuf>,
}

impl Options {
    pub fn read(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            runs: 5,
            only: Vec::new(),
            kinds: Vec::new(),
            smoke: false,
            tcp: false,
            peers: None,
            libpq: None,
            earlier: None,
            out: None,
        };
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} takes a value\n{HELP}"));
            let list = |value: String| value.split(',').map(str::to_owned).collect();
            match word.as_str() {
                // cargo passes this to every bench
                "--bench" => {}
                "--runs" => options.runs = value()?.parse().map_err(|_| "--runs takes a number".to_owned())?,
                "--only" => options.only = list(value()?),
                "--kinds" => options.kinds = list(value()?),
                "--smoke" => (options.smoke, options.runs) = (true, 1),
                "--tcp" => options.tcp = true,
                "--peers" => options.peers = Some(value()?.into()),
                "--libpq" => options.libpq = Some(value()?.into()),
                "--earlier" => options.earlier = Some(value()?.into()),
                "--out" => options.out = Some(value()?.into()),
                _ => return Err(format!("unknown option: {word}\n{HELP}")),
            }
        }
        options.runs = options.runs.max(1);
        Ok(options)
    }

    pub fn wants(&self, scenario: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == scenario)
    }

    pub fn wants_kind(&self, kind: &str) -> bool {
        self.kinds.is_empty() || self.kinds.iter().any(|only| only == kind)
    }
}
