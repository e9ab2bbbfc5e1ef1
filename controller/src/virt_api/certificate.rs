//! The certificate by which the API server knows this server: made here, kept in a Secret that all replicas share, and renewed
//! before it ends.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use anyhow::{Context as _, bail};
use data_encoding::BASE64;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use time::OffsetDateTime;

/// The Secret, by the name that KubeVirt gives it.
const SECRET: &str = "kubevirt-virt-api-certs";
/// The authority lives longer than any cluster is left alone; what it signs is renewed.
const AUTHORITY_LIFE: time::Duration = time::Duration::days(3650);
const LIFE: time::Duration = time::Duration::days(30);
/// A certificate is renewed when this much of its life is left.
const REST: time::Duration = time::Duration::days(10);
/// How often one looks, at the clock and for what another replica renewed.
const LOOK: Duration = Duration::from_secs(3600);
/// Attempts at a Secret that another replica writes at the same time.
const ATTEMPTS: usize = 5;

/// What the Secret holds, in PEM.
#[derive(Clone, Debug, PartialEq)]
struct Keys {
    authority: String,
    authority_key: String,
    certificate: String,
    key: String,
    /// When the certificate is to be renewed, in seconds since 1970.
    renew_at: i64,
}

/// The keys of this server.
pub struct Store {
    secrets: Api<Secret>,
    names: Vec<String>,
    authority: String,
    served: Arc<Served>,
}

impl Store {
    /// Takes the keys from the Secret, made by whichever replica is first. `names` are what the API server calls this server.
    pub async fn open(client: Client, namespace: &str, names: Vec<String>) -> anyhow::Result<Self> {
        let secrets: Api<Secret> = Api::namespaced(client, namespace);
        let keys = current(&secrets, &names).await?;
        let served = Arc::new(Served(RwLock::new(Arc::new(certified(&keys)?))));
        Ok(Self { secrets, names, authority: keys.authority, served })
    }

    /// For the TLS server.
    pub fn resolver(&self) -> Arc<dyn ResolvesServerCert> {
        Arc::clone(&self.served) as Arc<dyn ResolvesServerCert>
    }

    /// What the API server is to trust, in base64 of PEM as a `caBundle` wants it.
    pub fn authority(&self) -> String {
        BASE64.encode(self.authority.as_bytes())
    }

    /// Goes on for ever, and serves what is renewed at once.
    pub async fn renew(&self) -> anyhow::Result<()> {
        loop {
            tokio::time::sleep(LOOK).await;
            match current(&self.secrets, &self.names).await {
                Ok(keys) if keys.authority != self.authority => {
                    bail!("the Secret {SECRET} was made anew: a restart takes it up")
                }
                Ok(keys) => self.served.set(certified(&keys)?),
                // What is served is good for days.
                Err(error) => tracing::warn!("{error:#}"),
            }
        }
    }
}

/// The keys as they are to be now; made or renewed where that is due.
async fn current(secrets: &Api<Secret>, names: &[String]) -> anyhow::Result<Keys> {
    let now = OffsetDateTime::now_utc();
    for _ in 0..ATTEMPTS {
        let found =
            secrets.get_opt(SECRET).await.with_context(|| format!("cannot read the Secret {SECRET}"))?;
        let stored = found.as_ref().and_then(read);
        if let Some(keys) = &stored
            && keys.renew_at > now.unix_timestamp()
            && covers(&keys.certificate, names)
        {
            return Ok(keys.clone());
        }
        let keys = make(stored, names, now)?;
        let written = match found {
            Some(found) => {
                secrets.replace(SECRET, &PostParams::default(), &write(found.metadata, &keys)).await
            }
            None => {
                let metadata = ObjectMeta { name: Some(SECRET.to_owned()), ..ObjectMeta::default() };
                secrets.create(&PostParams::default(), &write(metadata, &keys)).await
            }
        };
        match written {
            Ok(_) => return Ok(keys),
            // Another replica was faster: what it wrote is as good.
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(error).with_context(|| format!("cannot write the Secret {SECRET}")),
        }
    }
    bail!("the Secret {SECRET} is written by others all the time")
}

