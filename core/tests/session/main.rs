//! Sessions by transcripts (what client and broker say, and what the session answers), the seeds of the fuzz target
//! `session`, and random lists of steps. Transcripts start from [`desk`].

#![allow(clippy::unwrap_used, clippy::panic, reason = "that is how a transcript fails")]

#[path = "../support/mod.rs"]
mod support;

mod corpus;
mod driver;

mod chaos;
mod client_only;
mod combined;
mod conflicts;
mod consumed;
mod cost;
mod desk;
mod drain;
mod external;
mod flow;
mod forced;
mod guard;
mod guard_cost;
mod guard_ends;
mod guard_gets;
mod guard_late;
mod guard_model;
mod guard_post;
mod guard_tags;
mod guard_tags_model;
mod handshake;
mod held;
mod identity;
mod in_doubt;
mod late;
mod late_ends;
mod limits;
mod logged;
mod loopback;
mod memory;
mod p01_p02_stored;
mod p03_p04_tags;
mod p05_tx;
mod p06_ends;
mod p07_p08_confirms;
mod p09_rights;
mod p10_frames;
mod p11_p12_rest;
mod p15_nobody_elses;
mod p16_came_back;
mod p16_republish;
mod patience;
mod quick_close;
mod replaced;
mod returns;
mod routing;
mod sequences;
mod signals;
mod states;
mod stuck;
mod told;
mod traced;
mod turns;
mod upstream_close;
mod waiters;
