//! The Gregorian calendar, as much as the clock needs.

const SECONDS_PER_DAY: i64 = 86_400;
/// Days from 0000-03-01 to 1970-01-01.
const EPOCH_DAYS: i64 = 719_468;
/// Days in 400 years, after which the calendar repeats.
const ERA_DAYS: i64 = 146_097;

/// A moment, to the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Date {
    pub year: i64,
    pub month: u8,
    pub day: u8,
    pub hour: u8,
    pub minute: u8,
    pub second: u8,
}

impl Date {
    /// The moment `seconds` after 1970-01-01T00:00:00. Years are counted from March here, so that a leap day is the
    /// last of its year and months have a simple rhythm.
    pub fn from_unix(seconds: i64) -> Self {
        let (days, time) = (seconds.div_euclid(SECONDS_PER_DAY), seconds.rem_euclid(SECONDS_PER_DAY));
        let days = days + EPOCH_DAYS;
        let (era, day_of_era) = (days.div_euclid(ERA_DAYS), days.rem_euclid(ERA_DAYS));
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = (month_from_march + 2) % 12 + 1;
        let year = era * 400 + year_of_era + i64::from(month <= 2);
        Self {
            year,
            month: small(month),
            day: small(day),
            hour: small(time / 3600),
            minute: small(time / 60 % 60),
            second: small(time % 60),
        }
    }

    /// The inverse of [`Self::from_unix`].
    pub fn to_unix(self) -> i64 {
        let (month, day) = (i64::from(self.month), i64::from(self.day));
        let year = self.year - i64::from(month <= 2);
        let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
        let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        let days = era * ERA_DAYS + day_of_era - EPOCH_DAYS;
        let time = i64::from(self.hour) * 3600 + i64::from(self.minute) * 60 + i64::from(self.second);
        days * SECONDS_PER_DAY + time
    }

    /// The date, if there is such a day and time.
    pub fn checked(self) -> Option<Self> {
        let ranges = (1..=12).contains(&self.month) && (1..=31).contains(&self.day);
        (ranges && Self::from_unix(self.to_unix()) == self).then_some(self)
    }

    /// Day of the week; 1 is Sunday.
    pub fn weekday(self) -> u8 {
        // 1970-01-01 was a Thursday.
        small((self.to_unix().div_euclid(SECONDS_PER_DAY) + 4).rem_euclid(7) + 1)
    }

    /// The last two digits of the year.
    pub fn year_of_century(self) -> u8 {
        small(self.year.rem_euclid(100))
    }

    /// The two digits before them.
    pub fn century(self) -> u8 {
        small(self.year.div_euclid(100).rem_euclid(100))
    }
}

/// A number that is small by construction.
fn small(value: i64) -> u8 {
    u8::try_from(value).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(year: i64, month: u8, day: u8) -> Date {
        Date { year, month, day, hour: 0, minute: 0, second: 0 }
    }

    #[test]
    fn known_dates_are_right() {
        let table = [
            (0, date(1970, 1, 1), 5),
            (951_782_400, date(2000, 2, 29), 3),
            (4_107_542_400, date(2100, 3, 1), 2),
            (-86_400, date(1969, 12, 31), 4),
        ];
        for (unix, date, weekday) in table {
            assert_eq!(Date::from_unix(unix), date);
            assert_eq!((date.to_unix(), date.weekday()), (unix, weekday));
        }
    }

    #[test]
    fn every_day_of_eight_centuries_goes_there_and_back() {
        for day in 0..292_194 {
            let unix = day * SECONDS_PER_DAY + day % SECONDS_PER_DAY;
            assert_eq!(Date::from_unix(unix).to_unix(), unix);
        }
    }

    #[test]
    fn days_that_do_not_exist_are_told_apart() {
        for (year, month, day) in [(2100, 2, 29), (2023, 4, 31), (2023, 0, 1), (2023, 13, 1), (2023, 1, 0)] {
            assert_eq!(date(year, month, day).checked(), None);
        }
        assert_eq!(Date { hour: 24, ..date(2023, 1, 1) }.checked(), None);
        assert_eq!(Date { minute: 60, ..date(2023, 1, 1) }.checked(), None);
        assert!(date(2024, 2, 29).checked().is_some());
    }
}
