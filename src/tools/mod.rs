//! The commands beside the relay: a load and a broker to measure with, a demonstration, a simulation of window sizes, and
//! the operator's terminal. The relay needs none of them: they are behind the cargo feature `tools`.

pub mod bench;
pub mod demo;
pub mod simulate;
pub mod terminal;
