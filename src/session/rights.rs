//! Who may publish where: what the broker has shown, remembered for a while in a bounded map.

/// See the module.
#[derive(Debug, Default)]
pub struct Rights {}
