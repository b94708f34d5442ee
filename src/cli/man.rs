//! `notifyman man`: manual pages, generated from the arguments and the texts of `--help`.

use std::fs;
use std::io;
use std::path::Path;

use clap::{Command, CommandFactory as _};
use clap_mangen::Man;

use super::args::{Args, ManArgs};
use super::outcome::{Exit, Failure};
use super::output::print;

pub(super) fn run(args: &ManArgs) -> Result<Exit, Failure> {
    let mut program = Args::command().disable_help_subcommand(true);
    program.build();
    if let Some(directory) = &args.directory {
        let written = write_all(&program, directory);
        return written.map(|()| Exit::Done).map_err(|error| {
            Failure::Failed(format!("could not write manual pages to {}: {error}", directory.display()))
        });
    }
    let command = match &args.command {
        None => Some(&program),
        Some(name) => program.find_subcommand(name),
    };
    // The parser has refused other names.
    let command = command.unwrap_or(&program);
    print(&page(command).map_err(Failure::Output)?)
}

fn write_all(program: &Command, directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    for command in [program].into_iter().chain(program.get_subcommands()) {
        let name = command.get_display_name().unwrap_or(command.get_name());
        fs::write(directory.join(format!("{name}.1")), page(command)?)?;
    }
    Ok(())
}

/// Returns the page of a command.
fn page(command: &Command) -> io::Result<String> {
    let notes = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
    let source = concat!("notifyman ", env!("CARGO_PKG_VERSION"));
    let page = Man::new(command.clone()).manual("notifyman").source(source);
    let mut text = Vec::new();
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    page.render_options_section(&mut text)?;
    if command.has_subcommands() {
        page.render_subcommands_section(&mut text)?;
    }
    Ok(String::from_utf8_lossy(&text).into_owned() + &sections(&notes))
}

/// Returns the text that follows the options in `--help`. A line that ends in a colon after an empty line is a heading,
/// indented lines stay as they are, and others are paragraphs.
fn sections(notes: &str) -> String {
    let mut text = String::from(".SH DETAILS\n");
    let (mut is_verbatim, mut is_after_gap) = (false, true);
    for line in notes.lines() {
        let is_indented = line.starts_with(' ');
        if is_verbatim && !is_indented && !line.is_empty() {
            text.push_str(".fi\n");
            is_verbatim = false;
        }
        if is_indented && !is_verbatim {
            text.push_str(".PP\n.nf\n");
            is_verbatim = true;
        }
        match line {
            "" if is_verbatim => text.push('\n'),
            "" => {}
            line if is_after_gap && line.ends_with(':') && !is_indented => {
                text.push_str(&format!(".SS \"{}\"\n", escaped(line.trim_end_matches(':')).replace('"', "\\(dq")));
            }
            line => {
                if is_after_gap && !is_verbatim {
                    text.push_str(".PP\n");
                }
                text.push_str(&escaped(line));
                text.push('\n');
            }
        }
        is_after_gap = line.is_empty();
    }
    text + if is_verbatim { ".fi\n" } else { "" }
}

/// Returns a line in which nothing is an escape sequence or a request of roff.
fn escaped(line: &str) -> String {
    let text = line.replace('\\', "\\e").replace('-', "\\-").replace('`', "\\(ga").replace('\'', "\\(aq");
    if text.starts_with('.') { format!("\\&{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::COMMANDS;

    #[test]
    fn each_command_has_a_page() {
        let program = Args::command();
        assert!(program.get_subcommands().map(Command::get_name).eq(COMMANDS));
    }

    #[test]
    fn headings_paragraphs_and_examples_are_distinguished() {
        let notes = "Examples:\n  notifyman a | b\n\n  .x 'y' \\z\n\nA paragraph:\nit continues.\n.";
        assert_eq!(
            sections(notes),
            ".SH DETAILS\n.SS \"Examples\"\n.PP\n.nf\n  notifyman a | b\n\n  .x \\(aqy\\(aq \\ez\n\n.fi\n.SS \"A paragraph\"\n\
             it continues.\n\\&.\n"
        );
    }
}
