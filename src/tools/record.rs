//! `hapax record`: what a window of a running relay judges, as it happens, into a file for `hapax simulate`.
//!
//! Digests only: the relay sends keys, which nobody without its secret can turn back into ids. Its lines are written as they
//! come. Each line is a publish; the first and the last line say what the recording is and how well it went.

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;
use ureq::Agent;

use crate::config::defaults;
use crate::tls;
use crate::tools::reach::{Access, Failure};
use crate::tools::text::{parse_count, parse_duration};

/// A relay on the same host answers within milliseconds.
const CONNECT: Duration = Duration::from_secs(5);
/// How long after the end of the recording its last line may come.
const LATE: Duration = Duration::from_secs(30);
const STYLE: &str = "  {msg} {human_pos} publishes  {per_sec}  {elapsed}";
/// Lines between two looks at the screen.
const SHOW_EVERY: u64 = 256;
/// Bytes of a line. A publish takes some hundred.
const LINE_MAX: u64 = 64 << 10;
/// An error's text.
const ERROR_MAX: u64 = 64 << 10;

/// The arguments of `hapax record`.
#[derive(Args, Clone, PartialEq, Eq, Debug)]
#[command(after_help = "\
Example:
  hapax record --window orders --seconds 600 -o trace.jsonl && hapax simulate trace.jsonl

Ids do not leave the relay: the file holds digests, made with a secret that the relay draws when it starts.
The relay's token, if it has one, comes from HAPAX_ADMIN_TOKEN or --token-file.")]
pub struct RecordArgs {
    /// The window
    #[arg(long, value_name = "NAME", default_value = defaults::WINDOW_NAME, value_parser = window_name)]
    pub window: String,
    /// For how long
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub seconds: Duration,
    /// How many publishes at most
    #[arg(long, value_name = "N", default_value = "1M", value_parser = parse_count)]
    pub max_events: usize,
    /// Where to; "-" is standard output
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    pub output: PathBuf,
    /// The relay's admin listener [default: http://127.0.0.1:15673]
    #[arg(
        id = "admin_url",
        long = "admin",
        value_name = "URL",
        env = "HAPAX_ADMIN_URL",
        hide_env_values = true
    )]
    pub admin: Option<String>,
    /// The authorities that may sign the certificate of an https:// admin listener, in PEM [default: those of this system]
    #[arg(long, value_name = "FILE", env = "HAPAX_ADMIN_CA", hide_env_values = true)]
    pub admin_ca: Option<PathBuf>,
    /// The file that holds the relay's token [default: the token is in HAPAX_ADMIN_TOKEN, if there is one]
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

/// As the configuration: it becomes a part of a URL.
fn window_name(text: &str) -> Result<String, String> {
    let safe = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    match text {
        "" => Err("it is empty".to_owned()),
        text if text.chars().all(safe) => Ok(text.to_owned()),
        _ => Err("a window's name has letters, digits, `-`, `_` and `.` only".to_owned()),
    }
}

/// A duration between a millisecond and a day.
fn seconds(text: &str) -> Result<Duration, String> {
    let span = parse_duration(text)?;
    match span.as_secs_f64() {
        0.001..=86_400.0 => Ok(span),
        _ => Err("it must lie between 0.001 s and a day".to_owned()),
    }
}

/// Why there is no recording. Its text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// what may go wrong with a request
    #[error(transparent)]
    Relay(#[from] Failure),
    /// the stream ended early
    #[error(
        "the recording broke off after {events} publishes: {why}\n    fix: what was written can be used; hapax simulate says that it was cut"
    )]
    Broken {
        /// written so far
        events: u64,
        /// why
        why: String,
    },
    /// a file
    #[error("{path}: {why}\n    fix: {fix}")]
    File {
        /// which
        path: String,
        /// what is wrong
        why: String,
        /// what to do
        fix: &'static str,
    },
}

impl Error {
    /// 1 failed while running, 2 wrong usage.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Relay(failure) => failure.exit_code(),
            Error::Broken { .. } | Error::File { .. } => 1,
        }
    }
}

/// How it went.
#[derive(Clone, Copy, PartialEq, Debug, Deserialize)]
pub struct Summary {
    /// publishes written
    pub events: u64,
    /// publishes that are missing
    pub dropped: u64,
    /// for how long
    pub seconds: f64,
}

