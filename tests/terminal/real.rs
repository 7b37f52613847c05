//! Against a real relay.
