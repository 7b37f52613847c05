//! What a demonstration and the end-to-end tests need beside the relay: a private RabbitMQ node that dies with us.

pub mod leash;
pub mod rabbit;
