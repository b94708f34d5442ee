//! The program's help, completions and version.

use super::run;

#[test]
fn the_help_mentions_commands_environment_and_exit_codes() {
    let help = run(&["--help"]).ends_with(0).out();
    for word in ["listen", "notify", "demo", "completions", "--url", "PGHOST", "NO_COLOR", "NOTIFYMAN_PG_BIN", "130"] {
        assert!(help.contains(word), "{word} is missing:\n{help}");
    }
}

#[test]
fn the_help_of_each_command_mentions_its_options_and_shows_examples() {
    for (command, words) in [
        (
            "listen",
            [
                "--url",
                "--timeout",
                "--count",
                "--quiet",
                "--exec",
                "--jobs",
                "--health",
                "--from",
                "REDISCLI_AUTH",
                "NOTIFYMAN_CHANNEL",
                "payload_hex",
                "\"connection\":1",
            ]
            .as_slice(),
        ),
        ("notify", &["--url", "--stdin", "[PAYLOAD]", "7,999", "fold"]),
        ("demo", &["--act", "--clusters", "--connections", "--channels", "--duration", "--rate", "with-postgres"]),
        ("doctor", &["--json", "[URL]", "latency_ms", "do"]),
        (
            "build",
            &["--shape", "--delivery", "--oversize", "--no-schema-events", "--dry-run", "--lock-timeout", "superuser"],
        ),
        ("status", &["--schema", "--table", "--dry-run"]),
        ("verify", &["--schema", "--table", "Exit codes"]),
        ("teardown", &["--dry-run", "--attempts"]),
        (
            "relay",
            &["--to", "--changes [CHANNEL]...", "--health", "--canary", "--keep", "REDISCLI_AUTH", "SYSTEM/DATABASE"],
        ),
        ("worker", &["--health", "--canary", "--exec", "--retries", "--give-up", "--table", "gap", "NOTIFYMAN_KIND"]),
        ("completions", &["bash", "zsh", "fish"]),
    ] {
        let help = run(&[command, "--help"]).ends_with(0).out();
        for word in words.iter().chain(&["Example"]) {
            assert!(help.contains(word), "{command}: {word} is missing:\n{help}");
        }
        let short = run(&[command, "-h"]).ends_with(0).out();
        assert!(short.lines().count() < 25, "{short}");
    }
}

#[test]
fn each_shell_has_a_completion_script() {
    for (shell, word) in [("bash", "complete -F"), ("zsh", "#compdef notifyman"), ("fish", "complete -c notifyman")] {
        let script = run(&["completions", shell]).ends_with(0).out();
        for word in [word, "listen", "notify", "timeout"] {
            assert!(script.contains(word), "{shell}: {word} is missing");
        }
    }
    run(&["completions", "tea"]).ends_with(2);
}

#[test]
fn possible_values_are_in_completions_help_and_errors() {
    let script = run(&["completions", "bash"]).ends_with(0).out();
    let help = run(&["build", "-h"]).ends_with(0).out();
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    for (option, wrong, values) in [
        ("--shape", "row", ["rows", "keys"].as_slice()),
        ("--oversize", "spil", &["key", "marker", "spill"]),
        ("--delivery", "logs", &["notify", "log"]),
    ] {
        assert!(script.contains(&values.join(" ")), "{option}");
        let listed = format!("[possible values: {}]", values.join(", "));
        assert!(help.contains(&listed), "{help}");
        let error = run(&["build", option, wrong]).ends_with(2).err();
        assert!(error.contains(&listed) && error.contains("a similar value exists"), "{error}");
    }
}

#[test]
fn each_command_has_a_manual_page() {
    let page = run(&["man"]).ends_with(0).out();
    let commands: Vec<_> =
        page.lines().filter_map(|line| line.strip_prefix("notifyman\\-")?.strip_suffix("(1)")).collect();
    assert!(commands.len() == 12 && page.contains(".SS \"Exit codes\""), "{page}");
    // In the directory of a server, which is removed with it.
    let cluster = super::cluster();
    let directory = cluster.socket_dir().join("man");
    run(&["man", "--directory", directory.to_str().unwrap()]).ends_with(0);
    assert_eq!(std::fs::read_to_string(directory.join("notifyman.1")).unwrap().trim_end(), page);
    for command in commands {
        let page = run(&["man", command]).ends_with(0).out();
        assert!(page.contains(&format!(".TH notifyman-{command} 1 ")), "{page}");
        assert!(page.contains(".SH OPTIONS") && page.contains(".SS \"Examples\"\n.PP\n.nf\n  "), "{page}");
        assert_eq!(page.matches(".nf\n").count(), page.matches("\n.fi").count(), "{page}");
        let file = std::fs::read_to_string(directory.join(format!("notifyman-{command}.1"))).unwrap();
        assert_eq!(file.trim_end(), page);
    }
    assert!(run(&["man", "lisen"]).ends_with(2).err().contains("'listen'"));
    assert!(run(&["man", "--directory", "/dev/null/man"]).ends_with(1).err().contains("/dev/null/man"));
}

#[test]
fn without_arguments_the_help_is_shown_as_a_usage_error() {
    let finished = run(&[]);
    finished.ends_with(2);
    assert!(finished.err().contains("Usage: notifyman <COMMAND>"), "{finished:?}");
}
