//! The limits against abuse, checked: what the raw settings mean to the server and to the embedded broker.

use std::time::Duration;

use mstore_broker::{BrokerLimits, Rate};
use mstore_server::ServerLimits;

/// More than a machine has file descriptors for.
const COUNT_MAX: u32 = 1_000_000;
/// Longer than any honest client takes.
const SECONDS_MAX: u32 = 600;
const MINUTE_MS: u32 = 60_000;

/// The limits of both.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) http: ServerLimits,
    pub(crate) mqtt: BrokerLimits,
}

impl Limits {
    /// From the settings; the key of the first that is wrong, and why.
    pub(crate) fn check<'a>(get: impl Fn(&'static str) -> &'a str) -> Result<Self, (&'static str, String)> {
        let number = |key, max: u32| match get(key).parse::<u32>() {
            Ok(number) if (1..=max).contains(&number) => Ok(number),
            _other => Err((key, format!("{:?} is not a number from 1 to {max}", get(key)))),
        };
        let count = |key| number(key, COUNT_MAX).map(|count| usize::try_from(count).unwrap_or(usize::MAX));
        let seconds = |key| number(key, SECONDS_MAX).map(|seconds| Duration::from_secs(u64::from(seconds)));
        let rate = |key| rate(get(key)).map_err(|why| (key, why));
        let mut limits = Self::default();
        limits.http.connections_max = count("connections_max")?;
        limits.mqtt.sessions_max = number("connections_max", COUNT_MAX)?;
        limits.http.connections_per_address_max = count("connections_per_address_max")?;
        limits.mqtt.connections_per_address_max = limits.http.connections_per_address_max;
        limits.http.requests_max = count("requests_max")?;
        limits.http.requests_per_address_max = count("requests_per_address_max")?;
        limits.mqtt.handshake_timeout = seconds("login_timeout_s")?;
        limits.http.header_timeout = seconds("request_timeout_s")?;
        limits.http.body_timeout = limits.http.header_timeout;
        limits.http.wrong_claims = rate("wrong_claims_rate")?;
        limits.http.wrong_logins = rate("wrong_logins_rate")?;
        limits.mqtt.wrong_logins = limits.http.wrong_logins;
        limits.http.uploads = rate("uploads_rate")?;
        limits.http.snapshots = rate("snapshots_rate")?;
        Ok(limits)
    }
}

/// `20+30/min`: 20 at once, and from then on 30 a minute.
fn rate(raw: &str) -> Result<Rate, String> {
    let wrong = || format!("{raw:?} is not like 20+30/min: 20 at once, and from then on 30 a minute");
    let (burst, per_minute) = raw.strip_suffix("/min").and_then(|raw| raw.split_once('+')).ok_or_else(wrong)?;
    let number = |raw: &str, max: u32| raw.parse::<u32>().ok().filter(|number| (1..=max).contains(number)).ok_or_else(wrong);
    Ok(Rate { burst: number(burst, COUNT_MAX)?, refill_ms: MINUTE_MS / number(per_minute, MINUTE_MS)? })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{args::ServeArgs, settings::RawConfig};

    #[test]
    fn the_limits_by_default_are_what_the_settings_say() {
        let raw = RawConfig::merge(&ServeArgs::default(), |_| None).unwrap();
        let mut limits = Limits::check(|key| raw.get(key)).unwrap();
        // The setting is one for both.
        assert_eq!(limits.mqtt.wrong_logins, limits.http.wrong_logins);
        limits.mqtt.wrong_logins = BrokerLimits::default().wrong_logins;
        assert_eq!(limits, Limits::default());
    }

    #[test]
    fn a_rate_is_a_burst_and_so_many_a_minute() {
        assert_eq!(rate("20+30/min"), Ok(Rate { burst: 20, refill_ms: 2_000 }));
        for wrong in ["20", "20/min", "0+1/min", "1+0/min", "1+60001/min", "a+b/min", "-1+1/min", ""] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
    }
}
