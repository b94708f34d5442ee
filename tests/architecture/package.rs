//! Rules for what is published: the links in its pages, the addresses of the project, and the changelog.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use super::source::package;

/// The domain of addresses that a maintainer has yet to set. It is reserved, so no page of others is ever linked.
const PLACEHOLDER: &str = ".example/";

/// Returns the paths of the files that the package contains.
fn packaged_files() -> BTreeSet<String> {
    // A packaged crate contains nothing else, but cannot be packaged again.
    if package().join("Cargo.toml.orig").exists() {
        let mut found = Vec::new();
        super::source::collect(package(), &mut found);
        return found.iter().map(|path| super::source::relative(package(), path)).collect();
    }
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo.args(["package", "--list", "--allow-dirty", "--offline", "--quiet"]).current_dir(package());
    let listed = cargo.output().unwrap();
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    String::from_utf8(listed.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// Returns the targets of links and images in Markdown and HTML, without those in code.
fn links(page: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut is_code = false;
    for line in page.lines() {
        is_code ^= line.trim_start().starts_with("```");
        if is_code {
            continue;
        }
        // Between backticks is code.
        let text: String = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
        for (before, end) in [("](", ')'), ("src=\"", '"'), ("href=\"", '"')] {
            found.extend(text.split(before).skip(1).filter_map(|rest| Some(rest.split_once(end)?.0.to_owned())));
        }
        // A reference definition: `[name]: target`.
        found.extend(text.strip_prefix('[').and_then(|rest| Some(rest.split_once("]: ")?.1.to_owned())));
    }
    found
}

/// Returns the file to which a relative link in a page leads, if it is one. In pages that are part of the documentation, links
/// to items are not.
fn linked_file(page: &str, link: &str) -> Option<String> {
    let is_relative = !link.contains("://") && !link.starts_with('#') && !link.starts_with("mailto:");
    let file = link.split(['#', '?']).next().unwrap();
    let is_item = page.starts_with("src/") && (file.contains("::") || !file.contains(['.', '/']));
    if !is_relative || is_item {
        return None;
    }
    let mut path = PathBuf::new();
    for part in Path::new(page).parent().unwrap().join(file).components() {
        match part {
            Component::ParentDir => drop(path.pop()),
            part => path.push(part),
        }
    }
    Some(path.to_str().unwrap().to_owned())
}

#[test]
fn each_relative_link_and_image_leads_to_a_file_of_the_package() {
    let files = packaged_files();
    let mut wrong = Vec::new();
    let mut count = 0;
    for page in files.iter().filter(|file| file.ends_with(".md")) {
        for link in links(&fs::read_to_string(package().join(page)).unwrap()) {
            let Some(file) = linked_file(page, &link) else { continue };
            count += 1;
            if !files.contains(&file) {
                wrong.push(format!("{page}: {link}"));
            }
        }
    }
    assert!(wrong.is_empty(), "the package has no files for these links: {wrong:#?}");
    assert!(count > 10, "only {count} links were found");
}

#[test]
fn links_are_found_in_markdown_and_html_but_not_in_code() {
    let page = "[a](b.md#c) ![d](e.svg)\n<img src=\"f.svg\">\n[g]: h.md\n```\n[i](j)\n```\n`[k](l)` [m](n)\n[`o`](p)";
    assert_eq!(links(page), ["b.md#c", "e.svg", "f.svg", "h.md", "n", "p"]);
    assert_eq!(linked_file(".github/A.md", "../src/b.md#c").as_deref(), Some("src/b.md"));
    assert_eq!(linked_file("src/docs/a.md", "crate::Event::Lost"), None);
    assert_eq!(linked_file("README.md", "https://docs.rs"), None);
    assert_eq!(linked_file("README.md", "LICENSE").as_deref(), Some("LICENSE"));
}

/// Returns the value of a line of `Cargo.toml`.
fn of_manifest(key: &str) -> String {
    let manifest = fs::read_to_string(package().join("Cargo.toml")).unwrap();
    let value = manifest.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \""));
    value.unwrap_or_else(|| panic!("Cargo.toml has no {key}")).trim_end_matches('"').to_owned()
}

/// Placeholders are allowed until the first release, and only in `Cargo.toml`: `.ci/run` lists them.
#[test]
fn the_addresses_of_the_project_are_in_one_place() {
    let name = of_manifest("name");
    for key in ["repository", "homepage", "documentation"] {
        let address = of_manifest(key);
        assert!(address.starts_with("https://") && address.contains(&name), "{key} = {address}");
    }
    let repository = of_manifest("repository");
    let host = repository.split('/').nth(2).unwrap();
    for page in
        ["README.md", "CHANGELOG.md", ".github/CONTRIBUTING.md", ".github/SECURITY.md", "src/docs/maintaining.md"]
    {
        let text = fs::read_to_string(package().join(page)).unwrap();
        assert!(!text.contains(PLACEHOLDER) || !text.contains(host), "{page} repeats an address of Cargo.toml");
    }
}

/// `.ci/release` gives the first section its version and date.
#[test]
fn the_changelog_begins_with_what_is_not_released() {
    let changelog = fs::read_to_string(package().join("CHANGELOG.md")).unwrap();
    let mut sections = changelog.lines().filter_map(|line| line.strip_prefix("## "));
    let first = sections.next().unwrap();
    // In a packaged release the first section may have been dated.
    let is_dated = |section: &str| {
        let (version, date) = section.split_once(" - ").unwrap_or_default();
        version.split('.').count() == 3 && date.len() == 10 && date.starts_with("20")
    };
    assert!(first == "Unreleased" || is_dated(first), "{first}");
    let others: Vec<_> = sections.filter(|section| !is_dated(section)).collect();
    assert!(others.is_empty(), "these sections have no version and date (`1.2.3 - 2026-12-31`): {others:?}");
}

/// The workflow tests each feature alone, as the CI script checks each.
#[test]
fn the_workflow_tests_each_feature() {
    // A packaged crate has no workflow.
    let Ok(workflow) = fs::read_to_string(package().join(".github/workflows/ci.yml")) else { return };
    let manifest = fs::read_to_string(package().join("Cargo.toml")).unwrap();
    let features = manifest.split("[features]\n").nth(1).unwrap().split("\n[").next().unwrap();
    let features: BTreeSet<_> = features.lines().filter_map(|line| Some(line.split_once(" = ")?.0)).collect();
    let tested = workflow.lines().find_map(|line| line.trim().strip_prefix("features: [")?.strip_suffix(']')).unwrap();
    let tested: BTreeSet<_> = tested.split(", ").filter(|name| !name.contains(',')).collect();
    assert_eq!(tested, features);
}
