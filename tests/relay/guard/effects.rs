//! Client libraries behind a guard, while their processes are killed: a queue has two copies of each id, and each id takes effect once.
//!
//! A worker that is killed amid its work has done nothing. One that is killed between its work and its ack has done it, and nobody can know of
//! that: its id takes effect once more, and not twice more. All have a prefetch of one, because libraries may write acks later: what a worker is
//! sent next shows that its ack was read. (Celery's acks come later still. A task that a worker has run before it was killed may run again.)

use super::{clients, fill, left};
use crate::e2e::cut::Cut;
use crate::e2e::site::Site;
use crate::e2e::wait::{self, PATIENCE};
use futures_util::StreamExt;
use hapax_testbed::Leash;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;

const IDS: usize = 40;
const WORKERS: usize = 3;
/// How each worker ends, in the order of their starts: at which delivery, and amid its work or right after it. The others work on.
const FATES: [&str; 6] = ["amid:4", "done:5", "amid:2", "done:3", "done:7", "amid:6"];

/// A worker: a process of its own, or a connection that is cut without a word.
enum Worker {
    Process(Child),
    Thread(JoinHandle<()>),
}

impl Worker {
    fn is_gone(&mut self) -> bool {
        match self {
            Worker::Process(child) => child.try_wait().unwrap().is_some_and(|status| {
                assert_eq!(status.signal(), Some(9), "it ends by its fate alone: {status}");
                true
            }),
            Worker::Thread(thread) => thread.is_finished(),
        }
    }
}

/// The place of one test: a queue with a guard, and a folder for what the workers do.
struct Stage {
    site: Site,
    queue: &'static str,
    leash: Leash,
}

impl Stage {
    fn new(vhost: &str, queue: &'static str, guard: &str) -> Option<Stage> {
        let site = Site::of_relay(vhost, &format!("{}{guard}", super::GUARD))?;
        Some(Stage { site, queue, leash: Leash::new("effects").unwrap() })
    }

    fn folder(&self) -> PathBuf {
        self.leash.folder().to_owned()
    }

