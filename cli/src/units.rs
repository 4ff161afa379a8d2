//! Durations and times as people write and read them.
//!
//! Read: a number and a unit, `500ms`, `10s`, `2m`, `1h`; a bare number is refused, because it reads
//! as seconds to one and as milliseconds to the next. Written: `0.8 s`, `31 s`, `12 min`.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Parses a duration of the command line.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let wanted = "write a number and a unit: 500ms, 10s, 2m or 1h";
    let number: u64 = number.parse().map_err(|_| wanted.to_owned())?;
    let factor_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wanted.to_owned()),
    };
    let ms = number.checked_mul(factor_ms).ok_or_else(|| wanted.to_owned())?;
    Ok(Duration::from_millis(ms))
}

/// A duration for people, to about two digits.
pub(crate) fn human(duration: Duration) -> String {
    let ms = duration.as_millis();
    match ms {
        0..9_950 => {
            let tenths = (ms + 50) / 100;
            format!("{}.{} s", tenths / 10, tenths % 10)
        }
        9_950..120_000 => format!("{} s", (ms + 500) / 1_000),
        120_000..7_200_000 => format!("{} min", ms / 60_000),
        _ => format!("{} h", ms / 3_600_000),
    }
}

/// A duration that was measured, to the millisecond.
pub(crate) fn measured(duration: Duration) -> String {
    format!("{} ms", duration.as_millis())
}

/// Milliseconds of a measured duration, as JSON shows them.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A wall-clock time in the zone of whoever looks: the time today, with the date on other days.
pub(crate) fn clock_time(unix_ms: u64) -> String {
    clock_time_at(unix_ms, Timestamp::now(), TimeZone::system())
}

fn clock_time_at(unix_ms: u64, now: Timestamp, zone: TimeZone) -> String {
    let then = i64::try_from(unix_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    let Some(then) = then else { return format!("{unix_ms} ms") };
    let (then, now) = (then.to_zoned(zone.clone()), now.to_zoned(zone));
    let pattern = if then.date() == now.date() { "%H:%M:%S" } else { "%Y-%m-%d %H:%M:%S" };
    then.strftime(pattern).to_string()
}

#[cfg(test)]
mod tests {
    //! What is accepted as a duration, and how one reads.
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse_duration("1h"), Ok(Duration::from_secs(3600)));
        for wrong in ["10", "s", "", "-1s", "1.5s", "10 s", "99999999999999999h"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations_read_well() {
        let read = |ms| human(Duration::from_millis(ms));
        assert_eq!(read(0), "0.0 s");
        assert_eq!(read(1_340), "1.3 s");
        assert_eq!(read(6_800), "6.8 s");
        assert_eq!(read(9_949), "9.9 s");
        assert_eq!(read(9_950), "10 s");
        assert_eq!(read(31_499), "31 s");
        assert_eq!(read(720_000), "12 min");
        assert_eq!(read(10_800_000), "3 h");
    }

    #[test]
    fn times_of_other_days_carry_the_date() {
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        let at = |ms| clock_time_at(ms, now, TimeZone::UTC);
        assert_eq!(at(1_700_000_000_000), "22:13:20");
        assert_eq!(at(1_699_900_000_000), "2023-11-13 18:26:40");
    }
}
