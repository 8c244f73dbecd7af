//! What a Mosquitto needs before the server can use it: the server's own three accounts and their roles, made by the plugin's first administrator.

use std::sync::Arc;

use mstore_protocol::Env;
use serde_json::{Value, json};

use super::{Dynsec, roles, roles::Role};
use crate::{external::ExternalConfig, registrar::RegistrarError};

/// The names of the server's own accounts on the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DynsecAccounts {
    /// Publishes.
    pub backend: String,
    /// Listens whether that arrives.
    pub canary: String,
    /// Keeps the devices' accounts.
    pub accounts: String,
}

impl DynsecAccounts {
    /// The names that are used when nobody wants others.
    pub fn of(env: &Env) -> Self {
        Self {
            backend: format!("mstore-backend-{env}"),
            canary: format!("mstore-canary-{env}"),
            accounts: format!("mstore-accounts-{env}"),
        }
    }
}

/// Prepares a Mosquitto, once.
pub struct DynsecSetup {
    dynsec: Arc<Dynsec>,
    env: Env,
}

/// An account and its role; the password is put in when it is made.
struct Made {
    role: Role,
    username: String,
    client_id: Option<String>,
}

fn all(env: &Env) -> [Made; 3] {
    let DynsecAccounts { backend, canary, accounts } = DynsecAccounts::of(env);
    [
        Made { role: Role::backend(env), username: backend, client_id: None },
        Made { role: Role::canary(env), client_id: Some(canary.clone()), username: canary },
        Made { role: Role::accounts(env), username: accounts, client_id: None },
    ]
}

impl DynsecSetup {
    /// With the administrator that `mosquitto_ctrl dynsec init` made.
    pub fn new(administrator: ExternalConfig) -> Self {
        let env = administrator.env.clone();
        Self { dynsec: Arc::new(Dynsec::start(administrator)), env }
    }

    /// What [`Self::apply`] does, as the commands that the plugin gets; passwords are left out.
    pub fn plan(env: &Env) -> Vec<Value> {
        let mut plan = vec![json!({"command": "setDefaultACLAccess", "acls": roles::default_access()})];
        for Made { role, username, client_id } in all(env) {
            plan.push(role.command("createRole"));
            let mut client = json!({"command": "createClient", "username": username, "roles": [{"rolename": role.name, "priority": 0}]});
            if let Some(client_id) = client_id {
                client["clientid"] = json!(client_id);
            }
            plan.push(client);
        }
        plan
    }

    /// Makes what is missing and sets right what is otherwise; `password` gives each account's. Existing accounts get their password anew.
    pub async fn apply(&self, password: impl Fn(&str) -> String) -> Result<(), RegistrarError> {
        self.dynsec.deny_by_default().await?;
        for Made { role, username, client_id } in all(&self.env) {
            let (client, known) = self.dynsec.read(&username, &role.name).await?;
            self.dynsec.put_role(&role, known.as_ref()).await?;
            let command = if client.is_some() { "modifyClient" } else { "createClient" };
            let mut made = json!({
                "command": command, "username": username, "password": password(&username), "textdescription": "made by mstore-sync broker setup",
                "roles": [{"rolename": role.name, "priority": 0}],
            });
            if let Some(client_id) = client_id {
                made["clientid"] = json!(client_id);
            }
            self.dynsec.change(vec![made]).await?;
        }
        Ok(())
    }
}
