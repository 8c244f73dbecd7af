//! Closing one client's connection and forgetting its session, without waiting for a client that does not read.

use std::time::Duration;

use rmqtt::{
    context::ServerContext,
    types::{Id, Message, Reason},
};

use crate::broker::Kicked;

/// How long a session may take to answer before it counts as stuck in a write.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);

/// Closes the connection and purges the session of one client.
pub(super) async fn kick(context: &ServerContext, client_id: &str) -> Kicked {
    let mut entry = {
        let id = Id::from(context.node.id(), client_id.into());
        context.extends.shared().await.entry(id)
    };
    let Some(session) = entry.tx() else { return Kicked::Absent };
    // The session itself answers, between two packets: no subscription can slip in between its end and the removal of its routes.
    match tokio::time::timeout(ANSWER_TIMEOUT, entry.kick(true, true, true)).await {
        Ok(Ok(_)) => Kicked::Closed,
        Ok(Err(_)) | Err(_) => {
            // Stuck: take its routes away now; it finds this message when its write times out.
            let _ended_meanwhile = session.unbounded_send(Message::Closed(Reason::ConnectKicked(true)));
            if let Err(error) = entry.remove().await {
                tracing::warn!(device = client_id, error = format!("{error:#}"), "mqtt session not removed");
            }
            Kicked::Closing
        }
    }
}
