//! `notifyman build` with a log, and the results of `build`, `status`, `verify` and `teardown` as JSON.

use serde_json::{Value, json};

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
        ("--keep-for", "-5", "a duration"),
    ] {
        let text = run(&["build", "--delivery", "log", &url, &format!("{option}={value}")]).ends_with(2).err();
        assert!(text.contains(expected), "{option} {value}: {text}");
    }
    let text = run(&["build", "--delivery", "log", "--keep-size", "2MiB", "--keep-for", "1m", &url]).ends_with(0).out();
    assert!(text.contains("to grant         GRANT SELECT ON notifyman.log TO worker_role;"), "{text}");
    let status = run(&["status", &url]).ends_with(0).out();
    for line in ["delivery         log", "keep for         60 s", "keep size        2 MiB", "log size "] {
        assert!(status.contains(line), "{status}");
    }
    let text = run(&["build", &url]).ends_with(1).err();
    assert!(text.contains("--delivery log") && text.contains("--delivery notify to end it"), "{text}");
    assert!(!run(&["build", "--delivery", "notify", &url]).ends_with(0).out().contains("to grant"));
}

#[test]
fn g01_with_json_each_command_prints_one_line() {
    let cluster = cluster();
    let mut db = connect(&cluster);
    db.execute("CREATE TABLE price (id int PRIMARY KEY); CREATE TABLE \"Log\" (id int)").unwrap();
    let url = cluster.url();
    let json = |args: &[&str], code| -> Value {
        let finished = run(&[args, &["--json", &url]].concat());
        finished.ends_with(code);
        assert_eq!(finished.out.len(), 1, "{finished:#?}");
        serde_json::from_str(&finished.out()).unwrap()
    };
    let status = json(&["verify"], 1);
    assert_eq!((&status["installed"], &status["tables"]), (&false.into(), &json!([])));
    assert!(status["problems"][0].as_str().unwrap().contains("nothing is installed"), "{status}");

    let report = json(&["build", "--except-table", "Log"], 0);
    assert_eq!((&report["covered"], &report["unchanged"]), (&json!(["public.price"]), &0.into()));
    assert_eq!(json(&["build", "--except-table", "Log"], 0)["unchanged"], 1);
    db.execute("ALTER TABLE price DISABLE TRIGGER ALL").unwrap();
    let status = json(&["verify"], 3);
    assert_eq!((&status["settings"]["shape"], &status["settings"]["except_tables"]), (&"rows".into(), &"Log".into()));
    assert_eq!(status["tables"], json!([{ "table": "public.price", "state": "disabled" }]));
    assert!(status["warnings"][0].as_str().unwrap().contains("is disabled"), "{status}");
    assert_eq!(json(&["status", "--table", "none*"], 0)["tables"], json!([]));

    let mut writer = connect(&cluster);
    writer.execute("BEGIN; LOCK TABLE price").unwrap();
    let report = json(&["teardown", "--lock-timeout", "50ms", "--attempts", "1"], 1);
    assert_eq!(report["failed"][0]["table"], "public.price");
    assert!(report["failed"][0]["error"].as_str().unwrap().contains("55P03"), "{report}");
    assert!(report["locked_by"][0]["session"].as_str().unwrap().contains(&writer.pid().to_string()), "{report}");
    writer.execute("COMMIT").unwrap();
    assert_eq!(json(&["teardown"], 0)["removed"], json!(["public.price"]));
}
