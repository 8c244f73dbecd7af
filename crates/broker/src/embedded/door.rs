//! Our own accept loop before the library's: how many may come in, how long they may stay without a login, and TLS.
//!
//! The library has no call for any of the three, and none that takes a stream. So the door passes bytes on to a listener of the library on
//! loopback. It reads nothing of what it passes.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use rmqtt::net::rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split},
    net::{TcpListener, TcpSocket, TcpStream},
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_rustls::TlsAcceptor;

use super::{config::StartError, engine::BACKLOG, lobby::Lobby};
use crate::{
    Proxies,
    visitors::{Visit, Visitors},
};

/// After an accept that failed (no file descriptors left), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// What a device sends is small; what it gets may be a burst of frames.
const UP_BYTES: usize = 1024;
const DOWN_BYTES: usize = 8 * 1024;
/// What the system may hold of a connection between the library and the door: a till that does not read is noticed soon.
const INNER_BUFFER_BYTES: u32 = 64 * 1024;

/// One listener that others reach, and where what comes there is passed on to.
pub(super) struct Door {
    pub(super) listener: TcpListener,
    pub(super) inner: SocketAddr,
    pub(super) tls: Option<Arc<ServerConfig>>,
}

/// What all doors of a broker share.
pub(super) struct Rules {
    pub(super) visitors: Arc<Visitors>,
    pub(super) lobby: Arc<Lobby>,
    pub(super) proxies: Proxies,
    pub(super) login_timeout: Duration,
    pub(super) send_timeout: Duration,
}

/// Listens; port 0 takes a free one.
pub(super) fn listen(addr: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let bound = || {
        let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // On Unix this takes over ports that closed connections of an earlier broker still hold; it never shares one with a live listener.
        socket.set_reuseaddr(cfg!(unix))?;
        socket.bind(addr)?;
        let listener = socket.listen(BACKLOG)?;
        let addr = listener.local_addr()?;
        Ok((listener, addr))
    };
    bound().map_err(|error: io::Error| StartError::io(addr, &error))
}

impl Door {
    /// Accepts for ever.
    pub(super) async fn serve(self, rules: Arc<Rules>) {
        let acceptor = self.tls.map(TlsAcceptor::from);
        loop {
            let (stream, peer) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "mqtt accept failed");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let address = peer.ip().to_canonical();
            let Some(visit) = rules.visitors.enter(address, rules.proxies.contains(&address)) else {
                tracing::debug!(%peer, "mqtt connection turned away: too many are open");
                continue;
            };
            let (rules, acceptor, inner) = (rules.clone(), acceptor.clone(), self.inner);
            tokio::spawn(async move {
                if let Err(error) = rules.receive(stream, address, acceptor, inner, visit).await {
                    tracing::debug!(%peer, %error, "mqtt connection ended");
                }
            });
        }
    }
}

impl Rules {
    async fn receive(
        &self,
        stream: TcpStream,
        address: IpAddr,
        acceptor: Option<TlsAcceptor>,
        inner: SocketAddr,
        _visit: Visit,
    ) -> io::Result<()> {
        let login_by = Instant::now() + self.login_timeout;
        stream.set_nodelay(true)?;
        match acceptor {
            None => self.pass(stream, address, inner, login_by).await,
            Some(acceptor) => {
                let stream = timeout_at(login_by, acceptor.accept(stream)).await.map_err(io::Error::other)??;
                self.pass(stream, address, inner, login_by).await
            }
        }
    }

    /// Passes bytes on both ways until one side ends; only until `login_by` if there was no login.
    async fn pass(
        &self,
        outer: impl AsyncRead + AsyncWrite + Unpin,
        address: IpAddr,
        inner: SocketAddr,
        login_by: Instant,
    ) -> io::Result<()> {
        let socket = if inner.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_recv_buffer_size(INNER_BUFFER_BYTES)?;
        let inner = socket.connect(inner).await?;
        inner.set_nodelay(true)?;
        // Before a byte is passed on, so that the gate finds it.
        let mut place = self.lobby.enter(inner.local_addr()?, address);
        let (outer_read, outer_write) = split(outer);
        let (inner_read, inner_write) = inner.into_split();
        let up = pump(outer_read, inner_write, UP_BYTES, self.send_timeout);
        let down = pump(inner_read, outer_write, DOWN_BYTES, self.send_timeout);
        tokio::pin!(up, down);
        let login = async { timeout_at(login_by, place.logged_in.wait_for(|logged_in| *logged_in)).await.is_ok() };
        tokio::select! {
            result = &mut up => return finish(result, down, self.send_timeout).await,
            result = &mut down => return result,
            is_in_time = login => {
                if !is_in_time {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "no login in time"));
                }
            }
        }
        tokio::select! {
            result = &mut up => finish(result, down, self.send_timeout).await,
            result = &mut down => result,
        }
    }
}

/// The device has said its last word: what the library still has for it may go out.
async fn finish(said: io::Result<()>, down: impl Future<Output = io::Result<()>>, limit: Duration) -> io::Result<()> {
    said?;
    timeout(limit, down).await.unwrap_or(Ok(()))
}

/// Passes on until the end, which it passes on too. A receiver that takes nothing for `limit` ends it.
async fn pump(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, bytes: usize, limit: Duration) -> io::Result<()> {
    let mut buffer = vec![0; bytes];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return timeout(limit, to.shutdown()).await.map_err(io::Error::other)?;
        }
        let passed = async {
            to.write_all(&buffer[..count]).await?;
            to.flush().await
        };
        timeout(limit, passed).await.map_err(io::Error::other)??;
    }
}
