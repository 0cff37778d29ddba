//! Reads the modules of a crate, and every path that they import or use.

use std::collections::{BTreeMap, BTreeSet};

use super::{ModulePath, Sources};

#[derive(Default)]
pub struct Crate {
    pub modules: BTreeMap<ModulePath, Module>,
    pub references: Vec<Reference>,
    /// The identifiers of each file outside its `use` declarations.
    mentions: BTreeMap<String, BTreeSet<String>>,
}

#[derive(Default)]
pub struct Module {
    /// More than one if `cfg` chooses among files.
    pub files: BTreeSet<String>,
    children: BTreeSet<String>,
    /// Name → the paths that it is imported from, also privately: children see private imports.
    imports: BTreeMap<String, Vec<ModulePath>>,
    globs: Vec<ModulePath>,
}

/// A leaf of a `use` tree, or an inline path.
pub struct Reference {
    pub module: ModulePath,
    pub file: String,
    pub line: usize,
    pub path: Vec<String>,
    /// The name under which a `pub use` exports it.
    exported_as: Option<String>,
}

#[derive(Default)]
pub struct Resolved {
    /// Every module on the way, including those that only re-export the name.
    pub entered: Vec<ModulePath>,
    /// The modules that define the name. Empty if it comes from another crate.
    pub defining: Vec<ModulePath>,
}

impl Crate {
    pub fn read(sources: &Sources) -> Self {
        let mut code = Self::default();
        code.read_file(sources, "lib.rs", Vec::new());
        code
    }

    fn read_file(&mut self, sources: &Sources, file: &str, module: ModulePath) {
        let Some(text) = sources.get(file) else { return };
        let tokens = without_test_items(tokens(text));
        let text_at = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
        let file_depth = module.len();
        let mut here = module;
        self.modules.entry(here.clone()).or_default().files.insert(file.into());
        // The brace depths at which inline modules began.
        let (mut depth, mut inline) = (0usize, Vec::new());
        let mut path_attribute: Option<String> = None;
        let mut at = 0;
        while at < tokens.len() {
            let token = &tokens[at];
            let previous = at.checked_sub(1).map_or("", text_at);
            match token.text.as_str() {
                "{" => depth += 1,
                "}" => {
                    depth = depth.saturating_sub(1);
                    if inline.last() == Some(&depth) {
                        inline.pop();
                        here.pop();
                    }
                }
                "path" if previous == "[" && text_at(at + 2).starts_with('"') => {
                    path_attribute = Some(text_at(at + 2)[1..].into());
                }
                "mod" if matches!(text_at(at + 2), ";" | "{") => {
                    let name = text_at(at + 1).to_owned();
                    let parent = self.modules.entry(here.clone()).or_default();
                    parent.children.insert(name.clone());
                    if text_at(at + 2) == "{" {
                        inline.push(depth);
                        here.push(name);
                        let files = &mut self.modules.entry(here.clone()).or_default().files;
                        files.insert(file.into());
                        depth += 1;
                    } else {
                        let mut child = here.clone();
                        child.push(name.clone());
                        let in_file = &here[file_depth..];
                        let candidates = child_files(file, in_file, &name, path_attribute.take());
                        for candidate in candidates {
                            self.read_file(sources, &candidate, child.clone());
                        }
                    }
                    at += 2;
                }
                // Not the `use<…>` of a precise capture.
                "use" if text_at(at + 1) != "<" => {
                    let is_exported = matches!(previous, "pub" | ")");
                    let mut leaves = Vec::new();
                    at += 1;
                    use_tree(&tokens, &mut at, &[], &mut leaves);
                    for leaf in leaves {
                        self.add_import(&here, file, leaf, is_exported);
                    }
                    continue;
                }
                text if is_identifier(text) => {
                    let mentions = self.mentions.entry(file.into()).or_default();
                    mentions.insert(text.into());
                    // Not the rest of a path, nor the `crate::room` of `pub(in crate::room)`.
                    let is_visibility = previous == "in" && text_at(at - 2) == "(";
                    let is_rest = previous == "::" || is_visibility;
                    let begins = text_at(at + 1) == "::" && !is_rest;
                    if begins {
                        let (line, mut path) = (token.line, vec![text.to_owned()]);
                        while text_at(at + 1) == "::" && is_identifier(text_at(at + 2)) {
                            at += 2;
                            path.push(text_at(at).into());
                        }
                        let (module, file) = (here.clone(), file.to_owned());
                        let exported_as = None;
                        self.references.push(Reference { module, file, line, path, exported_as });
                    }
                }
                _ => {}
            }
            at += 1;
        }
    }

    fn add_import(&mut self, here: &[String], file: &str, leaf: Leaf, is_exported: bool) {
        let Leaf { path, name, line } = leaf;
        let module = self.modules.entry(here.to_vec()).or_default();
        match &name {
            Some(name) => module.imports.entry(name.clone()).or_default().push(path.clone()),
            None => module.globs.push(path.clone()),
        }
        self.references.push(Reference {
            module: here.to_vec(),
            file: file.into(),
            line,
            path,
            exported_as: name.filter(|_| is_exported),
        });
    }

