//! Whether two sets' figures differ by more than noise.
//!
//! A host has fast and slow hours. What the controls show (an idle port, `pci-testdev`:
//! paths without a driver and without a device) is taken out of the other times of the
//! same accelerator. Then a difference is real if the interval of the ratio leaves 1 out,
//! and the medians are further apart than boots of one set are, by a margin: figures are
//! many, and a difference that happens once in a hundred happens in each comparison.

use crate::experiment::stats::{self, Interval};

use super::rows::{Kind, Pair};

/// A smaller change is not spoken of.
const LEAST: f64 = 0.05;
/// Boots of one set must differ less than the sets by this factor.
const MARGIN: f64 = 1.5;

/// Everything, judged.
#[derive(Debug)]
pub(super) struct Judged<'a> {
    /// By what the controls of an accelerator moved, where that is worth telling.
    pub(super) controls: Vec<(String, f64)>,
    pub(super) rows: Vec<Row<'a>>,
}

impl Judged<'_> {
    /// Rows with too few boots to tell.
    pub(super) fn few(&self) -> usize {
        self.rows.iter().filter(|row| row.ratio.is_none()).count()
    }
}

/// One figure, judged.
#[derive(Debug)]
pub(super) struct Row<'a> {
    pub(super) pair: &'a Pair,
    /// Medians.
    pub(super) before: f64,
    pub(super) after: f64,
    /// After by before, as it is.
    pub(super) ratio: Option<Interval>,
    /// What the boots of one set differ by, as a fraction.
    pub(super) noise: f64,
    pub(super) real: bool,
    /// Why not, if it is not.
    pub(super) why: &'static str,
}

pub(super) fn judge(pairs: &[Pair]) -> Judged<'_> {
    let mut accelerators: Vec<&str> = pairs.iter().map(|pair| &*pair.accelerator).collect();
    accelerators.sort_unstable();
    accelerators.dedup();
    let mut judged = Judged {
        controls: Vec::new(),
        rows: Vec::new(),
    };
    for accelerator in accelerators {
        let own = pairs.iter().filter(|pair| pair.accelerator == accelerator);
        let own: Vec<&Pair> = own.collect();
        let factor = control(&own);
        if (factor - 1.0).abs() >= LEAST {
            judged.controls.push((accelerator.to_owned(), factor));
        }
        let rows = own.into_iter().filter_map(|pair| match pair.kind {
            Kind::Time => row(pair, factor),
            Kind::Control | Kind::Count => row(pair, 1.0),
        });
        judged.rows.extend(rows);
    }
    judged
}

/// By what factor the controls of an accelerator moved; 1 where there are none.
fn control(pairs: &[&Pair]) -> f64 {
    let controls = pairs.iter().filter(|pair| pair.kind == Kind::Control);
    let ratios = controls
        .filter_map(|pair| Some(stats::median(&pair.after)? / stats::median(&pair.before)?));
    let ratios: Vec<f64> = ratios.filter(|ratio| ratio.is_finite()).collect();
    stats::median(&ratios).unwrap_or(1.0)
}

fn row(pair: &Pair, factor: f64) -> Option<Row<'_>> {
    let (before, after) = (stats::median(&pair.before)?, stats::median(&pair.after)?);
    let ratio = stats::of_ratio(&pair.after, &pair.before);
    let noise = range(&pair.before).max(range(&pair.after));
    let (real, why) = match ratio {
        None => (false, "too few boots"),
        Some(ratio) => {
            let outside = ratio.low / factor > 1.0 || ratio.high / factor < 1.0;
            let change = (ratio.estimate / factor).ln().abs();
            let large = change > (1.0 + LEAST).ln() && change > MARGIN * noise;
            (outside && large, "noise")
        }
    };
    Some(Row {
        pair,
        before,
        after,
        ratio,
        noise: noise.exp_m1(),
        real,
        why,
    })
}

/// The logarithm of the ratio of the largest value to the least.
fn range(values: &[f64]) -> f64 {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(0.0, f64::max);
    (most / least).ln()
}

#[cfg(test)]
mod tests {
    use super::super::rows;
    use super::*;
    use crate::experiment::set::Set;

    /// Two runs of `doorbell` on one host with one build, one after the other: the fastest
    /// samples of q35 under TCG.
    const FIRST: &str = include_str!("testdata/first.json");
    const REPEAT: &str = include_str!("testdata/repeat.json");

    fn set(text: &str) -> Set {
        serde_json::from_str(text).unwrap()
    }

