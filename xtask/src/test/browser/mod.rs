//! The report page in a real browser: headless Chromium shows the page of a set that has
//! everything ([`sample`]), wide and narrow, light and dark. A script looks for what is
//! wrong with it, and a picture of each is kept in the case's folder.

mod cdp;
mod sample;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use self::cdp::{Browser, Tab};
use super::World;
use super::report::Report;
use crate::experiment::report::page;

/// The name of the only case.
pub(crate) const NAME: &str = "report-page";
/// All of it takes seconds.
const LIMIT: Duration = Duration::from_secs(90);
/// A picture is no higher: Chromium repeats what is beyond.
const HIGHEST: u64 = 16_000;
const CHECK: &str = include_str!("check.js");

/// A way to look at the page.
struct View {
    name: &'static str,
    /// In CSS pixels.
    width: u32,
    height: u32,
    theme: &'static str,
}

const VIEWS: [View; 4] = [
    view("desktop-light", (1280, 900), "light"),
    view("desktop-dark", (1280, 900), "dark"),
    view("phone-light", (390, 844), "light"),
    view("phone-dark", (390, 844), "dark"),
];

const fn view(name: &'static str, (width, height): (u32, u32), theme: &'static str) -> View {
    View {
        name,
        width,
        height,
        theme,
    }
}

/// Writes the page and looks at it.
pub(super) fn run(world: &World, folder: &Path) -> Result<Report> {
    let mut report = Report::default();
    let chromium = match &world.chromium {
        Ok(chromium) => chromium,
        Err(why) => {
            report.fail("", why.as_str());
            return Ok(report);
        }
    };
    let page = page::write(&sample::set(), folder)?;
    let mut browser = Browser::start(chromium, folder, LIMIT)?;
    let mut backgrounds = Vec::new();
    for view in &VIEWS {
        let seen = look(&mut browser, view, &page, folder)?;
        backgrounds.push((view.theme, seen.background.clone()));
        report.check(view.name, seen.judge());
    }
    report.check("themes", themes(&backgrounds));
    report.check("print", print(&mut browser, &page, folder)?);
    browser.close();
    // Megabytes of caches that say nothing.
    let _ = std::fs::remove_dir_all(folder.join("profile"));
    Ok(report)
}

/// What was seen of a page.
#[derive(Debug)]
struct Seen {
    background: String,
    /// Sentences.
    wrong: Vec<String>,
}

impl Seen {
    fn judge(self) -> Result<(), String> {
        match self.wrong.len() {
            0 => Ok(()),
            _ => Err(self.wrong.join("\n    ")),
        }
    }
}

/// Opens the page in a view, takes its picture, and looks for what is wrong.
fn look(browser: &mut Browser, view: &View, page: &Path, folder: &Path) -> Result<Seen> {
    let mut tab = browser.tab()?;
    for domain in ["Page", "Runtime", "Log", "Network"] {
        tab.call(&format!("{domain}.enable"), json!({}))?;
    }
    let metrics = json!({"width": view.width, "height": view.height,
        "deviceScaleFactor": 1, "mobile": view.width < 600});
    tab.call("Emulation.setDeviceMetricsOverride", metrics)?;
    tab.call("Emulation.setEmulatedMedia", media("screen", view.theme))?;
    tab.open(page)?;
    picture(&mut tab, view, &folder.join(format!("{}.png", view.name)))?;
    let mut found = tab.value(CHECK)?;
    let mut wrong: Vec<String> =
        serde_json::from_value(found["wrong"].take()).context("the check says nothing")?;
    if found["plots"] != sample::PLOTS {
        wrong.push(format!("{} plots of {}", found["plots"], sample::PLOTS));
    }
    if found["markup"] != 0 {
        wrong.push("it has a script".into());
    }
    wrong.extend(tab.end()?.iter().filter_map(|event| complaint(event, page)));
    let background = found["background"].as_str().unwrap_or_default().to_owned();
    Ok(Seen { background, wrong })
}

fn media(media: &str, theme: &str) -> Value {
    json!({"media": media, "features": [{"name": "prefers-color-scheme", "value": theme}]})
}

/// Takes a picture of the whole page, as it is when it is opened.
fn picture(tab: &mut Tab<'_>, view: &View, path: &Path) -> Result<()> {
    let height = tab.value("document.documentElement.scrollHeight")?;
    let height = height.as_u64().context("the page has no height")?;
    let shot = tab.call(
        "Page.captureScreenshot",
        json!({"format": "png", "captureBeyondViewport": true, "clip": {
            "x": 0, "y": 0, "width": view.width, "height": height.min(HIGHEST), "scale": 1}}),
    )?;
    save(&shot, path)
}

