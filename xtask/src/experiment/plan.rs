//! From an experiment's file to its cells: one for each combination of the axes' values,
//! with the machine that it needs. A placeholder `{axis}` stands for the value's name, and
//! `{axis.part}` for a part of it.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::{Spanned, Value};

use super::real;
use super::schema::{File, Mistake, Subject, mistake};
use super::topology::{self, Devices, PLACEMENTS, Placement};
use crate::qemu::devices::{Doorbells, Network};
use crate::qemu::{Accelerator, Firmware, Machine, Options};

/// The most cells of an experiment.
const MOST_CELLS: usize = 2000;
/// The most devices of a cell.
const MOST_DEVICES: usize = 1000;

/// Axes that mean something by themselves.
const OWN: [&str; 4] = ["machine", "firmware", "accelerator", "guest"];

/// A value's name on each axis.
pub(crate) type Labels = BTreeMap<String, String>;

/// An experiment, ready to run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The file's name, without its extension.
    pub(crate) name: String,
    /// What the file says.
    pub(crate) file: File,
    /// The file itself.
    pub(crate) text: String,
    /// The axes, in the file's order.
    pub(crate) axes: Vec<String>,
    pub(crate) cells: Vec<Cell>,
    /// Combinations that the file leaves out, and why.
    pub(crate) excluded: Vec<(Labels, String)>,
}

/// One combination.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    pub(crate) labels: Labels,
    /// The labels in the order of the axes, as a name for a folder.
    pub(crate) name: String,
    pub(crate) options: Options,
    /// Models and properties that QEMU must have, `model,property=value`.
    pub(crate) devices: Vec<Devices>,
    /// What the guest does.
    pub(crate) commands: String,
    /// The devices as libvirt has them.
    pub(crate) libvirt: Option<String>,
}

/// A value of an axis: its name, and its parts.
#[derive(Clone, Debug)]
struct Named {
    name: String,
    parts: BTreeMap<String, String>,
}

impl Plan {
    /// Works a file out.
    ///
    /// # Errors
    /// A [`Mistake`] that names what makes no sense.
    pub(crate) fn new(name: &str, file: File, text: String) -> Result<Self, Mistake> {
        let axes = axes(&file.axes, &text)?;
        let count = axes
            .iter()
            .try_fold(1usize, |all, (_, values)| all.checked_mul(values.len()));
        if count.is_none_or(|count| count > MOST_CELLS) {
            let what = format!("the axes have more than {MOST_CELLS} combinations");
            return Err(whole(what));
        }
        for (axis, known) in [
            ("machine", "q35, pc or microvm"),
            ("accelerator", "tcg or kvm"),
        ] {
            let values = axes.iter().filter(|(name, _)| name == axis);
            let mut values = values.flat_map(|(_, values)| values);
            let odd = values.find(|value| !known.split([',', ' ']).any(|one| one == value.name));
            if let Some(odd) = odd {
                let what = format!("`{axis}` is `{}`, and must be {known}", odd.name);
                return Err(mistake(&text, place_of(&text, axis), what));
            }
        }
        for exclusion in &file.excluded {
            check_exclusion(exclusion, &axes, &text)?;
        }
        let (mut cells, mut excluded) = (Vec::new(), Vec::new());
        for combination in combinations(&axes) {
            let labels: Labels = combination
                .iter()
                .map(|(axis, value)| ((*axis).to_owned(), value.name.clone()))
                .collect();
            match file
                .excluded
                .iter()
                .find(|rule| matches(rule.get_ref(), &labels))
            {
                Some(rule) => {
                    let reason = rule.get_ref()["reason"].as_str().unwrap_or_default();
                    excluded.push((labels, reason.to_owned()));
                }
                None => cells.push(cell(&file, &text, &combination, labels)?),
            }
        }
        for (axis, _) in &axes {
            let used = [format!("{{{axis}}}"), format!("{{{axis}.")];
            if !OWN.contains(&axis.as_str()) && !used.iter().any(|used| text.contains(used)) {
                let what =
                    format!("the axis `{axis}` changes nothing: no `{{{axis}}}` stands anywhere");
                return Err(mistake(&text, place_of(&text, axis), what));
            }
        }
        if cells.is_empty() {
            return Err(whole("every combination is excluded"));
        }
        Ok(Self {
            name: name.to_owned(),
            axes: axes.into_iter().map(|(axis, _)| axis).collect(),
            file,
            text,
            cells,
            excluded,
        })
    }
}

fn whole(what: impl Into<String>) -> Mistake {
    mistake("", 0..0, what)
}