    /// A program of `tests/clients`, with a group of it.
    fn program(&self, mut program: Command, group: &str, fate: &str) -> Child {
        let addr = self.site.addr();
        program
            .arg(group)
            .env("AMQP_HOST", addr.ip().to_string())
            .env("AMQP_PORT", addr.port().to_string())
            .env("AMQP_VHOST", &self.site.vhost)
            .env("JOBS_QUEUE", self.queue)
            .env("JOBS_FOLDER", self.folder())
            .env("JOBS_FATE", fate)
            .stdin(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// How often each id took effect: the rows of a database, or the lines of a file.
    fn effects(&self) -> BTreeMap<String, usize> {
        let mut effects = BTreeMap::new();
        let database = self.folder().join("jobs.db");
        let rows = if database.exists() { rows(&database) } else { String::new() };
        for id in rows.lines().chain(lines(&self.folder().join("effects")).lines()) {
            *effects.entry(id.to_owned()).or_default() += 1;
        }
        effects
    }

    /// The ids whose workers were killed amid their work, or after it.
    fn deaths(&self, how: &str) -> Vec<String> {
        let deaths = lines(&self.folder().join("deaths"));
        let of = deaths.lines().filter_map(|line| line.split_once(' ')).filter(|(which, _)| *which == how);
        of.map(|(_, id)| id.to_owned()).collect()
    }

    /// Lets workers do all of it, and starts a new one for each that dies.
    fn each_id_takes_effect_once(&self, start: impl Fn(&Stage, &str) -> Worker) {
        let mut fates = FATES.into_iter();
        let mut next = || start(self, fates.next().unwrap_or_default());
        let mut workers: Vec<Worker> = (0..WORKERS).map(|_| next()).collect();
        wait::until("all jobs are done", 3 * PATIENCE, || {
            for worker in &mut workers {
                if worker.is_gone() {
                    *worker = next();
                }
            }
            (left(&self.site, self.queue) == 0).then_some(())
        });
        for worker in workers {
            if let Worker::Process(mut child) = worker {
                child.kill().unwrap();
                child.wait().unwrap();
            }
        }
        let (effects, again) = (self.effects(), self.deaths("done"));
        assert!(again.len() >= 2 && self.deaths("amid").len() >= 2, "few have died");
        let unsure = self.deaths("unsure");
        let is_right = |(id, times): &(&String, &usize)| {
            let of = |ids: &[String]| ids.iter().filter(|other| other == id).count();
            let least = 1 + of(&again);
            (least..=least + of(&unsure)).contains(*times)
        };
        let wrong: Vec<_> = effects.iter().filter(|effect| !is_right(effect)).collect();
        assert!(
            wrong.is_empty() && effects.len() == IDS,
            "{} ids; {wrong:?}, again {again:?}",
            effects.len()
        );
        let hidden = self.site.metrics().sum("guard_deliveries_total", &[("verdict", "hidden")]);
        assert!(hidden >= IDS as f64, "{hidden}");
    }
}

fn lines(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_default()
}

/// The ids in a database of SQLite.
fn rows(database: &Path) -> String {
    let script = "import sqlite3, sys\nfor row in sqlite3.connect(sys.argv[1]).execute('SELECT id FROM jobs'): print(row[0])";
    let output = Command::new("/usr/bin/python3").args(["-c", script]).arg(database).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn append(file: &Path, line: &str) {
    let mut file = OpenOptions::new().append(true).create(true).open(file).unwrap();
    file.write_all(format!("{line}\n").as_bytes()).unwrap();
}

#[test]
fn pika() {
    let Some(stage) = Stage::new("effects-pika", "jobs-pika", "") else { return };
    fill(&stage.site, stage.queue, &[], IDS, 2);
    stage.each_id_takes_effect_once(|stage, fate| {
        Worker::Process(stage.program(clients::pika(), "worker", fate))
    });
}

#[test]
fn amqplib() {
    let Some(stage) = Stage::new("effects-amqplib", "jobs-amqplib", "") else { return };
    fill(&stage.site, stage.queue, &[], IDS, 2);
    stage.each_id_takes_effect_once(|stage, fate| {
        Worker::Process(stage.program(clients::amqplib(), "worker", fate))
    });
}

/// With `acks_late`, Celery acks a task after it has run. A retry is another message.
#[test]
fn celery() {
    let preset = "preset = \"celery\"\n";
    let Some(stage) = Stage::new("effects-celery", "jobs-celery", preset) else { return };
    let mut publisher = stage.program(clients::celery(), "publish", &IDS.to_string());
    assert!(publisher.wait().unwrap().success());
    assert_eq!(left(&stage.site, stage.queue), 2 * IDS);
    stage.each_id_takes_effect_once(|stage, fate| {
        Worker::Process(stage.program(clients::celery(), "worker", fate))
    });
}

#[test]
fn lapin() {
    let Some(stage) = Stage::new("effects-lapin", "jobs-lapin", "") else { return };
    fill(&stage.site, stage.queue, &[], IDS, 2);
    stage.each_id_takes_effect_once(|stage, fate| {
        let cut = Arc::new(Cut::forward(stage.site.addr()));
        let uri = format!("amqp://guest:guest@{}/{}?heartbeat=0", cut.addr(), stage.site.vhost);
        let (folder, queue, fate) = (stage.folder(), stage.queue, fate.to_owned());
        Worker::Thread(std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            // At the end of the test its broker is gone.
            drop(runtime.block_on(work_until_cut(&uri, queue, &folder, &fate, &cut)));
        }))
    });
}

/// Works with lapin until its fate, or until the broker is gone.
async fn work_until_cut(uri: &str, queue: &str, folder: &Path, fate: &str, cut: &Cut) -> lapin::Result<()> {
    let connection = Connection::connect(uri, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.basic_qos(1, BasicQosOptions::default()).await?;
    let options = BasicConsumeOptions::default();
    let mut jobs = channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await?;
    let mut count = 0;
    while let Some(job) = jobs.next().await {
        let job = job?;
        count += 1;
        let id = job.properties.message_id().as_ref().unwrap().to_string();
        let dies = |how: &str| {
            let is_due = fate == format!("{how}:{count}");
            if is_due {
                append(&folder.join("deaths"), &format!("{how} {id}"));
                cut.shut();
            }
            is_due
        };
        if dies("amid") {
            break;
        }
        append(&folder.join("effects"), &id);
        if dies("done") {
            break;
        }
        job.ack(BasicAckOptions::default()).await?;
    }
    Ok(())
}
