//! Credit (virtio 1.3 §5.10.6.3): each side says how large its buffer is and how much left it so far, and the other
//! never sends more than fits. All counts are modulo 2^32.

/// Our buffer for each connection, in bytes.
pub(crate) const BUFFER_BYTES: u32 = 64 << 10;

/// The guest is told about room in our buffer at the latest when this much has become free.
const TELL_BYTES: u32 = BUFFER_BYTES / 4;

/// Both directions of one connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Credit {
    guest_buffer: u32,
    guest_forwarded: u32,
    sent: u32,
    forwarded: u32,
    told: u32,
}

impl Credit {
    /// Takes over what every packet of the guest carries.
    pub(crate) fn heard(&mut self, buf_alloc: u32, fwd_cnt: u32) {
        self.guest_buffer = buf_alloc;
        self.guest_forwarded = fwd_cnt;
    }

    /// How many bytes the guest has room for. A guest that contradicts itself has none.
    pub(crate) fn room_in_guest(&self) -> u32 {
        let in_flight = self.sent.wrapping_sub(self.guest_forwarded);
        self.guest_buffer.saturating_sub(in_flight)
    }

    /// `bytes` were sent to the guest.
    pub(crate) fn sent(&mut self, bytes: u32) {
        self.sent = self.sent.wrapping_add(bytes);
    }

    /// `bytes` left our buffer.
    pub(crate) fn forwarded(&mut self, bytes: usize) {
        // Counts are modulo 2^32, and a buffer is far smaller.
        self.forwarded = self.forwarded.wrapping_add(u32::try_from(bytes).unwrap_or(0));
    }

    /// Whether the guest should hear about the room in our buffer without being sent anything else.
    pub(crate) fn is_news(&self) -> bool {
        self.forwarded.wrapping_sub(self.told) >= TELL_BYTES
    }

    /// What our next packet carries: `(buf_alloc, fwd_cnt)`.
    pub(crate) fn tell(&mut self) -> (u32, u32) {
        self.told = self.forwarded;
        (BUFFER_BYTES, self.forwarded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_the_buffer_less_what_is_in_flight() {
        let mut credit = Credit::default();
        assert_eq!(credit.room_in_guest(), 0);
        credit.heard(1000, 0);
        credit.sent(600);
        assert_eq!(credit.room_in_guest(), 400);
        credit.heard(1000, 500);
        assert_eq!(credit.room_in_guest(), 900);
        credit.heard(50, 500);
        assert_eq!(credit.room_in_guest(), 0);
    }

    #[test]
    fn counts_wrap_around() {
        let mut credit = Credit { sent: u32::MAX - 10, ..Credit::default() };
        credit.heard(1000, u32::MAX - 10);
        credit.sent(100);
        assert_eq!(credit.room_in_guest(), 900);
        credit.heard(1000, 89);
        assert_eq!(credit.room_in_guest(), 1000);
    }

    #[test]
    fn a_guest_that_took_more_than_it_was_sent_gets_nothing() {
        let mut credit = Credit::default();
        credit.heard(1000, 1);
        assert_eq!(credit.room_in_guest(), 0);
    }

    #[test]
    fn the_guest_hears_of_room_before_it_has_none() {
        let mut credit = Credit::default();
        credit.forwarded(usize::try_from(TELL_BYTES).unwrap() - 1);
        assert!(!credit.is_news());
        credit.forwarded(1);
        assert!(credit.is_news());
        assert_eq!(credit.tell(), (BUFFER_BYTES, TELL_BYTES));
        assert!(!credit.is_news());
    }
}
