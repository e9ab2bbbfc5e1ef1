//! From a name to an image of the cache.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::sync::Arc;

use data_encoding::HEXLOWER;
use docker_credential::CredentialRetrievalError;
use sha2::{Digest, Sha256};

use crate::credentials::Credentials;
use crate::layer::{LayerError, Spent, unpack};
use crate::limits::Limits;
use crate::local::Local;
use crate::manifest::{Blob, DEPTH_MAX, Manifest, ManifestError, Saved, diff_ids, read, sha256};
use crate::progress::{Progress, human_bytes};
use crate::registry::{Registry, RegistryError};
use crate::source::{Place, Source, SourceError};
use crate::staging::{Space, Staging, scratch};
use crate::store::{Image, Store, StoreError};
use crate::tree::Tree;

/// When an image is asked for where it comes from (`imagePullPolicy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullPolicy {
    /// Every time; what is in the cache already is not fetched again.
    Always,
    /// When the cache has none by that name.
    IfNotPresent,
    /// Never.
    Never,
}

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
#[error("image {image}: {problem}")]
pub struct FetchError {
    /// Its name.
    pub image: String,
    /// What is wrong. The message says all of it.
    pub problem: FetchProblem,
}

/// What is wrong with an image, or on the way to it.
#[derive(Debug, thiserror::Error)]
pub enum FetchProblem {
    /// Its name.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The policy says never.
    #[error("it is not in the cache, and imagePullPolicy is Never: orlop-agent image import it first")]
    Never,
    /// The registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The docker configuration.
    #[error("the docker configuration: {0}")]
    Credentials(CredentialRetrievalError),
    /// A local file of the image.
    #[error("{name}: {source}")]
    Local {
        /// Which.
        name: String,
        /// Why not.
        source: io::Error,
    },
    /// Its documents.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// Something has other bytes than its digest says.
    #[error("{what} is not what its digest says: expected sha256:{expected}, found sha256:{found}")]
    Digest {
        /// What.
        what: String,
        /// The digest that it is known by.
        expected: String,
        /// The digest of what came.
        found: String,
    },
    /// A layer.
    #[error("layer {number} of {of}: {source}")]
    Layer {
        /// Counted from 1.
        number: usize,
        /// How many there are.
        of: usize,
        /// What is wrong.
        source: LayerError,
    },
    /// The cache.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The thread that unpacks ended.
    #[error("unpacking failed: {0}")]
    Thread(#[from] tokio::task::JoinError),
}

/// Fetches images into a store.
#[derive(Clone)]
pub struct Puller {
    /// The cache.
    pub store: Store,
    /// What an image may cost.
    pub limits: Limits,
    /// Hears how it goes on.
    pub progress: Arc<dyn Progress>,
}

/// Where the parts of an image come from.
enum Origin<'a> {
    Registry(Registry<'a>),
    Local(Local),
}

/// A layer, not fetched yet.
#[derive(Debug, Clone)]
enum Layer {
    Blob(Blob),
    /// A file of a `docker save` archive, known by its diff id only.
    Member(String),
}

/// What an image consists of.
struct Parts {
    id: String,
    layers: Vec<Layer>,
    /// Digests of the layers, decompressed.
    diff_ids: Option<Vec<String>>,
}

/// What is put together, layer by layer.
struct Work {
    staging: Staging,
    tree: Tree,
    spent: Spent,
}

impl Puller {
    /// The image called `name`: from the cache, or from where it comes, as `policy` says; unset, as KubeVirt does.
    pub async fn get(
        &self,
        name: &str,
        policy: Option<PullPolicy>,
        credentials: &Credentials,
    ) -> Result<Image, FetchError> {
        let failed = |problem| FetchError { image: name.to_owned(), problem };
        let source: Source = name.parse().map_err(|error| failed(FetchProblem::Source(error)))?;
        self.of(&source, policy, credentials).await.map_err(failed)
    }

    async fn of(
        &self,
        source: &Source,
        policy: Option<PullPolicy>,
        credentials: &Credentials,
    ) -> Result<Image, FetchProblem> {
        let policy = policy.unwrap_or_else(|| source.default_policy());
        if policy != PullPolicy::Always
            && let Some(image) = self.store.find(&source.to_string())?
        {
            return Ok(image);
        }
        match policy {
            PullPolicy::Never => Err(FetchProblem::Never),
            _ => self.fetch(source, credentials).await,
        }
    }

