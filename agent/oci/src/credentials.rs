//! Who we are to a registry: what `docker login` and `podman login` keep, or a pull secret.

use docker_credential::{
    CredentialRetrievalError, DockerCredential, get_credential, get_credential_from_reader,
    get_podman_credential,
};

/// How the docker configuration calls Docker Hub.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// Proof of who we are.
#[derive(Clone, PartialEq, Eq)]
pub enum Login {
    /// Nothing.
    Anonymous,
    /// User and password.
    Password(String, String),
    /// A token that is exchanged for others (OAuth 2 refresh token).
    Token(String),
}

/// Where credentials are looked for.
#[derive(Clone, PartialEq, Eq, Default)]
pub enum Credentials {
    /// `$DOCKER_CONFIG/config.json` or `~/.docker/config.json`, then podman's `auth.json`.
    #[default]
    Machine,
    /// A pull secret: a docker configuration with nothing but `auths`.
    Secret(Vec<u8>),
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Machine => "Machine",
            Self::Secret(_) => "Secret(..)",
        })
    }
}

impl Credentials {
    /// Those for `registry`, a host with an optional port.
    pub fn find(&self, registry: &str) -> Result<Login, CredentialRetrievalError> {
        let name = if registry == "docker.io" { DOCKER_HUB } else { registry };
        let found = match self {
            Self::Machine => match get_credential(name) {
                Err(error) if is_nothing(&error) => get_podman_credential(registry),
                found => found,
            },
            Self::Secret(bytes) => get_credential_from_reader(only_auths(bytes).as_slice(), name),
        };
        match found {
            Ok(DockerCredential::UsernamePassword(user, password)) => Ok(Login::Password(user, password)),
            Ok(DockerCredential::IdentityToken(token)) => Ok(Login::Token(token)),
            Err(error) if is_nothing(&error) => Ok(Login::Anonymous),
            Err(error) => Err(error),
        }
    }
}

fn is_nothing(error: &CredentialRetrievalError) -> bool {
    use CredentialRetrievalError::{ConfigNotFound, ConfigReadError, NoCredentialConfigured};
    matches!(error, NoCredentialConfigured | ConfigNotFound | ConfigReadError)
}

/// A secret is data of a manifest: it may not name programs of this machine (`credHelpers`, `credsStore`).
fn only_auths(bytes: &[u8]) -> Vec<u8> {
    let config: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_default();
    serde_json::json!({ "auths": config.get("auths").cloned().unwrap_or_default() }).to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pull_secret_gives_a_login_and_starts_no_program() {
        let login = |text: &str, registry: &str| {
            Credentials::Secret(text.as_bytes().to_vec()).find(registry).map_err(|error| error.to_string())
        };
        // me:secret
        let auths = r#"{"auths":{"registry.example:5000":{"auth":"bWU6c2VjcmV0"}}}"#;
        assert!(login(auths, "registry.example:5000") == Ok(Login::Password("me".into(), "secret".into())));
        assert!(login(auths, "other.example") == Ok(Login::Anonymous));
        let hub = r#"{"auths":{"https://index.docker.io/v1/":{"identitytoken":"t"}}}"#;
        assert!(login(hub, "docker.io") == Ok(Login::Token("t".into())));
        let helper = r#"{"credsStore":"../../bin/true","credHelpers":{"registry.example":"x"}}"#;
        assert!(login(helper, "registry.example") == Ok(Login::Anonymous));
        assert!(login("no json", "registry.example") == Ok(Login::Anonymous));
        assert!(!format!("{:?}", Credentials::Secret(b"hidden".to_vec())).contains("hidden"));
    }
}
