//! A stock firmware image: how large it may be, and where it goes. What is in it is the guest's affair.

use std::ops::Range;

use crate::layout::{HIGH_MEMORY, PAGE_BYTES};

/// Where firmware ends: the first instruction of a processor is 16 bytes below (SDM vol 3 §10.1.4).
pub const ROM_END: u64 = 1 << 32;
/// Room for code and variable store together: what the address map leaves.
pub const ROM_MAX_BYTES: u64 = ROM_END - 0xFF00_0000;
/// Smallest code: a BIOS segment.
pub const CODE_MIN_BYTES: u64 = 64 << 10;
/// A BIOS up to this size runs from its copy below 1 MiB: segments 0xC000 to 0xF000.
pub const SHADOW_MAX_BYTES: u64 = 256 << 10;

/// Which file of the firmware.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RomPart {
    /// What runs.
    Code,
    /// The variable store.
    Variables,
}

impl std::fmt::Display for RomPart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Code => "firmware",
            Self::Variables => "variable store",
        })
    }
}

/// A file of a size that firmware cannot have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{part} of {len_bytes} bytes is not a multiple of 4096 bytes from {} to {} bytes",
    CODE_MIN_BYTES,
    max_bytes
)]
pub struct BadSize {
    /// Which file.
    pub part: RomPart,
    /// Its size.
    pub len_bytes: u64,
    /// The most that there is room for.
    pub max_bytes: u64,
}

/// Where code and variable store answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RomLayout {
    /// The code, up to 4 GiB.
    pub code: Range<u64>,
    /// The variable store, right below.
    pub variables: Option<Range<u64>>,
}

impl RomLayout {
    /// Lays out code and variable store of these sizes in bytes.
    pub fn of(code_bytes: u64, variables_bytes: Option<u64>) -> Result<Self, BadSize> {
        check(RomPart::Code, code_bytes, ROM_MAX_BYTES)?;
        let code = ROM_END - code_bytes..ROM_END;
        let variables = variables_bytes.map(|len| {
            check(RomPart::Variables, len, ROM_MAX_BYTES - code_bytes)?;
            Ok(code.start - len..code.start)
        });
        Ok(Self { variables: variables.transpose()?, code })
    }

    /// Where a BIOS is found below 1 MiB as well. UEFI firmware, which is larger, is not.
    pub fn shadow(&self) -> Option<Range<u64>> {
        let len = self.code.end - self.code.start;
        (len <= SHADOW_MAX_BYTES).then(|| HIGH_MEMORY - len..HIGH_MEMORY)
    }
}

fn check(part: RomPart, len_bytes: u64, max_bytes: u64) -> Result<(), BadSize> {
    if (CODE_MIN_BYTES..=max_bytes).contains(&len_bytes) && len_bytes.is_multiple_of(PAGE_BYTES) {
        Ok(())
    } else {
        Err(BadSize { part, len_bytes, max_bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stock_firmware_ends_at_four_gib() {
        let bios = RomLayout::of(256 << 10, None).unwrap();
        assert_eq!(bios.code, 0xFFFC_0000..0x1_0000_0000);
        assert_eq!(bios.shadow(), Some(0xC_0000..0x10_0000));
        let uefi = RomLayout::of(3_653_632, Some(540_672)).unwrap();
        assert_eq!(uefi.variables, Some(0xFFC0_0000..0xFFC8_4000));
        assert_eq!(uefi.code.start, 0xFFC8_4000);
        assert_eq!(uefi.shadow(), None);
    }

    #[test]
    fn sizes_that_cannot_be_are_refused() {
        for (code, variables) in [
            (0, None),
            (65535, None),
            (65536 + 1, None),
            (ROM_MAX_BYTES + 4096, None),
            (u64::MAX, None),
            (65536, Some(0)),
            (65536, Some(65536 + 512)),
            (ROM_MAX_BYTES, Some(65536)),
        ] {
            assert!(RomLayout::of(code, variables).is_err(), "{code} {variables:?}");
        }
        let error = RomLayout::of(1000, None).unwrap_err().to_string();
        assert_eq!(
            error,
            "firmware of 1000 bytes is not a multiple of 4096 bytes from 65536 to 16777216 bytes"
        );
    }
}
