//! A broker that reads late, as one with a memory alarm does: it gets all that the relay has written before it closed.

use crate::e2e::raw::{Publish, Raw, method_frame};
use crate::e2e::relay::Relay;
use crate::e2e::site::without_relay;
use crate::e2e::wait::{PATIENCE, until};
use amq_protocol::protocol::{AMQPClass, channel, connection};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver};

const HEARTBEAT: [u8; 8] = [8, 0, 0, 0, 0, 0, 0, 0xce];

fn connection(method: connection::AMQPMethod) -> Vec<u8> {
    method_frame(0, &AMQPClass::Connection(method))
}

/// A broker that lets everybody in, and then leaves the connection to the test.
fn broker() -> (SocketAddr, Receiver<Raw>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            // (The relay only looks whether there is a broker, and then it hangs up.)
            if let Some(logged_in) = let_in(stream) {
                sender.send(logged_in).unwrap();
            }
        }
    });
    (addr, receiver)
}

fn let_in(mut stream: TcpStream) -> Option<Raw> {
    stream.read_exact(&mut [0; 8]).ok()?;
    let start = connection::Start { version_minor: 9, mechanisms: "PLAIN".into(), ..Default::default() };
    stream.write_all(&connection(connection::AMQPMethod::Start(start))).ok()?;
    let mut client = Raw::over(stream).unwrap();
    let start_ok = client.frame().ok()??;
    assert!(start_ok.payload.starts_with(&[0, 10, 0, 11]), "{start_ok:?}");
    let tune = connection::Tune { channel_max: 2047, frame_max: 131_072, heartbeat: 0 };
    client.write(&connection(connection::AMQPMethod::Tune(tune))).unwrap();
    client.frame().unwrap().expect("tune-ok");
    client.frame().unwrap().expect("open");
    client.write(&connection(connection::AMQPMethod::OpenOk(connection::OpenOk {}))).unwrap();
    Some(client)
}

/// The relay has closed its half of this connection.
fn has_ended(socket: &TcpStream) -> bool {
    let ports = (socket.local_addr().unwrap().port(), socket.peer_addr().unwrap().port());
    let close_wait = format!("0100007F:{:04X} 0100007F:{:04X} 08", ports.0, ports.1);
    std::fs::read_to_string("/proc/net/tcp").unwrap().contains(&close_wait)
}

#[test]
fn a_broker_that_reads_late_gets_all_that_was_written_before_the_end() {
    if without_relay() {
        return;
    }
    let (addr, logged_in) = broker();
    let relay = Relay::start(addr, "[timeouts]\nhandshake = \"1s\"\n");
    let client = std::thread::spawn(move || {
        let mut client = Raw::connect(relay.addr(), "/");
        client.open_channel(1);
        (client, relay)
    });
    let mut broker = logged_in.recv_timeout(PATIENCE).unwrap();
    assert_eq!(broker.frame().unwrap().expect("channel.open").payload[..4], [0, 20, 0, 10]);
    let open_ok = AMQPClass::Channel(channel::AMQPMethod::OpenOk(channel::OpenOk {}));
    broker.write(&method_frame(1, &open_ok)).unwrap();
    let (mut client, relay) = client.join().unwrap();
    for body in [b"first", b"second".as_slice()] {
        // (No window judges it.)
        client.publish(1, &Publish { key: "q", body, ..Publish::default() });
    }
    drop(client);
    let socket = broker.socket();
    until("the relay gives up waiting for close-ok", PATIENCE, || has_ended(&socket).then_some(()));
    // A relay that has closed all of its socket would answer by a reset, and then nothing can be read any more.
    broker.write(&HEARTBEAT).unwrap();
    broker.write(&HEARTBEAT).unwrap();
    let read: Vec<_> = std::iter::from_fn(|| broker.frame().ok().flatten()).collect();
    let bodies: Vec<_> = read.iter().filter(|frame| frame.kind == 3).map(|frame| &*frame.payload).collect();
    assert_eq!(bodies, [b"first".as_slice(), b"second"], "{read:?}");
    let last = read.last().unwrap();
    assert!(last.payload.starts_with(&[0, 10, 0, 50]), "connection.close: {last:?}");
    drop((broker, socket));
    until("nothing is left of it", PATIENCE, || {
        (relay.metrics().sum("connections", &[]) == 0.0).then_some(())
    });
}
