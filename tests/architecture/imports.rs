//! The files that each file uses, found by the paths in the code.
//!
//! A file uses the file that *defines* the item it names. A path through a re-export therefore leads to the file below, not
//! to the `mod.rs` that re-exports the item, and a re-export by itself is no use. Calls of methods are not seen: what
//! matters is which names a reader of a file has to look up, and where.

use std::collections::{BTreeMap, BTreeSet};

use super::source::SourceFile;

/// The path of a module below the crate: `["manager", "turn"]`.
type ModulePath = Vec<String>;

struct Module {
    file: String,
    /// Names that the file imports, each with the path to which it leads.
    imports: BTreeMap<String, ModulePath>,
    /// The code, without its imports, split at what cannot be part of a path.
    paths: Vec<ModulePath>,
}

pub struct Imports {
    modules: BTreeMap<ModulePath, Module>,
}

impl Imports {
    pub fn of(files: &[SourceFile]) -> Self {
        let modules = files.iter().map(|file| (module_path(file), Module::read(file)));
        Self { modules: modules.collect() }
    }

    /// Returns each file with the files that it uses.
    pub fn uses(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let mut uses = BTreeMap::new();
        for (at, module) in &self.modules {
            let mut files = BTreeSet::new();
            for path in &module.paths {
                let full = match module.imports.get(&path[0]) {
                    Some(import) => [import, &path[1..]].concat(),
                    None => path.clone(),
                };
                files.extend(self.file_of(at, &full, 0).filter(|file| *file != module.file));
            }
            uses.insert(module.file.as_str(), files);
        }
        uses
    }

    /// Returns the file that defines the item at `path`, as it is written in the module `at`.
    fn file_of(&self, at: &ModulePath, path: &[String], depth: usize) -> Option<&str> {
        let (mut here, rest) = self.start(at, path)?;
        for (number, name) in rest.iter().enumerate() {
            let below = [here.as_slice(), std::slice::from_ref(name)].concat();
            if self.modules.contains_key(&below) {
                here = below;
                continue;
            }
            let module = &self.modules[&here];
            return match module.imports.get(name) {
                Some(import) if depth < 8 => self.file_of(&here, &[import, &rest[number + 1..]].concat(), depth + 1),
                _ => Some(&module.file),
            };
        }
        // A module alone: its items are found by the paths that begin with its name.
        None
    }

    /// Returns the module where a path begins, and the rest of the path; nothing if that is another crate.
    fn start<'p>(&self, at: &ModulePath, path: &'p [String]) -> Option<(ModulePath, &'p [String])> {
        let mut here = at.clone();
        let mut rest = path;
        match path[0].as_str() {
            "crate" => (here, rest) = (Vec::new(), &path[1..]),
            "self" => rest = &path[1..],
            "super" => {
                while rest.first().is_some_and(|name| name == "super") {
                    here.pop();
                    rest = &rest[1..];
                }
            }
            first => {
                let below = [at.as_slice(), &[first.to_owned()]].concat();
                self.modules.get(&below)?;
            }
        }
        self.modules.contains_key(&here).then_some((here, rest))
    }
}

impl Module {
    fn read(file: &SourceFile) -> Self {
        let mut imports = BTreeMap::new();
        let mut body = String::new();
        let mut lines = file.code.iter();
        while let Some(line) = lines.next() {
            let Some(import) = import_in(line) else {
                body.push_str(line);
                body.push('\n');
                continue;
            };
            let mut import = import.to_owned();
            while !import.contains(';') {
                let Some(more) = lines.next() else { break };
                import.push_str(more.trim());
            }
            expand(import.trim_end_matches(';'), &[], &mut imports);
        }
        Self { file: file.name.clone(), imports, paths: paths_in(&body) }
    }
}

fn module_path(file: &SourceFile) -> ModulePath {
    file.directory().split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// Returns what stands behind `use` in a line that begins an import.
fn import_in(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let line = match line.strip_prefix("pub") {
        Some(rest) if rest.starts_with('(') => rest.split_once(')')?.1.trim_start(),
        Some(rest) => rest.trim_start(),
        None => line,
    };
    line.strip_prefix("use ")
}

/// Adds the names of an import such as `super::{a::{self, B}, C as D}`.
fn expand(import: &str, prefix: &[String], imports: &mut BTreeMap<String, ModulePath>) {
    let import = import.trim();
    if let Some(inside) = import.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        let mut depth = 0;
        let at_top = |c: char| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            c == ',' && depth == 0
        };
        for part in inside.split(at_top).filter(|part| !part.trim().is_empty()) {
            expand(part, prefix, imports);
        }
    } else if let Some((first, rest)) = import.split_once("::").filter(|(first, _)| !first.contains('{')) {
        expand(rest, &[prefix, &[first.trim().to_owned()]].concat(), imports);
    } else {
        let (name, alias) = import.split_once(" as ").unwrap_or((import, import));
        let path = if name == "self" { prefix.to_vec() } else { [prefix, &[name.to_owned()]].concat() };
        let alias = if alias == "self" { path[path.len() - 1].clone() } else { alias.to_owned() };
        imports.insert(alias, path);
    }
}

/// Returns all paths in code, such as `super::sql::quoted`, and single names.
fn paths_in(body: &str) -> Vec<ModulePath> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let words: BTreeSet<&str> = body.split(|c| !is_part(c)).collect();
    let path = |word: &str| word.trim_matches(':').split("::").map(str::to_owned).collect::<Vec<_>>();
    words.into_iter().map(path).filter(|path| path.iter().all(|part| !part.is_empty() && !part.contains(':'))).collect()
}

/// Returns the groups of files of which each leads to all others, with the files of the group that each one uses.
pub fn circles<'f>(uses: &BTreeMap<&'f str, BTreeSet<&'f str>>) -> Vec<BTreeMap<&'f str, Vec<&'f str>>> {
    let reach = |from: &'f str| {
        let mut reached = BTreeSet::new();
        let mut next = vec![from];
        while let Some(file) = next.pop() {
            for used in uses.get(file).into_iter().flatten() {
                if reached.insert(*used) {
                    next.push(used);
                }
            }
        }
        reached
    };
    let reached: BTreeMap<_, _> = uses.keys().map(|file| (*file, reach(file))).collect();
    let mut groups = BTreeSet::new();
    for (file, reach) in reached.iter().filter(|(file, reach)| reach.contains(*file)) {
        groups.insert(reach.iter().copied().filter(|other| reached[other].contains(file)).collect::<Vec<_>>());
    }
    let within = |group: &[&'f str], file| uses[file].iter().copied().filter(|used| group.contains(used)).collect();
    groups.iter().map(|group| group.iter().map(|file| (*file, within(group, *file))).collect()).collect()
}
