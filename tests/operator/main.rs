//! The operator's side: the command line, the configuration, metrics, the API, the dashboard, the terminal,
//! and windows that say that they are too small.
//!
//! A test that measures or changes the whole process, such as its resident memory or its log, runs itself again as a
//! process of its own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "this is test code: a failed step is a failed test"
)]

mod admin;
mod api;
mod api_live;
mod budget;
mod cli;
mod config;
mod control;
mod dashboard;
#[path = "../e2e/mod.rs"]
mod e2e;
#[path = "../../core/tests/support/ground.rs"]
mod ground;
mod log_lines;
mod memory;
mod metrics;
mod packages;
mod pressure_story;
mod service;
mod telemetry;
mod tenants;
mod terminal;
mod unit;

/// The program's own allocator: a test that measures resident memory measures what the program would take.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;
