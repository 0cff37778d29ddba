//! Checks the map of rooms in `CONTRIBUTING.md` against the code.
//!
//! The order of the table is the direction in which rooms may import each other. The test reads
//! every `use` tree and every inline path in `src`, resolves them through re-exports, and reports
//!
//! - a room that imports a room above it, or one that its row does not allow;
//! - two rooms that import each other;
//! - a room without a row, a row without a room, and a path in `CONTRIBUTING.md` without a file;
//! - a cycle among the files of a room.
//!
//! Comments, strings and `#[cfg(test)]` items do not count. Nor does a `mod.rs` that only
//! re-exports its children: a path through it leads to the file that defines the name.

mod source;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs,
    path::Path,
};

use source::{Crate, MAX_REEXPORTS};

use crate::support;

#[test]
fn the_code_agrees_with_the_map_of_rooms_in_contributing() {
    let root = support::repository();
    let contributing = fs::read_to_string(root.join("CONTRIBUTING.md")).unwrap();
    let mut sources = Sources::new();
    read_sources(&root.join("src"), "", &mut sources);
    let mut violations = violations(&Map::parse(&contributing), &sources);
    for path in named_paths(&contributing) {
        if !root.join(&path).exists() {
            violations.push(format!("CONTRIBUTING.md names `{path}`, which does not exist"));
        }
    }
    let count = violations.len();
    assert!(count == 0, "{count} contradictions to the map:\n{}", violations.join("\n"));
}

/// The Rust files below `src`: path relative to `src` → text.
type Sources = BTreeMap<String, String>;

/// `["verify", "cache"]` is `crate::verify::cache`; the crate's root is empty.
type ModulePath = Vec<String>;

fn read_sources(folder: &Path, prefix: &str, sources: &mut Sources) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{prefix}{}", entry.file_name().into_string().unwrap());
        if entry.file_type().unwrap().is_dir() {
            read_sources(&entry.path(), &format!("{path}/"), sources);
        } else if path.ends_with(".rs") {
            sources.insert(path, fs::read_to_string(entry.path()).unwrap());
        }
    }
}

/// Every contradiction between the map and the sources, as one line each.
fn violations(map: &Map, sources: &Sources) -> Vec<String> {
    let code = Crate::read(sources);
    let mut found = rooms_and_rows(map, sources);
    let imports = room_imports(&code);
    for import in &imports {
        let Import { file, line, from, to, path } = import;
        if let Some(reason) = map.objection(from, to) {
            found.push(format!("src/{file}:{line}: `{from}` imports `{to}` ({path}): {reason}"));
        }
    }
    found.extend(mutual_imports(&imports));
    found.extend(cycles(&code));
    found
}

// ---- The map ----

struct Map {
    /// From the top room to the bottom room.
    rows: Vec<Row>,
}

struct Row {
    room: String,
    /// The folder or file below `src`, as the table writes it: `verify/` or `error.rs`.
    entry: String,
    /// The files and folders of the room that the row names.
    names: Vec<String>,
    /// For a room that is apart: the only rooms that it may import. No other room imports it.
    imports_only: Option<Vec<String>>,
}

impl Map {
    /// Reads the rows of the table in the section whose heading contains "rooms".
    fn parse(contributing: &str) -> Self {
        let section = contributing
            .lines()
            .skip_while(|line| !(line.starts_with("## ") && line.to_lowercase().contains("rooms")))
            .skip(1)
            .take_while(|line| !line.starts_with("## "));
        let rows = section.filter_map(|line| {
            let entry = line.strip_prefix("| `")?.split('`').next()?;
            let text = line.split_once("` |")?.1;
            let (before, rest) = text.split_once("Imports only ").unwrap_or((text, ""));
            let (sentence, after) = rest.split_once('.').unwrap_or((rest, ""));
            let imports_only = quoted(sentence).map(room_name).collect::<Vec<_>>();
            let imports_only = Some(imports_only).filter(|rooms| !rooms.is_empty());
            let is_entry = |name: &&str| name.ends_with(".rs") || name.ends_with('/');
            let names = quoted(before).chain(quoted(after)).filter(is_entry);
            let names = names.map(str::to_owned).collect();
            Some(Row { room: room_name(entry), entry: entry.into(), names, imports_only })
        });
        Self { rows: rows.collect() }
    }