    fn pairs(before: &Set, after: &Set) -> Vec<Pair> {
        rows::pairs(&before.experiments[0], &after.experiments[0])
    }

    fn real(pairs: &[Pair]) -> Vec<String> {
        let judged = judge(pairs);
        let real = judged.rows.into_iter().filter(|row| row.real);
        real.map(|row| row.pair.name.clone()).collect()
    }

    #[test]
    fn a_repeat_on_the_same_host_shows_no_change() {
        let pairs = pairs(&set(FIRST), &set(REPEAT));
        assert!(pairs.len() > 20, "{}", pairs.len());
        assert!(pairs.iter().all(|pair| pair.before.len() >= stats::FEWEST));
        assert_eq!(real(&pairs), Vec::<String>::new());
    }

    #[test]
    fn a_planted_change_of_a_fifth_is_found_and_nothing_else() {
        let planted = |name: &str| name.contains("doorbell-idle") && name.contains("pio");
        for factor in [1.2, 1.0 / 1.2] {
            let mut pairs = pairs(&set(FIRST), &set(REPEAT));
            let chosen: Vec<String> = pairs
                .iter()
                .map(|pair| pair.name.clone())
                .filter(|name| planted(name))
                .collect();
            assert!(!chosen.is_empty());
            for pair in pairs.iter_mut().filter(|pair| planted(&pair.name)) {
                pair.after.iter_mut().for_each(|value| *value *= factor);
            }
            assert_eq!(real(&pairs), chosen, "{factor}");
        }
    }

    /// A host that is slower as a whole slows the controls as well; a build that is does not.
    #[test]
    fn what_slows_the_host_is_no_change_and_what_slows_all_else_is() {
        let slowed = |factor: f64, controls: bool| {
            let mut pairs = pairs(&set(FIRST), &set(REPEAT));
            for pair in &mut pairs {
                if controls || pair.kind == Kind::Time {
                    pair.after.iter_mut().for_each(|value| *value *= factor);
                }
            }
            pairs
        };
        let host = slowed(1.7, true);
        let judged = judge(&host);
        assert_eq!(judged.controls.len(), 1);
        assert!(
            (judged.controls[0].1 - 1.7).abs() < 0.1,
            "{:?}",
            judged.controls
        );
        let times = |names: Vec<String>| -> usize {
            names
                .iter()
                .filter(|name| name.contains("doorbell-idle"))
                .count()
        };
        assert_eq!(times(real(&host)), 0);
        let build = slowed(1.2, false);
        assert_eq!(judge(&build).controls, []);
        assert_eq!(times(real(&build)), 8);
    }

    #[test]
    fn counts_are_judged_as_they_are() {
        let pair = |kind, before: f64, after: f64| Pair {
            name: format!("{kind:?}"),
            accelerator: "tcg".into(),
            kind,
            before: vec![before; 5],
            after: vec![after; 5],
        };
        let pairs = [
            pair(Kind::Control, 100.0, 200.0),
            pair(Kind::Time, 1000.0, 2000.0),
            pair(Kind::Count, 0.5, 0.5),
        ];
        assert_eq!(real(&pairs), ["Control"]);
    }

    /// Noise as rough as any that was seen: in each boot a figure may be up to half as much
    /// again. Of eight hundred comparisons of equals hardly one may be called a change.
    #[test]
    fn equals_are_hardly_ever_called_different() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut alarms = 0;
        for _ in 0..20 {
            let mut draw = |boots: usize, noise: f64| -> Vec<f64> {
                (0..boots)
                    .map(|_| 1000.0 * (1.0 + noise * random.f64().powi(3)))
                    .collect()
            };
            let pairs: Vec<Pair> = (0..40)
                .map(|n| {
                    let (boots, noise) = (5 + n % 4, [0.02, 0.1, 0.5][n % 3]);
                    Pair {
                        name: n.to_string(),
                        accelerator: "tcg".into(),
                        kind: Kind::Time,
                        before: draw(boots, noise),
                        after: draw(boots, noise),
                    }
                })
                .collect();
            alarms += real(&pairs).len();
        }
        assert!(alarms <= 1, "{alarms}");
    }

    #[test]
    fn few_boots_tell_nothing() {
        let pair = Pair {
            name: "x".into(),
            accelerator: "tcg".into(),
            kind: Kind::Time,
            before: vec![1.0, 1.0],
            after: vec![9.0, 9.0],
        };
        let pairs = [pair];
        let judged = judge(&pairs);
        assert_eq!(judged.few(), 1);
        assert_eq!(judged.rows[0].why, "too few boots");
    }
}
