//! Windows whose log is a stream of a real RabbitMQ: what survives, what two relays know of each other, and what happens while the
//! stream can't be reached.

mod changes;
mod cluster;
mod encrypted;
mod outage;
mod share;
mod stage;
mod strangers;
mod survive;
