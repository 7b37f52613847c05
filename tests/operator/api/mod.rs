//! The API over real sockets: what it shows, what it changes, whom it lets in, and the document that describes it.

mod chaos;
mod doors;
mod events;
mod ids;
mod log;
mod openapi;
mod producers;
mod recent;
mod resize;
pub(crate) mod site;
pub(crate) mod stores;
mod tokens;
mod windows;
