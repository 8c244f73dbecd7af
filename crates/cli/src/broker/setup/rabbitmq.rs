//! RabbitMQ: plugins, a configuration that asks the server, and one account that may end sessions.

use super::serve;
use crate::args::SetupArgs;

pub(super) fn text(args: &SetupArgs, secret: &str) -> String {
    let questions = ["user", "vhost", "resource", "topic"];
    let paths = questions.map(|question| format!("auth_http.{question}_path = http://{}/hooks/rabbitmq/{secret}/{question}", args.hooks));
    format!(
        "# 1. rabbitmq-plugins enable rabbitmq_mqtt rabbitmq_auth_backend_http rabbitmq_management\n\
         \n# 2. rabbitmq.conf; the file holds a secret: only RabbitMQ may read it\n\
         mqtt.listeners.ssl.default = 8883\n\
         ssl_options.cacertfile = /etc/rabbitmq/certs/ca.crt\n\
         ssl_options.certfile = /etc/rabbitmq/certs/server.crt\n\
         ssl_options.keyfile = /etc/rabbitmq/certs/server.key\n\
         mqtt.allow_anonymous = false\n\
         mqtt.vhost = /\n\
         mqtt.exchange = amq.topic\n\
         mqtt.subscription_ttl = 604800000\n\
         mqtt.prefetch = 20\n\
         mqtt.tcp_listen_options.nodelay = true\n\
         # operators stay RabbitMQ's own; whom it does not know, it asks about\n\
         auth_backends.1 = internal\n\
         auth_backends.2 = http\n\
         auth_http.http_method = post\n\
         {}\n\
         \n# 3. the account that ends the sessions of devices; RabbitMQ 3.10 lets administrators only close the connections of others\n\
         rabbitmqctl add_user mstore-admin\n\
         rabbitmqctl set_user_tags mstore-admin administrator\n\
         rabbitmqctl set_permissions -p / mstore-admin '^mqtt-subscription-.*' '^$' '^$'\n\
         \n# 4. the server; its own two accounts are known to it alone, with passwords that you make up\n\
         {}",
        paths.join("\n"),
        serve(args, "rabbitmq", "http://127.0.0.1:15672", "mstore-admin"),
    )
}
