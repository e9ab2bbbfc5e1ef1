//! The conformance kit: what every virtio device must do, checked by playing the guest.
//!
//! A device crate names its fixture once, in its tests, and gets the whole suite:
//!
//! ```text
//!   [dev-dependencies]
//!   orlop-virtio = { workspace = true, features = ["conformance"] }
//!
//!   orlop_virtio::conformance_suite!(|| Fixture::new(parts(), |driver| { /* one request, checked */ }));
//! ```
//!
//! The [`Driver`] reaches the device only as a guest does: configuration space, BAR, rings in memory of its own. A
//! device that needs more than the suite writes tests of its own with the same driver.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    clippy::missing_panics_doc,
    reason = "this is a test driver: a panic is its verdict"
)]

mod access;
mod driver;
mod hostile;
mod lifecycle;
mod messages;
mod restore;
mod ring;

use crate::Parts;

pub use access::*;
pub use driver::{Descriptor, Driver, HOLE, UPPER, UPPER_BYTES, Used};
pub use hostile::*;
pub use lifecycle::*;
pub use messages::Messages;
pub use restore::*;

/// Something that a fixture does with a device that is ready.
pub type Act = Box<dyn FnMut(&mut Driver)>;

/// A device under test.
pub struct Fixture {
    /// The device, new.
    pub parts: Parts,
    /// What the driver does each time after it has become ready, before any I/O: handshakes, receive buffers.
    pub setup: Act,
    /// Does one request and checks what comes of it. It runs many times, also after hostile requests and on a device
    /// that was restored from the state of another fixture's: it must not be confused by what those left at the
    /// host's end.
    pub io: Act,
}

impl Fixture {
    /// A fixture that needs no setup.
    pub fn new(parts: Parts, io: impl FnMut(&mut Driver) + 'static) -> Self {
        Self { parts, setup: Box::new(|_| ()), io: Box::new(io) }
    }

    /// The same with a setup.
    #[must_use]
    pub fn with_setup(mut self, setup: impl FnMut(&mut Driver) + 'static) -> Self {
        self.setup = Box::new(setup);
        self
    }
}

/// Makes the fixture anew, as often as a test needs.
pub type Make<'a> = &'a dyn Fn() -> Fixture;

/// A driver that is ready, with what the fixture does.
pub(crate) struct Bench {
    pub driver: Driver,
    pub setup: Act,
    pub io: Act,
}

impl Bench {
    /// The device after power-on.
    pub fn power_on(make: Make<'_>) -> Self {
        let Fixture { parts, setup, io } = make();
        Self { driver: Driver::new(parts), setup, io }
    }

    /// The device, ready.
    pub fn ready(make: Make<'_>) -> Self {
        let mut bench = Self::power_on(make);
        bench.start();
        bench
    }

    /// Resets the device and makes it ready.
    pub fn start(&mut self) {
        self.driver.reset();
        self.driver.start();
        (self.setup)(&mut self.driver);
    }

    /// One request.
    pub fn io(&mut self) {
        (self.io)(&mut self.driver);
    }

    /// The device works: a reset, a start, a request.
    pub fn works(&mut self) {
        self.start();
        self.io();
    }
}

/// Expands to a module `conformance` with one test per rule, for the fixture that `$make`, a `Fn() -> Fixture`, makes.
#[macro_export]
macro_rules! conformance_suite {
    ($make:expr) => {
        $crate::conformance_suite! { @tests $make;
            reset_gives_the_power_on_state
            a_machine_reset_gives_the_power_on_state
            it_looks_like_a_modern_device
            features_are_agreed_on_once
            features_that_are_not_offered_are_refused
            requests_are_served
            stop_returns_the_queues_and_nothing_touches_memory_afterwards
            pause_and_resume_lose_no_request
            a_resume_looks_at_every_queue
            save_restore_save_gives_the_same_bytes_and_io_goes_on
            a_state_is_saved_and_restored_in_every_status
            a_mutated_state_is_refused_or_gives_a_working_device
            hostile_chains_are_survived_and_a_reset_mends
            rings_that_cannot_be_need_a_reset
            rings_that_overlap_do_not_keep_the_thread
            a_broken_device_stays_broken_until_reset
            accesses_of_any_size_and_place_are_survived
            queues_change_only_while_they_are_set_up
            queue_and_vector_numbers_out_of_range_are_harmless
            the_access_capability_reaches_only_the_bar
            random_programming_is_survived
            a_flood_of_kicks_leaves_the_device_alive
            unmasking_replays_what_is_pending
        }
    };
    (@tests $make:expr; $($name:ident)*) => {
        mod conformance {
            use super::*;
            $(
                #[test]
                fn $name() {
                    $crate::conformance::$name(&$make);
                }
            )*
        }
    };
}