    /// Follows a path from a module, through at most `fuel` re-exports.
    pub fn resolve(&self, from: &[String], path: &[String], fuel: usize) -> Resolved {
        let mut resolved = Resolved::default();
        let (mut here, mut rest) = (from.to_vec(), path);
        match path.first().map(String::as_str) {
            Some("crate") => (here, rest) = (Vec::new(), &path[1..]),
            Some("self") => rest = &path[1..],
            Some("super") => {}
            Some(first) if self.has_child(from, first) => {}
            // Another crate, a local name or a name that a `use` declaration has imported.
            _ => return resolved,
        }
        while let Some("super") = rest.first().map(String::as_str) {
            here.pop();
            rest = &rest[1..];
        }
        resolved.entered.push(here.clone());
        while let [name, tail @ ..] = rest {
            if self.has_child(&here, name) {
                here.push(name.clone());
                resolved.entered.push(here.clone());
                rest = tail;
                continue;
            }
            let targets = self.targets(&here, name);
            if targets.is_empty() {
                break;
            }
            for target in targets.into_iter().filter(|_| fuel > 0) {
                let path = [&target, tail].concat();
                let further = self.resolve(&here, &path, fuel - 1);
                resolved.entered.extend(further.entered);
                resolved.defining.extend(further.defining);
            }
            return resolved;
        }
        if self.modules.contains_key(&here) {
            resolved.defining.push(here);
        }
        resolved
    }

    fn has_child(&self, module: &[String], name: &str) -> bool {
        self.modules.get(module).is_some_and(|module| module.children.contains(name))
    }

    /// What a name imported into a module stands for, by name or by a glob.
    fn targets(&self, module: &[String], name: &str) -> Vec<ModulePath> {
        let Some(found) = self.modules.get(module) else { return Vec::new() };
        if let Some(targets) = found.imports.get(name) {
            return targets.clone();
        }
        let globs = found.globs.iter().filter(|glob| {
            let resolved = self.resolve(module, glob, 1);
            let target = resolved.defining.first().and_then(|target| self.modules.get(target));
            target.is_some_and(|t| t.children.contains(name) || t.imports.contains_key(name))
        });
        globs.map(|glob| [&glob[..], &[name.to_owned()]].concat()).collect()
    }

    /// Whether a reference only re-exports a name of a child, and its file makes no use of it.
    pub fn only_reexports(&self, reference: &Reference, defining: &[String]) -> bool {
        let Some(name) = &reference.exported_as else { return false };
        let is_child = defining.starts_with(&reference.module);
        let mentions = self.mentions.get(&reference.file);
        is_child && !mentions.is_some_and(|mentions| mentions.contains(name))
    }
}

/// Where the file of `mod name;` can be. `inline` are the inline modules around the declaration.
fn child_files(
    file: &str,
    inline: &[String],
    name: &str,
    path_attribute: Option<String>,
) -> Vec<String> {
    let folder = file.rfind('/').map_or("", |slash| &file[..=slash]);
    if let Some(path) = path_attribute {
        return vec![format!("{folder}{path}")];
    }
    let stem = file[folder.len()..].trim_end_matches(".rs");
    let own_folder = if matches!(stem, "lib" | "mod") { String::new() } else { format!("{stem}/") };
    let inline: String = inline.iter().map(|name| format!("{name}/")).collect();
    let base = format!("{folder}{own_folder}{inline}{name}");
    vec![format!("{base}.rs"), format!("{base}/mod.rs")]
}

struct Leaf {
    path: Vec<String>,
    /// The name that it has in the importing module; `None` for a glob.
    name: Option<String>,
    line: usize,
}

/// Reads one branch of a `use` tree. What it does not understand (another crate's `::path`, a
/// macro's variable) it passes over.
fn use_tree(tokens: &[Token], at: &mut usize, prefix: &[String], leaves: &mut Vec<Leaf>) {
    let mut path = prefix.to_vec();
    while let Some(token) = tokens.get(*at) {
        *at += 1;
        let next = tokens.get(*at).map_or("", |token| token.text.as_str());
        match token.text.as_str() {
            "{" => {
                while tokens.get(*at).is_some_and(|token| token.text != "}") {
                    use_tree(tokens, at, &path, leaves);
                    if tokens.get(*at).is_some_and(|token| token.text == ",") {
                        *at += 1;
                    }
                }
                *at += 1;
                return;
            }
            "*" => {
                leaves.push(Leaf { path, name: None, line: token.line });
                return;
            }
            "$" => {}
            text if is_identifier(text) => {
                path.push(text.into());
                if next == "::" {
                    *at += 1;
                    continue;
                }
                if text == "self" && path.len() > 1 {
                    path.pop();
                }
                let mut name = path.last().cloned();
                if next == "as" {
                    name = tokens.get(*at + 1).map(|token| token.text.clone());
                    *at += 2;
                }
                leaves.push(Leaf { path, name, line: token.line });
                return;
            }
            _ => return,
        }
    }
}

