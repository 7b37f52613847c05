//! wip

mod support;
