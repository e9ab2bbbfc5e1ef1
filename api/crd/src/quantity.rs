//! Numbers with a suffix, as Kubernetes writes them: `1024M`, `64Mi`, `1.5Gi`, `100m`, `12e6`.
//!
//! The grammar is that of `resource.Quantity` in the Kubernetes API conventions. Values are computed exactly,
//! never in floating point, and rounded up to the unit that is asked for.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use thiserror::Error;

/// More digits than any meaningful quantity has; bounds the arithmetic below.
const MAX_DIGITS: usize = 27;

/// Why a quantity is of no use.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum QuantityError {
    /// Not a number with a known suffix.
    #[error(
        "`{0}` is not a quantity: expected a number with an optional suffix, such as `512Mi`, `2G` or `100m`"
    )]
    Syntax(String),
    /// Below zero, where only an amount makes sense.
    #[error("`{0}` is negative")]
    Negative(String),
    /// Does not fit 64 bits in the unit that was asked for.
    #[error("`{0}` is too large")]
    TooLarge(String),
}

/// The value in whole units, rounded up: bytes, for memory and disks.
pub fn bytes(quantity: &Quantity) -> Result<u64, QuantityError> {
    parse(&quantity.0)?.scaled(1).ok_or_else(|| QuantityError::TooLarge(quantity.0.clone()))
}

/// The value in thousandths, rounded up: millicores, for processors.
pub fn millis(quantity: &Quantity) -> Result<u64, QuantityError> {
    parse(&quantity.0)?.scaled(1000).ok_or_else(|| QuantityError::TooLarge(quantity.0.clone()))
}

/// Whether the text is a quantity at all, of either sign.
pub fn check(text: &str) -> Result<(), QuantityError> {
    match parse(text) {
        Ok(_) | Err(QuantityError::Negative(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// `digits * 10^exponent * 2^shift`.
struct Amount {
    digits: u128,
    exponent: i32,
    shift: u32,
}

impl Amount {
    /// The amount times `scale`, rounded up; `None` where that does not fit.
    fn scaled(&self, scale: u128) -> Option<u64> {
        if self.digits == 0 {
            return Some(0);
        }
        let product = self.digits.checked_mul(scale)?.checked_mul(1 << self.shift)?;
        let value = match u32::try_from(self.exponent) {
            Ok(up) => product.checked_mul(10_u128.checked_pow(up)?)?,
            Err(_) => match 10_u128.checked_pow(self.exponent.unsigned_abs()) {
                Some(divisor) => product.div_ceil(divisor),
                None => 1,
            },
        };
        u64::try_from(value).ok()
    }
}

fn parse(text: &str) -> Result<Amount, QuantityError> {
    let syntax = || QuantityError::Syntax(text.to_owned());
    let negative = text.starts_with('-');
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let fraction = fraction.trim_end_matches('0');
    if !number.contains(|c: char| c.is_ascii_digit()) || fraction.contains('.') {
        return Err(syntax());
    }
    let digits = [whole.trim_start_matches('0'), fraction].concat();
    if digits.len() > MAX_DIGITS {
        return Err(QuantityError::TooLarge(text.to_owned()));
    }
    let digits = if digits.is_empty() { 0 } else { digits.parse().map_err(|_| syntax())? };
    let (exponent, shift) = multiplier(suffix).ok_or_else(syntax)?;
    if negative && digits != 0 {
        return Err(QuantityError::Negative(text.to_owned()));
    }
    let decimals = i32::try_from(fraction.len()).map_err(|_| syntax())?;
    Ok(Amount { digits, exponent: exponent - decimals, shift })
}

/// A suffix as (power of ten, power of two).
fn multiplier(suffix: &str) -> Option<(i32, u32)> {
    Some(match suffix {
        "" => (0, 0),
        "n" => (-9, 0),
        "u" => (-6, 0),
        "m" => (-3, 0),
        "k" => (3, 0),
        "M" => (6, 0),
        "G" => (9, 0),
        "T" => (12, 0),
        "P" => (15, 0),
        "E" => (18, 0),
        "Ki" => (0, 10),
        "Mi" => (0, 20),
        "Gi" => (0, 30),
        "Ti" => (0, 40),
        "Pi" => (0, 50),
        "Ei" => (0, 60),
        _ => (i32::from(suffix.strip_prefix(['e', 'E'])?.parse::<i8>().ok()?), 0),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn q(text: &str) -> Quantity {
        Quantity(text.to_owned())
    }

    #[test]
    fn every_suffix_means_what_kubernetes_says() {
        for (text, want) in [
            ("0", 0),
            ("1024M", 1_024_000_000),
            ("64Mi", 64 << 20),
            ("1.5Gi", 3 << 29),
            (".5Ki", 512),
            ("5.", 5),
            ("+2k", 2000),
            ("12e6", 12_000_000),
            ("1E", 1_000_000_000_000_000_000),
            ("1E3", 1000),
            ("1Ti", 1 << 40),
            ("15Ei", 15 << 60),
            ("1500m", 2),
            ("1n", 1),
            ("5e-100", 1),
            ("-0", 0),
            ("00064Mi", 64 << 20),
            ("1.50000000000000000000000000000000000000Gi", 3 << 29),
        ] {
            assert_eq!(bytes(&q(text)), Ok(want), "{text}");
        }
        assert_eq!(millis(&q("100m")), Ok(100));
        assert_eq!(millis(&q("1.5")), Ok(1500));
        assert_eq!(millis(&q("0.0001")), Ok(1));
    }

    #[test]
    fn what_is_no_quantity_is_named() {
        for text in ["", "Mi", "-", ".", "1..2", "64MB", "64mi", "64 Mi", "1e", "1e400", "0x10", "1K", "１Mi"]
        {
            assert_eq!(bytes(&q(text)), Err(QuantityError::Syntax(text.to_owned())), "{text}");
            assert!(check(text).is_err());
        }
        assert_eq!(bytes(&q("-1Gi")), Err(QuantityError::Negative("-1Gi".to_owned())));
        assert_eq!(check("-1Gi"), Ok(()));
        for text in ["16Ei", "1e100", "99999999999999999999999999999999999999"] {
            assert_eq!(bytes(&q(text)), Err(QuantityError::TooLarge(text.to_owned())), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in ".{0,40}|[0-9.eE+-]{0,40}[KMGTPEimnu]{0,3}") {
            let _ = bytes(&q(&text));
            let _ = millis(&q(&text));
        }

        #[test]
        fn whole_numbers_are_exact(value: u64) {
            prop_assert_eq!(bytes(&q(&value.to_string())), Ok(value));
        }
    }
}
