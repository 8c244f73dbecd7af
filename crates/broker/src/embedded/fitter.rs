//! What each connection is granted of what it asked for: the limits, applied by clamping instead of refusing.

use std::{
    num::{NonZeroU16, NonZeroU32},
    sync::Arc,
    time::Duration,
};

use rmqtt::{
    fitter::{Fitter, FitterManager},
    types::{CodecPublish, ConnectInfo, Disconnect, FitterType, Id, ListenerConfig},
};

use super::config::BrokerLimits;

/// Makes a [`Grant`] for each connection.
pub(super) struct Grants(pub(super) Arc<BrokerLimits>);

impl FitterManager for Grants {
    fn create(&self, connect: Arc<ConnectInfo>, _: Id, _: ListenerConfig) -> FitterType {
        let limits = self.0.clone();
        let (receive_max, expiry) = match connect.as_ref() {
            ConnectInfo::V3(..) => (None, limits.offline_session),
            ConnectInfo::V5(_, connect) => (connect.receive_max, Duration::from_secs(connect.session_expiry_interval_secs.into())),
        };
        let inflight_max = NonZeroU16::new(limits.inflight_max).unwrap_or(NonZeroU16::MIN);
        let inflight_max = receive_max.map_or(inflight_max, |asked| asked.min(inflight_max));
        Arc::new(Grant { inflight_max, session_expiry: expiry.min(limits.offline_session), limits })
    }
}

struct Grant {
    limits: Arc<BrokerLimits>,
    inflight_max: NonZeroU16,
    session_expiry: Duration,
}

impl Fitter for Grant {
    fn keep_alive(&self, asked_s: &mut u16) -> rmqtt::Result<u16> {
        let max_s = u16::try_from(self.limits.keep_alive_max.as_secs()).unwrap_or(u16::MAX);
        if *asked_s == 0 || *asked_s > max_s {
            *asked_s = max_s;
        }
        // MQTT 3.1.1 §3.1.2.10: one and a half times; a little more where that is too little for a slow network.
        Ok(asked_s.saturating_add((*asked_s / 2).max(3)))
    }

    fn max_mqueue_len(&self) -> usize {
        self.limits.queue_messages_max
    }

    fn mqueue_rate_limit(&self) -> (NonZeroU32, Duration) {
        (NonZeroU32::MAX, Duration::from_secs(1))
    }

    fn max_inflight(&self) -> NonZeroU16 {
        self.inflight_max
    }

    fn session_expiry_interval(&self, disconnect: Option<&Disconnect>) -> Duration {
        match disconnect {
            Some(Disconnect::V5(last)) => last
                .session_expiry_interval_secs
                .map_or(self.session_expiry, |asked_s| Duration::from_secs(asked_s.into()).min(self.limits.offline_session)),
            Some(Disconnect::V3 | Disconnect::Other(_)) | None => self.session_expiry,
        }
    }

    fn message_expiry_interval(&self, _: &CodecPublish) -> Duration {
        Duration::ZERO
    }

    fn max_client_topic_aliases(&self) -> u16 {
        0
    }

    fn max_server_topic_aliases(&self) -> u16 {
        0
    }
}
