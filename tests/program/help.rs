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
                "NOTIFYMAN_CHANNEL",
                "payload_hex",
                "\"connection\":1",
            ]
            .as_slice(),
        ),
        ("notify", &["--url", "--stdin", "[PAYLOAD]", "7,999", "fold"]),
        ("demo", &["--clusters", "--connections", "--channels", "--seconds", "--rate", "with-postgres"]),
        ("doctor", &["--json", "[URL]", "latency_ms", "do"]),
        (
            "build",
            &["--shape", "--delivery", "--oversize", "--no-schema-events", "--dry-run", "--lock-timeout", "superuser"],
        ),
        ("status", &["--schema", "--table", "--dry-run"]),
        ("verify", &["--schema", "--table", "Exit codes"]),
        ("teardown", &["--dry-run", "--attempts"]),
        ("worker", &["--exec", "--retries", "--give-up", "--table", "gap", "NOTIFYMAN_KIND"]),
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
fn without_arguments_the_help_is_shown_as_a_usage_error() {
    let finished = run(&[]);
    finished.ends_with(2);
    assert!(finished.err().contains("Usage: notifyman <COMMAND>"), "{finished:?}");
}
