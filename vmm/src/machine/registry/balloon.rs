//! The memory balloon.

use orlop_api::config::VmConfig;
use orlop_api::device::DeviceKind;
use orlop_virtio_balloon::{Config, PAGE_BYTES, build};

use super::{Built, Controls, DeviceError, Spec, Wanted};
use crate::machine::files::Files;
use crate::machine::plan::{PlanError, check};

#[derive(Debug)]
struct Balloon {
    target_bytes: u64,
    deflate_on_oom: bool,
    free_page_reporting: bool,
}

/// The balloon, where the configuration has one.
pub fn row(config: &VmConfig) -> Result<Vec<Wanted>, PlanError> {
    let Some(balloon) = &config.balloon else { return Ok(Vec::new()) };
    let (target, most) = (balloon.target_bytes, config.memory.size_bytes);
    check::ensure(target <= most && target.is_multiple_of(PAGE_BYTES), "balloon.target_bytes", || {
        format!("{target} is not a multiple of {PAGE_BYTES} of at most {most}, the guest's memory")
    })?;
    let spec = Box::new(Balloon {
        target_bytes: target,
        deflate_on_oom: balloon.deflate_on_oom,
        free_page_reporting: balloon.free_page_reporting,
    });
    Ok(vec![Wanted { id: "balloon".to_owned(), field: "balloon".to_owned(), kind: DeviceKind::Balloon, spec }])
}

impl Spec for Balloon {
    fn build(self: Box<Self>, _files: &mut Files) -> Result<Built, DeviceError> {
        let Self { target_bytes, deflate_on_oom, free_page_reporting } = *self;
        let config = Config { name: "balloon".to_owned(), target_bytes, deflate_on_oom, free_page_reporting };
        let (parts, handle) = build(config).map_err(DeviceError::of)?;
        let balloon = Some(Box::new(move |target_bytes| {
            // The driver's side has checked it against the guest's memory, which is never too large for it.
            let _ = handle.set_target_bytes(target_bytes);
        }) as Box<dyn Fn(u64) + Send>);
        Ok(Built::virtio(parts, Controls { balloon, ..Controls::default() }))
    }
}
