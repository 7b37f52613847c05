//! The ground that the end-to-end tests stand on, tried by itself: the private node, its death and return, the
//! forwarder that cuts, and that nothing of it stays behind.

use crate::e2e::cut::{Cut, Limits};
use crate::e2e::raw::{Publish, Raw, Told};
use crate::e2e::wait;
use hapax_testbed::Rabbit;

#[test]
fn a_node_keeps_what_is_durable_over_a_kill() {
    let rabbit = Rabbit::start().unwrap_or_else(|error| panic!("{error}"));
    rabbit.add_vhost("kept").unwrap();
    let mut client = Raw::connect(rabbit.addr(), "kept");
    client.confirming(1);
    client.declare(1, "q", &[]);
    let persistent = Publish { persistent: true, ..Publish::to("q", "a") };
    assert_eq!(client.publish_and_settle(1, &persistent), [Told::Ack { tag: 1, multiple: false }]);

    rabbit.sync_metadata().unwrap();
    rabbit.kill9();
    assert_eq!(client.frame().unwrap(), None);
    rabbit.restart().unwrap();

    let mut client = Raw::connect(rabbit.addr(), "kept");
    client.open_channel(1);
    assert_eq!(client.drain(1, "q"), ["a"]);
    assert!(rabbit.ctl(&["list_vhosts"]).unwrap().contains("kept"));

    let addr = rabbit.addr();
    drop(rabbit);
    assert!(std::net::TcpStream::connect(addr).is_err(), "nobody listens any more");
}

#[test]
fn a_cut_ends_both_sides_after_exactly_so_many_bytes() {
    let rabbit = crate::e2e::site::shared_rabbit();
    let whole = Cut::forward(rabbit.addr());
    Raw::connect(whole.addr(), "/").close();
    assert_eq!(whole.cuts(), 0);

    let cut = Cut::start(rabbit.addr(), |_| Limits { up: None, down: Some(100) });
    let mut client = Raw::dial(cut.addr()).unwrap();
    client.write(crate::e2e::raw::HEADER).unwrap();
    assert_eq!(client.frame().unwrap(), None, "a hundred bytes are not a whole connection.start");
    wait::until("the cut is counted", wait::PATIENCE, || (cut.cuts() == 1).then_some(()));
}
