//! The commands beside the relay: a load and a broker to measure with, a demonstration, a simulation of window sizes, and
//! the operator's terminal. The relay needs none of them: they are behind the cargo feature `tools`.
//!
//! No tool imports another one. They share [`text`] (numbers, durations and sizes as text), [`chart`] (the look of pictures) and
//! [`reach`] (a running relay's address and token); the private RabbitMQ node is in the package `hapax-testbed`.

pub mod bench;
mod chart;
mod command;
pub mod demo;
pub mod reach;
pub mod record;
pub mod simulate;
pub mod terminal;
pub mod text;

pub use command::{Ended, ToolCommand};
