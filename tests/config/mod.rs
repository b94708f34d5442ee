//! Where settings come from, and what comes before what: compared with libpq, by what each tells a server.

mod passfile;
mod recorder;
mod sources;
