//! What the command line says.

use std::path::PathBuf;

const HELP: &str = "\
usage: speed [OPTIONS]
  --runs N          how often each client runs through each cell, three times that where chance weighs more; the
                    median is told (5)
  --only A,B        only these scenarios, of S1 to S6, look, S1-TLS, S2-TLS and S3-TLS
  --kinds A,B       only these kinds of client
  --smoke           everything, so small that it takes seconds; the numbers say nothing
  --tcp             by TCP on 127.0.0.1, rather than by Unix sockets; what is in TLS always is
  --peers PROGRAM   the client for tokio-postgres and sqlx
  --libpq PROGRAM   the client for libpq
  --out FOLDER      where to write results.csv and results.md";

#[derive(Debug)]
pub struct Options {
    pub runs: usize,
    pub only: Vec<String>,
    pub kinds: Vec<String>,
    pub smoke: bool,
    pub tcp: bool,
    pub peers: Option<PathBuf>,
    pub libpq: Option<PathBuf>,
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
            out: None,
        };
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} takes a value\n{HELP}"));
            let list = |value: String| value.split(',').map(str::to_owned).collect();
            match word.as_str() {
                // cargo says so to whatever it runs
                "--bench" => {}
                "--runs" => options.runs = value()?.parse().map_err(|_| "--runs takes a number".to_owned())?,
                "--only" => options.only = list(value()?),
                "--kinds" => options.kinds = list(value()?),
                "--smoke" => (options.smoke, options.runs) = (true, 1),
                "--tcp" => options.tcp = true,
                "--peers" => options.peers = Some(value()?.into()),
                "--libpq" => options.libpq = Some(value()?.into()),
                "--out" => options.out = Some(value()?.into()),
                _ => return Err(format!("no such option: {word}\n{HELP}")),
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
