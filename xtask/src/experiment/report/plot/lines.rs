//! Values against a number: a line a series, each with a colour, a mark and a dash of its
//! own.

use maud::{Markup, html};

use super::{
    About, Axis, COLOURS, LINE, Screen, characters, figure, figure_width, horizontal, segment,
    text, width,
};
use crate::experiment::findings::{Column, Line};
use crate::experiment::report::wrap;

/// The height of the plot itself.
const HEIGHT: f64 = 280.0;
/// How many ticks the vertical axis has, about.
const TICKS: f64 = 6.0;
/// The part of a wide screen that names at the ends of the lines may take.
const ENDS: f64 = 0.3;
/// Lines with more points than these have a mark only at their ends.
const MARKED: usize = 60;
/// More lines than these are named by the legend alone.
const NAMED: usize = 16;
/// What a mark and its line take in the legend.
const SAMPLE: f64 = 36.0;

/// From lines that hide what is below to lines that hide the least.
const DASHES: [&str; 8] = [
    "none", "14 4", "9 5", "10 3 2 3", "6 6", "2 4", "3 9", "1 7",
];

/// In words and figures.
pub(super) fn about<'a>(
    title: &'a str,
    note: &'a str,
    x: &str,
    y: &str,
    lines: &[Line],
) -> About<'a> {
    let described = lines.iter().filter_map(|line| {
        let (first, last) = (line.points.first()?, line.points.last()?);
        let [x0, y0, x1, y1] = [first.0, first.1, last.0, last.1].map(figure);
        Some(format!("{}: from {y0} at {x0} to {y1} at {x1}", line.name))
    });
    let described: Vec<String> = described.collect();
    let rows = lines.iter().flat_map(|line| {
        let points = line.points.iter();
        points.map(|(x, y)| vec![line.name.clone(), figure(*x), figure(*y)])
    });
    About {
        title,
        note,
        description: format!("{y} against {x}. {}.", described.join("; ")),
        columns: vec![
            Column::words("line"),
            Column::figures(x),
            Column::figures(y),
        ],
        rows: rows.collect(),
    }
}

/// How many values have no place on a logarithmic axis.
pub(super) fn homeless(log_x: bool, log_y: bool, lines: &[Line]) -> usize {
    let points = lines.iter().flat_map(|line| &line.points);
    let homeless = points.filter(|(x, y)| (log_x && *x <= 0.0) || (log_y && *y <= 0.0));
    homeless.count()
}

/// Height and marks. An axis is its name, and whether it is logarithmic.
pub(super) fn draw(
    (x_name, log_x): (&str, bool),
    (y_name, log_y): (&str, bool),
    lines: &[Line],
    screen: Screen,
) -> Option<(f64, Markup)> {
    let full = screen.width();
    // A point that one axis does not have does not stretch the other.
    let points = || {
        let all = lines.iter().flat_map(|line| line.points.iter().copied());
        all.filter(|(x, y)| (!log_x || *x > 0.0) && (!log_y || *y > 0.0))
    };
    let ends = screen == Screen::Wide && lines.len() <= NAMED;
    let legend = Legend::new(lines, full);
    let names = wrap::lines(y_name, characters(full));
    let top = legend.height + (names.len() as f64 + 0.6) * LINE;
    let bottom = top + HEIGHT;
    let y = Axis::new(points().map(|(_, y)| y), log_y, (bottom, top), TICKS)?;
    let labels = y.ticks().into_iter().map(|tick| (tick, figure(tick)));
    let labels: Vec<(f64, String)> = labels.collect();
    let left = labels
        .iter()
        .map(|(_, label)| figure_width(label))
        .fold(0.0, f64::max);
    let left = left + 8.0;
    let longest = lines
        .iter()
        .map(|line| width(&line.name))
        .fold(0.0, f64::max);
    let right = match ends {
        true => full - longest.min(full * ENDS) - 22.0,
        false => full - 10.0,
    };
    let x = Axis::new(
        points().map(|(x, _)| x),
        log_x,
        (left, right),
        screen.ticks(),
    )?;
    let markup = html! {
        (legend.markup)
        (super::paragraph("axis", 0.0, legend.height + LINE - 3.0, &names))
        (horizontal(&x, x_name, top, bottom, screen))
        @for (tick, label) in &labels {
            @if let Some(at) = y.at(*tick) {
                (segment("grid", (left, at), (right, at)))
                (text("tick", "end", left - 6.0, at + 4.0, label))
            }
        }
        @for n in order(lines.len()) { (series(n, &lines[n], &x, &y)) }
        @if ends { (at_ends(lines, &x, &y, right, (top, bottom))) }
    };
    Some((bottom + super::below(x_name, screen), markup))
}

