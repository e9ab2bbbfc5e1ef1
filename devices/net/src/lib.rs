//! Network back ends: where a virtual network card sends its frames.
