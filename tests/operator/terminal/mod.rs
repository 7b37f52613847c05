//! The operator's commands: the screen as a function of the model, keys, the commands against something that speaks the
//! relay's API, a real terminal, and what is generated from the command line's definition.
#![allow(unreachable_pub, reason = "each file says what the others may use of it")]
#![allow(
    clippy::disallowed_methods,
    clippy::cast_possible_truncation,
    reason = "this is test code: a failed step is a failed test, and deadlines read the clock"
)]

mod commands;
mod emulator;
mod facts;
mod generated;
mod keys;
mod pty;
mod real;
mod save;
mod stub;
mod views;
