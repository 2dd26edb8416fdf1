//! Plots as SVG within the page. Colours come from the page's style ([`super::page`]), so
//! that a plot follows the theme; text is text. Each is drawn for a wide and for a narrow
//! screen, and the style shows the one that fits: scaled, its text would be too small.

mod axis;
mod distributions;
mod lines;

use maud::{Markup, html};

use self::axis::Axis;
use super::figures::figure;
use super::wrap;
use crate::experiment::findings::{Column, Plot};

/// How many colours the style has.
pub(super) const COLOURS: usize = 6;
/// The height of a line of text.
const LINE: f64 = 15.0;
/// What a character takes on average, where only their number counts.
const CHARACTER: f64 = 7.4;
/// How much wider bold text is.
const BOLD: f64 = 1.12;

/// For whom a plot is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Screen {
    Wide,
    Narrow,
}

impl Screen {
    fn class(self) -> &'static str {
        match self {
            Self::Wide => "plot wide",
            Self::Narrow => "plot narrow",
        }
    }

    /// In pixels.
    fn width(self) -> f64 {
        match self {
            Self::Wide => 920.0,
            Self::Narrow => 340.0,
        }
    }

    /// About how many ticks a horizontal axis has.
    fn ticks(self) -> f64 {
        match self {
            Self::Wide => 8.0,
            Self::Narrow => 4.0,
        }
    }
}

/// What a plot shows, in words and figures.
pub(super) struct About<'a> {
    pub(super) title: &'a str,
    pub(super) note: &'a str,
    /// What is to be said for those who do not see it.
    pub(super) description: String,
    pub(super) columns: Vec<Column>,
    pub(super) rows: Vec<Vec<String>>,
}

/// The words and figures of a plot.
pub(super) fn about(plot: &Plot) -> About<'_> {
    match plot {
        Plot::Distributions {
            title,
            note,
            axis,
            rows,
            ..
        } => distributions::about(title, note, axis, rows),
        Plot::Lines {
            title,
            note,
            x,
            y,
            lines,
            ..
        } => lines::about(title, note, x, y, lines),
    }
}

/// How many values a plot cannot show, because they are zero or less on a logarithmic axis.
pub(super) fn homeless(plot: &Plot) -> usize {
    match plot {
        Plot::Distributions { log, rows, .. } => distributions::homeless(*log, rows),
        Plot::Lines {
            log_x,
            log_y,
            lines,
            ..
        } => lines::homeless(*log_x, *log_y, lines),
    }
}

/// Draws a plot, in both sizes; `None` where it has nothing that can be drawn. `id` is
/// unique in the page.
pub(super) fn draw(plot: &Plot, id: &str) -> Option<Markup> {
    let wide = drawn(plot, id, Screen::Wide)?;
    let narrow = drawn(plot, id, Screen::Narrow)?;
    Some(html! { (wide) (narrow) })
}

fn drawn(plot: &Plot, id: &str, screen: Screen) -> Option<Markup> {
    let (height, marks) = match plot {
        Plot::Distributions {
            axis, log, rows, ..
        } => distributions::draw(axis, *log, rows, screen)?,
        Plot::Lines {
            x,
            y,
            log_x,
            log_y,
            lines,
            ..
        } => lines::draw((x, *log_x), (y, *log_y), lines, screen)?,
    };
    let about = about(plot);
    let id = match screen {
        Screen::Wide => format!("{id}-wide"),
        Screen::Narrow => format!("{id}-narrow"),
    };
    let (title, description) = (format!("{id}-title"), format!("{id}-description"));
    let width = screen.width();
    Some(html! {
        svg class=(screen.class()) viewBox=(format!("0 0 {width} {height:.0}"))
            width=(width) height=(format!("{height:.0}"))
            role="img" aria-labelledby=(title) aria-describedby=(description) {
            title id=(title) { (about.title) }
            desc id=(description) { (about.description) }
            (marks)
        }
    })
}

/// The width of a text in pixels, in the widest of the fonts that a browser may take
/// (DejaVu Sans): it cannot be known here which.
fn width(text: &str) -> f64 {
    let wide = |character| match character {
        'i' | 'j' | 'l' | 'f' | 't' | 'I' | '|' | '.' | ',' | ':' | ';' | '\'' | ' ' => 4.4,
        '\u{202f}' => 2.6,
        '-' | '/' | '(' | ')' | '[' | ']' | 'r' | 'J' => 5.0,
        'm' | 'M' | 'W' | '%' | '@' | '—' => 12.0,
        'w' | '=' | '+' | '<' | '>' | '&' | '_' | '−' => 10.2,
        'A'..='Z' => 8.8,
        _ => 7.7,
    };
    text.chars().map(wide).sum()
}

/// The same of a figure, which may be bold.
fn figure_width(figure: &str) -> f64 {
    width(figure) * BOLD
}

/// How many characters fit.
fn characters(pixels: f64) -> usize {
    (pixels / CHARACTER).max(1.0) as usize
}

/// A text at a place. `anchor` is SVG's: start, middle or end.
fn text(class: &str, anchor: &str, x: f64, y: f64, words: &str) -> Markup {
    html! {
        text class=(class) text-anchor=(anchor) x=(px(x)) y=(px(y)) { (words) }
    }
}

/// A text in lines from a place down.
fn paragraph(class: &str, x: f64, y: f64, lines: &[String]) -> Markup {
    html! {
        @for (n, line) in lines.iter().enumerate() {
            (text(class, "start", x, y + n as f64 * LINE, line))
        }
    }
}

fn segment(class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) -> Markup {
    html! { line class=(class) x1=(px(x1)) y1=(px(y1)) x2=(px(x2)) y2=(px(y2)) {} }
}

/// A coordinate: a tenth of a pixel is fine enough.
fn px(value: f64) -> String {
    format!("{value:.1}")
}

/// The ticks and names of a horizontal axis at `y`, and its grid up to `top`. Ticks whose
/// figure has no room go without.
fn horizontal(axis: &Axis, name: &str, top: f64, y: f64, screen: Screen) -> Markup {
    let width = screen.width();
    let mut free = 0.0;
    let mut parts = Vec::new();
    for value in axis.ticks() {
        let Some(x) = axis.at(value) else { continue };
        let words = figure(value);
        let half = figure_width(&words) / 2.0;
        let middle = x.clamp(half, width - half);
        let labelled = middle - half >= free;
        if labelled {
            free = middle + half + 6.0;
        }
        parts.push(html! {
            (segment("grid", (x, top), (x, y)))
            @if labelled { (text("tick", "middle", middle, y + LINE, &words)) }
        });
    }
    let names = wrap::lines(name, characters(width));
    html! {
        @for part in parts { (part) }
        (paragraph("axis", 0.0, y + 2.2 * LINE, &names))
    }
}

/// The height of what [`horizontal`] draws below the plot.
fn below(name: &str, screen: Screen) -> f64 {
    let names = wrap::lines(name, characters(screen.width())).len();
    (1.7 + names as f64) * LINE
}