/// Whole lines before dashed ones: where they lie on each other, all are seen.
fn order(count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by_key(|n| n % DASHES.len());
    order
}

/// A line and its marks; where a point is not on the axes, it has a gap.
fn series(n: usize, line: &Line, x: &Axis, y: &Axis) -> Markup {
    let mut path = String::new();
    let mut pen_down = false;
    let mut marks = Vec::new();
    let last = line.points.len().saturating_sub(1);
    for (at, point) in line.points.iter().enumerate() {
        let (Some(px), Some(py)) = (x.at(point.0), y.at(point.1)) else {
            pen_down = false;
            continue;
        };
        path += &format!("{}{px:.1} {py:.1}", if pen_down { "L" } else { "M" });
        pen_down = true;
        if line.points.len() <= MARKED || at == 0 || at == last {
            let words = format!("{}: {} at {}", line.name, figure(point.1), figure(point.0));
            marks.push((mark(n, px, py), words));
        }
    }
    html! {
        @if !marks.is_empty() {
            g class=(format!("mark c{}", n % COLOURS)) {
                path class="line" d=(path) stroke-dasharray=(dash(n)) {}
                @for (mark, words) in marks { path class="point" d=(mark) { title { (words) } } }
            }
        }
    }
}

/// The names beside the lines' ends, moved apart where they would lie on each other.
fn at_ends(lines: &[Line], x: &Axis, y: &Axis, right: f64, (top, bottom): (f64, f64)) -> Markup {
    let mut ends: Vec<(usize, f64, f64)> = Vec::new();
    for (n, line) in lines.iter().enumerate() {
        let mut points = line.points.iter().rev();
        let end = points.find_map(|point| Some((x.at(point.0)?, y.at(point.1)?)));
        ends.extend(end.map(|(x, y)| (n, x, y)));
    }
    ends.sort_by(|a, b| a.2.total_cmp(&b.2));
    let wanted: Vec<f64> = ends.iter().map(|(_, _, y)| *y).collect();
    let places = spread(&wanted, LINE, (top + 4.0, bottom));
    let room = characters(full_of(right));
    html! {
        @for ((n, x, y), place) in ends.iter().zip(places) {
            g class=(format!("c{}", n % COLOURS)) {
                (segment("leader", (*x + 6.0, *y), (right + 4.0, place)))
                path class="point" d=(mark(*n, right + 8.0, place)) {}
            }
            (text("name", "start", right + 16.0, place + 4.0, &wrap::cut(&lines[*n].name, room)))
        }
    }
}

/// What is left of a wide screen for a name.
fn full_of(right: f64) -> f64 {
    Screen::Wide.width() - right - 16.0
}

/// Places near those wanted, which rise, but at least `apart` from each other and, where
/// there is room for all, between the ends.
fn spread(wanted: &[f64], apart: f64, (low, high): (f64, f64)) -> Vec<f64> {
    let mut places: Vec<f64> = Vec::new();
    for at in wanted {
        let least = places.last().map_or(low, |last| last + apart);
        places.push(at.max(least));
    }
    let mut most = high;
    for place in places.iter_mut().rev() {
        *place = place.min(most);
        most = *place - apart;
    }
    places
}