/// Where a key stands in the text, for errors about values that have no place of their own.
fn place_of(text: &str, key: &str) -> Range<usize> {
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let rest = line.trim_start().strip_prefix(key).map(str::trim_start);
        if rest.is_some_and(|rest| rest.starts_with('=')) {
            return at..at + 1;
        }
        at += line.len();
    }
    0..0
}

fn axes(table: &toml::Table, text: &str) -> Result<Vec<(String, Vec<Named>)>, Mistake> {
    let mut axes = Vec::new();
    for (axis, values) in table {
        let wrong = |what: String| mistake(text, place_of(text, axis), what);
        let values = values.as_array().filter(|values| !values.is_empty());
        let values = values.ok_or_else(|| {
            wrong(format!(
                "the axis `{axis}` must be a list of one value or more"
            ))
        })?;
        let named: Result<Vec<_>, _> = values.iter().map(|value| value_of(axis, value)).collect();
        let named = named.map_err(wrong)?;
        for (n, value) in named.iter().enumerate() {
            if named[..n].iter().any(|other| other.name == value.name) {
                return Err(wrong(format!(
                    "the axis `{axis}` has `{}` twice",
                    value.name
                )));
            }
        }
        axes.push((axis.clone(), named));
    }
    if !axes.iter().any(|(axis, _)| axis == "machine") {
        return Err(whole("the axes must have a `machine`: q35, pc or microvm"));
    }
    Ok(axes)
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        _ => None,
    }
}

fn value_of(axis: &str, value: &Value) -> Result<Named, String> {
    if let Some(name) = scalar(value) {
        let parts = BTreeMap::new();
        return Ok(Named { name, parts });
    }
    let wanted =
        || format!("a value of the axis `{axis}` is text, a number, or a table with a `name`");
    let table = value.as_table().ok_or_else(wanted)?;
    let mut parts = BTreeMap::new();
    for (key, part) in table {
        parts.insert(key.clone(), scalar(part).ok_or_else(wanted)?);
    }
    let name = parts.remove("name").ok_or_else(wanted)?;
    Ok(Named { name, parts })
}

/// Every combination, the last axis fastest.
fn combinations(axes: &[(String, Vec<Named>)]) -> Vec<Vec<(&str, &Named)>> {
    let mut all = vec![Vec::new()];
    for (axis, values) in axes {
        all = all
            .iter()
            .flat_map(|before| {
                values.iter().map(|value| {
                    let mut longer: Vec<(&str, &Named)> = before.clone();
                    longer.push((axis, value));
                    longer
                })
            })
            .collect();
    }
    all
}

fn check_exclusion(
    rule: &Spanned<toml::Table>,
    axes: &[(String, Vec<Named>)],
    text: &str,
) -> Result<(), Mistake> {
    let wrong = |what: String| mistake(text, rule.span(), what);
    if !rule.get_ref().get("reason").is_some_and(Value::is_str) {
        return Err(wrong("`exclude` needs a `reason`".into()));
    }
    for (axis, wanted) in rule.get_ref() {
        if axis == "reason" {
            continue;
        }
        let Some((_, values)) = axes.iter().find(|(known, _)| known == axis) else {
            return Err(wrong(format!(
                "`exclude` names no axis `{axis}`: there is none"
            )));
        };
        for name in names(wanted) {
            let known = |value: &Named| Some(&value.name) == name.as_ref();
            if !values.iter().any(known) {
                let name = name.unwrap_or_else(|| wanted.to_string());
                return Err(wrong(format!("the axis `{axis}` has no value `{name}`")));
            }
        }
    }
    Ok(())
}

/// A value, or each of a list.
fn names(value: &Value) -> Vec<Option<String>> {
    match value {
        Value::Array(values) => values.iter().map(scalar).collect(),
        value => vec![scalar(value)],
    }
}

fn matches(rule: &toml::Table, labels: &Labels) -> bool {
    rule.iter()
        .filter(|(axis, _)| *axis != "reason")
        .all(|(axis, wanted)| names(wanted).contains(&labels.get(axis).cloned()))
}

