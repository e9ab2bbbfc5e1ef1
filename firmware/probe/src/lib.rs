//! The probe guest.