// ---- Tokens ----

#[derive(Clone, Debug)]
struct Token {
    /// An identifier, `::`, another character, or a string literal as `"` and its content.
    text: String,
    line: usize,
}

fn is_identifier(text: &str) -> bool {
    text.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

/// The tokens of a file without comments.
fn tokens(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let char_at = |at: usize| chars.get(at).copied().unwrap_or('\0');
    let (mut tokens, mut at, mut line) = (Vec::new(), 0, 1);
    while at < chars.len() {
        let (begin, begin_line) = (at, line);
        let mut text = String::new();
        match chars[at] {
            '/' if char_at(at + 1) == '/' => {
                while at < chars.len() && chars[at] != '\n' {
                    at += 1;
                }
            }
            '/' if char_at(at + 1) == '*' => {
                let mut depth = 1;
                at += 2;
                while at < chars.len() && depth > 0 {
                    match (chars[at], char_at(at + 1)) {
                        ('/', '*') => (depth, at) = (depth + 1, at + 2),
                        ('*', '/') => (depth, at) = (depth - 1, at + 2),
                        _ => at += 1,
                    }
                }
            }
            '"' => {
                at += 1;
                while at < chars.len() && chars[at] != '"' {
                    at += if chars[at] == '\\' { 2 } else { 1 };
                }
                at += 1;
                text = chars[begin..(at - 1).min(chars.len())].iter().collect();
            }
            // A character, or a lifetime.
            '\'' if char_at(at + 1) == '\\' || char_at(at + 2) == '\'' => {
                at += if char_at(at + 1) == '\\' { 3 } else { 2 };
                while at < chars.len() && chars[at] != '\'' {
                    at += 1;
                }
                at += 1;
            }
            '\'' => {
                at += 1;
                while char_at(at).is_alphanumeric() || char_at(at) == '_' {
                    at += 1;
                }
            }
            first if first.is_alphanumeric() || first == '_' => {
                while char_at(at).is_alphanumeric() || char_at(at) == '_' {
                    at += 1;
                }
                text = chars[begin..at].iter().collect();
                let hashes = chars[at..].iter().take_while(|c| **c == '#').count();
                if matches!(text.as_str(), "r" | "br" | "cr") && char_at(at + hashes) == '"' {
                    let content = at + hashes + 1;
                    let ends = |at: &usize| {
                        let closing = chars[*at + 1..].iter().take(hashes);
                        chars[*at] == '"' && closing.filter(|c| **c == '#').count() == hashes
                    };
                    let end = (content..chars.len()).find(ends).unwrap_or(chars.len());
                    text = format!("\"{}", chars[content..end].iter().collect::<String>());
                    at = (end + 1 + hashes).min(chars.len());
                }
            }
            ':' if char_at(at + 1) == ':' => (text, at) = ("::".into(), at + 2),
            other if other.is_whitespace() => at += 1,
            other => (text, at) = (other.into(), at + 1),
        }
        line += chars[begin..at.min(chars.len())].iter().filter(|c| **c == '\n').count();
        if !text.is_empty() {
            tokens.push(Token { text, line: begin_line });
        }
    }
    tokens
}

/// Drops each item under `#[cfg(test)]` or `#[cfg(all(test, …))]`.
fn without_test_items(tokens: Vec<Token>) -> Vec<Token> {
    let text_at = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    let begins_with = |at: usize, texts: &[&str]| {
        texts.iter().enumerate().all(|(offset, text)| text_at(at + offset) == *text)
    };
    let (mut kept, mut at) = (Vec::new(), 0);
    while at < tokens.len() {
        let is_test = begins_with(at, &["#", "[", "cfg", "(", "test", ")"])
            || begins_with(at, &["#", "[", "cfg", "(", "all", "(", "test"]);
        if !is_test {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        }
        // To the `;`, `,` or closing brace that ends the item, after its attributes.
        let (mut depth, mut generics) = (0, 0);
        while at < tokens.len() {
            let text = text_at(at);
            // The end of the struct whose last field this is.
            if text == "}" && depth == 0 {
                break;
            }
            at += 1;
            match text {
                "(" | "[" | "{" => depth += 1,
                ")" | "]" => depth -= 1,
                "<" => generics += 1,
                ">" if !matches!(text_at(at - 2), "-" | "=") => generics -= 1,
                "}" => {
                    depth -= 1;
                    if depth == 0 {
                        break;
                    }
                }
                ";" if depth == 0 => break,
                "," if depth == 0 && generics == 0 => break,
                _ => {}
            }
        }
    }
    kept
}

pub const MAX_REEXPORTS: usize = 8;
