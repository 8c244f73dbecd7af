//! NATS: a configuration with a file of users that the server writes, and what it cannot do.

use mstore_broker::{NATS_BEGIN, NATS_END};

use crate::args::SetupArgs;

/// 2.9 gives no delay and no batches to think of; the file of users is all there is.
const CONFIGURATION: &str = "\
server_name: mstore-1
pid_file: /run/nats/nats.pid
http: 127.0.0.1:8222
jetstream { store_dir: /var/lib/nats, max_mem: 64M, max_file: 1G }
mqtt {
  listen: 0.0.0.0:8883
  ack_wait: 30s
  max_ack_pending: 100
  tls { cert_file: /etc/nats/server.crt, key_file: /etc/nats/server.key }
}
max_payload: 262144
include \"users.conf\"
";

pub(super) fn text(args: &SetupArgs) -> String {
    let (env, url) = (&args.env, &args.url);
    format!(
        "# NATS before 2.10 cannot bind a client id to a device: any enrolled device can cut another one off (C05 of `broker verify`), and\n\
         # before 2.11.15 and 2.12.6 it may take over its session (CVE-2026-33215). Use it where you trust all devices of all merchants.\n\
         \n# 1. nats.conf\n{CONFIGURATION}\
         \n# 2. users.conf beside it; the server rewrites what stands between the marks, and must be allowed to write and to signal NATS\n\
         accounts {{\n  MSTORE: {{ jetstream: enabled, users: [\n    # your own users of this account\n{NATS_BEGIN}\n{NATS_END}\n  ] }}\n}}\n\
         \n# 3. the server; its own two accounts are written into the file, with passwords that you make up\n\
         mstore-sync serve --env {env} --broker {url} --broker-kind nats \\\n  \
         --broker-users-file /etc/nats/users.conf --broker-pid-file /run/nats/nats.pid --broker-admin-url http://127.0.0.1:8222 \\\n  \
         --broker-username mstore-backend-{env} --broker-password-file FILE \\\n  \
         --broker-canary-username mstore-canary-{env} --broker-canary-password-file FILE"
    )
}