    /// Why `from` must not import `to`, if so.
    fn objection(&self, from: &str, to: &str) -> Option<String> {
        let row = |room: &str| self.rows.iter().position(|row| row.room == room);
        // A room without a row is reported elsewhere.
        let (from, to) = (row(from)?, row(to)?);
        if let Some(allowed) = &self.rows[from].imports_only {
            let is_allowed = allowed.contains(&self.rows[to].room);
            return (!is_allowed).then(|| format!("its row allows only {}", allowed.join(", ")));
        }
        if self.rows[to].imports_only.is_some() {
            return Some("no room may import that room".into());
        }
        (to < from).then(|| "that room is above it in the map".into())
    }
}

/// The texts in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn room_name(entry: &str) -> String {
    entry.trim_end_matches('/').trim_end_matches(".rs").into()
}

/// The paths from the root of the repository that the text names in backticks.
fn named_paths(text: &str) -> impl Iterator<Item = String> {
    let names = text.lines().flat_map(quoted);
    let folders = ["src/", "tests/", "benches/", "examples/", "migrations/", "scripts/", ".ci/"];
    let is_path = move |name: &&str| folders.iter().any(|folder| name.starts_with(folder));
    names.filter(is_path).filter(|name| !name.contains([' ', '*'])).map(str::to_owned)
}

fn rooms_and_rows(map: &Map, sources: &Sources) -> Vec<String> {
    let mut found = Vec::new();
    let entry = |path: &str| match path.split_once('/') {
        Some((folder, _)) => format!("{folder}/"),
        None => path.to_owned(),
    };
    let entries: BTreeSet<String> = sources.keys().map(|path| entry(path)).collect();
    for entry in entries.iter().filter(|entry| *entry != "lib.rs") {
        if !map.rows.iter().any(|row| row.entry == *entry) {
            found.push(format!("src/{entry} has no row in the map"));
        }
    }
    for row in &map.rows {
        if !entries.contains(&row.entry) {
            found.push(format!("the map has a row for src/{}, which does not exist", row.entry));
            continue;
        }
        for name in &row.names {
            let path = format!("{}/{name}", row.room);
            let exists = match name.ends_with('/') {
                true => sources.keys().any(|source| source.starts_with(&path)),
                false => sources.contains_key(&path),
            };
            if !exists {
                found.push(format!("the map names src/{path}, which does not exist"));
            }
        }
    }
    found
}

// ---- Imports between rooms ----

struct Import {
    file: String,
    line: usize,
    from: String,
    to: String,
    path: String,
}

/// Every import of one room by another, also of rooms that only re-export the name.
fn room_imports(code: &Crate) -> Vec<Import> {
    let mut imports = Vec::new();
    let mut seen = BTreeSet::new();
    for reference in &code.references {
        let Some(from) = reference.module.first() else { continue };
        let resolved = code.resolve(&reference.module, &reference.path, MAX_REEXPORTS);
        for to in resolved.entered.iter().filter_map(|module| module.first()) {
            if to != from && seen.insert((reference.file.clone(), reference.line, to.clone())) {
                imports.push(Import {
                    file: reference.file.clone(),
                    line: reference.line,
                    from: from.clone(),
                    to: to.clone(),
                    path: reference.path.join("::"),
                });
            }
        }
    }
    imports
}

fn mutual_imports(imports: &[Import]) -> Vec<String> {
    let mut first: BTreeMap<(&str, &str), &Import> = BTreeMap::new();
    for import in imports {
        first.entry((&import.from, &import.to)).or_insert(import);
    }
    let pairs = first.iter().filter(|((from, to), _)| from < to);
    let mutual = pairs.filter_map(|((from, to), there)| {
        let back = first.get(&(*to, *from))?;
        Some(format!(
            "`{from}` and `{to}` import each other: src/{}:{} and src/{}:{}",
            there.file, there.line, back.file, back.line
        ))
    });
    mutual.collect()
}

// ---- Cycles among the files of a room ----

