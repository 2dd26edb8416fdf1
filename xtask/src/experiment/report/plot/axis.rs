//! An axis: where values lie on it, and where its ticks are.

/// Values on a line of pixels. A linear axis has zero on it, so that lengths can be
/// compared; a logarithmic one has only what is above zero.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Axis {
    low: f64,
    high: f64,
    log: bool,
    from: f64,
    to: f64,
    step: f64,
}

impl Axis {
    /// An axis from pixel `from` to pixel `to` that has all the values on it, and about
    /// `ticks` ticks; `None` if there is no value that it could have.
    pub(super) fn new(
        values: impl IntoIterator<Item = f64>,
        log: bool,
        (from, to): (f64, f64),
        ticks: f64,
    ) -> Option<Self> {
        let values = values
            .into_iter()
            .filter(|value| value.is_finite() && (!log || *value > 0.0));
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(value), high.max(value))
        });
        if low > high {
            return None;
        }
        let (low, high, step) = match log {
            true => decades(low, high, ticks),
            false => even(low.min(0.0), high.max(0.0), ticks),
        };
        let axis = Self {
            low,
            high,
            log,
            from,
            to,
            step,
        };
        // Values at the ends of what a number can be have no axis.
        [low, high, step]
            .iter()
            .all(|value| value.is_finite())
            .then_some(axis)
    }

    /// The pixel of a value; `None` if it is not on the axis.
    pub(super) fn at(&self, value: f64) -> Option<f64> {
        let part = match self.log {
            true if value <= 0.0 => return None,
            true => (value / self.low).ln() / (self.high / self.low).ln(),
            false => (value - self.low) / (self.high - self.low),
        };
        // A value that is off by rounding is at the end.
        let inside = (-1e-9..=1.0 + 1e-9).contains(&part);
        inside.then(|| self.from + part.clamp(0.0, 1.0) * (self.to - self.from))
    }

    /// The values that have a tick.
    pub(super) fn ticks(&self) -> Vec<f64> {
        let mut ticks = Vec::new();
        if self.log {
            let whole = self.step >= 1.0;
            let mut exponent = self.low.log10().floor();
            while 10_f64.powf(exponent) <= self.high * (1.0 + 1e-9) {
                let factors: &[f64] = if whole { &[1.0] } else { &[1.0, 2.0, 5.0] };
                let values = factors.iter().map(|factor| factor * 10_f64.powf(exponent));
                ticks.extend(values.filter(|value| self.at(*value).is_some()));
                exponent += self.step.max(1.0);
            }
            return ticks;
        }
        let count = ((self.high - self.low) / self.step).round();
        let first = (self.low / self.step).round();
        let mut n = 0.0;
        while n <= count {
            // Not a sum, which would drift off zero.
            ticks.push((first + n) * self.step);
            n += 1.0;
        }
        ticks
    }
}

/// Ends and step of a linear axis: the step is 1, 2 or 5 of a power of ten, and the ends
/// are at ticks.
fn even(low: f64, high: f64, ticks: f64) -> (f64, f64, f64) {
    let span = if high > low { high - low } else { 1.0 };
    let rough = span / ticks.max(1.0);
    let power = 10_f64.powf(rough.log10().floor());
    let factors = [1.0, 2.0, 5.0, 10.0];
    let factor = factors
        .iter()
        .find(|factor| *factor * power >= rough * (1.0 - 1e-9));
    let step = factor.unwrap_or(&10.0) * power;
    let low_end = (low / step + 1e-9).floor() * step;
    let high_end = ((low + span).max(high) / step - 1e-9).ceil() * step;
    (low_end, high_end, step)
}

