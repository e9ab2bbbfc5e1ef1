//! What can go wrong with a request.

use std::path::PathBuf;
use std::time::Duration;

use orlop_api::problem::Problem;

/// Why a request has no answer, or one that says no.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens on the socket, or it may not be opened.
    #[error("cannot reach the VMM at {}: {source}", socket.display())]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The VMM did not answer in time.
    #[error("no {what} from the VMM at {} within {} s", socket.display(), after.as_secs_f32())]
    Timeout {
        /// What was waited for.
        what: &'static str,
        /// How long.
        after: Duration,
        /// The socket.
        socket: PathBuf,
    },
    /// The VMM refused, or failed: see the problem's `reason`.
    #[error("{0}")]
    Problem(Box<Problem>),
    /// The connection broke.
    #[error("the connection to the VMM broke: {0}")]
    Http(#[from] hyper::Error),
    /// A stream broke.
    #[error("the stream from the VMM broke: {0}")]
    Stream(#[from] std::io::Error),
    /// The answer is not what this API gives.
    #[error("the VMM answered what this client does not understand: {0}")]
    Unexpected(String),
    /// The request cannot be put into words.
    #[error("the request cannot be sent: {0}")]
    Request(String),
}

impl Error {
    /// The problem that the VMM answered with, when it answered.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Problem(problem) => Some(problem),
            _ => None,
        }
    }
}
