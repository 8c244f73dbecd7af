//! Throw-away devices: enrolled at the real server for the run, shut out after it. What happens to them at the broker is the server's doing.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::{
    cases::{MERCHANT, OTHER_MERCHANT},
    mqtt::Login,
};
use crate::{api::AdminApi, failure::Failure};

/// The matrix's devices and their branches.
const DEVICES: [(&str, &str, &str); 7] = [
    ("devA", MERCHANT, "b1"),
    ("devA2", MERCHANT, "b1"),
    ("devB", MERCHANT, "b2"),
    ("devM", MERCHANT, "b1"),
    ("devN", MERCHANT, "b1"),
    ("devR", MERCHANT, "b1"),
    ("devX", OTHER_MERCHANT, "b7"),
];

/// An enrolled device.
#[derive(Clone)]
struct Device {
    id: String,
    token: String,
}

/// The server, and the devices that were enrolled there.
pub(super) struct Stage {
    api: AdminApi,
    devices: HashMap<&'static str, Device>,
    /// What the server tells its devices.
    pub(super) env: String,
    pub(super) mqtt_url: String,
}

fn id_of(actor: &str) -> String {
    format!("mstore-verify-{actor}")
}

impl Stage {
    /// Makes the merchants, branches and devices; ends what an earlier run left.
    pub(super) async fn set(api: AdminApi) -> Result<Self, Failure> {
        for (merchant, branches) in [(MERCHANT, &["b1", "b2", "b10"][..]), (OTHER_MERCHANT, &["b7"])] {
            let settings = json!({"name": "mstore-sync broker verify", "currency": "USD"});
            api.put(&format!("/v1/admin/merchants/{merchant}"), &settings).await?;
            for branch in branches {
                let path = format!("/v1/admin/merchants/{merchant}/branches/{branch}");
                api.put(&path, &json!({"name": "throw-away devices"})).await?;
            }
        }
        let mut stage = Self { api, devices: HashMap::new(), env: String::new(), mqtt_url: String::new() };
        stage.clear().await;
        for (actor, merchant, branch) in DEVICES {
            // It is enrolled within its case.
            if actor != "devN" {
                stage.enrol(actor, merchant, branch).await?;
            }
        }
        Ok(stage)
    }

    /// Shuts all of them out.
    pub(super) async fn clear(&self) {
        for (actor, ..) in DEVICES {
            // One that was never enrolled cannot be shut out.
            let _unknown = self.act(actor, "revoke").await;
        }
    }

    /// Enrols a device as a till would.
    pub(super) async fn enrol_actor(&mut self, actor: &str) -> Result<(), Failure> {
        let known = DEVICES.into_iter().find(|(name, ..)| *name == actor);
        let (actor, merchant, branch) = known.ok_or_else(|| Failure::check(format!("the matrix has no device {actor}")))?;
        self.enrol(actor, merchant, branch).await
    }

    async fn enrol(&mut self, actor: &'static str, merchant: &str, branch: &str) -> Result<(), Failure> {
        let id = id_of(actor);
        let claim = json!({"device_id": id, "merchant": merchant, "branch": branch, "name": "broker verify"});
        let code = self.api.post("/v1/admin/devices", &claim).await?["code"].take();
        let nonce = format!("{:032x}", rand::random::<u128>());
        let enrolment = self.api.post("/v1/devices/enrol", &json!({"code": code, "nonce": nonce})).await?;
        let text = |key: &str| enrolment[key].as_str().unwrap_or_default().to_owned();
        (self.env, self.mqtt_url) = (text("env"), text("mqtt_url"));
        self.devices.insert(actor, Device { id, token: text("token") });
        Ok(())
    }

    /// How a device logs in to the broker.
    pub(super) fn login(&self, actor: &str) -> Login {
        let device = self.devices.get(actor).cloned().unwrap_or_else(|| Device { id: id_of(actor), token: "none".to_owned() });
        Login::new(&device.id, device.token)
    }

    /// The same with a session that the broker keeps.
    pub(super) fn persistent(&self, actor: &str) -> Login {
        Login { clean: false, ..self.login(actor) }
    }

    /// Shuts a device out.
    pub(super) async fn revoke(&self, actor: &str) -> Result<(), Failure> {
        self.act(actor, "revoke").await.map(|_view| ())
    }

    /// Gives it to branch b2.
    pub(super) async fn move_to_b2(&self, actor: &str) -> Result<(), Failure> {
        let path = format!("/v1/admin/devices/{}/move", id_of(actor));
        self.api.post(&path, &json!({"branch": "b2"})).await.map(|_view| ())
    }

    /// A new token, used once over HTTP as a till does: that ends the old one. The old login is returned.
    pub(super) async fn rotate(&mut self, actor: &'static str) -> Result<Login, Failure> {
        let old = self.login(actor);
        let rotated = self.act(actor, "rotate").await?;
        let token = rotated["token"].as_str().unwrap_or_default().to_owned();
        let id = id_of(actor);
        let used = AdminApi::new(self.api.base(), &format!("{id}:{token}"))?;
        let _head: Value = used.get(&format!("/v1/{MERCHANT}/b1/head")).await?;
        self.devices.insert(actor, Device { id, token });
        Ok(old)
    }

    async fn act(&self, actor: &str, what: &str) -> Result<Value, Failure> {
        self.api.post(&format!("/v1/admin/devices/{}/{what}", id_of(actor)), &json!({})).await
    }
}
