//! The regularised incomplete gamma function, and the tail of chi-square that follows from it.
//!
//! Logarithms, exponentials and ln Γ come from `libm`, so each target gives the same bits.

/// Terms of the series or the fraction at most. Both need about √a of them where they are used;
/// this serves 10^6 degrees of freedom, and no count here has more than 15.
const TERMS_MAX: usize = 10_000;
/// A term this much smaller than the sum no longer changes it.
const RELATIVE_TERM_MIN: f64 = 1e-16;
/// Stands in for a zero denominator in Lentz's method.
const TINY: f64 = 1e-300;

/// P(χ² ≥ `statistic`) with `degrees` degrees of freedom: Q(degrees / 2, statistic / 2).
///
/// 1 for a statistic of 0 or less, or without degrees of freedom; NaN for a NaN statistic.
pub fn chi_square_survival(statistic: f64, degrees: u32) -> f64 {
    if degrees == 0 {
        return 1.0;
    }
    upper(f64::from(degrees) / 2.0, statistic / 2.0)
}

/// Q(a, x) = Γ(a, x) / Γ(a), for a > 0. Relative error about 1e-13 for the sizes used here.
pub fn upper(a: f64, x: f64) -> f64 {
    if x.is_nan() || a.is_nan() || a <= 0.0 {
        return f64::NAN;
    }
    if x <= 0.0 {
        return 1.0;
    }
    if x.is_infinite() {
        return 0.0;
    }
    let front = libm::exp(a * libm::log(x) - x - libm::lgamma(a));
    let tail = if x < a + 1.0 {
        1.0 - front * series(a, x)
    } else {
        front * fraction(a, x)
    };
    tail.clamp(0.0, 1.0)
}

/// Σ x^k / (a (a+1) … (a+k)): <https://dlmf.nist.gov/8.11.E4>.
fn series(a: f64, x: f64) -> f64 {
    let mut term = 1.0 / a;
    let mut sum = term;
    for k in 1..TERMS_MAX {
        term *= x / (a + k as f64);
        sum += term;
        if term < sum * RELATIVE_TERM_MIN {
            break;
        }
    }
    sum
}

/// 1/(x+1−a− 1(1−a)/(x+3−a− 2(2−a)/(x+5−a− …))): the even part of
/// <https://dlmf.nist.gov/8.9.E2>, evaluated by Lentz's method as Thompson and Barnett modified it
/// (J. Comput. Phys. 64, 490, 1986).
fn fraction(a: f64, x: f64) -> f64 {
    let mut b = x + 1.0 - a;
    let mut c = 1.0 / TINY;
    let mut d = 1.0 / b;
    let mut value = d;
    for k in 1..TERMS_MAX {
        let k = k as f64;
        let numerator = k * (a - k);
        b += 2.0;
        d = away_from_zero(numerator * d + b);
        c = away_from_zero(b + numerator / c);
        d = 1.0 / d;
        let step = d * c;
        value *= step;
        if libm::fabs(step - 1.0) < RELATIVE_TERM_MIN {
            break;
        }
    }
    value
}

fn away_from_zero(value: f64) -> f64 {
    if libm::fabs(value) < TINY {
        TINY
    } else {
        value
    }
}
