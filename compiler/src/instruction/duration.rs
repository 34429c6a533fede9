//! Durations in Go's notation (`time.ParseDuration`): `1m30s`, `1.5h`, `250ms`.

/// Why a text is not a duration.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum DurationError {
    /// No number where one is needed.
    #[error("invalid duration {0:?}")]
    Invalid(String),
    /// A number without unit.
    #[error("missing unit in duration {0:?}")]
    MissingUnit(String),
    /// A unit that does not exist.
    #[error("unknown unit {unit:?} in duration {text:?}")]
    UnknownUnit {
        /// The unit.
        unit: String,
        /// The whole text.
        text: String,
    },
    /// More than 292 years.
    #[error("duration {0:?} is too long")]
    TooLong(String),
}

/// A duration in nanoseconds, negative if the text starts with `-`.
pub fn parse_duration(text: &str) -> Result<i64, DurationError> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let invalid = || DurationError::Invalid(text.to_owned());
    let too_long = || DurationError::TooLong(text.to_owned());
    if unsigned == "0" {
        return Ok(0);
    }
    if unsigned.is_empty() {
        return Err(invalid());
    }
    let is_digit = |char: char| char.is_ascii_digit();
    let mut total: i128 = 0;
    let mut rest = unsigned;
    while !rest.is_empty() {
        let whole = &rest[..rest.len() - rest.trim_start_matches(is_digit).len()];
        rest = &rest[whole.len()..];
        let mut fraction = "";
        if let Some(behind) = rest.strip_prefix('.') {
            fraction = &behind[..behind.len() - behind.trim_start_matches(is_digit).len()];
            rest = &behind[fraction.len()..];
        }
        if whole.is_empty() && fraction.is_empty() {
            return Err(invalid());
        }
        let end = rest.find(|char| is_digit(char) || char == '.').unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1_i128,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60 * 1_000_000_000,
            "h" => 3600 * 1_000_000_000,
            "" => return Err(DurationError::MissingUnit(text.to_owned())),
            unit => {
                let unit = unit.to_owned();
                return Err(DurationError::UnknownUnit { unit, text: text.to_owned() });
            }
        };
        rest = &rest[end..];
        let whole: i64 = match whole {
            "" => 0,
            digits => digits.parse().map_err(|_| too_long())?,
        };
        total += i128::from(whole) * unit;
        // Digits beyond the 15th are below a nanosecond for every unit.
        let digits = &fraction[..fraction.len().min(15)];
        if !digits.is_empty() {
            let numerator: i128 = digits.parse().map_err(|_| invalid())?;
            total += numerator * unit / 10_i128.pow(digits.len() as u32);
        }
        if total > i128::from(i64::MAX) {
            return Err(too_long());
        }
    }
    let total = i64::try_from(total).map_err(|_| too_long())?;
    Ok(if text.starts_with('-') { -total } else { total })
}

#[cfg(test)]
mod tests {
    use super::parse_duration;

    #[test]
    fn durations() {
        for (text, nanoseconds) in [
            ("0", 0),
            ("5s", 5_000_000_000),
            ("1m30s", 90_000_000_000),
            ("1.5h", 5_400_000_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("100µs", 100_000),
            ("-2ms", -2_000_000),
            ("+1ns", 1),
        ] {
            assert_eq!(parse_duration(text), Ok(nanoseconds), "{text}");
        }
    }

    #[test]
    fn texts_that_are_no_durations() {
        for (text, message) in [
            ("abc", "invalid duration \"abc\""),
            ("", "invalid duration \"\""),
            ("-", "invalid duration \"-\""),
            (".s", "invalid duration \".s\""),
            ("5", "missing unit in duration \"5\""),
            ("1m5", "missing unit in duration \"1m5\""),
            ("5 s", "unknown unit \" s\" in duration \"5 s\""),
            ("5d", "unknown unit \"d\" in duration \"5d\""),
            ("300000000h", "duration \"300000000h\" is too long"),
            ("99999999999999999999s", "duration \"99999999999999999999s\" is too long"),
        ] {
            assert_eq!(parse_duration(text).unwrap_err().to_string(), message);
        }
    }
}
