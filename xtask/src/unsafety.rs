//! How much `unsafe` there is: counted by a test, so that a change which adds to it
//! changes [`TABLE`] as well, and who reads the change sees that.
//!
//! That each block says why it is sound is clippy's to see to
//! (`undocumented_unsafe_blocks`, for every package of the workspace), and that each
//! function says what it wants of its caller as well (`missing_safety_doc`).

use std::path::{Path, PathBuf};

use crate::image;

/// What there is in a package's sources, its tests among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    blocks: usize,
    /// Functions, declared or called for, and blocks of foreign ones.
    functions: usize,
    /// Implementations of unsafe traits, and the traits.
    impls: usize,
    /// Attributes such as `unsafe(no_mangle)`.
    attributes: usize,
}

/// By the package's folder: blocks, functions, implementations, attributes.
const TABLE: [(&str, [usize; 4]); 8] = [
    ("boot", [9, 3, 1, 1]),
    ("drivers", [338, 174, 50, 0]),
    ("kernel", [105, 26, 15, 2]),
    ("tests", [25, 4, 2, 0]),
    ("tests/embed", [25, 7, 3, 0]),
    ("tests/fuzz", [8, 1, 1, 0]),
    ("tests/virt", [14, 3, 3, 2]),
    ("xtask", [0, 0, 0, 0]),
];

impl Count {
    /// Adds what is in a source.
    fn add(&mut self, source: &str) {
        let code = code(source);
        let mut words = words(&code).peekable();
        while let Some(word) = words.next() {
            if word != "unsafe" {
                continue;
            }
            // What stands between `extern` and what follows is a string.
            if words.peek() == Some(&"extern") {
                self.functions += 1;
                continue;
            }
            match words.peek() {
                Some(&"{") => self.blocks += 1,
                Some(&"fn") => self.functions += 1,
                Some(&"impl" | &"trait") => self.impls += 1,
                Some(&"(") => self.attributes += 1,
                other => panic!("`unsafe` before {other:?} is of a kind that is not counted"),
            }
        }
    }
}

/// The words and the other signs of a text without strings and comments.
fn words(code: &str) -> impl Iterator<Item = &str> {
    let mut rest = code;
    std::iter::from_fn(move || {
        rest = rest.trim_start();
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let first = rest.chars().next()?;
        let end = if is_word(first) {
            rest.find(|c| !is_word(c)).unwrap_or(rest.len())
        } else {
            first.len_utf8()
        };
        let (word, behind) = rest.split_at(end);
        rest = behind;
        Some(word)
    })
}

/// A source without its comments, strings and characters.
fn code(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let ends_word = code.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let skipped = match first {
            '/' => comment(rest),
            '"' => Some(string(rest)),
            'b' | 'c' | 'r' if !ends_word => prefixed(rest),
            '\'' => character(rest),
            _ => None,
        };
        let len = match skipped {
            Some(len) => {
                code.push(' ');
                len
            }
            None => {
                code.push(first);
                first.len_utf8()
            }
        };
        rest = &rest[len..];
    }
    code
}

/// The length of the comment that a text begins with, if it does. Comments nest.
fn comment(text: &str) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if !text.starts_with("/*") {
        return None;
    }
    let (mut at, mut depth) = (2, 1);
    while depth > 0 {
        let rest = &text[at..];
        let open = rest.find("/*").unwrap_or(rest.len());
        match rest.find("*/") {
            Some(close) if close < open => (at, depth) = (at + close + 2, depth - 1),
            Some(_) => (at, depth) = (at + open + 2, depth + 1),
            None => return Some(text.len()),
        }
    }
    Some(at)
}

/// The length of the string that a text begins with, with its quotes.
fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of the string or byte with a prefix that a text begins with, if it does:
/// `b""`, `c""`, `r#""#`, `br""`, `b''`.
fn prefixed(text: &str) -> Option<usize> {
    let prefix = text.find(|c| !matches!(c, 'b' | 'c' | 'r'))?;
    let (letters, rest) = text.split_at(prefix);
    if letters.contains('r') {
        let hashes = rest.find(|c| c != '#')?;
        let inside = rest[hashes..].strip_prefix('"')?;
        let end = format!("\"{}", "#".repeat(hashes));
        let len = inside.find(&end).map_or(inside.len(), |at| at + end.len());
        return Some(prefix + hashes + 1 + len);
    }
    match rest.chars().next()? {
        '"' => Some(prefix + string(rest)),
        '\'' if letters == "b" => character(rest).map(|len| prefix + len),
        _ => None,
    }
}

