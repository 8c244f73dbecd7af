//! EMQX 5: two hooks that ask the server, and nobody let in whom it does not know. Written after its documentation; it was not run.

use super::serve;
use crate::args::SetupArgs;

pub(super) fn text(args: &SetupArgs, secret: &str) -> String {
    let hook = |path: &str, body: &str| {
        format!(
            "  method = post\n  url = \"http://{}/hooks/emqx/{path}\"\n  \
             headers {{ \"content-type\" = \"application/json\", \"authorization\" = \"Bearer {secret}\" }}\n  body {{ {body} }}",
            args.hooks
        )
    };
    let login = r#"username = "${username}", password = "${password}", clientid = "${clientid}""#;
    let wish = r#"username = "${username}", clientid = "${clientid}", topic = "${topic}", action = "${action}""#;
    format!(
        "# Written after the documentation of EMQX 5.8; no live EMQX was tried. Run `broker verify emqx` before you rely on it.\n\
         # 1. etc/base.hocon; the file holds a secret: only EMQX may read it. It must be the last of the authenticators: EMQX takes an error for\n\
         #    \"ask the next one\".\n\
         authentication = [{{\n  mechanism = password_based\n  backend = http\n{}\n}}]\n\
         authorization {{\n  no_match = deny\n  deny_action = ignore\n  cache {{ enable = true, max_size = 32, ttl = 1m }}\n  \
         sources = [{{\n  type = http\n{}\n  }}]\n}}\n\
         # a rule with `eq` would allow $share/GROUP/ before the same topic\n\
         mqtt {{ shared_subscription = false }}\n\
         \n# 2. an API key: it ends the sessions of devices\n\
         # 3. the server; its own two accounts are known to it alone, with passwords that you make up\n\
         {}",
        hook("authn", login),
        hook("authz", wish),
        serve(args, "emqx", "http://127.0.0.1:18083", "API-KEY"),
    )
}
