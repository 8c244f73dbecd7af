//! What an answer of the backend means, and when to come again. No IO, no clock.

use std::time::Duration;

use mstore_protocol::{BackendVerdict, Timestamp};
use mstore_store::Attempt;

use super::WebhookConfig;

/// Attempts before a refused operation lets those behind it pass.
const REFUSALS_BEFORE_ASIDE: u32 = 3;
/// However long a backend asks us to stay away, it is no longer than this.
const ASKED_MAX: Duration = Duration::from_secs(3_600);
/// What was set aside waits so many times as long as what failed, at most.
const ASIDE_FACTOR: u32 = 60;

/// What the backend said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    /// Its verdict.
    Decided(BackendVerdict),
    /// It has it; the verdict comes later.
    Taken,
    /// Nothing, or to come again.
    Later(String, Option<Duration>),
    /// That it does not want this, or something that nobody understands.
    Refused(String),
}

/// Reads an answer.
pub(super) fn read(status: u16, retry_after: Option<&str>, body: &[u8]) -> Said {
    let verdict = || serde_json::from_slice::<BackendVerdict>(body).ok();
    match status {
        200..=299 | 409 => match verdict() {
            Some(verdict) => Said::Decided(verdict.kept()),
            None if status == 202 || status == 204 => Said::Taken,
            None => Said::Refused(format!("status {status} without a verdict; 202 or 204 say that it comes later")),
        },
        408 | 425 | 429 | 500..=599 => {
            let asked = retry_after.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
            Said::Later(format!("status {status}"), asked)
        }
        300..=399 => Said::Refused(format!("status {status}: redirects are not followed, for a delivery goes to one address")),
        _refused => Said::Refused(format!("status {status}")),
    }
}

/// What to write down. `attempts` were made before; `throw` is any number.
pub(super) fn attempt(said: Said, attempts: u32, now: Timestamp, config: &WebhookConfig, throw: u64) -> Attempt {
    let again = |wait: Duration| now.plus_ms(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX));
    match said {
        Said::Decided(verdict) => Attempt::Decided(verdict),
        Said::Taken => Attempt::Taken,
        Said::Later(why, asked) => {
            let own = wait(config.retry_min, config.retry_max, attempts, throw);
            let asked = asked.unwrap_or_default().min(ASKED_MAX);
            Attempt::Failed { why, again_at: again(own.max(asked)) }
        }
        Said::Refused(why) => {
            let is_set_aside = attempts + 1 >= REFUSALS_BEFORE_ASIDE;
            let own = if is_set_aside {
                wait(config.retry_max, config.retry_max * ASIDE_FACTOR, attempts + 1 - REFUSALS_BEFORE_ASIDE, throw)
            } else {
                wait(config.retry_min, config.retry_max, attempts, throw)
            };
            Attempt::Refused { why, again_at: again(own), is_set_aside }
        }
    }
}

/// Doubled with each failure, up to the most; half of it is left to chance, so that branches do not come back all at once.
fn wait(least: Duration, most: Duration, failures: u32, throw: u64) -> Duration {
    let whole = least.saturating_mul(1 << failures.min(20)).min(most);
    let half_ms = u64::try_from(whole.as_millis()).unwrap_or(u64::MAX) / 2;
    Duration::from_millis(half_ms + throw % (half_ms + 1))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mstore_protocol::BackendDecision;

    use super::{super::WebhookSecret, *};

    fn config() -> WebhookConfig {
        WebhookConfig::new("https://shop.example", WebhookSecret::new(vec![7; 32]).unwrap())
    }

    #[test]
    fn an_answer_is_a_verdict_a_promise_a_failure_or_a_refusal() {
        let yes = br#"{"verdict":"accepted","order":4711}"#;
        for status in [200, 201, 202, 409] {
            assert_eq!(read(status, None, yes), Said::Decided(BackendVerdict::accepted()), "{status}");
        }
        let Said::Decided(no) = read(200, None, br#"{"verdict":"rejected","code":"closed"}"#) else { panic!("a verdict") };
        assert_eq!((no.verdict, no.code.as_deref()), (BackendDecision::Rejected, Some("closed")));
        for status in [202, 204] {
            assert_eq!(read(status, None, b""), Said::Taken, "{status}");
        }
        for (status, body) in
            [(200, &b""[..]), (200, b"<html>OK</html>"), (200, br#"{"verdict":"maybe"}"#), (409, b"{}"), (302, b""), (404, yes)]
        {
            assert!(matches!(read(status, None, body), Said::Refused(_)), "{status} {body:?}");
        }
        assert_eq!(read(503, Some("7"), yes), Said::Later("status 503".into(), Some(Duration::from_secs(7))));
        for status in [408, 425, 429, 500, 502] {
            assert_eq!(read(status, Some("soon"), b""), Said::Later(format!("status {status}"), None));
        }
    }

    #[test]
    fn what_failed_comes_again_later_and_later_for_ever() {
        let now = Timestamp::from_ms(1_000_000);
        let waited_ms = |said: Said, attempts, throw| match attempt(said, attempts, now, &config(), throw) {
            Attempt::Failed { again_at, .. } | Attempt::Refused { again_at, .. } => again_at.as_ms() - now.as_ms(),
            Attempt::Decided(_) | Attempt::Taken => panic!("it failed"),
        };
        let failed = |asked| Said::Later("no".into(), asked);
        assert_eq!((waited_ms(failed(None), 0, 0), waited_ms(failed(None), 3, 0)), (500, 4_000));
        assert!((500..=1_000).contains(&waited_ms(failed(None), 0, u64::MAX)));
        assert_eq!(waited_ms(failed(None), u32::MAX, 0), 30_000);
        assert_eq!(waited_ms(failed(Some(Duration::from_secs(20))), 0, 0), 20_000);
        assert_eq!(waited_ms(failed(Some(Duration::from_secs(86_400))), 0, 0), 3_600_000);
        assert_eq!(waited_ms(Said::Refused("no".into()), 0, 0), 500);
        assert_eq!((waited_ms(Said::Refused("no".into()), 2, 0), waited_ms(Said::Refused("no".into()), 40, 0)), (30_000, 1_800_000));
    }

    #[test]
    fn what_is_refused_again_and_again_is_set_aside() {
        let aside = |attempts| match attempt(Said::Refused("no".into()), attempts, Timestamp::from_ms(0), &config(), 1) {
            Attempt::Refused { is_set_aside, .. } => is_set_aside,
            other @ (Attempt::Decided(_) | Attempt::Taken | Attempt::Failed { .. }) => panic!("{other:?}"),
        };
        assert_eq!([aside(0), aside(1), aside(2), aside(9)], [false, false, true, true]);
    }
}
