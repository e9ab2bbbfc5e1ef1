//! Keys, certificates and kubeconfigs of a cluster.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use serde_json::json;
use time::{Duration, OffsetDateTime};

use crate::addresses::{self, SERVER};

/// Why the keys could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A certificate could not be made.
    #[error("failed to make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// A file could not be written.
    #[error("failed to write {}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

/// Writes everything that the control plane needs into `directory`, and hands back who signs for nodes.
pub(crate) fn make(directory: &Path) -> Result<(), PkiError> {
    let write = |name: &str, text: &str| write(&directory.join(name), text);
    let ca = Authority::new("orlop-test-ca")?;
    let front_proxy = Authority::new("orlop-test-front-proxy-ca")?;
    for (name, authority) in [("ca", &ca), ("front-proxy-ca", &front_proxy)] {
        write(&format!("{name}.crt"), &authority.certificate)?;
        write(&format!("{name}.key"), &authority.issuer.key().serialize_pem())?;
    }
    let pairs = [
        ("front-proxy-client", front_proxy.issue("front-proxy-client", None, &[])?),
        ("apiserver", ca.issue("kube-apiserver", None, &addresses::server_names())?),
        ("apiserver-kubelet-client", ca.issue("kube-apiserver-kubelet-client", Some("system:masters"), &[])?),
    ];
    for (name, pair) in pairs {
        write(&format!("{name}.crt"), &pair.certificate)?;
        write(&format!("{name}.key"), &pair.key)?;
    }
    let service_accounts = KeyPair::generate()?;
    write("sa.key", &service_accounts.serialize_pem())?;
    write("sa.pub", &service_accounts.public_key_pem())?;
    for (name, user, group) in [
        ("admin", "admin", Some("system:masters")),
        ("controller-manager", "system:kube-controller-manager", None),
        ("scheduler", "system:kube-scheduler", None),
        ("proxy", "system:kube-proxy", None),
    ] {
        write(&format!("{name}.kubeconfig"), &ca.kubeconfig(&ca.issue(user, group, &[])?))?;
    }
    Ok(())
}

/// Writes what the node `name` at `address` needs into `directory`: its key, its certificate as client and server, its kubeconfig,
/// and that of its proxy.
pub(crate) fn make_node(pki: &Path, name: &str, address: IpAddr, directory: &Path) -> Result<(), PkiError> {
    let ca = Authority::read(pki)?;
    let names = [name.to_owned(), address.to_string()];
    let pair = ca.issue(&format!("system:node:{name}"), Some("system:nodes"), &names)?;
    write(&directory.join("kubelet.crt"), &pair.certificate)?;
    write(&directory.join("kubelet.key"), &pair.key)?;
    write(&directory.join("kubelet.kubeconfig"), &ca.kubeconfig(&pair))?;
    write(&directory.join("ca.crt"), &ca.certificate)?;
    let (from, to) = (pki.join("proxy.kubeconfig"), directory.join("proxy.kubeconfig"));
    fs::copy(&from, &to).map(drop).map_err(|source| PkiError::File { path: from, source })
}

struct Pair {
    certificate: String,
    key: String,
}

struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Result<Self, PkiError> {
        let mut params = parameters(name, None, &[])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self { certificate, issuer: Issuer::new(params, key) })
    }

    /// The authority of a cluster that is there already.
    fn read(pki: &Path) -> Result<Self, PkiError> {
        let certificate = read(&pki.join("ca.crt"))?;
        let key = KeyPair::from_pem(&read(&pki.join("ca.key"))?)?;
        let issuer = Issuer::from_ca_cert_pem(&certificate, key)?;
        Ok(Self { certificate, issuer })
    }

    fn issue(&self, user: &str, group: Option<&str>, names: &[String]) -> Result<Pair, PkiError> {
        let mut params = parameters(user, group, names)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Pair { certificate, key: key.serialize_pem() })
    }

    /// JSON is YAML.
    fn kubeconfig(&self, pair: &Pair) -> String {
        let encoded = |text: &str| BASE64.encode(text.as_bytes());
        let cluster = json!({
            "server": format!("https://{SERVER}:{}", addresses::SERVER_PORT),
            "certificate-authority-data": encoded(&self.certificate),
        });
        let user = json!({
            "client-certificate-data": encoded(&pair.certificate),
            "client-key-data": encoded(&pair.key),
        });
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "orlop", "cluster": cluster }],
            "users": [{ "name": "orlop", "user": user }],
            "contexts": [{ "name": "orlop", "context": { "cluster": "orlop", "user": "orlop" } }],
            "current-context": "orlop",
        })
        .to_string()
    }
}

/// Valid from yesterday, since a node's clock may be behind, for a year.
fn parameters(user: &str, group: Option<&str>, names: &[String]) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::new(names)?;
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, user);
    if let Some(group) = group {
        name.push(DnType::OrganizationName, group);
    }
    params.distinguished_name = name;
    let now = OffsetDateTime::now_utc();
    params.not_before = now - Duration::days(1);
    params.not_after = now + Duration::days(365);
    Ok(params)
}

fn read(path: &Path) -> Result<String, PkiError> {
    fs::read_to_string(path).map_err(|source| PkiError::File { path: path.to_owned(), source })
}

fn write(path: &Path, text: &str) -> Result<(), PkiError> {
    fs::write(path, text).map_err(|source| PkiError::File { path: path.to_owned(), source })
}
