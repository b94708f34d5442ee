//! The source files that the checks examine.

use std::fs;
use std::path::{Path, PathBuf};

/// A file of Rust code.
pub struct SourceFile {
    /// The path below `src`, such as `manager/mod.rs`.
    pub name: String,
    /// All lines.
    pub lines: Vec<String>,
    /// The lines without comments, up to the file's own tests. Indentation is kept.
    pub code: Vec<String>,
    /// The first line of each doc comment, without its marker; tests included.
    pub doc_starts: Vec<String>,
}

impl SourceFile {
    fn read(root: &Path, path: &Path) -> Self {
        let lines = fs::read_to_string(path).unwrap();
        let code = lines.lines().take_while(|line| *line != "mod tests {");
        Self {
            name: relative(root, path),
            code: code.filter(|line| !line.trim_start().starts_with("//")).map(str::to_owned).collect(),
            doc_starts: doc_starts(&lines),
            lines: lines.lines().map(str::to_owned).collect(),
        }
    }

    pub fn says(&self, word: &str) -> bool {
        self.code.iter().any(|line| line.contains(word))
    }

    pub fn is_below(&self, place: &str) -> bool {
        self.name.starts_with(place)
    }

    /// Returns the directory of the file's submodules: `manager/` for `manager/mod.rs`, `changes/sql/` for `changes/sql.rs`.
    pub fn directory(&self) -> String {
        match self.name.strip_suffix("mod.rs").or_else(|| self.name.strip_suffix("lib.rs")) {
            Some(directory) => directory.to_owned(),
            None => format!("{}/", self.name.trim_end_matches(".rs")),
        }
    }

    /// The submodules that only tests or fuzzing compile.
    fn test_modules(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut is_for_tests = false;
        for line in &self.code {
            if line.starts_with("#[") {
                is_for_tests |= line.starts_with("#[cfg(") && line.contains("test");
            } else {
                let module = line.split("mod ").nth(1).and_then(|rest| rest.strip_suffix(';'));
                if let (true, Some(module)) = (is_for_tests, module) {
                    found.push(format!("{}{module}", self.directory()));
                }
                is_for_tests = false;
            }
        }
        found
    }
}

pub fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn relative(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap().to_str().unwrap().to_owned()
}

fn doc_starts(lines: &str) -> Vec<String> {
    let mut starts = Vec::new();
    let mut is_inside = false;
    for line in lines.lines().map(str::trim_start) {
        let doc = line.strip_prefix("///").or_else(|| line.strip_prefix("//!"));
        if let (Some(doc), false) = (doc, is_inside) {
            starts.push(doc.trim().to_owned());
        }
        is_inside = doc.is_some();
    }
    starts
}

pub fn collect(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if !path.is_dir() {
            found.push(path);
        } else if !path.ends_with("target") {
            collect(&path, found);
        }
    }
}

/// Returns all files in a directory of the package, with the directory.
fn below(directory: &str) -> (PathBuf, Vec<PathBuf>) {
    let root = package().join(directory);
    let mut paths = Vec::new();
    // A packaged crate has no `fuzz`.
    if directory != "fuzz" || root.exists() {
        collect(&root, &mut paths);
    }
    paths.sort();
    (root, paths)
}

/// Returns the Rust files of a directory of the package.
pub fn rust_files(directory: &str) -> Vec<SourceFile> {
    let (root, paths) = below(directory);
    let is_rust = |path: &&PathBuf| path.extension().is_some_and(|extension| extension == "rs");
    paths.iter().filter(is_rust).map(|path| SourceFile::read(&root, path)).collect()
}

/// Returns the files of the crate, except modules that only tests or fuzzing compile.
pub fn crate_files() -> Vec<SourceFile> {
    let mut files = rust_files("src");
    let test_modules: Vec<_> = files.iter().flat_map(SourceFile::test_modules).collect();
    let is_test = |name: &str| {
        let rest =
            |module: &String| name.strip_prefix(module.as_str()).is_some_and(|r| r == ".rs" || r.starts_with('/'));
        test_modules.iter().any(rest)
    };
    files.retain(|file| !is_test(&file.name));
    files
}

/// Returns the files of a directory that people read: code, pages, SQL and scripts, each with its path and text.
pub fn texts(directory: &str) -> Vec<(String, String)> {
    let (_, paths) = below(directory);
    let is_text = |path: &&PathBuf| {
        let extension = path.extension().and_then(|extension| extension.to_str());
        matches!(extension, None | Some("rs" | "md" | "sql" | "py" | "sh"))
    };
    let read = |path: &PathBuf| Some((relative(package(), path), fs::read_to_string(path).ok()?));
    paths.iter().filter(is_text).filter_map(read).collect()
}

/// Returns the pages in the root of the package, each with its path and text.
pub fn pages() -> [(String, String); 2] {
    ["README.md", "CHANGELOG.md"].map(|name| (name.to_owned(), fs::read_to_string(package().join(name)).unwrap()))
}
