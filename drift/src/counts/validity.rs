//! Could these counts have been counted under that baseline? Asked of everything received.

use super::{Counts, CountsError, FIXED_POINT_MAX, Special, Values, quantised};
use crate::baseline::{Bins, FieldBaseline, Slot};

impl Counts {
    /// Checks that counting under `baseline` could have given these counts: number of bins, kind
    /// of field, and moments and extremes that the filled bins allow. A lie that is consistent
    /// passes; robust figures over devices are the defence against those.
    pub fn fits(&self, baseline: &FieldBaseline) -> Result<(), CountsError> {
        let expected = baseline.bins().len();
        if self.bins().len() != expected {
            return Err(CountsError::BinsDiffer {
                found: self.bins().len(),
                expected,
            });
        }
        for special in Special::ALL {
            if self.special(special) > 0 && !special.applies_to(baseline.bins()) {
                return Err(CountsError::SpecialForeign(special));
            }
        }
        let Some(values) = self.values() else {
            return Ok(());
        };
        match baseline.bins() {
            Bins::Numeric { edges, lo, hi } if self.finite() > 0 => {
                self.extremes_fit(baseline.bins(), values)?;
                self.moments_fit(baseline, values, edges, *lo, *hi)
            }
            _ => Err(CountsError::ValuesForeign),
        }
    }

    /// [`Counts::fits`], and no more values than a window of that length and rate can hold.
    pub fn fits_window(
        &self,
        baseline: &FieldBaseline,
        values_max: u64,
    ) -> Result<(), CountsError> {
        let found = self.total();
        if found > values_max {
            return Err(CountsError::TooMany {
                found,
                most: values_max,
            });
        }
        self.fits(baseline)
    }

    /// The least value lies in the first place that is filled, the greatest in the last.
    fn extremes_fit(&self, bins: &Bins, values: &Values) -> Result<(), CountsError> {
        let below = (Slot::Special(Special::Below), self.special(Special::Below));
        let above = (Slot::Special(Special::Above), self.special(Special::Above));
        let inner = self
            .bins()
            .iter()
            .enumerate()
            .map(|(bin, count)| (Slot::Bin(bin), *count));
        let mut filled = core::iter::once(below)
            .chain(inner)
            .chain(core::iter::once(above))
            .filter(|(_, count)| *count > 0)
            .map(|(slot, _)| slot);
        let first = filled.next();
        let last = filled.next_back().or(first);
        let ordered = values.min <= values.max && (self.finite() > 1 || values.min == values.max);
        let placed = first == Some(bins.slot(values.min)) && last == Some(bins.slot(values.max));
        if ordered && placed {
            Ok(())
        } else {
            Err(CountsError::ExtremesImpossible)
        }
    }

    /// Each bin bounds the quanta of its values, since quantisation is monotone; squares obey
    /// Cauchy–Schwarz, and q and q² are odd together.
    fn moments_fit(
        &self,
        baseline: &FieldBaseline,
        values: &Values,
        edges: &[f32],
        lo: f32,
        hi: f32,
    ) -> Result<(), CountsError> {
        let quanta = |value| i128::from(quantised(baseline, value));
        let most = i128::from(FIXED_POINT_MAX);
        let below = i128::from(self.special(Special::Below));
        let above = i128::from(self.special(Special::Above));
        let mut sum_min = below * -most + above * quanta(hi);
        let mut sum_max = below * quanta(lo) + above * most;
        for (bin, count) in self.bins().iter().enumerate() {
            let floor = if bin == 0 { lo } else { edges[bin - 1] };
            let ceiling = edges.get(bin).copied().unwrap_or(hi);
            sum_min += i128::from(*count) * quanta(floor);
            sum_max += i128::from(*count) * quanta(ceiling);
        }
        let n = i128::from(self.finite());
        let (sum, squares) = (i128::from(values.sum), i128::from(values.squares));
        let possible = (sum_min..=sum_max).contains(&sum)
            && squares <= n * most * most
            && sum * sum <= n * squares
            && (sum - squares) % 2 == 0;
        if possible {
            Ok(())
        } else {
            Err(CountsError::MomentsImpossible)
        }
    }
}