/// Writes what the browser gives as base64.
fn save(answer: &Value, path: &Path) -> Result<()> {
    let data = answer["data"]
        .as_str()
        .context("the browser gives no data")?;
    let data = BASE64_STANDARD.decode(data).context("it is no base64")?;
    std::fs::write(path, data).with_context(|| format!("cannot write {}", path.display()))
}

/// What an event says against the page: a message on the console, or a request for
/// anything but the page itself.
fn complaint(event: &Value, page: &Path) -> Option<String> {
    let params = &event["params"];
    let bad = |level: &Value| {
        ["error", "warning", "assert"]
            .iter()
            .any(|word| level == word)
    };
    match event["method"].as_str()? {
        "Runtime.consoleAPICalled" if bad(&params["type"]) => {
            Some(format!("the console says {}", params["args"]))
        }
        "Runtime.exceptionThrown" => Some(format!("it throws {}", params["exceptionDetails"])),
        "Log.entryAdded" if bad(&params["entry"]["level"]) => {
            Some(format!("the browser logs {}", params["entry"]["text"]))
        }
        "Network.requestWillBeSent" => {
            let asked = params["request"]["url"].as_str().unwrap_or_default();
            (asked != cdp::url(page)).then(|| format!("it asks for {asked}"))
        }
        _ => None,
    }
}

/// The two themes have different backgrounds; each theme has one.
fn themes(backgrounds: &[(&str, String)]) -> Result<(), String> {
    let of = |theme: &str| -> Vec<&str> {
        let mut of: Vec<&str> = backgrounds
            .iter()
            .filter(|(other, _)| *other == theme)
            .map(|(_, background)| background.as_str())
            .collect();
        of.dedup();
        of
    };
    match (of("light").as_slice(), of("dark").as_slice()) {
        ([light], [dark]) if light != dark => Ok(()),
        (light, dark) => Err(format!(
            "the background is {light:?} and in the dark {dark:?}"
        )),
    }
}

/// Printed in a dark theme it is light all the same, and no box hides a part of it.
fn print(browser: &mut Browser, page: &Path, folder: &Path) -> Result<Result<(), String>> {
    const HIDDEN: &str = "[...document.querySelectorAll('.scroll')]
        .filter(box => getComputedStyle(box).overflowX !== 'visible').length";
    const BACKGROUND: &str = "getComputedStyle(document.body).backgroundColor";
    let mut tab = browser.tab()?;
    tab.call("Page.enable", json!({}))?;
    tab.call("Emulation.setEmulatedMedia", media("print", "dark"))?;
    tab.open(page)?;
    let (hidden, background) = (tab.value(HIDDEN)?, tab.value(BACKGROUND)?);
    let printed = tab.call("Page.printToPDF", json!({"printBackground": false}))?;
    save(&printed, &folder.join("print.pdf"))?;
    tab.end()?;
    if hidden == 0 && background == "rgb(255, 255, 255)" {
        return Ok(Ok(()));
    }
    Ok(Err(format!(
        "{hidden} boxes would be cut off; the background is {background}"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_in_the_browser_is_told_from_what_must_not() {
        let page = Path::new("/x/report.html");
        let says = |method: &str, params: Value| {
            complaint(&json!({"method": method, "params": params}), page)
        };
        let request = |url: &str| {
            says(
                "Network.requestWillBeSent",
                json!({"request": {"url": url}}),
            )
        };
        assert_eq!(request("file:///x/report.html"), None);
        assert!(request("file:///x/font.woff").is_some());
        assert!(request("https://example.org/").is_some());
        let console = |kind: &str| says("Runtime.consoleAPICalled", json!({"type": kind}));
        assert_eq!(console("log"), None);
        assert!(console("error").is_some() && console("warning").is_some());
        let log = |level: &str| says("Log.entryAdded", json!({"entry": {"level": level}}));
        assert!(log("error").is_some() && log("verbose").is_none());
        assert!(says("Runtime.exceptionThrown", json!({})).is_some());
        assert_eq!(says("Page.loadEventFired", json!({})), None);
    }

    #[test]
    fn a_theme_that_changes_nothing_is_found() {
        let seen = |light: &str, dark: &str| {
            themes(&[("light", light.to_owned()), ("dark", dark.to_owned())])
        };
        assert_eq!(seen("a", "b"), Ok(()));
        assert!(seen("a", "a").is_err());
        assert!(themes(&[]).is_err());
    }
}
