//! The command line: misplaced connection strings, and misspelled words.

use std::time::Duration;

use super::{cluster, connect, run};

#[test]
fn a_connection_string_is_refused_as_a_channel_and_its_password_is_not_repeated() {
    let cluster = cluster();
    let url = cluster.url();
    for wrong in
        ["postgres://app:s3cr3t@db/shop", "POSTGRESQL://app:s3cr3t@db", "host=db password=s3cr3t", "PASSWORD = s3cr3t"]
    {
        for args in [
            ["notify", "--url", &url, wrong, "prices"].as_slice(),
            &["notify", "--url", &url, wrong],
            &["notify", "--stdin", "--url", &url, wrong],
            &["listen", "--url", &url, wrong],
            &["listen", "--url", &url, "prices", wrong],
            &["listen", "--url", &url, "--exec", "true", wrong],
        ] {
            let finished = run(args);
            finished.ends_with(2);
            assert!(finished.err().contains("give it with --url"), "{finished:#?}");
            assert!(!finished.err().contains("s3cr3t"), "{finished:#?}");
        }
    }
}

#[test]
fn what_is_no_label_before_a_url_is_refused_and_not_repeated() {
    for args in
        [["listen", "--url", "s3/cr3t=postgres://db/shop", "prices"].as_slice(), &["worker", "s3/cr3t=postgres://db"]]
    {
        let finished = run(args);
        finished.ends_with(2);
        assert!(finished.err().contains("the label before a URL has 1 to 63 characters"), "{finished:#?}");
        assert!(!finished.err().contains("s3"), "{finished:#?}");
    }
}

#[test]
fn no_error_of_the_command_line_repeats_a_connection_string() {
    let url = "postgres://app:s3cr3t@db/shop";
    for args in [
        [url].as_slice(),
        &["help", url],
        &["build", url, url],
        &["status", "--url", url, url],
        &["notify", "prices", "42", url],
        &["notify", "--stdin", "prices", url],
        &["listen", "--timeout", url, "prices"],
        &["listen", "--count", url, "prices"],
        &["listen", "--url", url],
        &["listen", "--postgres://app:s3cr3t@db/shop", "prices"],
        &["worker", "--give-up", url],
        &["completions", url],
        &["demo", url],
    ] {
        let finished = run(args);
        finished.ends_with(2);
        assert!(!finished.err().contains("s3cr3t"), "{finished:#?}");
    }
}

#[test]
fn a_payload_can_be_a_connection_string() {
    let cluster = cluster();
    let mut db = connect(&cluster);
    db.listen(["a"]).unwrap();
    run(&["notify", "--url", &cluster.url(), "a", "postgres://app@db/shop"]).ends_with(0);
    let payload = db.wait(Duration::from_secs(30)).flatten().next().unwrap();
    assert_eq!(payload.payload(), "postgres://app@db/shop");
}

#[test]
fn every_command_without_channels_takes_a_url_by_position_and_by_option() {
    let cluster = cluster();
    let url = cluster.url();
    for command in ["build", "status", "verify", "teardown"] {
        for args in [[command, &url].as_slice(), &[command, "--url", &url], &[command, "-u", &url]] {
            run(args).ends_with(0);
        }
    }
    let out = run(&["doctor", "--json", "--url", &url, "--url", &url, &url]).ends_with(0).out();
    assert_eq!(out.lines().count(), 3, "{out}");
    let finished = run(&["worker", "--url", &url, &url]);
    finished.ends_with(1);
    assert_eq!(finished.err().matches("nothing is installed").count(), 2, "{finished:#?}");
}

#[test]
fn a_misspelled_command_or_option_gets_a_suggestion() {
    for (args, suggestion) in [
        (["lisen"].as_slice(), "'listen'"),
        (&["help", "lisen"], "'listen'"),
        (&["dcotor"], "'doctor'"),
        (&["LISTEN", "a"], "'listen'"),
        (&["LISTN"], "'listen'"),
        (&["help", "Notify"], "'notify'"),
        (&["listen", "--URL=host=db", "a"], "'--url'"),
        (&["doctor", "--JSON"], "'--json'"),
        (&["worker", "--exce", "true"], "'--exec'"),
        (&["listen", "--timout", "1", "a"], "'--timeout'"),
        (&["demo", "--chanel", "1"], "'--channels'"),
        (&["listen", "--chanel", "a"], "channels are given without an option"),
        (&["notify", "--channel", "a"], "channels are given without an option"),
        (&["completions", "bsh"], "'bash'"),
        (&["worker", "--give-up", "stpo"], "'stop'"),
    ] {
        let finished = run(args);
        finished.ends_with(2);
        assert!(finished.err().contains(suggestion), "{suggestion}: {finished:#?}");
    }
}