/// Puts values in the places of their placeholders.
fn fill(text: &str, of: &Spanned<String>, values: &[(&str, &Named)]) -> Result<String, Mistake> {
    let mut filled = String::new();
    let mut rest = of.get_ref().as_str();
    while let Some((before, after)) = rest.split_once('{') {
        let wrong = |what: String| mistake(text, of.span(), what);
        let (key, behind) = after
            .split_once('}')
            .ok_or_else(|| wrong(format!("`{}`: a `{{` without its `}}`", of.get_ref())))?;
        let (axis, part) = match key.split_once('.') {
            Some((axis, part)) => (axis, Some(part)),
            None => (key, None),
        };
        let named = values.iter().find(|(known, _)| *known == axis);
        let known: Vec<&str> = values.iter().map(|(axis, _)| *axis).collect();
        let (_, named) = named.ok_or_else(|| {
            let known = known.join(", ");
            wrong(format!(
                "`{{{key}}}`: there is no such axis; there are: {known}"
            ))
        })?;
        let value = match part {
            None => &named.name,
            Some(part) => named.parts.get(part).ok_or_else(|| {
                wrong(format!(
                    "`{{{key}}}`: the value `{}` of the axis `{axis}` has no part `{part}`",
                    named.name
                ))
            })?,
        };
        filled.push_str(before);
        filled.push_str(value);
        rest = behind;
    }
    filled.push_str(rest);
    Ok(filled)
}

fn cell(
    file: &File,
    text: &str,
    values: &[(&str, &Named)],
    labels: Labels,
) -> Result<Cell, Mistake> {
    let label = |axis: &str, default: &str| {
        let label = labels.get(axis).map_or(default, String::as_str);
        (label.to_owned(), place_of(text, axis))
    };
    let unknown = |axis: &str, (value, at): (String, Range<usize>), known: &str| {
        mistake(
            text,
            at,
            format!("`{axis}` is `{value}`, and must be {known}"),
        )
    };
    let machine = match label("machine", "") {
        (name, _) if name == "q35" => Machine::Q35,
        (name, _) if name == "pc" => Machine::Pc,
        (name, _) if name == "microvm" => Machine::Microvm,
        other => return Err(unknown("machine", other, "q35, pc or microvm")),
    };
    if file.subject == Subject::RealGuest {
        let guest = label("guest", "");
        if !real::names().contains(&guest.0.as_str()) {
            return Err(unknown("guest", guest, &real::names().join(", ")));
        }
    }
    let firmware = match label("firmware", "qboot") {
        (name, _) if name == "qboot" => Firmware::Qboot,
        (name, _) if name == "seabios" => Firmware::Seabios,
        // A real guest brings its own.
        _ if file.subject == Subject::RealGuest => Firmware::Seabios,
        other => return Err(unknown("firmware", other, "qboot or seabios")),
    };
    let accelerator = match label("accelerator", "tcg") {
        (name, _) if name == "tcg" => Accelerator::Tcg,
        (name, _) if name == "kvm" => Accelerator::Kvm,
        other => return Err(unknown("accelerator", other, "tcg or kvm")),
    };
    let mut devices = Vec::new();
    for device in &file.devices {
        let wrong = |at: Range<usize>, what: String| mistake(text, at, what);
        let count = fill(text, &device.count, values)?;
        let number = count.parse().ok().filter(|count| *count <= MOST_DEVICES);
        let number = number.ok_or_else(|| {
            let what = format!("`count` is `{count}`, and must be from 0 to {MOST_DEVICES}");
            wrong(device.count.span(), what)
        })?;
        let placement = fill(text, &device.placement, values)?;
        let place = Placement::parse(&placement).ok_or_else(|| {
            let known = PLACEMENTS.map(|(name, _)| name).join(", ");
            let what = format!("`placement` is `{placement}`, and must be one of: {known}");
            wrong(device.placement.span(), what)
        })?;
        devices.push(Devices {
            qemu: fill(text, &device.qemu, values)?,
            placement: place,
            count: number,
        });
    }
    let mut extra = Vec::new();
    for argument in &file.arguments {
        extra.extend(Some(fill(text, argument, values)?).filter(|filled| !filled.is_empty()));
    }
    let placed = topology::arguments(machine, &devices).map_err(|error| {
        let at = labels.values().cloned().collect::<Vec<_>>().join(", ");
        whole(format!(
            "{at}: {error}; leave the combination out by [[exclude]]"
        ))
    })?;
    extra.extend(placed);
    let name: Vec<String> = values.iter().map(|(_, value)| plain(&value.name)).collect();
    Ok(Cell {
        name: name.join("_"),
        labels,
        options: Options {
            machine,
            firmware,
            accelerator,
            memory: *file.memory.get_ref() as u32,
            groups: Vec::new(),
            doorbells: Doorbells::Eventfd,
            network: Network::Closed,
            mmio_version: 2,
            packed: false,
            extra,
        },
        devices,
        commands: fill(text, &file.commands, values)?,
        libvirt: match &file.libvirt {
            Some(devices) => Some(fill(text, devices, values)?),
            None => None,
        },
    })
}