    async fn fetch(&self, source: &Source, credentials: &Credentials) -> Result<Image, FetchProblem> {
        let name = source.to_string();
        let (origin, parts) = match source {
            Source::Registry(reference) => {
                let login = credentials.find(reference.registry()).map_err(FetchProblem::Credentials)?;
                let registry = Registry::new(reference, login, &self.limits, &*self.progress)?;
                let digest = match reference.digest() {
                    Some(text) => match text.strip_prefix("sha256:") {
                        None => return Err(ManifestError::Digest(text.to_owned()).into()),
                        hex => hex,
                    },
                    None => None,
                };
                let tag = reference.tag().unwrap_or("latest");
                let origin = Origin::Registry(registry);
                let parts = self.parts(&origin, digest, tag, None).await?;
                (origin, parts)
            }
            Source::Layout(Place { path, name }) => {
                let local = Local::layout(path).map_err(|source| named(&path.to_string_lossy(), source))?;
                let origin = Origin::Local(local);
                let parts = self.parts(&origin, None, "", name.as_deref()).await?;
                (origin, parts)
            }
            Source::Archive(Place { path, name }) => self.archive(path, name.as_deref()).await?,
        };
        let staging = loop {
            if let Some(image) = self.store.find_by_id(&parts.id, &name)? {
                self.progress.say(&format!("{name} is in the cache: sha256:{}", parts.id));
                return Ok(image);
            }
            match self.store.stage(&parts.id)? {
                Some(staging) => break staging,
                None => {
                    self.progress.say(&format!("waiting for another process that imports {name}"));
                    let (store, id) = (self.store.clone(), parts.id.clone());
                    tokio::task::spawn_blocking(move || store.wait_for_stage(&id)).await??;
                }
            }
        };
        // Between the look and the claim another process may have finished.
        if let Some(image) = self.store.find_by_id(&parts.id, &name)? {
            return Ok(image);
        }
        self.put_together(&origin, &parts, staging, &name).await
    }

    async fn put_together(
        &self,
        origin: &Origin<'_>,
        parts: &Parts,
        mut staging: Staging,
        name: &str,
    ) -> Result<Image, FetchProblem> {
        staging.begin(self.limits.reserve_bytes)?;
        let mut work = Work { staging, tree: Tree::default(), spent: Spent::default() };
        let of = parts.layers.len();
        for (index, layer) in parts.layers.iter().enumerate() {
            let number = index + 1;
            let blob = self.open(origin, layer, number, of, &work.staging).await?;
            self.progress.say(&format!("{name}: unpacking layer {number} of {of}"));
            let expected = match layer {
                Layer::Blob(blob) => Some(blob.clone()),
                Layer::Member(_) => None,
            };
            let (limits, progress) = (self.limits.clone(), Arc::clone(&self.progress));
            let (done, found) = tokio::task::spawn_blocking(move || {
                let found = apply(&mut work, blob, index, of, expected.as_ref(), &limits, &*progress)?;
                Ok::<_, FetchProblem>((work, found))
            })
            .await??;
            work = done;
            if let Some(expected) = parts.diff_ids.as_ref().and_then(|ids| ids.get(index)) {
                check(&format!("layer {number} of {of}, unpacked,"), expected, &found)?;
            }
        }
        let image = self.store.commit(work.staging, &parts.id, name, &work.tree)?;
        self.progress.say(&format!("{name}: imported as sha256:{}", parts.id));
        Ok(image)
    }

    /// The bytes of a layer, as they come.
    async fn open(
        &self,
        origin: &Origin<'_>,
        layer: &Layer,
        number: usize,
        of: usize,
        staging: &Staging,
    ) -> Result<(Box<dyn Read + Send>, u64), FetchProblem> {
        match (origin, layer) {
            (Origin::Registry(registry), Layer::Blob(blob)) => {
                self.progress
                    .say(&format!("fetching layer {number} of {of}, {}", human_bytes(blob.len_bytes)));
                let space = staging.space();
                space.check(blob.len_bytes).map_err(RegistryError::Io)?;
                let mut file = staging.scratch()?;
                registry.blob(blob, &mut file, &space).await?;
                file.rewind().map_err(RegistryError::Io)?;
                Ok((Box::new(file), blob.len_bytes))
            }
            (Origin::Local(local), layer) => {
                let name = match layer {
                    Layer::Blob(blob) => blob_name(&blob.sha256),
                    Layer::Member(name) => name.clone(),
                };
                local.open(&name).map_err(|source| named(&name, source))
            }
            (Origin::Registry(_), Layer::Member(name)) => Err(named(name, io::ErrorKind::NotFound.into())),
        }
    }

    /// Reads manifests until there is an image: from `digest` or `tag`, and in a layout from its index by `name`.
    async fn parts(
        &self,
        origin: &Origin<'_>,
        digest: Option<&str>,
        tag: &str,
        name: Option<&str>,
    ) -> Result<Parts, FetchProblem> {
        let mut digest = digest.map(str::to_owned);
        let mut bytes = match (origin, &digest) {
            (Origin::Local(local), None) => self.local(local, "index.json")?,
            (Origin::Registry(registry), None) => registry.manifest(tag).await?,
            (_, Some(digest)) => self.manifest(origin, digest).await?,
        };
        let mut name = name;
        for _ in 0..=DEPTH_MAX {
            match read(&bytes, name.take(), &self.limits)? {
                Manifest::Index(blob) => {
                    bytes = self.manifest(origin, &blob.sha256).await?;
                    digest = Some(blob.sha256);
                }
                Manifest::Image { config, layers } => {
                    let diff_ids = match config {
                        Some(config) => Some(diff_ids(&self.config(origin, &config).await?, layers.len())?),
                        None => None,
                    };
                    let id = digest.unwrap_or_else(|| sha256(&bytes));
                    return Ok(Parts { id, layers: layers.into_iter().map(Layer::Blob).collect(), diff_ids });
                }
            }
        }
        Err(ManifestError::Depth.into())
    }

