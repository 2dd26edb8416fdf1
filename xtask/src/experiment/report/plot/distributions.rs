//! Distributions, one a row on a common axis.

use maud::{Markup, html};

use super::{
    About, Axis, COLOURS, LINE, Screen, characters, figure, figure_width, horizontal, px, segment,
    text, width,
};
use crate::experiment::findings::{Column, Distribution};
use crate::experiment::report::wrap;

/// Half the height of a bar.
const HALF: f64 = 6.0;
/// The height that the marks of a row take.
const MARKS: f64 = 30.0;
/// The part of a wide screen that names may take beside their rows.
const BESIDE: f64 = 0.36;

/// In words and figures.
pub(super) fn about<'a>(
    title: &'a str,
    note: &'a str,
    axis: &str,
    rows: &[Distribution],
) -> About<'a> {
    let columns = ["min", "p50", "p90", "p99"].map(Column::figures);
    let mut columns = [vec![Column::words("what")], columns.to_vec()].concat();
    let grouped = groups(rows).len() > 1;
    if grouped {
        columns.insert(0, Column::words("group"));
    }
    columns.push(Column::words("median of each boot"));
    let described = rows.iter().map(|row| {
        let name = named(row, grouped);
        format!("{name}: median {}", figure(row.p50))
    });
    let described: Vec<String> = described.collect();
    let table = rows.iter().map(|row| {
        let group = grouped.then(|| row.group.clone());
        let figures = [row.min, row.p50, row.p90, row.p99].map(figure);
        let boots: Vec<String> = row.boots.iter().copied().map(figure).collect();
        let cells = group.into_iter().chain([row.name.clone()]).chain(figures);
        cells.chain([boots.join(", ")]).collect()
    });
    About {
        title,
        note,
        description: format!("Distributions of {axis}. {}.", described.join("; ")),
        columns,
        rows: table.collect(),
    }
}

fn named(row: &Distribution, grouped: bool) -> String {
    match grouped {
        true => format!("{}, {}", row.group, row.name),
        false => row.name.clone(),
    }
}

/// The groups, in the order in which they come.
fn groups(rows: &[Distribution]) -> Vec<&str> {
    let mut groups: Vec<&str> = Vec::new();
    for row in rows {
        if !groups.contains(&row.group.as_str()) {
            groups.push(&row.group);
        }
    }
    groups
}

fn values(rows: &[Distribution]) -> impl Iterator<Item = f64> {
    rows.iter().flat_map(|row| {
        let own = [row.min, row.p50, row.p90, row.p99];
        own.into_iter().chain(row.boots.iter().copied())
    })
}

/// How many values have no place on a logarithmic axis.
pub(super) fn homeless(log: bool, rows: &[Distribution]) -> usize {
    values(rows).filter(|value| log && *value <= 0.0).count()
}

/// Height and marks.
pub(super) fn draw(
    name: &str,
    log: bool,
    rows: &[Distribution],
    screen: Screen,
) -> Option<(f64, Markup)> {
    let full = screen.width();
    let longest = rows.iter().map(|row| width(&row.name)).fold(0.0, f64::max);
    let beside = screen == Screen::Wide && longest <= full * BESIDE;
    let medians = rows.iter().map(|row| figure_width(&figure(row.p50)));
    let right = full - medians.fold(0.0, f64::max) - 10.0;
    let left = if beside { longest + 10.0 } else { 8.0 };
    let end = if beside { right } else { full - 10.0 };
    let axis = Axis::new(values(rows), log, (left, end), screen.ticks())?;
    let groups = groups(rows);
    let mut y = key_height();
    let mut parts = Vec::new();
    for (n, group) in groups.iter().enumerate() {
        let colour = format!("c{}", n % COLOURS);
        if groups.len() > 1 {
            y += LINE + 8.0;
            parts.push(html! {
                rect class=(format!("swatch {colour}"))
                    x="0" y=(px(y - 10.0)) width="10" height="10" {}
                (text("group", "start", 16.0, y, &wrap::cut(group, characters(full - 16.0))))
            });
            y += 4.0;
        }
        for row in rows.iter().filter(|row| row.group == *group) {
            let median = figure(row.p50);
            if beside {
                parts.push(html! {
                    (text("name", "end", left - 10.0, y + MARKS / 2.0 + 4.0, &row.name))
                    (text("value", "end", full, y + MARKS / 2.0 + 4.0, &median))
                });
            } else {
                let names = wrap::lines(&row.name, characters(right - 4.0));
                y += LINE;
                parts.push(html! {
                    (text("value", "end", full, y, &median))
                    (super::paragraph("name", 0.0, y, &names))
                });
                y += (names.len() - 1) as f64 * LINE;
            }
            parts.push(marks(row, &axis, y + MARKS / 2.0, &colour));
            y += MARKS + if beside { 0.0 } else { 5.0 };
        }
    }
    let height = y + super::below(name, screen);
    let markup = html! {
        (key())
        (horizontal(&axis, name, key_height(), y, screen))
        @for part in parts { (part) }
    };
    Some((height, markup))
}

