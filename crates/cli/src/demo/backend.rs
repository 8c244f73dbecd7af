//! The demo's server: inside this process, or a process of its own that can be killed.

use std::{net::SocketAddr, path::Path};

use crate::{
    api::AdminApi,
    config::{Config, Retention},
    failure::Failure,
    serve,
    server_process::{Ready, ServerProcess},
};

/// A running server.
pub(crate) enum Backend {
    /// In this process.
    Inside(Box<serve::Started>),
    /// In a process of its own.
    Process(Box<ServerProcess>),
}

impl Backend {
    /// Starts on free ports of loopback.
    pub(crate) async fn start(data_dir: &Path, in_process: bool) -> Result<Self, Failure> {
        if !in_process {
            return Ok(Self::Process(Box::new(ServerProcess::start(data_dir, None).await?)));
        }
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        let config = Config {
            data_dir: data_dir.to_owned(),
            database: None,
            retention: Retention::default(),
            personal_data: mstore_protocol::PersonalData::default(),
            env: mstore_protocol::Env::parse("demo").map_err(|error| Failure::usage(error.to_string()))?,
            profile: mstore_protocol::Profile::Production,
            listen: free,
            mqtt_listen: free,
            ws_listen: free,
            tls: Default::default(),
            limits: Default::default(),
            broker: None,
            public: mstore_server::PublicUrls::default(),
            backend: Default::default(),
            device_token_max_age: None,
            log: String::new(),
            log_json: false,
        };
        Ok(Self::Inside(Box::new(serve::start(&config).await?)))
    }

    /// Where it is.
    pub(crate) fn ready(&self) -> Ready {
        match self {
            Self::Inside(started) => started.ready(),
            Self::Process(process) => process.ready.clone(),
        }
    }

    /// An administrator of it.
    pub(crate) fn admin(&self) -> Result<AdminApi, Failure> {
        let ready = self.ready();
        let token = std::fs::read_to_string(&ready.admin_token_file)
            .map_err(|error| Failure::unavailable(format!("{}: {error}", ready.admin_token_file.display())))?;
        AdminApi::new(&ready.http, &token)
    }

    /// The worst that a night brings: the broker restarts and drops every connection, or the whole process dies at once and comes back.
    pub(crate) async fn disrupt(self, data_dir: &Path) -> Result<Self, Failure> {
        match self {
            Self::Inside(started) => {
                started
                    .running
                    .broker_restart()
                    .await
                    .map_err(|error| Failure::unavailable(format!("the broker did not restart: {error}")))?;
                Ok(Self::Inside(started))
            }
            Self::Process(process) => {
                let ready = process.kill().await?;
                Ok(Self::Process(Box::new(ServerProcess::start(data_dir, Some(&ready)).await?)))
            }
        }
    }

    /// Stops it in order.
    pub(crate) async fn shutdown(self) {
        match self {
            Self::Inside(started) => started.running.shutdown().await,
            Self::Process(process) => drop(process.kill().await),
        }
    }
}
