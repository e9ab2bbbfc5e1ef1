//! Disk images: where a virtual disk keeps its bytes.