/// The shortest cycle through each file, each cycle once.
fn cycles(code: &Crate) -> Vec<String> {
    let mut graph: BTreeMap<&str, BTreeMap<&str, usize>> = BTreeMap::new();
    for reference in &code.references {
        let Some(room) = reference.module.first() else { continue };
        let resolved = code.resolve(&reference.module, &reference.path, MAX_REEXPORTS);
        for module in resolved.defining.iter().filter(|module| module.first() == Some(room)) {
            if code.only_reexports(reference, module) {
                continue;
            }
            for file in code.modules[module].files.iter().filter(|file| **file != reference.file) {
                let edges = graph.entry(&reference.file).or_default();
                edges.entry(file).or_insert(reference.line);
            }
        }
    }
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for start in graph.keys() {
        let Some(cycle) = shortest_cycle(&graph, start) else { continue };
        if seen.insert(cycle.iter().copied().collect::<BTreeSet<_>>()) {
            let next = cycle.iter().cycle().skip(1);
            let steps = cycle.iter().zip(next).map(|(from, to)| {
                let line = graph[from][to];
                format!("src/{from}:{line} → {to}")
            });
            let room = start.split('/').next().unwrap_or(start);
            let steps: Vec<String> = steps.collect();
            found.push(format!("cycle in `{room}`: {}", steps.join(", ")));
        }
    }
    found
}

fn shortest_cycle<'a>(
    graph: &BTreeMap<&'a str, BTreeMap<&'a str, usize>>,
    start: &'a str,
) -> Option<Vec<&'a str>> {
    let mut reached_from: BTreeMap<&str, &str> = BTreeMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(file) = queue.pop_front() {
        for next in graph.get(file).into_iter().flat_map(|edges| edges.keys().copied()) {
            if next == start {
                let mut cycle = vec![file];
                while cycle[cycle.len() - 1] != start {
                    cycle.push(reached_from[cycle[cycle.len() - 1]]);
                }
                cycle.reverse();
                return Some(cycle);
            }
            if !reached_from.contains_key(next) {
                reached_from.insert(next, file);
                queue.push_back(next);
            }
        }
    }
    None
}

// ---- Tests of the checks, on made-up trees ----

const MAP: &str = "\
## The map of rooms
| room | purpose |
|---|---|
| `http/` | Answers requests: `guard.rs`. |
| `store/` | Keeps keys. |
| `error.rs` | Errors. |
| `model/` | Plain data. |
| `client/` | The other side. Imports only `model/`. `a.rs` uses a key. |

## Rules
| `other/` | not a room |
";

/// A tree without contradictions, with some files replaced or added.
fn violations_with(changes: &[(&str, &str)]) -> Vec<String> {
    let mut sources = Sources::new();
    let tree = [
        (
            "lib.rs",
            "pub mod client;\npub mod error;\npub mod http;\npub mod model;\npub mod store;",
        ),
        ("client/mod.rs", "use crate::model::Key;"),
        ("client/a.rs", ""),
        ("error.rs", "pub struct Error;"),
        ("http/mod.rs", "mod guard;\npub use guard::Guard;"),
        ("http/guard.rs", "use crate::store::Store;\npub struct Guard;"),
        ("model/mod.rs", "mod key;\nmod owner;\npub use key::Key;\npub use owner::Owner;"),
        ("model/key.rs", "use super::Owner;\npub struct Key;"),
        ("model/owner.rs", "pub struct Owner;"),
        ("store/mod.rs", "use crate::{error::Error, model::{Key, Owner}};\npub struct Store;"),
    ];
    for (path, text) in tree.iter().chain(changes) {
        sources.insert((*path).into(), (*text).into());
    }
    violations(&Map::parse(MAP), &sources)
}

#[track_caller]
fn assert_found(changes: &[(&str, &str)], expected: &[&str]) {
    let found = violations_with(changes);
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}\nshould begin with\n{expected}");
    }
}

#[test]
fn a_tree_that_follows_the_map_is_accepted() {
    assert_found(&[], &[]);
}

