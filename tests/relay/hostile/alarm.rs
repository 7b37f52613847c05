//! A broker that is out of memory reads nothing from who publishes, and so it does not say whether they may.

use crate::e2e::raw::{Publish, Raw};
use crate::e2e::site::{Site, own_rabbit};
use crate::e2e::wait::{PATIENCE, until};
use hapax_testbed::Rabbit;

/// The watermark in force, and how many alarms there are then.
pub(crate) fn watermark(rabbit: &Rabbit, fraction: &str, alarms: &str) {
    rabbit.eval(&format!("ok = vm_memory_monitor:set_vm_memory_high_watermark({fraction}).")).unwrap();
    until("the alarm", PATIENCE, || {
        (rabbit.eval("length(rabbit_alarm:get_alarms()).").unwrap() == alarms).then_some(())
    });
}

/// Two messages of a client without confirms, whose right is not proven, and then good-bye. The linger is over before the broker
/// reads again; `close-ok` comes after that, and so both messages are stored.
#[test]
fn n06_a_broker_without_memory_loses_nothing_of_a_client_that_says_good_bye() {
    let rabbit = &own_rabbit();
    let site = Site::on(rabbit, "n06-alarm", "[timeouts]\nlinger = \"1ms\"\n");
    let mut direct: Raw = site.direct();
    direct.open_channel(1);
    direct.declare(1, "q", &[]);
    let mut client = site.client();
    client.open_channel(1);
    watermark(rabbit, "0.000001", "1");
    for id in ["first", "second"] {
        client.publish(1, &Publish::to("q", id));
    }
    let says_good_bye = std::thread::spawn(move || client.close());
    let blocked =
        "length([blocked || [{state, blocked}] <- rabbit_networking:connection_info_all([state])]).";
    until("the broker blocks it", PATIENCE, || (rabbit.eval(blocked).unwrap() == "1").then_some(()));
    watermark(rabbit, "0.4", "0");
    says_good_bye.join().unwrap();
    // (The broker says close-ok before all is in the queue.)
    let mut stored = Vec::new();
    until("both are stored", PATIENCE, || {
        stored.extend(direct.drain(1, "q"));
        (stored.len() >= 2).then_some(())
    });
    assert_eq!(stored, ["first", "second"]);
}

/// The same where there is no linger at all, and the broker is well.
#[test]
fn n06_a_client_that_says_good_bye_at_once_loses_nothing_without_a_linger() {
    let mut stage = super::stage::Stage::new("n06-no-linger", "[timeouts]\nlinger = \"0s\"\n");
    let mut client = stage.client(super::stage::Who::All);
    client.open_channel(1);
    for id in ["first", "second"] {
        client.publish(1, &Publish::to("q", id));
    }
    client.close();
    assert_eq!(stage.stored(), ["first", "second"]);
}
