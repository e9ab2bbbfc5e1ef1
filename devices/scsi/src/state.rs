//! What of a unit must survive a snapshot.

use serde::{Deserialize, Serialize};

use crate::sense::Sense;
use crate::unit::{Kind, MediaEvent, Medium, Unit};

/// A medium as a snapshot knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MediumState {
    /// Capacity in bytes.
    pub size_bytes: u64,
    /// Block size in bytes.
    pub block_bytes: u32,
    /// Whether writes are refused.
    pub read_only: bool,
}

/// Saved state of a unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitState {
    /// Whether it is a CD-ROM drive.
    pub cdrom: bool,
    /// What is in it, the same where the state is restored; none may be taken out there.
    pub medium: Option<MediumState>,
    /// The tray is out.
    pub open: bool,
    /// The guest wants the medium kept in.
    pub locked: bool,
    /// The guest's choice of cache mode.
    pub write_cache: bool,
    /// Sense key, code and qualifier of a unit attention.
    pub attention: Option<(u8, u8, u8)>,
    /// Media event that was not told yet (MMC-6 §6.6): 0 none, 1 eject request, 2 new medium, 3 removal.
    pub event: u8,
    /// Sense key, code and qualifier that REQUEST SENSE would tell.
    pub sense: (u8, u8, u8),
}

fn known(medium: &Medium) -> MediumState {
    let Medium { size_bytes, block_bytes, physical_block_bytes: _, read_only } = *medium;
    MediumState { size_bytes, block_bytes, read_only }
}

impl Unit {
    /// What must survive a snapshot.
    pub fn save(&self) -> UnitState {
        let triple = |sense: Sense| (sense.key, sense.code, sense.qualifier);
        UnitState {
            cdrom: self.kind == Kind::Cdrom,
            medium: self.medium.as_ref().map(known),
            open: self.open,
            locked: self.locked,
            write_cache: self.write_cache,
            attention: self.attention.map(triple),
            event: self.event as u8,
            sense: triple(self.sense),
        }
    }

    /// Takes over a state from [`Self::save`], or says what in it cannot be. A drive whose state has no medium has none
    /// afterwards.
    pub fn restore(&mut self, state: &UnitState) -> Result<(), String> {
        let UnitState { cdrom, medium, open, locked, write_cache, attention, event, sense } = state;
        if *cdrom != (self.kind == Kind::Cdrom) {
            return Err("a disk is no CD-ROM drive".to_owned());
        }
        if !cdrom && (*open || *locked || *event != 0 || medium.is_none()) {
            return Err("a disk has neither a tray nor a medium that can be taken out".to_owned());
        }
        let own = self.medium.as_ref().map(known);
        if medium.is_some() && *medium != own {
            return Err(format!("the medium was {medium:?} and is {own:?}"));
        }
        let event = match event {
            0 => MediaEvent::None,
            1 => MediaEvent::EjectRequest,
            2 => MediaEvent::NewMedia,
            3 => MediaEvent::Removal,
            other => return Err(format!("there is no media event {other}")),
        };
        let sense_of = |(key, code, qualifier): (u8, u8, u8)| match key {
            0..16 => Ok(Sense { key, code, qualifier }),
            _ => Err(format!("there is no sense key {key}")),
        };
        let attention = attention.map(sense_of).transpose()?;
        self.sense = sense_of(*sense)?;
        if medium.is_none() {
            self.medium = None;
        }
        (self.open, self.locked, self.write_cache) = (*open, *locked, *write_cache);
        (self.attention, self.event) = (attention, event);
        Ok(())
    }
}
