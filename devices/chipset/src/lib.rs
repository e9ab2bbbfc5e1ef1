//! The small devices of a PC: serial port, clock, reset and power.