/// The length of the character that a text begins with; none if it is a lifetime.
fn character(text: &str) -> Option<usize> {
    let inside = &text[1..];
    let first = inside.chars().next()?;
    if first == '\\' {
        // The one behind the backslash may be a quote itself.
        return Some(inside[2..].find('\'')? + 4);
    }
    let behind = &inside[first.len_utf8()..];
    behind.starts_with('\'').then_some(first.len_utf8() + 2)
}

/// The sources of the package in a folder: not those of a package inside.
fn sources(folder: &Path, into: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            let another = path.join("Cargo.toml").exists() || path.ends_with("target");
            if !another {
                sources(&path, into)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
    Ok(())
}

/// What there is in the package in a folder.
fn count(package: &str) -> Count {
    let (mut files, mut count) = (Vec::new(), Count::default());
    sources(&image::workspace().join(package), &mut files).unwrap();
    assert!(!files.is_empty(), "{package} has no sources");
    for file in files {
        count.add(&std::fs::read_to_string(&file).unwrap());
    }
    count
}

#[test]
fn there_is_as_much_as_the_table_says() {
    let mut wrong = Vec::new();
    for (package, [blocks, functions, impls, attributes]) in TABLE {
        let wanted = Count {
            blocks,
            functions,
            impls,
            attributes,
        };
        let found = count(package);
        if found != wanted {
            wrong.push(format!("{package}: {found:?} now, {wanted:?} in the table"));
        }
    }
    assert!(
        wrong.is_empty(),
        "`unsafe` is more or less than it was. If it had to be, change the table.\n{}",
        wrong.join("\n")
    );
}

#[test]
fn every_package_is_in_the_table_and_its_blocks_need_a_reason() {
    let workspace = std::fs::read_to_string(image::workspace().join("Cargo.toml")).unwrap();
    let manifest: toml::Table = workspace.parse().unwrap();
    assert_eq!(
        manifest["workspace"]["lints"]["clippy"]["undocumented_unsafe_blocks"].as_str(),
        Some("warn")
    );
    let names = |key: &str| -> Vec<String> {
        let folders = manifest["workspace"][key].as_array().unwrap();
        let folders = folders.iter().filter_map(toml::Value::as_str);
        folders.map(str::to_owned).collect()
    };
    let mut packages = [names("members"), names("exclude")].concat();
    packages.sort();
    assert_eq!(packages, TABLE.map(|(package, _)| package));
    for package in names("members") {
        let path = image::workspace().join(&package).join("Cargo.toml");
        let manifest: toml::Table = std::fs::read_to_string(path).unwrap().parse().unwrap();
        let lints = &manifest["lints"]["workspace"];
        assert_eq!(lints.as_bool(), Some(true), "{package}");
    }
}

#[test]
fn only_code_counts() {
    let source = r####"
        // unsafe { }
        /* unsafe { /* unsafe { */ unsafe { */
        const A: [&str; 3] = ["unsafe {", r#"unsafe { " unsafe {"#, "\" unsafe {"];
        const B: (u8, char, &[u8]) = (b'"', '"', b"unsafe {");
        const C: [char; 2] = ['\'', '\\'];
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn f<'a>(g: &'a dyn Fn(), unsafely: u32) {
            unsafe { g() } // unsafe {
        }
        unsafe extern "C" {}
        unsafe impl Send for X {}
        unsafe trait Y { unsafe fn z(); }
        fn other() { unsafe{} }
    "####;
    let mut count = Count::default();
    count.add(source);
    let wanted = Count {
        blocks: 2,
        functions: 3,
        impls: 2,
        attributes: 1,
    };
    assert_eq!(count, wanted);
}
