//! Small bodies that change a machine which exists.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The body of `PUT /vm/balloon`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BalloonTarget {
    /// Bytes to take from the guest: a multiple of 4096, at most the size of its memory. The guest decides how soon.
    pub target_bytes: u64,
}

/// The body of `PUT /vm/devices/{id}/medium`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Medium {
    /// The image to put into this CD-ROM drive: the name of a descriptor given with `--fd NAME=N`, which is used up. A
    /// confined process opens nothing by path.
    pub fd: String,
}

/// The body of `PUT /vm/devices/{id}/size`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DiskSize {
    /// The disk's new size: a multiple of its block size, not less than it has. A block device must have grown already.
    pub size_bytes: u64,
}

/// The body of `PUT /vm/devices/{id}/link`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LinkState {
    /// Whether the cable of this network card is plugged in.
    pub up: bool,
}
