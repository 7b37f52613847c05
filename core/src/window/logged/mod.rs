//! A window in memory with a log: what it commits is also written to a store outside of this process.

mod policy;

pub use policy::{OnOutage, Remember, StorePolicy};
