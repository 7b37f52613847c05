//! The metrics of chaos: trouble that an operator has asked for.

use super::{gauge, windows};
use crate::chaos::Chaos;
use hapax_core::session::ChaosFault;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use std::fmt;

pub(super) fn encode(encoder: &mut DescriptorEncoder<'_>, chaos: &Chaos) -> fmt::Result {
    let help = "1 while a run of chaos is on: clients are cut and delayed on purpose.";
    gauge(encoder, "chaos_running", help, &u64::from(chaos.is_on()))?;
    let help = "Faults that runs of chaos have done, by fault: drop_acks, hold_acks, cut, redeliver, replay.";
    let mut family = encoder.encode_descriptor("chaos_faults", help, None, MetricType::Counter)?;
    for fault in ChaosFault::ALL {
        windows::count(&mut family, &[("fault", fault.name())], chaos.counts(fault).0)?;
    }
    let help =
        "Faults that runs of chaos have not done, because a message could have been lost by them, by fault.";
    let mut family = encoder.encode_descriptor("chaos_spared", help, None, MetricType::Counter)?;
    for fault in ChaosFault::ALL {
        windows::count(&mut family, &[("fault", fault.name())], chaos.counts(fault).1)?;
    }
    Ok(())
}
