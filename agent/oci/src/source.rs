//! How people name an image, and where that name leads.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use oci_spec::distribution::Reference;

use crate::PullPolicy;

/// Where an image comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A registry, by the distribution API.
    Registry(Reference),
    /// A directory with an OCI image layout.
    Layout(Place),
    /// A tar file, possibly compressed: an OCI image layout or what `docker save` writes.
    Archive(Place),
}

/// A local image: a path, and which of the images there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Absolute path.
    pub path: PathBuf,
    /// The image's name there; unset: the only one.
    pub name: Option<String>,
}

/// Why a text names no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// The path after `oci:` and its like.
    #[error("'{0}' needs an absolute path after its first ':'")]
    Path(String),
    /// Neither a transport nor a reference.
    #[error(
        "'{text}' names no image ({reason}): say registry.example/name:tag, oci:/directory[:name], oci-archive:/file.tar \
         or docker-archive:/file.tar"
    )]
    Reference {
        /// What was given.
        text: String,
        /// What is wrong with it as a reference.
        reason: String,
    },
}

/// Transports of local archives, as `containers-transports(5)` calls them; both forms are told apart by their content.
const ARCHIVES: [&str; 2] = ["oci-archive:", "docker-archive:"];
/// The transport of a layout directory.
const LAYOUT: &str = "oci:";
/// May stand before a reference to a registry.
const REGISTRY: &str = "docker://";

impl FromStr for Source {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        if let Some(rest) = text.strip_prefix(LAYOUT) {
            return place(text, rest).map(Self::Layout);
        }
        if let Some(rest) = ARCHIVES.iter().find_map(|prefix| text.strip_prefix(prefix)) {
            return place(text, rest).map(Self::Archive);
        }
        let name = text.strip_prefix(REGISTRY).unwrap_or(text);
        name.parse::<Reference>()
            .map(Self::Registry)
            .map_err(|error| SourceError::Reference { text: text.to_owned(), reason: error.to_string() })
    }
}

/// Reads `PATH[:NAME]`.
fn place(text: &str, rest: &str) -> Result<Place, SourceError> {
    let (path, name) = match rest.split_once(':') {
        Some((path, name)) if !name.is_empty() => (path, Some(name.to_owned())),
        Some((path, _)) => (path, None),
        None => (rest, None),
    };
    if !path.starts_with('/') {
        return Err(SourceError::Path(text.to_owned()));
    }
    Ok(Place { path: path.into(), name })
}

impl Source {
    /// What KubeVirt and the kubelet do where a manifest has no `imagePullPolicy`.
    pub fn default_policy(&self) -> PullPolicy {
        match self {
            Self::Registry(reference)
                if reference.digest().is_none() && reference.tag() == Some("latest") =>
            {
                PullPolicy::Always
            }
            _ => PullPolicy::IfNotPresent,
        }
    }
}

impl fmt::Display for Source {
    /// The full name, the same however it was abbreviated: the cache knows the image by it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (transport, place) = match self {
            Self::Registry(reference) => return write!(f, "{reference}"),
            Self::Layout(place) => (LAYOUT, place),
            Self::Archive(place) => ("archive:", place),
        };
        write!(f, "{transport}{}", place.path.display())?;
        place.name.as_ref().map_or(Ok(()), |name| write!(f, ":{name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_to_a_registry_a_layout_or_an_archive() {
        for (text, full) in [
            ("quay.io/containerdisks/debian:12", "quay.io/containerdisks/debian:12"),
            ("debian", "docker.io/library/debian:latest"),
            ("docker://localhost:5000/a/b", "localhost:5000/a/b:latest"),
            ("oci:/srv/image", "oci:/srv/image"),
            ("oci:/srv/image:v1", "oci:/srv/image:v1"),
            ("oci-archive:/a.tar", "archive:/a.tar"),
            ("docker-archive:/a.tar:quay.io/x:v1", "archive:/a.tar:quay.io/x:v1"),
        ] {
            assert_eq!(text.parse::<Source>().unwrap().to_string(), full, "{text}");
        }
        let digest = format!("registry.example/a@sha256:{}", "0".repeat(64));
        assert_eq!(digest.parse::<Source>().unwrap().to_string(), digest);
    }

    #[test]
    fn what_names_no_image_is_said() {
        for bad in
            ["", "a/UPPER", "a b", "-x", "oci:relative", "docker-archive:", "x@sha256:12", "http://a/b"]
        {
            assert!(bad.parse::<Source>().is_err(), "{bad}");
        }
        assert!("oci:x".parse::<Source>().unwrap_err().to_string().contains("absolute path"));
    }

    #[test]
    fn only_what_moves_is_asked_for_every_time() {
        let policy = |text: &str| text.parse::<Source>().unwrap().default_policy();
        assert_eq!(policy("a/b"), PullPolicy::Always);
        assert_eq!(policy("a/b:latest"), PullPolicy::Always);
        assert_eq!(policy("a/b:v1"), PullPolicy::IfNotPresent);
        assert_eq!(policy(&format!("a/b@sha256:{}", "0".repeat(64))), PullPolicy::IfNotPresent);
        assert_eq!(policy("oci:/x"), PullPolicy::IfNotPresent);
    }
}
