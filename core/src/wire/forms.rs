//! Understands the values of Hapax's own headers. Some clients can send only strings, and others choose the type of an integer by
//! its size, so every sensible form is understood.

use super::field::Field;
use super::properties::IdValue;

/// The longest text that is looked at. The longest number of milliseconds has 20 digits.
const TEXT_MAX: usize = 40;
/// Above this number, a double can't hold every integer.
const EXACT: f64 = 9_007_199_254_740_992.0;
/// A double or a float of this size, or larger, may stand for several integers.
const ONLY_ONE_DOUBLE: i128 = 1 << 53;
const ONLY_ONE_FLOAT: i128 = 1 << 24;

/// The meaning of a header's value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Form<T> {
    /// It is void: a client has set the header to null.
    Absent,
    /// It means this.
    Known(T),
    /// Nobody can know what it means.
    Bad,
}

impl<T> Form<T> {
    fn of(known: Option<T>) -> Form<T> {
        known.map_or(Form::Bad, Form::Known)
    }
}

/// Reads a duration in milliseconds: an integer of any type, a float or decimal without a fraction, or a text of these, with or
/// without a unit (`500`, `500ms`, `1.5s`, `10m`, `1h`, `1d`). A timestamp is an integer, but not a duration.
pub(super) fn milliseconds(field: Field<'_>) -> Form<u64> {
    match (field.tag, field.value()) {
        (b'V', _) => Form::Absent,
        (b'T', _) => Form::Bad,
        (_, IdValue::Bytes(text)) => Form::of(text_of(text).and_then(parse_milliseconds)),
        _ => Form::of(integer(field).and_then(|value| u64::try_from(value).ok())),
    }
}

/// Reads yes or no: a boolean, 1 or 0 of any type, or a text of these (`true`, `yes`, `on`, `1` and their opposites).
pub(super) fn truth(field: Field<'_>) -> Form<bool> {
    match (field.tag, field.value()) {
        (b'V', _) => Form::Absent,
        (b'T', _) => Form::Bad,
        (b't', _) => Form::Known(field.raw.iter().any(|&octet| octet != 0)),
        (_, IdValue::Bytes(text)) => Form::of(text_of(text).and_then(parse_truth)),
        _ => match integer(field) {
            Some(0) => Form::Known(false),
            Some(1) => Form::Known(true),
            _ => Form::Bad,
        },
    }
}

/// Reads a count: an integer from 0 to 2^63 - 1 of any type, a float or decimal without a fraction, or a text of one. A float that another
/// number may be rounded to is bad: two messages would have one number.
pub(super) fn count(field: Field<'_>) -> Form<u64> {
    const MOST: u64 = i64::MAX as u64;
    let value = match (field.tag, field.value()) {
        (b'V', _) => return Form::Absent,
        (_, IdValue::Bytes(text)) => {
            text_of(text).filter(|text| !text.starts_with('+')).and_then(|text| text.parse().ok())
        }
        (b'd', _) => {
            integer(field).filter(|value| *value < ONLY_ONE_DOUBLE).and_then(|value| value.try_into().ok())
        }
        (b'f', _) => {
            integer(field).filter(|value| *value < ONLY_ONE_FLOAT).and_then(|value| value.try_into().ok())
        }
        _ => integer(field).and_then(|value| u64::try_from(value).ok()),
    };
    Form::of(value.filter(|value| *value <= MOST))
}

/// Returns the integer that a number is, if it is one.
fn integer(field: Field<'_>) -> Option<i128> {
    match (field.tag, field.raw) {
        (b'd', raw) => whole(f64::from_be_bytes(raw.try_into().ok()?)),
        (b'f', raw) => whole(f32::from_be_bytes(raw.try_into().ok()?).into()),
        (b'D', [scale, value @ ..]) => {
            let value = i128::from(u32::from_be_bytes(value.try_into().ok()?));
            match 10_i128.checked_pow(u32::from(*scale)) {
                Some(unit) if value % unit == 0 => Some(value / unit),
                _ => (value == 0).then_some(0),
            }
        }
        _ => match field.value() {
            IdValue::Integer(value) => Some(value),
            IdValue::Bytes(_) | IdValue::Other(..) => None,
        },
    }
}

#[expect(clippy::cast_possible_truncation, reason = "it is whole and far below the bounds of i128")]
fn whole(value: f64) -> Option<i128> {
    (value.fract() == 0.0 && value.abs() <= EXACT).then_some(value as i128)
}

/// Returns a text without the blanks around it.
fn text_of(text: &[u8]) -> Option<&str> {
    let text = text.trim_ascii();
    if text.len() <= TEXT_MAX { std::str::from_utf8(text).ok() } else { None }
}

fn parse_truth(text: &str) -> Option<bool> {
    const YES: [&str; 5] = ["true", "yes", "on", "1", "y"];
    const NO: [&str; 5] = ["false", "no", "off", "0", "n"];
    let is = |word: &&str| text.eq_ignore_ascii_case(word);
    if YES.iter().any(is) {
        return Some(true);
    }
    (NO.iter().any(is) || text.is_empty()).then_some(false)
}