/// The marks of a row around `y`. What is not on the axis is not drawn.
fn marks(row: &Distribution, axis: &Axis, y: f64, colour: &str) -> Markup {
    let places = [row.min, row.p50, row.p90, row.p99].map(|value| axis.at(value));
    let boots: Vec<f64> = row.boots.iter().filter_map(|boot| axis.at(*boot)).collect();
    let Distribution { name, .. } = row;
    let [min, p50, p90, p99] = [row.min, row.p50, row.p90, row.p99].map(figure);
    html! {
        g class=(format!("mark {colour}")) {
            title { (name) ": min " (min) ", median " (p50) ", p90 " (p90) ", p99 " (p99) }
            (glyph(places, &boots, y))
        }
    }
}

/// A line from the minimum to p99, a bar from the median to p90, and a dot a boot below.
fn glyph(places: [Option<f64>; 4], boots: &[f64], y: f64) -> Markup {
    let [min, p50, p90, p99] = places;
    let from = min.or(p50).or(p90);
    html! {
        @if let (Some(from), Some(to)) = (from, p99) {
            (segment("whisker", (from, y), (to, y)))
            (segment("whisker", (to, y - 4.0), (to, y + 4.0)))
        }
        @if let Some(min) = min { (segment("whisker", (min, y - 4.0), (min, y + 4.0))) }
        @if let (Some(p50), Some(p90)) = (p50, p90) {
            rect class="bar" x=(px(p50)) y=(px(y - HALF))
                width=(px((p90 - p50).max(1.0))) height=(px(2.0 * HALF)) {}
        }
        @if let Some(p50) = p50 { (segment("median", (p50, y - HALF - 2.0), (p50, y + HALF + 2.0))) }
        @for x in boots { circle class="boot" cx=(px(*x)) cy=(px(y + HALF + 5.0)) r="2.5" {} }
    }
}

fn key_height() -> f64 {
    2.0 * LINE + 12.0
}

/// How the marks are to be read.
fn key() -> Markup {
    let [min, p50, p90, p99] = [14.0, 64.0, 108.0, 150.0];
    let (y, below) = (14.0, 14.0 + HALF + LINE + 2.0);
    let boot = 190.0;
    html! {
        g class="key" aria-hidden="true" {
            (glyph([min, p50, p90, p99].map(Some), &[], y))
            (text("tick", "middle", min, below, "min"))
            (text("tick", "middle", p50, below, "median"))
            (text("tick", "middle", p90, below, "p90"))
            (text("tick", "middle", p99, below, "p99"))
            circle class="boot" cx=(px(boot)) cy=(px(y)) r="2.5" {}
            (text("tick", "start", boot + 8.0, y + 4.0, "median of one boot"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(group: &str, p50: f64) -> Distribution {
        Distribution {
            name: format!("row of {p50}"),
            group: group.into(),
            min: p50 / 2.0,
            p50,
            p90: 2.0 * p50,
            p99: 4.0 * p50,
            boots: vec![p50, p50 + 1.0],
        }
    }

    #[test]
    fn each_row_has_its_marks_and_each_group_its_colour() {
        let rows = [row("a", 10.0), row("b", 20.0), row("a", 30.0)];
        for screen in [Screen::Wide, Screen::Narrow] {
            let (_, markup) = draw("cycles", false, &rows, screen).unwrap();
            let text = markup.into_string();
            assert_eq!(text.matches("class=\"mark c0\"").count(), 2);
            assert_eq!(text.matches("class=\"mark c1\"").count(), 1);
            assert_eq!(text.matches("class=\"group\"").count(), 2);
            // A row's two boots, and the key's one.
            assert_eq!(text.matches("class=\"boot\"").count(), 3 * 2 + 1);
            assert!(text.contains("row of 20: min 10, median 20, p90 40, p99 80"));
        }
        let (_, markup) = draw("cycles", false, &rows[..1], Screen::Wide).unwrap();
        assert!(!markup.into_string().contains("class=\"group\""));
    }

    #[test]
    fn nothing_to_draw_is_no_plot_and_what_has_no_place_is_counted() {
        assert!(draw("cycles", false, &[], Screen::Wide).is_none());
        let rows = [row("", -1.0)];
        assert!(draw("cycles", true, &rows, Screen::Wide).is_none());
        // Its last boot is at 0.
        assert_eq!((homeless(true, &rows), homeless(false, &rows)), (6, 0));
        assert!(draw("cycles", false, &rows, Screen::Wide).is_some());
    }
}
