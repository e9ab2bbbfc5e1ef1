//! The source of entropy.

use orlop_api::config::{RateLimit, RngConfig, VmConfig};
use orlop_api::device::DeviceKind;
use orlop_virtio_rng::{Config, build};

use super::{Built, Controls, DeviceError, Spec, Wanted};
use crate::machine::files::Files;
use crate::machine::plan::{PlanError, check};

#[derive(Debug)]
struct Rng {
    limit: Option<RateLimit>,
}

/// The source, where the configuration has one.
pub fn row(config: &VmConfig) -> Result<Vec<Wanted>, PlanError> {
    config.rng.iter().map(wanted).collect()
}

fn wanted(rng: &RngConfig) -> Result<Wanted, PlanError> {
    check::limit(rng.limit, "rng.limit")?;
    let spec = Box::new(Rng { limit: rng.limit });
    Ok(Wanted { id: "rng".to_owned(), field: "rng".to_owned(), kind: DeviceKind::Rng, spec })
}

impl Spec for Rng {
    fn build(self: Box<Self>, _files: &mut Files) -> Result<Built, DeviceError> {
        let limit = self.limit.map(|RateLimit { per_second, burst }| orlop_virtio::rate::RateLimit {
            per_second,
            burst,
        });
        let parts = build(Config { name: "rng".to_owned(), limit }).map_err(DeviceError::of)?;
        Ok(Built::virtio(parts, Controls::default()))
    }
}
