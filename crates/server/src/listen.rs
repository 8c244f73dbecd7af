//! The HTTP listeners: our own accept loop, because an idle poll should cost few bytes (no `Date`), no delay (no Nagle), and no stuck or
//! hostile client should hold anything for long. With a certificate they speak TLS.

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{HeaderMap, HeaderName},
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulShutdown, Watcher},
};
use mstore_broker::{Certificate, Proxies, Visit, Visitors};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::Service as _;

use crate::{ServerLimits, patience::Patient};

/// After an accept that failed (no file descriptors left), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// A request's head at most; ours have some 300 bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// What a TLS client and we agree to speak.
const PROTOCOLS: &[&str] = &["http/1.1"];

/// Whose connection it is, or, when a proxy of ours says so, whose request; then the port means nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// Who may connect to a listener, and how.
#[derive(Clone)]
pub(crate) struct Entrance {
    limits: ServerLimits,
    visitors: Arc<Visitors>,
    /// Whose word about the client's address counts, and who are not one client.
    proxies: Proxies,
    tls: Option<TlsAcceptor>,
}

impl Entrance {
    /// For everybody: bounded per address, over TLS if there is a certificate.
    pub(crate) fn public(limits: &ServerLimits, proxies: &Proxies, certificate: Option<&Arc<Certificate>>) -> Self {
        Self {
            limits: limits.clone(),
            visitors: Visitors::new(limits.connections_max, limits.connections_per_address_max),
            proxies: proxies.clone(),
            tls: certificate.map(|certificate| TlsAcceptor::from(certificate.server_config(PROTOCOLS))),
        }
    }

    /// For one program of the operator's, on a private listener.
    pub(crate) fn private(limits: &ServerLimits) -> Self {
        let visitors = Visitors::new(limits.connections_max, limits.connections_max);
        Self { limits: limits.clone(), visitors, proxies: Proxies::default(), tls: None }
    }

    /// Accepts until told to stop, then lets requests under way finish within the shutdown timeout.
    pub(crate) async fn serve(self, listener: TcpListener, router: Router, stop: CancellationToken) {
        let graceful = GracefulShutdown::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => break,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let address = peer.ip().to_canonical();
            let Some(visit) = self.visitors.enter(address, self.proxies.contains(&address)) else {
                tracing::debug!(%peer, "connection turned away: too many are open");
                continue;
            };
            let (entrance, router, watcher) = (self.clone(), router.clone(), graceful.watcher());
            tokio::spawn(async move {
                if let Err(error) = entrance.receive(stream, peer, router, watcher, visit).await {
                    tracing::debug!(%peer, %error, "connection ended");
                }
            });
        }
        drop(listener);
        if timeout(self.limits.shutdown_timeout, graceful.shutdown()).await.is_err() {
            tracing::warn!("some requests did not finish in time");
        }
    }

    async fn receive(&self, stream: TcpStream, peer: SocketAddr, router: Router, watcher: Watcher, _visit: Visit) -> io::Result<()> {
        // Fails only for a connection that is gone already.
        let _ = stream.set_nodelay(true);
        let stream = Patient::new(stream, self.limits.write_timeout);
        match &self.tls {
            None => self.answer(stream, peer, router, watcher).await,
            Some(acceptor) => {
                let stream = timeout(self.limits.header_timeout, acceptor.accept(stream)).await.map_err(io::Error::other)??;
                self.answer(stream, peer, router, watcher).await
            }
        }
    }

    async fn answer(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: SocketAddr,
        router: Router,
        watcher: Watcher,
    ) -> io::Result<()> {
        let proxies = self.proxies.clone();
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            let mut router = router.clone();
            let peer = client(peer, request.headers(), &proxies);
            async move {
                let mut request: Request = request.map(Body::new);
                request.extensions_mut().insert(Peer(peer));
                router.call(request).await.map_err(|never: Infallible| never)
            }
        });
        let connection = http1::Builder::new()
            .auto_date_header(false)
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.header_timeout)
            .max_buf_size(HEAD_BYTES_MAX.max(64 * 1024))
            .serve_connection(TokioIo::new(stream), service);
        watcher.watch(connection).await.map_err(io::Error::other)
    }
}

/// Who asks: the last address in `X-Forwarded-For` that is no proxy of ours, if one of ours connects; what strangers write there is theirs.
fn client(peer: SocketAddr, headers: &HeaderMap, proxies: &Proxies) -> SocketAddr {
    const FORWARDED: HeaderName = HeaderName::from_static("x-forwarded-for");
    if !proxies.contains(&peer.ip()) {
        return peer;
    }
    let said = headers.get_all(FORWARDED).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    // Some proxies add the port.
    let read = |hop: &str| hop.parse().ok().or_else(|| hop.parse().ok().map(|with_port: SocketAddr| with_port.ip()));
    let mut hops: Vec<&str> = said.collect();
    hops.reverse();
    let mut addresses = hops.into_iter().map_while(|hop| read(hop.trim())).map(|ip: IpAddr| ip.to_canonical());
    let stranger = addresses.find(|address| !proxies.contains(address));
    stranger.map_or(peer, |address| SocketAddr::new(address, 0))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_forwarded_address_counts_only_from_a_proxy_of_ours() {
        let proxies = Proxies::parse("10.0.0.1,10.0.0.2,172.16.0.0/12").unwrap();
        let asks = |peer: &str, said: &[&str]| {
            let mut headers = HeaderMap::new();
            for said in said {
                headers.append("x-forwarded-for", HeaderValue::from_str(said).unwrap());
            }
            client(SocketAddr::new(peer.parse().unwrap(), 4_000), &headers, &proxies).ip().to_string()
        };
        assert_eq!(asks("203.0.113.9", &["198.51.100.1"]), "203.0.113.9");
        assert_eq!(asks("10.0.0.1", &["198.51.100.1"]), "198.51.100.1");
        // What the client itself wrote stands further left.
        assert_eq!(asks("10.0.0.1", &["1.1.1.1, 198.51.100.1, 10.0.0.2"]), "198.51.100.1");
        assert_eq!(asks("10.0.0.1", &["1.1.1.1", "198.51.100.1"]), "198.51.100.1");
        assert_eq!(asks("::ffff:10.0.0.1", &["198.51.100.1"]), "198.51.100.1");
        assert_eq!(asks("172.20.1.1", &["9.9.9.9, [2001:db8::1]:443"]), "2001:db8::1");
        // What cannot be read hides whatever stands before it.
        assert_eq!(asks("10.0.0.1", &["1.2.3.4, unknown"]), "10.0.0.1");
        assert_eq!(asks("10.0.0.1", &[]), "10.0.0.1");
    }
}
