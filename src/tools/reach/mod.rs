//! How a tool reaches a running relay: its admin address and token, and why a request did not work. `hapax top` and the
//! other commands of the terminal use it, and so does `hapax record`.

mod access;
mod failure;

pub use access::Access;
pub use failure::Failure;
