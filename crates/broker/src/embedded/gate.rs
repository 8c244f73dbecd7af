//! The broker library's questions, answered by [`decide`]: who may connect, subscribe and publish.

use std::{
    net::IpAddr,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use mstore_protocol::Timestamp;
use rmqtt::{
    codec::v5::SubscribeAckReason,
    context::ServerContext,
    hook::{Handler, HookResult, Parameter, ReturnType, Type},
    session::Session,
    types::{AuthResult, ConnectInfo, Publish, PublishAclResult, Reason, Subscribe, SubscribeReturn},
};

use super::{kick::kick, live::Live, lobby::Lobby};
use crate::{
    allowance::{Allowance, Network, Rate},
    auth::DeviceAuth,
    policy::{Action, Decision, Denial, Principal, decide},
};

/// How often a login is checked again because devices were kicked meanwhile, before it is refused and left to the client's own retry.
const ADMISSION_TRIES: u32 = 5;

/// Stands between the clients and the broker.
pub(super) struct Gate {
    auth: Arc<dyn DeviceAuth>,
    pub(super) live: Live,
    pub(super) lobby: Arc<Lobby>,
    wrong_logins: Allowance<Network>,
    /// Empty before the start and after the end: the context owns the gate, so the gate must let go of it.
    context: RwLock<Option<ServerContext>>,
    pub(super) refused: AtomicU64,
    pub(super) dropped: AtomicU64,
}

impl Gate {
    pub(super) fn new(auth: Arc<dyn DeviceAuth>, wrong_logins: Rate) -> Arc<Self> {
        let (refused, dropped) = (AtomicU64::new(0), AtomicU64::new(0));
        let wrong_logins = Allowance::new(wrong_logins);
        Arc::new(Self { auth, live: Live::default(), lobby: Arc::default(), wrong_logins, context: RwLock::new(None), refused, dropped })
    }

    /// Takes its place in front of the broker.
    pub(super) async fn install(self: &Arc<Self>, context: &ServerContext) {
        *self.context.write().unwrap_or_else(PoisonError::into_inner) = Some(context.clone());
        let register = context.extends.hook_mgr().register();
        for question in [
            Type::ClientAuthenticate,
            Type::ClientConnected,
            Type::ClientDisconnected,
            Type::ClientSubscribeCheckAcl,
            Type::MessagePublishCheckAcl,
            Type::MessageDropped,
        ] {
            register.add(question, Box::new(Hook(self.clone()))).await;
        }
        register.start().await;
    }

    /// Lets go of the broker; refuses every login from now on.
    pub(super) fn close(&self) {
        *self.context.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn context(&self) -> Option<ServerContext> {
        self.context.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn authenticate(&self, connect: &ConnectInfo) -> AuthResult {
        let Some(address) = self.lobby.address(connect.id()) else {
            tracing::warn!(device = &**connect.client_id(), reason = "past_the_door", "mqtt login refused");
            return AuthResult::NotAuthorized;
        };
        let answer = self.admit(connect, address).await;
        if matches!(answer, AuthResult::Allow(..)) {
            self.lobby.logged_in(connect.id());
        } else {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        answer
    }

    /// Says why a login is refused, unless this address hears it all the time. A right login is never refused for the wrong ones before it:
    /// nobody can lock a till out.
    fn refuse(&self, address: IpAddr, device: &str, reason: &str) -> AuthResult {
        match self.wrong_logins.take(address.into(), now()) {
            Ok(()) => tracing::info!(device = shortened(device), %address, reason, "mqtt login refused"),
            Err(_) => tracing::debug!(device = shortened(device), %address, reason, "mqtt login refused again"),
        }
        AuthResult::BadUsernameOrPassword
    }

    async fn admit(&self, connect: &ConnectInfo, address: IpAddr) -> AuthResult {
        let client_id: &str = connect.client_id();
        let Some(context) = self.context() else { return AuthResult::NotAuthorized };
        let (Some(username), Some(password)) = (connect.username(), connect.password()) else {
            return self.refuse(address, client_id, "no_credentials");
        };
        for _ in 0..ADMISSION_TRIES {
            let kicks = self.live.kicks();
            let Some(principal) = self.auth.authenticate(username, password).await else {
                return self.refuse(address, username, "bad_credentials");
            };
            let action = Action::Connect { client_id, has_will: connect.last_will().is_some() };
            if let Decision::Deny(reason) = decide(&principal, &action) {
                tracing::warn!(device = &**username, client_id, branch = branch_of(&principal), %reason, "mqtt login refused");
                return AuthResult::NotAuthorized;
            }
            if !connect.clean_start() {
                drop_foreign_session(&context, client_id, &principal).await;
            }
            let branch = branch_of(&principal);
            if self.live.admit(connect.id().clone(), principal, kicks) {
                tracing::debug!(device = client_id, branch, "mqtt login");
                return AuthResult::Allow(false, None);
            }
        }
        tracing::warn!(device = client_id, reason = "kicked_meanwhile", "mqtt login refused");
        AuthResult::NotAuthorized
    }

    /// A kick that came between the login and now found no session to close, so close it here.
    fn connected(&self, session: &Session) {
        if self.live.knows(&session.id.client_id) {
            return;
        }
        let (context, client_id) = (session.scx.clone(), session.id.client_id.clone());
        tokio::spawn(async move { kick(&context, &client_id).await });
    }

    async fn principal(&self, session: &Session) -> Option<Principal> {
        match self.live.principal(&session.id) {
            Some(principal) => Some(principal),
            None => self.auth.principal(session.id.username.as_deref()?).await,
        }
    }

    async fn refusal(&self, session: &Session, action: &Action<'_>) -> Option<Denial> {
        let principal = self.principal(session).await;
        let reason = match principal.as_ref().map(|principal| decide(principal, action)) {
            Some(Decision::Allow) => return None,
            Some(Decision::Deny(reason)) => reason,
            None => Denial::Revoked,
        };
        self.refused.fetch_add(1, Ordering::Relaxed);
        let (event, topic) = match action {
            Action::Subscribe(filter) => ("mqtt subscription refused", *filter),
            Action::Publish { topic } => ("mqtt publish refused", *topic),
            Action::Connect { client_id, .. } => ("mqtt login refused", *client_id),
        };
        let branch = principal.as_ref().map(branch_of);
        tracing::warn!(device = &*session.id.client_id, branch, topic = shortened(topic), %reason, "{event}");
        Some(reason)
    }

    async fn subscribe(&self, session: &Session, subscribe: &Subscribe) -> SubscribeReturn {
        // The library takes a shared group off the filter before it asks; put it back, so that the policy sees what was sent.
        let whole = subscribe.opts.shared_group().map(|group| format!("$share/{group}/{}", subscribe.topic_filter));
        let filter = whole.as_deref().unwrap_or(&subscribe.topic_filter);
        match self.refusal(session, &Action::Subscribe(filter)).await {
            None => SubscribeReturn::new_success(subscribe.opts.qos(), None),
            Some(_) => SubscribeReturn::new_failure(SubscribeAckReason::NotAuthorized),
        }
    }

    async fn publish(&self, session: &Session, publish: &Publish) -> PublishAclResult {
        match self.refusal(session, &Action::Publish { topic: &publish.topic }).await {
            None => PublishAclResult::allow(),
            // MQTT 3.1.1 has no negative acknowledgement: closing the connection is the only honest answer (§3.3.5.2).
            Some(_) => PublishAclResult::rejected(true, None),
        }
    }

    fn dropped(&self, client_id: &str, publish: &Publish) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(device = client_id, topic = &*publish.topic, "mqtt queue full, oldest message dropped");
    }
}

/// A session that its client left without the clean-session flag holds subscriptions nobody asks about again. Those of a branch the device
/// has left must not come back to life.
async fn drop_foreign_session(context: &ServerContext, client_id: &str, principal: &Principal) {
    let entry = {
        let id = rmqtt::types::Id::from(context.node.id(), client_id.into());
        context.extends.shared().await.entry(id)
    };
    let kept = entry.subscriptions().await.unwrap_or_default();
    if kept.iter().any(|kept| !decide(principal, &Action::Subscribe(&kept.topic)).is_allowed()) {
        tracing::info!(device = client_id, branch = branch_of(principal), "mqtt session of another branch dropped");
        kick(context, client_id).await;
    }
}

fn branch_of(principal: &Principal) -> String {
    match principal {
        Principal::Device { scope, .. } => scope.to_string(),
        Principal::Backend { env } | Principal::Canary { env, .. } => env.to_string(),
    }
}

/// A topic as a log line may hold it: a stranger chooses its length.
fn shortened(topic: &str) -> &str {
    const LOGGED_BYTES_MAX: usize = 200;
    let end = (0..=topic.len().min(LOGGED_BYTES_MAX)).rev().find(|end| topic.is_char_boundary(*end)).unwrap_or(0);
    &topic[..end]
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_ms(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

struct Hook(Arc<Gate>);

#[async_trait]
impl Handler for Hook {
    #[expect(clippy::wildcard_enum_match_arm, reason = "asked only what `install` registered it for")]
    #[expect(elided_lifetimes_in_paths, reason = "the library declares its trait so, and the lifetimes must match")]
    async fn hook(&self, question: &Parameter, answer: Option<HookResult>) -> ReturnType {
        let gate = &self.0;
        match question {
            Parameter::ClientAuthenticate(connect) => (false, Some(HookResult::AuthResult(gate.authenticate(connect).await))),
            Parameter::ClientSubscribeCheckAcl(session, subscribe) => {
                (false, Some(HookResult::SubscribeAclResult(gate.subscribe(session, subscribe).await)))
            }
            Parameter::MessagePublishCheckAcl(session, publish) => {
                (false, Some(HookResult::PublishAclResult(gate.publish(session, publish).await)))
            }
            Parameter::ClientConnected(session) => {
                gate.connected(session);
                (true, answer)
            }
            Parameter::ClientDisconnected(session, reason) => {
                gate.live.forget(&session.id);
                tracing::debug!(device = &*session.id.client_id, %reason, "mqtt connection closed");
                (true, answer)
            }
            Parameter::MessageDropped(Some(to), _, publish, Reason::MessageQueueFull) => {
                gate.dropped(&to.client_id, publish);
                (true, answer)
            }
            _ => (true, answer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logged_topics_are_cut_at_a_character() {
        assert_eq!(shortened("a/b"), "a/b");
        assert_eq!(shortened(&"x".repeat(65_535)).len(), 200);
        assert_eq!(shortened(&format!("{}é", "x".repeat(199))).len(), 199);
    }
}
