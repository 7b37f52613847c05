//! Processes that a test starts beside the relay: a private RabbitMQ node, and a leash that ends processes with their owner.
//!
//! It is a package of its own because three need it and none of them owns it: the end-to-end tests, `hapax demo` and
//! `hapax bench compare`. It knows nothing of Hapax, and a lean relay (`--no-default-features`) is built without it.

pub mod leash;
pub mod port;
pub mod programs;
pub mod rabbit;

pub use leash::Leash;
pub use port::free_port;
pub use rabbit::Rabbit;