fn parse_milliseconds(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(end)?;
    let unit: u128 = match unit.trim_start() {
        "" | "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || fraction.is_empty() {
        return None;
    }
    let fraction = fraction.trim_end_matches('0');
    let tenths = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let fraction: u128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let parts = whole.parse::<u128>().ok()?.checked_mul(unit)?.checked_mul(tenths)?;
    let parts = parts.checked_add(fraction.checked_mul(unit)?)?;
    if parts % tenths == 0 { u64::try_from(parts / tenths).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Field<'_> {
        Field { tag: b'S', raw: text.as_bytes() }
    }

    #[test]
    fn a_ttl_is_understood_in_every_sensible_form() {
        let (half, whole) = (500.5_f64.to_be_bytes(), 500_f64.to_be_bytes());
        let (float, huge) = (500_f32.to_be_bytes(), 1e300_f64.to_be_bytes());
        for (tag, raw, expected) in [
            (b'b', &[7][..], Form::Known(7)),
            (b'b', &[0], Form::Known(0)),
            (b'b', &[0xFF], Form::Bad),
            (b'B', &[0xFF], Form::Known(255)),
            (b's', &[1, 0xF4], Form::Known(500)),
            (b'U', &[1, 0xF4], Form::Known(500)),
            (b'u', &[0xFF, 0xFF], Form::Known(65_535)),
            (b'I', &[0, 0, 1, 0xF4], Form::Known(500)),
            (b'i', &[0xFF; 4], Form::Known(u64::from(u32::MAX))),
            (b'l', &[0xFF; 8], Form::Bad),
            (b'L', &[0, 0, 0, 0, 0, 0, 1, 0xF4], Form::Known(500)),
            (b'l', &[0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF], Form::Known(i64::MAX as u64)),
            (b'd', &whole, Form::Known(500)),
            (b'd', &half, Form::Bad),
            (b'd', &huge, Form::Bad),
            (b'd', &f64::NAN.to_be_bytes(), Form::Bad),
            (b'd', &(-1_f64).to_be_bytes(), Form::Bad),
            (b'f', &float, Form::Known(500)),
            (b'D', &[2, 0, 0, 0xC3, 0x50], Form::Known(500)),
            (b'D', &[3, 0, 0, 0xC3, 0x50], Form::Known(50)),
            (b'D', &[5, 0, 0, 0xC3, 0x50], Form::Bad),
            (b'D', &[200, 0, 0, 0, 0], Form::Known(0)),
            (b'D', &[200, 0, 0, 0, 1], Form::Bad),
            (b'T', &[0, 0, 0, 0, 0, 0, 1, 0xF4], Form::Bad),
            (b't', &[1], Form::Bad),
            (b'x', b"500", Form::Known(500)),
            (b'V', b"", Form::Absent),
            (b'F', b"", Form::Bad),
            (b'A', b"", Form::Bad),
        ] {
            assert_eq!(milliseconds(Field { tag, raw }), expected, "{} {raw:?}", char::from(tag));
        }
        for (written, expected) in [
            ("500", Some(500)),
            (" 500\n", Some(500)),
            ("500ms", Some(500)),
            ("500 ms", Some(500)),
            ("2s", Some(2_000)),
            ("1.5s", Some(1_500)),
            ("500.0", Some(500)),
            ("10m", Some(600_000)),
            ("10min", Some(600_000)),
            ("1h", Some(3_600_000)),
            ("1d", Some(86_400_000)),
            ("0", Some(0)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("99999999999999999999999999999d", None),
            ("0.0000000000000000000000000000000000001", None),
            ("500.5", None),
            ("-1", None),
            ("+1", None),
            ("", None),
            (".", None),
            ("1.", None),
            (".5s", None),
            ("1.2.3", None),
            ("1e3", None),
            ("0x10", None),
            ("5 0", None),
            ("ms", None),
            ("5 weeks", None),
            ("fünf", None),
            ("00000000000000000000000000000000000000000005", None),
        ] {
            let expected = expected.map_or(Form::Bad, Form::Known);
            assert_eq!(milliseconds(text(written)), expected, "{written:?}");
        }
    }

    #[test]
    fn a_bypass_is_understood_in_every_sensible_form() {
        for (tag, raw, expected) in [
            (b't', &[1][..], Form::Known(true)),
            (b't', &[0xFF], Form::Known(true)),
            (b't', &[0], Form::Known(false)),
            (b'B', &[1], Form::Known(true)),
            (b'b', &[0], Form::Known(false)),
            (b'I', &[0, 0, 0, 1], Form::Known(true)),
            (b'l', &[0, 0, 0, 0, 0, 0, 0, 1], Form::Known(true)),
            (b'b', &[0xFF], Form::Bad),
            (b'I', &[0, 0, 0, 2], Form::Bad),
            (b'd', &1_f64.to_be_bytes(), Form::Known(true)),
            (b'd', &0.5_f64.to_be_bytes(), Form::Bad),
            (b'T', &[0, 0, 0, 0, 0, 0, 0, 1], Form::Bad),
            (b'x', b"true", Form::Known(true)),
            (b'V', b"", Form::Absent),
            (b'A', b"t\x01", Form::Bad),
        ] {
            assert_eq!(truth(Field { tag, raw }), expected, "{} {raw:?}", char::from(tag));
        }
        for written in ["true", "TRUE", "True", " true ", "yes", "on", "1", "y"] {
            assert_eq!(truth(text(written)), Form::Known(true), "{written:?}");
        }
        for written in ["false", "False", "no", "off", "0", "n", ""] {
            assert_eq!(truth(text(written)), Form::Known(false), "{written:?}");
        }
        for written in ["maybe", "2", "-1", "tru", "truetrue", "\u{1f44d}"] {
            assert_eq!(truth(text(written)), Form::Bad, "{written:?}");
        }
    }
}
