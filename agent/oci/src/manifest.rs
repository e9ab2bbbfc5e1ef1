//! Manifests, indexes and configurations: what an image consists of (pure).

use data_encoding::HEXLOWER;
use oci_spec::image::{Arch, Descriptor, ImageConfiguration, ImageIndex, ImageManifest, Os};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::limits::Limits;
use crate::store::is_id;

/// The annotation by which a layout names its images (image specification 1.1, annotations.md).
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Indexes in indexes.
pub const DEPTH_MAX: usize = 3;
/// Media types of manifests and indexes, for the `Accept` header.
pub const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
                          application/vnd.docker.distribution.manifest.list.v2+json, \
                          application/vnd.docker.distribution.manifest.v2+json";
/// Media types of a configuration that lists its layers.
const CONFIGURATIONS: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];

/// Why a document describes no image that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Not JSON of the right shape.
    #[error("its {what} cannot be read: {reason}")]
    Syntax {
        /// Which document.
        what: &'static str,
        /// Where and why.
        reason: String,
    },
    /// A digest by another algorithm.
    #[error("the digest '{0}' is not a SHA-256")]
    Digest(String),
    /// Too many layers.
    #[error("it has {0} layers, more than {1}")]
    Layers(usize, usize),
    /// Something else than file systems, such as a chart.
    #[error("its layer of type '{0}' is no file system layer")]
    LayerType(String),
    /// No image for this machine.
    #[error("it has no variant for linux/amd64, only for {0}")]
    Platform(String),
    /// No image by that name in a layout or archive.
    #[error("there is no image '{name}' in it; it has {}", if there.is_empty() { "no names" } else { there })]
    Name {
        /// What was asked for.
        name: String,
        /// What is there.
        there: String,
    },
    /// Several images, and no name given.
    #[error("it holds several images: give one of the names {0} after a ':'")]
    Several(String),
    /// None at all.
    #[error("it holds no image")]
    Empty,
    /// Indexes that lead to indexes.
    #[error("its index leads through more than {DEPTH_MAX} indexes")]
    Depth,
    /// The configuration lists another number of layers than the manifest.
    #[error("its configuration lists {config} layers and its manifest {manifest}")]
    Count {
        /// Layers of the configuration.
        config: usize,
        /// Layers of the manifest.
        manifest: usize,
    },
}

/// Something that is fetched by its digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// SHA-256 in hexadecimal.
    pub sha256: String,
    /// Length in bytes.
    pub len_bytes: u64,
}

impl Blob {
    fn of(descriptor: &Descriptor) -> Result<Self, ManifestError> {
        let text = descriptor.digest().to_string();
        let sha256 = text.strip_prefix("sha256:").filter(|hex| is_id(hex));
        let sha256 = sha256.ok_or_else(|| ManifestError::Digest(text.clone()))?.to_owned();
        Ok(Self { sha256, len_bytes: descriptor.size() })
    }
}

/// A manifest, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Manifest {
    /// It leads to this one.
    Index(Blob),
    /// An image.
    Image {
        /// The configuration, where it is one that lists the layers' digests.
        config: Option<Blob>,
        /// The layers, lowest first.
        layers: Vec<Blob>,
    },
}

/// SHA-256 in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(bytes))
}

fn syntax(what: &'static str) -> impl FnOnce(serde_json::Error) -> ManifestError {
    move |error| ManifestError::Syntax { what, reason: error.to_string() }
}

/// Reads a manifest or an index; of an index the variant for linux/amd64, and by `name` where that is given.
pub fn read(bytes: &[u8], name: Option<&str>, limits: &Limits) -> Result<Manifest, ManifestError> {
    #[derive(Deserialize)]
    struct Shape {
        manifests: Option<serde::de::IgnoredAny>,
    }
    let shape: Shape = serde_json::from_slice(bytes).map_err(syntax("manifest"))?;
    if shape.manifests.is_some() {
        let index: ImageIndex = serde_json::from_slice(bytes).map_err(syntax("index"))?;
        return choose(index.manifests(), name).and_then(Blob::of).map(Manifest::Index);
    }
    let manifest: ImageManifest = serde_json::from_slice(bytes).map_err(syntax("manifest"))?;
    if manifest.layers().len() > limits.layers {
        return Err(ManifestError::Layers(manifest.layers().len(), limits.layers));
    }
    let layers = manifest.layers().iter().map(layer).collect::<Result<_, _>>()?;
    let config = manifest.config();
    let lists_layers = CONFIGURATIONS.contains(&config.media_type().to_string().as_str());
    Ok(Manifest::Image { config: lists_layers.then(|| Blob::of(config)).transpose()?, layers })
}

