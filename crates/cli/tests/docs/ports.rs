//! A page names the ports that a reader will use; here they stand for free ones, so that pages and servers do not meet.

use std::net::TcpListener;

/// The default ports of `serve`, with the variables that set its addresses.
const DEFAULTS: [(&str, &str); 3] = [("8080", "MSTORE_LISTEN"), ("1883", "MSTORE_MQTT_LISTEN"), ("8083", "MSTORE_WS_LISTEN")];

/// A free port for each default.
pub(crate) struct Ports([u16; 3]);

impl Ports {
    /// Asks the system for ports that nobody has. All are held until all are chosen, so that they differ.
    pub(crate) fn free() -> Self {
        let listeners = DEFAULTS.map(|_default| TcpListener::bind("127.0.0.1:0").expect("loopback has free ports"));
        Self(listeners.map(|listener| listener.local_addr().expect("a bound listener has an address").port()))
    }

    /// The variables that make `serve` use these ports, and the other commands find it there.
    pub(crate) fn variables(&self) -> impl Iterator<Item = (&'static str, String)> {
        let listen = DEFAULTS.iter().zip(self.0).map(|((_default, variable), port)| (*variable, format!("127.0.0.1:{port}")));
        listen.chain([("MSTORE_SERVER", format!("http://127.0.0.1:{}", self.0[0]))])
    }

    /// The text with every default port, where it stands as a number of its own, replaced.
    pub(crate) fn put_into(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while !rest.is_empty() {
            let is_number = |c: char| c.is_alphanumeric() || c == '_';
            let end = rest.find(|c| !is_number(c)).unwrap_or(rest.len()).max(1);
            let end = (end..=rest.len()).find(|end| rest.is_char_boundary(*end)).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            let at = DEFAULTS.iter().position(|(default, _variable)| *default == word);
            out.push_str(&at.map_or_else(|| word.to_owned(), |at| self.0[at].to_string()));
            rest = after;
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_numbers_are_ports() {
        let ports = Ports([1, 2, 3]);
        assert_eq!(ports.put_into("curl 127.0.0.1:8080/v1 … -p 1883"), "curl 127.0.0.1:1/v1 … -p 2");
        assert_eq!(ports.put_into("18830 SKU_8080 x8083"), "18830 SKU_8080 x8083");
    }

    #[test]
    fn free_ports_differ() {
        let Ports(ports) = Ports::free();
        assert!(ports[0] != ports[1] && ports[1] != ports[2] && ports[0] != ports[2]);
    }
}
