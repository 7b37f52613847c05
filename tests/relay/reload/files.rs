//! The name of the configuration file leads to a device, a pipe or a file without an end.

use super::reload;
use crate::e2e::site::Site;
use crate::e2e::wait::{PATIENCE, now, until};
use std::fs::{self, OpenOptions};
use std::os::unix::fs::symlink;
use std::process::Command;
use std::time::Duration;

const FIRST: &str = "[timeouts]\ndrain = \"1s\"\n[[window]]\nname = \"w\"\n";

fn refused(site: &Site, text: &str) {
    let (status, answer) = reload(site);
    assert_eq!(status, 422, "{answer}");
    assert!(answer.to_string().contains(text), "{answer}");
}

/// Devices and files without an end, and a pipe. The process ends as quickly as ever.
#[test]
fn a_file_that_never_ends_holds_up_nothing() {
    let Some(mut site) = Site::of_relay("reload-files", FIRST) else { return };
    let file = site.relay().config_file();
    let put = |make: &dyn Fn()| {
        fs::remove_file(&file).unwrap();
        make();
    };
    put(&|| symlink("/dev/zero", &file).unwrap());
    refused(&site, "more than");
    put(&|| fs::File::create(&file).unwrap().set_len(1 << 40).unwrap());
    refused(&site, "more than");
    put(&|| assert!(Command::new("mkfifo").arg(&file).status().unwrap().success()));
    refused(&site, "is empty");
    // Somebody holds the pipe and writes nothing.
    let writer = OpenOptions::new().read(true).write(true).open(&file).unwrap();
    let admin = site.relay().admin();
    let asked = std::thread::spawn(move || {
        crate::e2e::http::ask(admin, "POST", "/api/v1/reload", "Content-Type: application/json\r\n", "")
    });
    until("the reload has begun", PATIENCE, || {
        (site.relay().log().matches("asked to reload the configuration").count() == 4).then_some(())
    });
    let begin = now();
    site.relay().sigterm();
    assert!(site.relay_mut().ended().success());
    assert!(now() - begin < Duration::from_secs(4), "it has taken {:?}", now() - begin);
    drop(writer);
    let _ = asked.join();
}