    async fn manifest(&self, origin: &Origin<'_>, digest: &str) -> Result<Vec<u8>, FetchProblem> {
        let bytes = match origin {
            Origin::Registry(registry) => registry.manifest(&format!("sha256:{digest}")).await?,
            Origin::Local(local) => self.local(local, &blob_name(digest))?,
        };
        check("the manifest", digest, &sha256(&bytes))?;
        Ok(bytes)
    }

    async fn config(&self, origin: &Origin<'_>, config: &Blob) -> Result<Vec<u8>, FetchProblem> {
        let bytes = match origin {
            Origin::Local(local) => self.local(local, &blob_name(&config.sha256))?,
            Origin::Registry(registry) => {
                if config.len_bytes > self.limits.document_bytes {
                    let reason = format!("{} bytes are too many", config.len_bytes);
                    return Err(ManifestError::Syntax { what: "configuration", reason }.into());
                }
                let mut file = scratch(self.store.root()).map_err(RegistryError::Io)?;
                let space =
                    Space::of(self.store.root(), self.limits.reserve_bytes).map_err(RegistryError::Io)?;
                registry.blob(config, &mut file, &space).await?;
                all_of(file).map_err(RegistryError::Io)?
            }
        };
        check("the configuration", &config.sha256, &sha256(&bytes))?;
        Ok(bytes)
    }

    fn local(&self, local: &Local, name: &str) -> Result<Vec<u8>, FetchProblem> {
        local.document(name, &self.limits).map_err(|source| named(name, source))
    }

    /// An archive in either form.
    async fn archive(
        &self,
        path: &std::path::Path,
        name: Option<&str>,
    ) -> Result<(Origin<'static>, Parts), FetchProblem> {
        let shown = path.to_string_lossy();
        let open = || {
            let space = Space::of(self.store.root(), self.limits.reserve_bytes)?;
            Local::archive(path, scratch(self.store.root())?, &space, &self.limits)
        };
        let local = open().map_err(|source| named(&shown, source))?;
        if local.has("index.json") {
            let origin = Origin::Local(local);
            let parts = self.parts(&origin, None, "", name).await?;
            return Ok((origin, parts));
        }
        let saved = Saved::read(&self.local(&local, "manifest.json")?, name, &self.limits)?;
        let config = self.local(&local, &saved.config)?;
        let id = saved.config_sha256()?.to_owned();
        check("the configuration", &id, &sha256(&config))?;
        let diff_ids = Some(diff_ids(&config, saved.layers.len())?);
        let layers = saved.layers.into_iter().map(Layer::Member).collect();
        Ok((Origin::Local(local), Parts { id, layers, diff_ids }))
    }
}

/// Unpacks one layer; the digest of its decompressed bytes.
fn apply(
    work: &mut Work,
    (blob, len_bytes): (Box<dyn Read + Send>, u64),
    index: usize,
    of: usize,
    expected: Option<&Blob>,
    limits: &Limits,
    progress: &dyn Progress,
) -> Result<String, FetchProblem> {
    let number = index + 1;
    let mut counted = Counted { inner: blob, hash: Sha256::new(), done: 0, len_bytes, progress };
    let unpacked = unpack(&mut counted, index, &mut work.tree, &mut work.staging, &mut work.spent, limits);
    // The digest decides first: of bytes that are not the right ones nothing else is worth a word.
    io::copy(&mut counted, &mut io::sink()).map_err(|source| FetchProblem::Layer {
        number,
        of,
        source: source.into(),
    })?;
    if let Some(expected) = expected {
        check(
            &format!("layer {number} of {of}"),
            &expected.sha256,
            &HEXLOWER.encode(&counted.hash.finalize()),
        )?;
    }
    unpacked.map_err(|source| FetchProblem::Layer { number, of, source })
}

/// Hashes a blob as it is read, and says how far it is.
struct Counted<'a> {
    inner: Box<dyn Read + Send>,
    hash: Sha256,
    done: u64,
    len_bytes: u64,
    progress: &'a dyn Progress,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.inner.read(buffer)?;
        self.hash.update(&buffer[..len]);
        self.done += len as u64;
        self.progress.bytes(self.done, Some(self.len_bytes));
        Ok(len)
    }
}

fn named(name: &str, source: io::Error) -> FetchProblem {
    FetchProblem::Local { name: name.to_owned(), source }
}

fn blob_name(sha256: &str) -> String {
    format!("blobs/sha256/{sha256}")
}

fn check(what: &str, expected: &str, found: &str) -> Result<(), FetchProblem> {
    if expected == found {
        return Ok(());
    }
    Err(FetchProblem::Digest {
        what: what.to_owned(),
        expected: expected.to_owned(),
        found: found.to_owned(),
    })
}

fn all_of(mut file: File) -> io::Result<Vec<u8>> {
    file.rewind()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
