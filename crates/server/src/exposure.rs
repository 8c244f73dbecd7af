//! Which of the URLs that devices are told would take their tokens across a network in the clear.

use mstore_broker::ListenAddrs;
use mstore_protocol::Profile;

use crate::PublicUrls;

/// Those URLs; a listener on all interfaces is one that others reach.
pub(crate) fn exposed(public: &PublicUrls, http: &str, broker: &ListenAddrs) -> Vec<String> {
    let plain_mqtt = || broker.tcp.filter(|_| broker.tls.is_none()).map(|addr| format!("mqtt://{addr}"));
    let urls = [
        public.http.clone().or_else(|| Some(http.to_owned())),
        public.mqtt.clone().or_else(plain_mqtt),
        public.ws.clone().or_else(|| broker.ws.filter(|_| broker.wss.is_none()).map(|addr| format!("ws://{addr}/mqtt"))),
    ];
    urls.into_iter().flatten().filter(|url| !Profile::Production.allows(url)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::SocketAddr;

    use super::*;

    #[test]
    fn what_others_reach_without_tls_is_exposed() {
        let addr = |text: &str| text.parse::<SocketAddr>().unwrap();
        let broker = |tcp, tls, ws| ListenAddrs { tcp, tls, ws, wss: None };
        let home = broker(Some(addr("127.0.0.1:1883")), None, Some(addr("127.0.0.1:8083")));
        assert!(exposed(&PublicUrls::default(), "http://127.0.0.1:8080", &home).is_empty());
        let open = broker(Some(addr("0.0.0.0:1883")), None, Some(addr("10.0.0.7:8083")));
        assert_eq!(
            exposed(&PublicUrls::default(), "http://[::]:8080", &open),
            ["http://[::]:8080", "mqtt://0.0.0.0:1883", "ws://10.0.0.7:8083/mqtt"]
        );
        let behind_a_proxy = PublicUrls {
            http: Some("https://sync.example.com".into()),
            mqtt: Some("mqtts://sync.example.com:8883".into()),
            ws: Some("wss://sync.example.com/mqtt".into()),
        };
        assert!(exposed(&behind_a_proxy, "http://[::]:8080", &open).is_empty());
        let tls = broker(None, Some(addr("0.0.0.0:8883")), None);
        assert!(exposed(&PublicUrls::default(), "http://127.0.0.1:8080", &tls).is_empty());
    }
}
