//! Cron schedules with time zones, as pure functions of time.

use std::str::FromStr;

use chrono::{DateTime, Utc};
use croner::Cron;
use jiff::Timestamp;

/// The first time after `after` at which the schedule says to act.
///
/// # Errors
/// A sentence if the schedule or the time zone (IANA name; default UTC) can't be read, or the schedule never comes.
pub fn next(
    schedule: &str,
    time_zone: Option<&str>,
    after: Timestamp,
) -> Result<Timestamp, String> {
    // What the parser says of it is in words of its own.
    let cron = Cron::from_str(schedule).map_err(|_| {
        format!(
            "the schedule `{schedule}` can't be read: write minute (0 to 59), hour (0 to 23), day of the month, month and weekday (0 is Sunday), such as \"0 3 * * 0\""
        )
    })?;
    let zone: chrono_tz::Tz = time_zone.unwrap_or("UTC").parse().map_err(|_| {
        format!(
            "the time zone `{}` is unknown: write an IANA name such as Europe/Berlin",
            time_zone.unwrap_or_default()
        )
    })?;
    let never = || format!("the schedule `{schedule}` never comes: correct its day and month");
    let start = DateTime::<Utc>::from_timestamp(after.as_second(), 0).ok_or_else(never)?;
    let next = cron
        .find_next_occurrence(&start.with_timezone(&zone), false)
        .map_err(|_| never())?;
    Timestamp::from_second(next.timestamp()).map_err(|_| never())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_are_read_as_kubernetes_reads_them() {
        for (schedule, zone, after, expected) in [
            (
                "0 3 * * 0",
                None,
                "2013-07-01T00:00:00Z",
                "2013-07-07T03:00:00Z",
            ),
            (
                "0 3 * * 0",
                None,
                "2013-07-07T03:00:00Z",
                "2013-07-14T03:00:00Z",
            ),
            (
                "0 3 * * *",
                Some("Europe/Berlin"),
                "2013-07-01T00:30:00Z",
                "2013-07-01T01:00:00Z",
            ),
            (
                "0 3 * * *",
                Some("Europe/Berlin"),
                "2013-12-01T00:30:00Z",
                "2013-12-01T02:00:00Z",
            ),
            (
                "*/15 * * * *",
                None,
                "2013-07-01T00:07:31Z",
                "2013-07-01T00:15:00Z",
            ),
        ] {
            let next = next(schedule, zone, after.parse().unwrap());
            assert_eq!(next, Ok(expected.parse().unwrap()), "{schedule} {zone:?}");
        }
    }

    #[test]
    fn what_can_not_be_read_is_said_in_a_sentence() {
        let now = Timestamp::UNIX_EPOCH;
        assert!(
            next("every day", None, now)
                .unwrap_err()
                .contains("can't be read")
        );
        assert!(
            next("0 3 * * *", Some("Mars/Base"), now)
                .unwrap_err()
                .contains("IANA")
        );
        assert!(next("0 0 31 2 *", None, now).unwrap_err().contains("never"));
    }
}
