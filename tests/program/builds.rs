//! `notifyman build` with a log.

use super::{cluster, connect, run};

#[test]
fn g01_a_build_with_a_log_prints_the_privileges_of_a_worker_and_refuses_the_former_name() {
    let cluster = cluster();
    let mut db = connect(&cluster);
    db.execute("CREATE TABLE price (id int PRIMARY KEY, cents int)").unwrap();
    let url = cluster.url();
    let text = run(&["build", "--delivery", "table", &url]).ends_with(2).err();
    assert!(text.contains("use --delivery log"), "{text}");
    for (option, value, expected) in [
        ("--keep-size", "1023KiB", "1 MiB to 1 EiB"),
        ("--keep-size", "0", "1 MiB to 1 EiB"),
        ("--keep-size", "1 GB", "512MiB or 1GiB"),
        ("--keep-size", "-1", ""),
        ("--keep-size", "99999999TiB", "at most"),
        ("--keep-for", "0", "1 second to 10 years"),
        ("--keep-for", "-5", "a number of seconds"),
    ] {
        let text = run(&["build", "--delivery", "log", &url, &format!("{option}={value}")]).ends_with(2).err();
        assert!(text.contains(expected), "{option} {value}: {text}");
    }
    let text = run(&["build", "--delivery", "log", "--keep-size", "2MiB", "--keep-for", "60", &url]).ends_with(0).out();
    assert!(text.contains("to grant         GRANT SELECT ON notifyman.log TO worker_role;"), "{text}");
    let status = run(&["status", &url]).ends_with(0).out();
    for line in ["delivery         log", "keep for         60 s", "keep size        2 MiB", "log size "] {
        assert!(status.contains(line), "{status}");
    }
    let text = run(&["build", &url]).ends_with(1).err();
    assert!(text.contains("--delivery log") && text.contains("--delivery notify to end it"), "{text}");
    assert!(!run(&["build", "--delivery", "notify", &url]).ends_with(0).out().contains("to grant"));
}