/// The legend: in rows, as many names in each as there is room for.
struct Legend {
    height: f64,
    markup: Markup,
}

impl Legend {
    fn new(lines: &[Line], full: f64) -> Self {
        let (mut x, mut y) = (0.0, LINE);
        let mut places = Vec::new();
        for line in lines {
            let name = wrap::lines(&line.name, characters(full - SAMPLE));
            let longest = name.iter().map(|line| width(line)).fold(0.0, f64::max);
            let wide = SAMPLE + longest + 14.0;
            if x > 0.0 && (x + wide > full || name.len() > 1) {
                (x, y) = (0.0, y + LINE + 3.0);
            }
            places.push((x, y));
            x += wide;
            if name.len() > 1 {
                (x, y) = (full, y + (name.len() - 1) as f64 * LINE);
            }
        }
        let markup = html! {
            @for (n, (line, (x, y))) in lines.iter().zip(places).enumerate() {
                g class=(format!("key c{}", n % COLOURS)) {
                    path class="line" stroke-dasharray=(dash(n))
                        d=(format!("M{:.1} {:.1}h28", x, y - 4.0)) {}
                    path class="point" d=(mark(n, x + 14.0, y - 4.0)) {}
                    (super::paragraph("name", x + SAMPLE, y,
                        &wrap::lines(&line.name, characters(full - SAMPLE))))
                }
            }
        };
        let height = y + 10.0;
        Self { height, markup }
    }
}

/// The dashes of line n. With the marks they tell lines of one colour apart.
fn dash(n: usize) -> &'static str {
    DASHES[n % DASHES.len()]
}

/// The mark of line n around a point.
fn mark(n: usize, x: f64, y: f64) -> String {
    let shape = match n % 7 {
        0 => "m-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0 -7 0z",
        1 => "m-3.5 -3.5h7v7h-7z",
        2 => "m0 -4.5l4.5 8h-9z",
        3 => "m0 -5l5 5l-5 5l-5 -5z",
        4 => "m0 4.5l4.5 -8h-9z",
        5 => "m-4 -1.2h2.8v-2.8h2.4v2.8h2.8v2.4h-2.8v2.8h-2.4v-2.8h-2.8z",
        _ => "m-4.5 -2h9v4h-9z",
    };
    format!("M{x:.1} {y:.1}{shape}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_moved_apart_and_stay_between_the_ends() {
        let places = spread(&[100.0, 101.0, 102.0, 290.0], 15.0, (0.0, 300.0));
        assert_eq!(places, [100.0, 115.0, 130.0, 290.0]);
        let places = spread(&[295.0, 296.0, 297.0], 15.0, (0.0, 300.0));
        assert_eq!(places, [270.0, 285.0, 300.0]);
        assert_eq!(spread(&[-5.0], 15.0, (0.0, 300.0)), [0.0]);
    }

    #[test]
    fn forty_eight_lines_look_different() {
        let mut looks: Vec<(usize, &str, String)> = (0..48)
            .map(|n| (n % COLOURS, dash(n), mark(n, 0.0, 0.0)))
            .collect();
        looks.sort();
        looks.dedup();
        assert_eq!(looks.len(), 48);
    }

    #[test]
    fn a_point_that_an_axis_lacks_is_a_gap() {
        let line = Line {
            name: "x".into(),
            points: vec![(1.0, 1.0), (2.0, 10.0), (3.0, 0.0), (4.0, 5.0)],
        };
        let lines = [line];
        let (_, markup) = draw(("n", false), ("y", true), &lines, Screen::Narrow).unwrap();
        let text = markup.into_string();
        let path = text.rsplit("class=\"line\"").next().unwrap();
        let path = path.split("d=\"").nth(1).unwrap();
        let path = path.split('"').next().unwrap();
        assert_eq!(path.matches('M').count(), 2, "{path}");
        assert_eq!(text.matches("<title>").count(), 3);
        assert!(draw(("n", true), ("y", true), &[], Screen::Wide).is_none());
    }
}
