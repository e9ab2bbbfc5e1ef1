//! What an engine has on its way: requests, allocations, parts, each in a numbered slot.

use std::io;

use super::parts::Part;
use super::plan::Allocation;

/// Things by number.
#[derive(Debug)]
pub(crate) struct Slots<T> {
    things: Vec<Option<T>>,
    free: Vec<usize>,
}

impl<T> Slots<T> {
    pub(crate) fn new() -> Self {
        Self { things: Vec::new(), free: Vec::new() }
    }

    pub(crate) fn insert(&mut self, thing: T) -> usize {
        match self.free.pop() {
            Some(number) => {
                if let Some(place) = self.things.get_mut(number) {
                    *place = Some(thing);
                }
                number
            }
            None => {
                self.things.push(Some(thing));
                self.things.len() - 1
            }
        }
    }

    pub(crate) fn get(&mut self, number: usize) -> Option<&mut T> {
        self.things.get_mut(number).and_then(Option::as_mut)
    }

    pub(crate) fn take(&mut self, number: usize) -> Option<T> {
        let thing = self.things.get_mut(number).and_then(Option::take)?;
        self.free.push(number);
        Some(thing)
    }

    pub(crate) fn len(&self) -> usize {
        self.things.len() - self.free.len()
    }
}

/// What a request wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    Read,
    Write,
    Zero {
        unmap: bool,
    },
    Discard,
    Flush {
        /// What is durable afterwards.
        epoch: u64,
    },
}

/// A request of the engine's user.
pub(crate) struct Request<M> {
    pub(crate) token: u64,
    pub(crate) wish: Wish,
    /// Kept until every part of it is done.
    pub(crate) memory: Option<M>,
    pub(crate) pieces: Part,
    pub(crate) start: u64,
    /// Up to here parts are on their way.
    pub(crate) cursor: u64,
    pub(crate) end: u64,
    /// Parts and allocations on their way.
    pub(crate) pending: usize,
    pub(crate) error: Option<io::Error>,
    /// Its number among the image's operations.
    pub(crate) turn: u64,
}

impl<M> Request<M> {
    /// Nothing more is begun; the first error is the request's.
    pub(crate) fn fail(&mut self, error: io::Error) {
        self.error.get_or_insert(error);
        self.cursor = self.end;
    }
}

/// Clusters that are being written for the first time.
pub(crate) struct Filling {
    pub(crate) request: usize,
    pub(crate) allocation: Allocation,
    /// What the request writes: from here, so many bytes of the disk.
    pub(crate) at: u64,
    pub(crate) len: u64,
    /// What was there before and after that in the clusters, if it is to be kept.
    pub(crate) head: Option<Vec<u8>>,
    pub(crate) tail: Option<Vec<u8>>,
    /// Parts on their way.
    pub(crate) pending: usize,
    /// What was there is known; the clusters are being written.
    pub(crate) writing: bool,
    pub(crate) error: Option<io::Error>,
}

/// Who waits for a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waiter {
    Request(usize),
    Filling(usize),
}

/// An operation on the file or on the backing image.
pub(crate) struct Underway {
    pub(crate) waiter: Waiter,
    /// What is read is compressed.
    pub(crate) packed: Option<Packed>,
}

/// A compressed cluster that is being read.
pub(crate) struct Packed {
    /// What is read: a little more than the compressed bytes.
    pub(crate) stored: Vec<u8>,
    /// Where they are in it.
    pub(crate) from: usize,
    pub(crate) len: usize,
    /// Where they are in the file, by which the cluster is known.
    pub(crate) offset: u64,
    /// Where the wanted bytes are in the cluster.
    pub(crate) skip: usize,
    /// Where they go.
    pub(crate) to: Part,
}