#[test]
fn an_upward_import_is_found_in_each_form() {
    let line_two = |text: &str| format!("pub struct Key;\n{text}");
    for text in [
        "use crate::error::Error;",
        "use crate::{owner::Owner, error::{self, Error}};",
        "fn f() -> crate::error::Error { todo!() }",
        "use super::super::error::Error;",
        "pub(crate) use crate::error::Error as Failure;",
        "impl From<crate::error::Error> for Key {}",
        "fn f() { for error in crate::error::all() {} }",
        "macro_rules! m { () => { $crate::error::Error } }",
        "#[cfg(feature = \"x\")] use crate::error::*;",
        "mod inner { use super::super::super::error::Error; }",
        "const A: char = '\"'; use crate::error::Error; const B: char = '\"';",
        "const R: &str = r#\"a \" b\"#; fn f<'a>(e: &'a crate::error::Error) {}",
    ] {
        assert_found(
            &[("model/key.rs", &line_two(text))],
            &["src/model/key.rs:2: `model` imports `error` ("],
        );
    }
}

#[test]
fn a_name_is_followed_through_the_root_and_through_other_rooms() {
    let lib = "pub mod client;\npub mod error;\npub mod http;\npub mod model;\npub mod store;\n\
               pub use http::Guard;";
    assert_found(
        &[("lib.rs", lib), ("model/owner.rs", "use crate::Guard;")],
        &["src/model/owner.rs:1: `model` imports `http` (crate::Guard)"],
    );
    // A room above that only re-exports a name of a room below is still a room above.
    let store = "pub use crate::model::Owner;\npub struct Store;";
    assert_found(
        &[("store/mod.rs", store), ("error.rs", "use crate::store::Owner;")],
        &["src/error.rs:1: `error` imports `store` (crate::store::Owner)"],
    );
}

#[test]
fn two_rooms_that_import_each_other_are_found() {
    assert_found(
        &[("error.rs", "\n\nuse crate::store::Store;\npub struct Error;")],
        &[
            "src/error.rs:3: `error` imports `store` (crate::store::Store): that room is above",
            "`error` and `store` import each other: src/error.rs:3 and src/store/mod.rs:1",
        ],
    );
}

#[test]
fn a_visibility_is_not_an_import() {
    let owner = "pub(in crate::model) fn f() {}\npub struct Owner;";
    let module =
        "mod key;\nmod owner;\npub use key::Key;\npub use owner::Owner;\nfn g() { owner::f() }";
    assert_found(&[("model/owner.rs", owner), ("model/mod.rs", module)], &[]);
}

#[test]
fn comments_strings_and_tests_do_not_count() {
    let text = r##"
        //! [`Error`](crate::error::Error)
        /* use crate::error::Error; /* nested */ use crate::error::Error; */
        const A: &str = "crate::error::Error \" crate::error::Error";
        const B: &str = r#"crate::error::Error"#;
        #[cfg(test)]
        use crate::error::Error;
        #[cfg(test)]
        #[allow(dead_code)]
        mod tests {
            use crate::error::Error;
            fn f() { crate::error::g() }
        }
        #[cfg(test)]
        mod checked;
        struct S {
            #[cfg(test)]
            probe: Option<crate::error::Error>,
        }
        pub struct Owner;
    "##;
    let changes =
        [("model/owner.rs", text), ("model/owner/checked.rs", "use crate::error::Error;")];
    assert_found(&changes, &[]);
}

#[test]
fn a_test_item_does_not_hide_what_follows_it() {
    for item in [
        "mod tests { fn f() {} }",
        "fn f<A, B>(a: A) -> Option<B> { crate::error::f() }",
        "use crate::{error::Error, http::Guard};",
        "mod m;",
    ] {
        let text = format!("#[cfg(test)]\n{item}\nuse crate::error::Error;");
        let expected = "src/model/owner.rs:3: `model` imports `error`";
        assert_found(&[("model/owner.rs", &text)], &[expected]);
    }
    let last_field = "mod inner { struct S { #[cfg(test)] f: crate::error::Error } }\n\
                      use super::super::error::Error;";
    assert_found(&[("model/owner.rs", last_field)], &["src/model/owner.rs:2: `model` imports"]);
}