/// A fresh certificate, by the same authority if there is one.
fn make(stored: Option<Keys>, names: &[String], now: OffsetDateTime) -> anyhow::Result<Keys> {
    let (authority, authority_key) = match stored {
        Some(keys) => (keys.authority, keys.authority_key),
        None => {
            let key = KeyPair::generate()?;
            let mut params = parameters("orlop virt-api authority", &[], now, AUTHORITY_LIFE)?;
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
            (params.self_signed(&key)?.pem(), key.serialize_pem())
        }
    };
    let issuer = Issuer::from_ca_cert_pem(&authority, KeyPair::from_pem(&authority_key)?)?;
    let mut params = parameters("virt-api", names, now, LIFE)?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &issuer)?.pem();
    let renew_at = (now + LIFE - REST).unix_timestamp();
    Ok(Keys { authority, authority_key, certificate, key: key.serialize_pem(), renew_at })
}

/// From an hour ago, since the API server's clock may be behind.
fn parameters(
    name: &str,
    names: &[String],
    now: OffsetDateTime,
    life: time::Duration,
) -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::new(names)?;
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    params.distinguished_name = distinguished;
    params.not_before = now - time::Duration::hours(1);
    params.not_after = now + life;
    Ok(params)
}

/// Whether a certificate in PEM is for all of `names`.
fn covers(certificate: &str, names: &[String]) -> bool {
    let Ok(der) = CertificateDer::from_pem_slice(certificate.as_bytes()) else { return false };
    let Ok(parsed) = rustls::server::ParsedCertificate::try_from(&der) else { return false };
    names.iter().all(|name| {
        rustls_pki_types::ServerName::try_from(name.as_str())
            .is_ok_and(|name| rustls::client::verify_server_name(&parsed, &name).is_ok())
    })
}

const RENEW_AT: &str = "renew-at";

fn read(secret: &Secret) -> Option<Keys> {
    let text = |name: &str| {
        let bytes = &secret.data.as_ref()?.get(name)?.0;
        String::from_utf8(bytes.clone()).ok()
    };
    Some(Keys {
        authority: text("ca.crt")?,
        authority_key: text("ca.key")?,
        certificate: text("tls.crt")?,
        key: text("tls.key")?,
        renew_at: text(RENEW_AT)?.parse().ok()?,
    })
}

fn write(metadata: ObjectMeta, keys: &Keys) -> Secret {
    let Keys { authority, authority_key, certificate, key, renew_at } = keys;
    let entry = |name: &str, text: &str| (name.to_owned(), ByteString(text.as_bytes().to_vec()));
    let data = BTreeMap::from([
        entry("ca.crt", authority),
        entry("ca.key", authority_key),
        entry("tls.crt", certificate),
        entry("tls.key", key),
        entry(RENEW_AT, &renew_at.to_string()),
    ]);
    Secret { metadata, data: Some(data), type_: Some("Opaque".to_owned()), ..Secret::default() }
}

fn certified(keys: &Keys) -> anyhow::Result<CertifiedKey> {
    let certificate = CertificateDer::from_pem_slice(keys.certificate.as_bytes())
        .with_context(|| format!("the Secret {SECRET} holds no certificate"))?;
    let key = PrivateKeyDer::from_pem_slice(keys.key.as_bytes())
        .with_context(|| format!("the Secret {SECRET} holds no key"))?;
    let key = rustls::crypto::ring::sign::any_supported_type(&key)?;
    Ok(CertifiedKey::new(vec![certificate], key))
}

/// The certificate that is served now.
#[derive(Debug)]
struct Served(RwLock<Arc<CertifiedKey>>);

impl Served {
    fn set(&self, key: CertifiedKey) {
        *self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(key);
    }
}

impl ResolvesServerCert for Served {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_renewed_certificate_has_the_same_authority_and_another_key() {
        let now = OffsetDateTime::now_utc();
        let wanted = names(&["virt-api.kubevirt.svc"]);
        let first = make(None, &wanted, now).unwrap();
        let second = make(Some(first.clone()), &wanted, now).unwrap();
        assert_eq!(first.authority, second.authority);
        assert_ne!(first.key, second.key);
        assert!(certified(&second).is_ok());
    }

    #[test]
    fn keys_survive_the_secret() {
        let keys = make(None, &names(&["10.0.0.1"]), OffsetDateTime::now_utc()).unwrap();
        assert_eq!(read(&write(ObjectMeta::default(), &keys)), Some(keys));
        assert_eq!(read(&Secret::default()), None);
    }

    #[test]
    fn a_certificate_for_another_name_is_noticed() {
        let keys = make(None, &names(&["10.0.0.1", "virt-api.a.svc"]), OffsetDateTime::now_utc()).unwrap();
        assert!(covers(&keys.certificate, &names(&["10.0.0.1", "virt-api.a.svc"])));
        assert!(!covers(&keys.certificate, &names(&["virt-api.b.svc"])));
        assert!(!covers("nonsense", &names(&["virt-api.a.svc"])));
    }
}
