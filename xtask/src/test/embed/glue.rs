//! How much it took to connect that kernel with the library.

use std::path::Path;

use anyhow::{Context, Result};

use crate::image;
use crate::test::report::Report;

/// The kernel's sources, and the one that knows our traits.
const SOURCES: &str = "tests/embed";
const GLUE: &str = "src/kernel/glue.rs";
/// How many lines of code the glue may have, without empty ones and comments.
const GLUE_LINES: usize = 119;
/// What the kernel must not depend on.
const OURS: [&str; 3] = ["doorbell-boot", "doorbell-kernel", "doorbell-tests"];

/// Counts the lines that connect the kernel with the library, and looks for what of ours
/// it has no business with.
pub(super) fn check(report: &mut Report) -> Result<()> {
    let sources = &image::workspace().join(SOURCES);
    let read = |name: &str| {
        let path = sources.join(name);
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let text = read(GLUE)?;
    let lines = code_lines(&text);
    report.note(format!("{SOURCES}/{GLUE} has {lines} lines of code"));
    report.check("lines", within(lines));
    report.check("traits", implementers(sources, &text)?);
    let manifest = read("Cargo.toml")?;
    let dependencies = manifest.lines().filter(|line| !line.starts_with('#'));
    let shared = dependencies
        .filter_map(|line| line.split(['.', ' ', '=']).next())
        .find(|name| OURS.contains(name));
    report.check(
        "shares nothing",
        match shared {
            None => Ok(()),
            Some(name) => Err(format!("{SOURCES}/Cargo.toml depends on {name}")),
        },
    );
    Ok(())
}

/// The lines that are neither empty nor comments.
fn code_lines(text: &str) -> usize {
    let lines = text.lines().map(str::trim);
    lines
        .filter(|line| !line.is_empty() && !line.starts_with("//"))
        .count()
}

fn within(lines: usize) -> Result<(), String> {
    if (1..=GLUE_LINES).contains(&lines) {
        return Ok(());
    }
    Err(format!(
        "it has {lines} lines of code, and may have {GLUE_LINES}"
    ))
}

/// Whether the library's traits are implemented in the glue, and nowhere else.
fn implementers(sources: &Path, glue: &str) -> Result<Result<(), String>> {
    const TRAITS: [&str; 3] = ["impl Dma for", "impl MapMmio for", "impl Wait for"];
    if let Some(missing) = TRAITS.iter().find(|words| !glue.contains(**words)) {
        return Ok(Err(format!("the glue has no `{missing}`")));
    }
    let folder = sources.join(GLUE);
    let folder = folder.parent().unwrap_or(sources);
    for entry in std::fs::read_dir(folder).context("cannot list the kernel's sources")? {
        let path = entry.context("cannot list the kernel's sources")?.path();
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let found = TRAITS.iter().find(|words| text.contains(**words));
        if let (Some(words), false) = (found, sources.join(GLUE) == path) {
            return Ok(Err(format!("`{words}` is in {}", path.display())));
        }
    }
    Ok(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_is_counted() {
        assert_eq!(
            code_lines("//! A\n\nuse a; // why\n  /// B\nfn b() {\n}\n"),
            3
        );
        assert_eq!(within(GLUE_LINES), Ok(()));
        assert!(within(GLUE_LINES + 1).is_err() && within(0).is_err());
    }

    #[test]
    fn the_glue_alone_knows_the_traits() {
        let mut report = Report::default();
        check(&mut report).unwrap();
        assert_eq!(report.total(), "3 passed, 0 failed, 0 skipped");
        let sources = image::workspace().join(SOURCES);
        assert!(implementers(&sources, "").unwrap().is_err());
    }
}