/// Ends of a logarithmic axis, at 1, 2 or 5 of a power of ten; and its step in decades, or
/// zero where each decade has three ticks.
fn decades(low: f64, high: f64, ticks: f64) -> (f64, f64, f64) {
    let snap = |value: f64, up: bool| {
        let power = 10_f64.powf(value.log10().floor());
        let ends = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
        match up {
            true => ends.into_iter().find(|end| *end >= value * (1.0 - 1e-9)),
            false => ends
                .into_iter()
                .rev()
                .find(|end| *end <= value * (1.0 + 1e-9)),
        }
        .unwrap_or(value)
    };
    let (mut low, mut high) = (snap(low, false), snap(high, true));
    if high <= low * 1.5 {
        (low, high) = (snap(low / 2.0, false), snap(high * 2.0, true));
    }
    let span = (high / low).log10();
    let step = match span * 3.0 <= ticks {
        true => 0.0,
        false => (span / ticks.max(1.0)).ceil().max(1.0),
    };
    // Whole decades have a tick at both ends.
    if step >= 1.0 {
        low = 10_f64.powf(low.log10().floor());
    }
    (low, high, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIXELS: (f64, f64) = (100.0, 500.0);

    #[test]
    fn a_linear_axis_has_zero_and_round_ticks_at_both_ends() {
        let axis = Axis::new([3.0, 37.0], false, PIXELS, 5.0).unwrap();
        assert_eq!(axis.ticks(), [0.0, 10.0, 20.0, 30.0, 40.0]);
        assert_eq!(axis.at(0.0), Some(100.0));
        assert_eq!(axis.at(20.0), Some(300.0));
        assert_eq!(axis.at(40.0), Some(500.0));
        assert_eq!(axis.at(41.0), None);
        let axis = Axis::new([-0.3, 0.5], false, PIXELS, 4.0).unwrap();
        assert_eq!(
            axis.ticks(),
            [-0.4, -0.2, 0.0, 0.2, 0.4, 0.6000000000000001]
        );
    }

    #[test]
    fn a_logarithmic_axis_has_decades_and_nothing_below_zero() {
        let axis = Axis::new([0.0, -1.0, 12.0, 80_000.0], true, PIXELS, 6.0).unwrap();
        assert_eq!(axis.ticks(), [10.0, 100.0, 1000.0, 10_000.0, 100_000.0]);
        assert_eq!(axis.at(0.0), None);
        assert_eq!(axis.at(10.0), Some(100.0));
        let middle = axis.at(1000.0).unwrap();
        assert!((middle - 300.0).abs() < 1e-9, "{middle}");
        let axis = Axis::new([150.0, 900.0], true, PIXELS, 6.0).unwrap();
        assert_eq!(axis.ticks(), [100.0, 200.0, 500.0, 1000.0]);
        assert_eq!(Axis::new([0.0, -5.0], true, PIXELS, 5.0), None);
    }

    #[test]
    fn one_value_no_value_and_absurd_ones() {
        for log in [false, true] {
            assert_eq!(Axis::new([], log, PIXELS, 5.0), None);
            assert_eq!(Axis::new([f64::NAN], log, PIXELS, 5.0), None);
            for value in [1e-300, 1e-9, 0.5, 1.0, 2.0, 7.0, 1e9, 1e300] {
                let axis = Axis::new([value], log, PIXELS, 5.0).unwrap();
                let at = axis.at(value).unwrap();
                assert!((100.0..=500.0).contains(&at), "{value}: {at}");
                let ticks = axis.ticks();
                assert!((2..=9).contains(&ticks.len()), "{value}: {ticks:?}");
            }
            let _ = Axis::new([f64::MIN_POSITIVE, f64::MAX], log, PIXELS, 5.0);
            let _ = Axis::new([f64::MIN, f64::MAX], log, PIXELS, 5.0);
        }
        let flat = Axis::new([0.0, 0.0], false, PIXELS, 5.0).unwrap();
        assert_eq!(flat.at(0.0), Some(100.0));
        let wide = Axis::new([1e-12, 1e12], true, PIXELS, 6.0).unwrap();
        assert!(wide.ticks().len() <= 9, "{:?}", wide.ticks());
    }
}
