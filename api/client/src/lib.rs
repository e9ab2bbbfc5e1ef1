//! A typed client of the VMM's REST API over a unix socket.