/// A label as part of a folder's name.
fn plain(label: &str) -> String {
    let keep = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    label.replace(|c| !keep(c), "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
title = "t"
claim = "c"
false-if = "f"
takes = "1 min"
boots = 3
commands = "doorbell rounds={rounds}"
arguments = ["{fd.more}"]

[axes]
machine = ["q35", "pc"]
rounds = [5, 50]
fd = [
  { name = "on", more = "", property = "ioeventfd=on" },
  { name = "off", more = "-S", property = "ioeventfd=off" },
]

[[device]]
qemu = "virtio-rng-pci,{fd.property}"
count = "{rounds}"

[[exclude]]
machine = "pc"
fd = ["off"]
reason = "not wanted"
"#;

    fn plan(text: &str) -> Result<Plan, Mistake> {
        Plan::new("x", File::parse(text)?, text.to_owned())
    }

    #[test]
    fn cells_are_all_combinations_that_are_not_excluded() {
        let plan = plan(TEXT).unwrap();
        assert_eq!(plan.axes, ["machine", "rounds", "fd"]);
        let names: Vec<_> = plan.cells.iter().map(|cell| cell.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "q35_5_on",
                "q35_5_off",
                "q35_50_on",
                "q35_50_off",
                "pc_5_on",
                "pc_50_on"
            ]
        );
        assert_eq!(plan.excluded.len(), 2);
        assert_eq!(plan.excluded[0].1, "not wanted");
        let cell = &plan.cells[1];
        assert_eq!(cell.commands, "doorbell rounds=5");
        assert_eq!(cell.devices[0].count, 5);
        let extra = cell.options.extra.join(" ");
        assert!(
            extra.starts_with("-S -device virtio-rng-pci,ioeventfd=off,id=device0,bus=pcie.0"),
            "{extra}"
        );
        assert!(plan.cells[0].options.extra[0] == "-device");
        assert_eq!(cell.libvirt, None);
        let both = TEXT.replacen("boots", "libvirt = \"<rng n='{rounds}'/>\"\nboots", 1);
        let plan = self::plan(&both).unwrap();
        assert_eq!(plan.cells[1].libvirt.as_deref(), Some("<rng n='5'/>"));
    }

    #[test]
    fn what_makes_no_sense_is_named_with_its_line() {
        for (from, to, says) in [
            (
                "{rounds}\"\n\n",
                "{round}\"\n\n",
                "line 20: `{round}`: there is no such axis",
            ),
            (
                "{fd.more}",
                "{fd.les}",
                "line 8: `{fd.les}`: the value `on` of the axis `fd`",
            ),
            ("{fd.more}", "{fd", "without its `}`"),
            (
                "[5, 50]",
                "[5, 5]",
                "line 12: the axis `rounds` has `5` twice",
            ),
            ("[5, 50]", "[]", "line 12: the axis `rounds` must be a list"),
            ("[5, 50]", "[[5]]", "line 12: a value of the axis `rounds`"),
            ("[5, 50]", "[5, 5000]", "line 20: `count` is `5000`"),
            (
                "\"q35\", \"pc\"",
                "\"q53\", \"pc\"",
                "line 11: `machine` is `q53`",
            ),
            ("machine = [", "maschine = [", "must have a `machine`"),
            (
                "fd = [\"off\"]",
                "fd = [\"of\"]",
                "line 22: the axis `fd` has no value `of`",
            ),
            (
                "reason = \"not wanted\"",
                "",
                "line 22: `exclude` needs a `reason`",
            ),
            (
                "fd = [\"off\"]",
                "df = [\"off\"]",
                "line 22: `exclude` names no axis `df`",
            ),
            (
                "count =",
                "placement = \"moon\"\ncount =",
                "line 20: `placement` is `moon`",
            ),
            (
                "boots = 3",
                "boots = 3\nlibvirt = \"<rng n='{round}'/>\"",
                "line 7: `{round}`: there is no such axis",
            ),
            (
                "machine = [",
                "guest = [\"minix\"]\nmachine = [",
                "line 12: `guest` is `minix`, and must be seabios",
            ),
            (
                "count =",
                "placement = \"root-port\"\ncount =",
                "pc has no PCI Express",
            ),
        ] {
            let mut changed = TEXT.replacen(from, to, 1);
            if to.starts_with("guest") {
                changed = changed.replacen("boots", "subject = \"real-guest\"\nboots", 1);
            }
            assert_ne!(changed, TEXT, "{from}");
            let error = plan(&changed).unwrap_err().to_string();
            assert!(error.contains(says), "{to}: {error}");
        }
    }
}