/// Does what it is asked for.
pub fn run(args: &RecordArgs, access: &Access) -> Result<(), Error> {
    let stream = open(args, access)?;
    let output = &args.output;
    let to_stdout = output == Path::new("-");
    let out: Box<dyn Write> = if to_stdout {
        Box::new(io::stdout().lock())
    } else {
        Box::new(File::create(output).map_err(|error| unwritable(output, &error))?)
    };
    let bar = io::stderr().is_terminal().then(bar);
    let result = copy(stream, BufWriter::new(out), output, bar.as_ref());
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    let Summary { events, dropped, seconds } = result?;
    let place = if to_stdout { String::new() } else { format!(" to {}", output.display()) };
    let _ = writeln!(io::stderr(), "{events} publishes in {seconds:.1} s{place}; {dropped} had no place");
    Ok(())
}

fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template(STYLE).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::no_length().with_style(style).with_message("recorded")
}

fn open(args: &RecordArgs, access: &Access) -> Result<impl Read + use<>, Failure> {
    let agent: Agent = Agent::config_builder()
        .http_status_as_error(false)
        .proxy(None)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_connect(Some(CONNECT))
        .timeout_recv_response(Some(CONNECT))
        .timeout_recv_body(Some(args.seconds + LATE))
        .tls_config(access.tls())
        .user_agent(concat!("hapax/", env!("CARGO_PKG_VERSION")))
        .build()
        .into();
    let RecordArgs { window, seconds, max_events, .. } = args;
    let (url, seconds) = (access.url(), seconds.as_secs_f64());
    let path = format!("{url}/api/v1/windows/{window}/record?seconds={seconds}&max={max_events}");
    let mut request = agent.get(path);
    if let Some(token) = access.token() {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let url = || access.url().to_owned();
    let unreachable = |error: ureq::Error| match error {
        ureq::Error::Io(error) => Failure::of_io(url(), &error),
        ureq::Error::Rustls(error) => Failure::Untrusted { url: url(), why: tls::explain(&error) },
        error => Failure::Unreachable { url: url(), why: error.to_string() },
    };
    let (head, mut body) = request.call().map_err(unreachable)?.into_parts();
    let status = head.status.as_u16();
    if head.status.is_success() {
        return Ok(body.into_with_config().limit(u64::MAX).reader());
    }
    if status == 401 {
        return Err(Failure::Token { url: url(), sent: access.token().is_some() });
    }
    let text = body.with_config().limit(ERROR_MAX).lossy_utf8(true).read_to_string().unwrap_or_default();
    let json: Option<serde_json::Value> = serde_json::from_str(&text).ok();
    match json.as_ref().and_then(|json| json.get("error")?.as_str()) {
        Some(error) => Err(Failure::Refused { status, error: error.to_owned(), errors: Vec::new() }),
        None => Err(Failure::Foreign { url: url(), why: format!("it answers with {status}") }),
    }
}

/// Line by line, until the last one, which says how it went.
fn copy(
    stream: impl Read,
    mut out: impl Write,
    path: &Path,
    bar: Option<&ProgressBar>,
) -> Result<Summary, Error> {
    #[derive(Deserialize)]
    struct End {
        end: Summary,
    }
    let mut stream = BufReader::with_capacity(1 << 16, stream);
    let (mut line, mut events, mut first) = (Vec::new(), 0_u64, true);
    loop {
        line.clear();
        let broken = |why: String| Error::Broken { events, why };
        let read = (&mut stream).take(LINE_MAX).read_until(b'\n', &mut line);
        let read = read.map_err(|error| broken(error.to_string()))?;
        if read as u64 == LINE_MAX {
            return Err(broken(format!("a line has more than {LINE_MAX} bytes: no relay writes that")));
        }
        if read == 0 {
            out.flush().map_err(|error| unwritable(path, &error))?;
            return Err(broken("the relay has closed the connection".to_owned()));
        }
        out.write_all(&line).map_err(|error| unwritable(path, &error))?;
        if line.starts_with(b"{\"end\"") {
            out.flush().map_err(|error| unwritable(path, &error))?;
            return match serde_json::from_slice::<End>(&line) {
                Ok(End { end }) => Ok(end),
                Err(error) => Err(broken(format!("its last line makes no sense: {error}"))),
            };
        }
        events += u64::from(!first);
        first = false;
        // Write the lines so far to the file, in case the connection breaks.
        if stream.buffer().is_empty() {
            out.flush().map_err(|error| unwritable(path, &error))?;
        }
        if let Some(bar) = bar.filter(|_| events.is_multiple_of(SHOW_EVERY)) {
            bar.set_position(events);
        }
    }
}

fn unwritable(path: &Path, error: &io::Error) -> Error {
    Error::File {
        path: path.display().to_string(),
        why: format!("the recording can't be written: {error}"),
        fix: "name a file in a folder that exists, can be written to and has room, with -o",
    }
}