fn layer(descriptor: &Descriptor) -> Result<Blob, ManifestError> {
    let kind = descriptor.media_type().to_string();
    let starts = ["application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs."];
    if !starts.iter().any(|start| kind.starts_with(start)) {
        return Err(ManifestError::LayerType(kind));
    }
    Blob::of(descriptor)
}

fn choose<'a>(all: &'a [Descriptor], name: Option<&str>) -> Result<&'a Descriptor, ManifestError> {
    let ref_name = |d: &'a Descriptor| d.annotations().as_ref().and_then(|a| a.get(REF_NAME));
    let named: Vec<_> = match name {
        Some(name) => all.iter().filter(|d| ref_name(d).is_some_and(|n| n == name)).collect(),
        None => all.iter().collect(),
    };
    let names = || all.iter().filter_map(ref_name).cloned().collect::<Vec<_>>().join(", ");
    if let (Some(name), []) = (name, named.as_slice()) {
        return Err(ManifestError::Name { name: name.to_owned(), there: names() });
    }
    let fits = |d: &&&Descriptor| {
        d.platform().as_ref().is_none_or(|p| *p.os() == Os::Linux && *p.architecture() == Arch::Amd64)
    };
    let mut found = named.iter().filter(fits);
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        // An index of one image may list attestations beside it; those have a platform that is unknown.
        (Some(one), Some(_)) if one.platform().is_some() => Ok(one),
        (Some(_), Some(_)) => Err(ManifestError::Several(names())),
        (None, _) if named.is_empty() => Err(ManifestError::Empty),
        (None, _) => {
            let platforms = named.iter().filter_map(|d| d.platform().as_ref());
            let texts: Vec<_> = platforms.map(|p| format!("{}/{}", p.os(), p.architecture())).collect();
            Err(ManifestError::Platform(texts.join(", ")))
        }
    }
}

/// The digests of the layers, decompressed, that a configuration lists.
pub fn diff_ids(config: &[u8], layers: usize) -> Result<Vec<String>, ManifestError> {
    let config: ImageConfiguration = serde_json::from_slice(config).map_err(syntax("configuration"))?;
    let ids = config.rootfs().diff_ids();
    if ids.len() != layers {
        return Err(ManifestError::Count { config: ids.len(), manifest: layers });
    }
    let hex = |id: &String| {
        let hex = id.strip_prefix("sha256:").filter(|hex| is_id(hex));
        hex.map(str::to_owned).ok_or_else(|| ManifestError::Digest(id.clone()))
    };
    ids.iter().map(hex).collect()
}

/// An image of a `docker save` archive: members of it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Saved {
    /// The configuration, which is called by its digest.
    pub config: String,
    /// Its names.
    #[serde(default)]
    pub repo_tags: Option<Vec<String>>,
    /// The layers, lowest first.
    pub layers: Vec<String>,
}

impl Saved {
    /// Reads `manifest.json` of such an archive.
    pub fn read(bytes: &[u8], name: Option<&str>, limits: &Limits) -> Result<Self, ManifestError> {
        let all: Vec<Self> = serde_json::from_slice(bytes).map_err(syntax("manifest.json"))?;
        let tags = |saved: &Self| saved.repo_tags.clone().unwrap_or_default();
        let names = all.iter().flat_map(tags).collect::<Vec<_>>().join(", ");
        let found: Vec<Self> = match name {
            Some(name) => all.into_iter().filter(|saved| tags(saved).iter().any(|tag| tag == name)).collect(),
            None => all,
        };
        match (<[_; 1]>::try_from(found), name) {
            (Ok([one]), _) if one.layers.len() > limits.layers => {
                Err(ManifestError::Layers(one.layers.len(), limits.layers))
            }
            (Ok([one]), _) => Ok(one),
            (Err(none), Some(name)) if none.is_empty() => {
                Err(ManifestError::Name { name: name.to_owned(), there: names })
            }
            (Err(none), None) if none.is_empty() => Err(ManifestError::Empty),
            (Err(_), _) => Err(ManifestError::Several(names)),
        }
    }