#[test]
fn a_room_without_a_row_and_a_row_without_a_room_are_found() {
    assert_found(&[("cache/mod.rs", "")], &["src/cache/ has no row in the map"]);
    assert_found(&[("util.rs", "")], &["src/util.rs has no row in the map"]);
    let map = Map::parse(&MAP.replace("## Rules", "| `cache/` | Cached keys. |\n## Rules"));
    let sources = Sources::from(
        ["http/mod.rs", "http/guard.rs", "store/mod.rs", "error.rs", "model/mod.rs", "client/a.rs"]
            .map(|path| (path.to_owned(), String::new())),
    );
    let missing = "the map has a row for src/cache/, which does not exist";
    assert_eq!(violations(&map, &sources), [missing]);
}

#[test]
fn a_file_that_a_row_names_must_exist() {
    let map = MAP.replace("`guard.rs`", "`guard.rs`, `layer.rs` and `views/`");
    let map = Map::parse(&map.replace("`a.rs`", "`b.rs`"));
    let sources = Sources::from(
        ["http/mod.rs", "http/guard.rs", "store/mod.rs", "error.rs", "model/mod.rs", "client/a.rs"]
            .map(|path| (path.to_owned(), String::new())),
    );
    let expected = ["http/layer.rs", "http/views/", "client/b.rs"]
        .map(|path| format!("the map names src/{path}, which does not exist"));
    assert_eq!(violations(&map, &sources), expected);
    let named: Vec<String> = named_paths("`src/a.rs`, `tests/x/` and `cargo test`").collect();
    assert_eq!(named, ["src/a.rs", "tests/x/"]);
}

#[test]
fn a_room_that_is_apart_imports_only_what_its_row_allows_and_is_imported_by_none() {
    assert_found(
        &[("client/mod.rs", "use crate::store::Store;")],
        &[
            "src/client/mod.rs:1: `client` imports `store` (crate::store::Store): its row allows only",
        ],
    );
    assert_found(
        &[("http/guard.rs", "use crate::client::Found;\npub struct Guard;")],
        &[
            "src/http/guard.rs:1: `http` imports `client` (crate::client::Found): no room may import",
        ],
    );
}

#[test]
fn a_cycle_among_files_is_found_however_the_paths_are_written() {
    for back in [
        "use super::Key;",
        "use crate::model::Key;",
        "use super::key::Key;",
        "fn f() -> crate::model::key::Key { todo!() }",
        "use crate::Key;",
    ] {
        let lib = "pub mod client;\npub mod error;\npub mod http;\npub mod model;\npub mod store;\n\
                   pub use model::Key;";
        assert_found(
            &[("lib.rs", lib), ("model/owner.rs", &format!("{back}\npub struct Owner;"))],
            &[
                "cycle in `model`: src/model/key.rs:1 → model/owner.rs, src/model/owner.rs:1 → model/key.rs",
            ],
        );
    }
}

#[test]
fn a_parent_that_uses_its_child_is_in_a_cycle_with_a_child_that_uses_its_parent() {
    let child = "use super::Store;\npub struct Row;";
    let cycle =
        "cycle in `store`: src/store/mod.rs:2 → store/row.rs, src/store/row.rs:1 → store/mod.rs";
    let uses = "mod row;\nuse row::Row;\npub struct Store(Row);";
    assert_found(&[("store/mod.rs", uses), ("store/row.rs", child)], &[cycle]);
    let exports_and_uses = "mod row;\npub use row::Row;\npub struct Store(Row);";
    assert_found(&[("store/mod.rs", exports_and_uses), ("store/row.rs", child)], &[cycle]);
    let only_exports = "mod row;\npub use row::Row;\npub struct Store;";
    assert_found(&[("store/mod.rs", only_exports), ("store/row.rs", child)], &[]);
}

#[test]
fn a_longer_cycle_and_files_chosen_by_cfg_are_found() {
    let changes = [
        ("store/mod.rs", "mod a;\nmod b;\n#[path = \"off.rs\"]\nmod c;\npub struct Store;"),
        ("store/a.rs", "use super::b::B;"),
        ("store/b.rs", "use super::c::C;"),
        ("store/off.rs", "\nuse super::a::A;"),
    ];
    assert_found(
        &changes,
        &[
            "cycle in `store`: src/store/a.rs:1 → store/b.rs, src/store/b.rs:1 → store/off.rs, src/store/off.rs:2 → store/a.rs",
        ],
    );
}
