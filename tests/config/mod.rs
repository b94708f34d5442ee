//! The sources of settings and their precedence, compared with libpq by what each client sends to a server.

mod passfile;
mod recorder;
mod sources;
mod values;