    /// The digest in the configuration's name: `SHA256.json` or `blobs/sha256/SHA256`.
    pub fn config_sha256(&self) -> Result<&str, ManifestError> {
        let name = self.config.rsplit('/').next().unwrap_or_default();
        let hex = name.strip_suffix(".json").unwrap_or(name);
        if is_id(hex) { Ok(hex) } else { Err(ManifestError::Digest(self.config.clone())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

    fn descriptor(kind: &str, digit: char, rest: &str) -> String {
        let digest = digit.to_string().repeat(64);
        format!(r#"{{"mediaType":"{kind}","digest":"sha256:{digest}","size":7{rest}}}"#)
    }

    fn image(config: &str, layer: &str) -> String {
        let (config, layer) = (descriptor(config, 'c', ""), descriptor(layer, 'd', ""));
        format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layer}]}}"#)
    }

    fn of(text: &str, name: Option<&str>) -> Result<Manifest, ManifestError> {
        read(text.as_bytes(), name, &Limits::default())
    }

    #[test]
    fn a_manifest_gives_its_layers_and_configuration() {
        let blob = |digit: &str| Blob { sha256: digit.repeat(64), len_bytes: 7 };
        assert_eq!(
            of(&image(CONFIG, LAYER), None),
            Ok(Manifest::Image { config: Some(blob("c")), layers: vec![blob("d")] })
        );
        let docker = image(CONFIGURATIONS[1], "application/vnd.docker.image.rootfs.diff.tar.gzip");
        assert!(matches!(of(&docker, None), Ok(Manifest::Image { config: Some(_), .. })));
        let artifact = image("application/vnd.oci.empty.v1+json", LAYER);
        assert!(matches!(of(&artifact, None), Ok(Manifest::Image { config: None, .. })));
        let chart = image(CONFIG, "application/vnd.cncf.helm.chart.content.v1.tar+gzip");
        assert!(matches!(of(&chart, None), Err(ManifestError::LayerType(_))));
    }

    #[test]
    fn an_index_gives_the_variant_for_this_machine_and_name() {
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let variant = |digit, architecture: &str, name: &str| {
            let platform = format!(r#","platform":{{"os":"linux","architecture":"{architecture}"}}"#);
            let name = format!(r#","annotations":{{"{REF_NAME}":"{name}"}}"#);
            descriptor(kind, digit, &format!("{platform}{name}"))
        };
        let index = |all: &[String]| format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, all.join(","));
        let digit = |found: Result<Manifest, ManifestError>| match found {
            Ok(Manifest::Index(blob)) => blob.sha256.chars().next().unwrap(),
            other => panic!("{other:?}"),
        };
        let both =
            index(&[variant('a', "arm64", "x"), variant('b', "amd64", "x"), variant('e', "unknown", "")]);
        assert_eq!(digit(of(&both, None)), 'b');
        assert_eq!(
            of(&index(&[variant('a', "arm64", "x")]), None),
            Err(ManifestError::Platform("linux/arm64".into()))
        );
        let named = |digit, name: &str| {
            descriptor(kind, digit, &format!(r#","annotations":{{"{REF_NAME}":"{name}"}}"#))
        };
        let two = index(&[named('1', "v1"), named('2', "v2")]);
        assert_eq!(digit(of(&two, Some("v2"))), '2');
        assert_eq!(of(&two, None), Err(ManifestError::Several("v1, v2".into())));
        assert!(matches!(of(&two, Some("v3")), Err(ManifestError::Name { .. })));
        assert_eq!(of(&index(&[]), None), Err(ManifestError::Empty));
    }

    #[test]
    fn what_is_no_manifest_is_refused() {
        for bad in ["", "[]", "{}", r#"{"manifests":7}"#, r#"{"schemaVersion":2,"layers":[]}"#, "\u{0}"] {
            assert!(matches!(of(bad, None), Err(ManifestError::Syntax { .. })), "{bad}");
        }
        let long = image(CONFIG, LAYER).replace(&"d".repeat(64), "d");
        assert!(of(&long, None).is_err());
        let limits = Limits { layers: 0, ..Limits::default() };
        assert_eq!(read(image(CONFIG, LAYER).as_bytes(), None, &limits), Err(ManifestError::Layers(1, 0)));
    }
}
