//! What happened to a machine, in order.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One thing that happened. On the wire an event of the stream `GET /events` has the sequence number as its id, the
/// kind as its name and this as its data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Its number: 1, 2, 3 … without gaps within one process.
    pub seq: u64,
    /// When, in milliseconds since 1970-01-01 UTC.
    pub time_unix_ms: u64,
    /// What.
    #[serde(flatten)]
    pub what: EventKind,
}

/// What happened. Names may be added: a client ignores those that it does not know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum EventKind {
    /// The machine was built.
    Created {
        /// Its name.
        name: String,
    },
    /// The vCPUs run for the first time.
    Booted,
    /// vCPUs and devices halted.
    Paused,
    /// vCPUs and devices run again.
    Resumed,
    /// The power button was pressed; the guest may react or not.
    PowerButton,
    /// The machine was reset and boots anew.
    Reset {
        /// Who asked.
        by: Initiator,
    },
    /// The machine is over and the process ends. Always the last event.
    Shutdown {
        /// Who asked.
        by: Initiator,
    },
    /// The guest's kernel said that it panicked (pvpanic).
    Panic {
        /// Whether it will try to save a crash dump.
        crash_loaded: bool,
    },
    /// A vCPU met a triple fault: the guest can do no more by itself, and `shutdown` follows.
    TripleFault {
        /// The vCPU.
        vcpu: u32,
    },
    /// KVM cannot go on running the guest, for example because it jumped to where no memory is; `shutdown` follows.
    GuestFault {
        /// The vCPU.
        vcpu: u32,
        /// What KVM said.
        detail: String,
    },
    /// A guest's driver broke a device's contract: the device stopped until that driver resets it.
    DeviceFault {
        /// The device.
        device: String,
        /// How.
        detail: String,
    },
    /// The cable of a network card was plugged in or out.
    Link {
        /// The device.
        device: String,
        /// Whether it is in.
        up: bool,
    },
    /// A medium was put into a CD-ROM drive by a client.
    MediumInserted {
        /// The drive.
        device: String,
    },
    /// A medium was taken out of a CD-ROM drive by a client.
    MediumEjected {
        /// The drive.
        device: String,
    },
    /// A disk was made longer.
    DiskSize {
        /// The disk's name.
        device: String,
        /// Its size in bytes.
        size_bytes: u64,
    },
    /// The host could not carry out a disk's request, and the disk's policy is to pause the machine: the request is tried
    /// again when it is resumed.
    DiskError {
        /// The disk's name.
        device: String,
        /// Which request, and why not.
        detail: String,
    },
    /// The balloon's target was set.
    BalloonTarget {
        /// Bytes to take from the guest.
        target_bytes: u64,
    },
    /// The reader of this stream was so slow that events were dropped from the bounded log.
    Lost {
        /// How many.
        events: u64,
    },
}

/// Who asked for a reset or for the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Initiator {
    /// The guest.
    Guest,
    /// A client of the API.
    Client,
    /// A signal to the process.
    Signal,
    /// The VMM itself: the guest cannot go on.
    Vmm,
}

impl EventKind {
    /// The name on the wire.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Created { .. } => "created",
            Self::Booted => "booted",
            Self::Paused => "paused",
            Self::Resumed => "resumed",
            Self::PowerButton => "power_button",
            Self::Reset { .. } => "reset",
            Self::Panic { .. } => "panic",
            Self::Shutdown { .. } => "shutdown",
            Self::TripleFault { .. } => "triple_fault",
            Self::GuestFault { .. } => "guest_fault",
            Self::DeviceFault { .. } => "device_fault",
            Self::Link { .. } => "link",
            Self::MediumInserted { .. } => "medium_inserted",
            Self::MediumEjected { .. } => "medium_ejected",
            Self::DiskSize { .. } => "disk_size",
            Self::DiskError { .. } => "disk_error",
            Self::BalloonTarget { .. } => "balloon_target",
            Self::Lost { .. } => "lost",
        }
    }

    /// Whether nothing follows: the machine is over.
    pub fn is_last(&self) -> bool {
        matches!(self, Self::Shutdown { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_flat_object_named_by_its_kind() {
        let event = Event { seq: 3, time_unix_ms: 7, what: EventKind::Reset { by: Initiator::Guest } };
        let json = serde_json::to_string(&event).expect("plain data");
        assert_eq!(json, r#"{"seq":3,"time_unix_ms":7,"kind":"reset","by":"guest"}"#);
        assert_eq!(serde_json::from_str::<Event>(&json).expect("its own output"), event);
        assert_eq!(event.what.name(), "reset");
    }
}
