//! A local time, and `strftime`.

use std::fmt::Write;

use super::failure::broken;
use super::value::Result;

/// A local time: milliseconds since 1970 as a clock on the wall shows them.
#[derive(Debug, Clone, Copy)]
pub struct Moment(pub i64);

struct Parts {
    year: i64,
    month: i64,
    day: i64,
    day_of_year: i64,
    /// 0 is Sunday.
    weekday: i64,
    hour: i64,
    minute: i64,
    second: i64,
}

impl Moment {
    /// The Gregorian calendar by Howard Hinnant's `civil_from_days`, in which a year begins in March.
    fn parts(self) -> Parts {
        let seconds = self.0.div_euclid(1000).clamp(-62_000_000_000, 250_000_000_000);
        let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let from_march = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * from_march + 2) / 153;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        Parts {
            year,
            month,
            day: from_march - (153 * month_from_march + 2) / 5 + 1,
            day_of_year: if month > 2 { from_march + 60 + i64::from(leap) } else { from_march - 305 },
            weekday: (days + 4).rem_euclid(7),
            hour: rest / 3600,
            minute: rest / 60 % 60,
            second: rest % 60,
        }
    }
}

const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// C's `strftime`, in the C locale; a `-` after `%` leaves out the zero before a number.
pub(super) fn strftime(now: &Moment, format: &str) -> Result<String> {
    let parts = now.parts();
    let mut text = String::new();
    let mut chars = format.chars().take(1024);
    while let Some(c) = chars.next() {
        if c != '%' {
            text.push(c);
            continue;
        }
        let mut kind = chars.next();
        let bare = kind == Some('-');
        if bare {
            kind = chars.next();
        }
        let number = |text: &mut String, value: i64, width: usize| {
            let _ = if bare { write!(text, "{value}") } else { write!(text, "{value:0width$}") };
        };
        let hour = (parts.hour + 11) % 12 + 1;
        match kind {
            Some('Y') => number(&mut text, parts.year, 1),
            Some('y') => number(&mut text, parts.year.rem_euclid(100), 2),
            Some('m') => number(&mut text, parts.month, 2),
            Some('d') => number(&mut text, parts.day, 2),
            Some('e') => drop(write!(text, "{:2}", parts.day)),
            Some('j') => number(&mut text, parts.day_of_year, 3),
            Some('H') => number(&mut text, parts.hour, 2),
            Some('I') => number(&mut text, hour, 2),
            Some('M') => number(&mut text, parts.minute, 2),
            Some('S') => number(&mut text, parts.second, 2),
            Some('w') => number(&mut text, parts.weekday, 1),
            Some('p') => text.push_str(if parts.hour < 12 { "AM" } else { "PM" }),
            Some('B') => text.push_str(MONTHS[parts.month as usize - 1]),
            Some('b' | 'h') => text.push_str(&MONTHS[parts.month as usize - 1][..3]),
            Some('A') => text.push_str(DAYS[parts.weekday as usize]),
            Some('a') => text.push_str(&DAYS[parts.weekday as usize][..3]),
            Some('F') => text.push_str(&strftime(now, "%Y-%m-%d")?),
            Some('T') => text.push_str(&strftime(now, "%H:%M:%S")?),
            Some('D') => text.push_str(&strftime(now, "%m/%d/%y")?),
            Some('%') => text.push('%'),
            other => return Err(broken(format!("strftime_now does not know {:?}", other.unwrap_or('%')))),
        }
    }
    Ok(text)
}
