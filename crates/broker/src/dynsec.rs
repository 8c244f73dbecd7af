//! Mosquitto's dynamic-security plugin, kept in step with the registry: one client per device, one role per branch.
//!
//! Changes go one by one: the plugin rewrites its whole file at each, and the broker stands still meanwhile. It never touches what it did not
//! make. It cannot see passwords; a client's description says which token its password is.

mod control;
mod listed;
mod roles;
mod setup;

use std::collections::{BTreeSet, HashMap};

use async_trait::async_trait;
use mstore_protocol::{DeviceId, Env};
use serde_json::{Value, json};
use tokio::sync::watch;

pub use self::setup::{DynsecAccounts, DynsecSetup};
use self::{
    control::{Control, Outcome},
    listed::Client,
    roles::Role,
};
use crate::{
    broker::Kicked,
    external::ExternalConfig,
    registrar::{Account, AccountBook, Registrar, RegistrarError, Settled},
};

/// A page of clients stays below the size of a packet that a broker may be set to.
const CLIENTS_PER_PAGE: usize = 100;
/// A role is nine lines.
const ROLES_PER_PAGE: usize = 20;
/// What the plugin calls things that are not there.
const NOT_FOUND: &str = "not found";

/// Keeps the accounts of a Mosquitto.
pub struct Dynsec {
    control: Control,
    env: Env,
}

impl Dynsec {
    /// Begins to connect with the account that may ask the plugin; goes on for as long as it lives.
    pub fn start(config: ExternalConfig) -> Self {
        let env = config.env.clone();
        Self { control: Control::start(config), env }
    }

    /// Has one command carried out.
    async fn ask(&self, command: Value) -> Result<Value, RegistrarError> {
        let mut outcomes = self.control.ask(vec![command]).await?;
        outcomes.pop().unwrap_or(Ok(Value::Null)).map_err(RegistrarError::Refused)
    }

    /// Has commands carried out that must all succeed.
    async fn change(&self, commands: Vec<Value>) -> Result<(), RegistrarError> {
        let outcomes = self.control.ask(commands).await?;
        outcomes.into_iter().collect::<Result<Vec<_>, _>>().map(|_done| ()).map_err(RegistrarError::Refused)
    }

    /// A client and a role, where they exist.
    async fn read(&self, username: &str, role: &str) -> Result<(Option<Client>, Option<Role>), RegistrarError> {
        let ask = vec![json!({"command": "getClient", "username": username}), json!({"command": "getRole", "rolename": role})];
        let mut outcomes = self.control.ask(ask).await?.into_iter();
        let mut next = |key: &str| found(outcomes.next().unwrap_or(Ok(Value::Null))).map(|data| data.map(|data| data[key].clone()));
        let (client, role) = (next("client")?, next("role")?);
        Ok((client.as_ref().and_then(Client::read), role.as_ref().and_then(Role::read)))
    }

    /// Brings a role to what it should be; whether it was otherwise.
    async fn put_role(&self, wanted: &Role, known: Option<&Role>) -> Result<bool, RegistrarError> {
        if known == Some(wanted) {
            return Ok(false);
        }
        let command = if known.is_some() { "modifyRole" } else { "createRole" };
        self.change(vec![wanted.command(command)]).await?;
        Ok(true)
    }

    /// Everything of a listing, page by page.
    async fn list(&self, command: &str, key: &str, per_page: usize) -> Result<Vec<Value>, RegistrarError> {
        let mut all = Vec::new();
        loop {
            let ask = json!({"command": command, "verbose": true, "count": per_page, "offset": all.len()});
            let mut data = self.ask(ask).await?;
            let Some(page) = data[key].as_array_mut().filter(|page| !page.is_empty()) else { return Ok(all) };
            all.append(page);
        }
    }

    /// What nobody may do without a role; set right if it is not.
    async fn deny_by_default(&self) -> Result<(), RegistrarError> {
        if roles::is_default_access(&self.ask(json!({"command": "getDefaultACLAccess"})).await?) {
            return Ok(());
        }
        tracing::warn!("the broker let everybody receive what no rule forbids; from now on only what a rule allows");
        self.ask(json!({"command": "setDefaultACLAccess", "acls": roles::default_access()})).await.map(|_done| ())
    }
}

/// What is not there is no error.
fn found(outcome: Outcome) -> Result<Option<Value>, RegistrarError> {
    match outcome {
        Ok(data) => Ok(Some(data)),
        Err(why) if why.contains(NOT_FOUND) => Ok(None),
        Err(why) => Err(RegistrarError::Refused(why)),
    }
}

#[async_trait]
impl Registrar for Dynsec {
    fn reached(&self) -> watch::Receiver<u64> {
        self.control.reached()
    }

    async fn settle(&self, device: &DeviceId, wanted: Option<&Account>) -> Result<Settled, RegistrarError> {
        let role = wanted.map(Role::branch);
        let (client, known) = self.read(device.as_str(), role.as_ref().map_or("", |role| &role.name)).await?;
        if client.as_ref().is_some_and(|client| !client.is_ours(&self.env)) {
            return Err(RegistrarError::Foreign(device.clone()));
        }
        let (Some(account), Some(role)) = (wanted, role) else {
            if client.is_none() {
                return Ok(Settled::Unchanged);
            }
            self.change(vec![json!({"command": "deleteClient", "username": device.as_str()})]).await?;
            return Ok(Settled::Changed);
        };
        let role_changed = self.put_role(&role, known.as_ref()).await?;
        let to_be = Client::wanted(account);
        if client.as_ref() == Some(&to_be) {
            return Ok(if role_changed { Settled::Changed } else { Settled::Unchanged });
        }
        self.change(to_be.commands(client.as_ref(), &account.token)).await?;
        Ok(Settled::Changed)
    }

    /// The plugin ends a client's connection with every change of it. What Mosquitto keeps for the session cannot be purged from outside; the
    /// role decides what of it is delivered.
    async fn end_session(&self, _device: &DeviceId) -> Result<Kicked, RegistrarError> {
        Ok(Kicked::Closed)
    }

    async fn survey(&self, book: &dyn AccountBook) -> Result<Vec<DeviceId>, RegistrarError> {
        self.deny_by_default().await?;
        let roles = self.list("listRoles", "roles", ROLES_PER_PAGE).await?;
        let roles: HashMap<String, Role> = roles.iter().filter_map(Role::read).map(|role| (role.name.clone(), role)).collect();
        let clients = self.list("listClients", "clients", CLIENTS_PER_PAGE).await?;
        let clients = clients.iter().filter_map(Client::read);
        let mut clients: HashMap<String, Client> = clients.map(|client| (client.username.clone(), client)).collect();
        let mut differing = BTreeSet::new();
        let mut after = None;
        loop {
            let (page, next) = book.accounts(after.as_ref()).await?;
            for account in page {
                let role = Role::branch(&account);
                let is_in_step = clients.remove(account.device.as_str()).is_some_and(|known| known == Client::wanted(&account))
                    && roles.get(&role.name) == Some(&role);
                if !is_in_step {
                    differing.insert(account.device);
                }
            }
            match next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        let strays = clients.into_values().filter(|client| client.is_ours(&self.env));
        differing.extend(strays.filter_map(|client| DeviceId::parse(&client.username).ok()));
        Ok(differing.into_iter().collect())
    }
}
