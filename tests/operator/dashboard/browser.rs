//! A headless Chromium by ChromeDriver: a session for each test, one at a time, on a driver that the test binary shares.
//!
//! Waiting is for a condition that the page itself shows, with a deadline. The browser's log and the addresses that it
//! asked are kept, and judged when a test ends ([`Browser::close`]).

use hapax_testbed::Leash;
use serde_json::{Value, json};
use std::fmt::Debug;
use std::future::Future;
use std::io::{BufRead, BufReader};
use std::mem::ManuallyDrop;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use thirtyfour::common::capabilities::chromium::ChromiumLikeCapabilities;
use thirtyfour::prelude::*;
use tokio::sync::{Mutex, MutexGuard};

/// Long enough for a busy machine with two cores.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// ChromeDriver, and the folder where profiles are.
struct Driver {
    leash: Leash,
    port: u16,
    _child: Child,
}

fn driver() -> &'static Driver {
    static DRIVER: OnceLock<Driver> = OnceLock::new();
    DRIVER.get_or_init(|| {
        let leash = Leash::new("chromium").unwrap();
        let mut child = Command::new("chromedriver")
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("chromedriver can't be started ({error}): make setup installs it")
            });
        leash.hold(&child).unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let port = lines.find_map(|line| {
            line.strip_prefix("ChromeDriver was started successfully on port ")?
                .trim_end_matches('.')
                .parse()
                .ok()
        });
        std::thread::spawn(move || lines.for_each(drop));
        Driver { leash, port: port.expect("chromedriver says its port"), _child: child }
    })
}

/// A window of a browser that has never been anywhere.
pub(crate) struct Browser {
    web: ManuallyDrop<WebDriver>,
    pid: String,
    server: SocketAddr,
    _turn: MutexGuard<'static, ()>,
}

impl Browser {
    /// With nothing open yet; `server` is the one that the page may talk to.
    pub(crate) async fn start(server: SocketAddr) -> Browser {
        static TURN: Mutex<()> = Mutex::const_new(());
        let turn = TURN.lock().await;
        let driver = driver();
        let profile = driver.leash.folder().join(format!("profile-{}", server.port()));
        let mut capabilities = DesiredCapabilities::chrome();
        for flag in [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--no-proxy-server",
            // whatever the browser itself would like to ask (its first tab is full of it) stays here
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            "--force-color-profile=srgb",
            "--hide-scrollbars",
            &format!("--user-data-dir={}", profile.display()),
        ] {
            capabilities.add_arg(flag).unwrap();
        }
        let all = json!({ "browser": "ALL", "performance": "ALL" });
        capabilities.set("goog:loggingPrefs", all).unwrap();
        let web = WebDriver::new(format!("http://127.0.0.1:{}", driver.port), capabilities).await.unwrap();
        let pid = hold(&driver.leash, &profile);
        let browser = Browser { web: ManuallyDrop::new(web), pid, server, _turn: turn };
        browser.size(1280, 900).await;
        browser.prefer("light").await;
        browser
    }

    /// With the dashboard open and its first numbers there.
    pub(crate) async fn open(server: SocketAddr) -> Browser {
        let browser = Browser::start(server).await;
        browser.go("/").await;
        browser.until_true("the page is live", "return document.body.dataset.link === 'live'").await;
        browser
    }

    pub(crate) async fn go(&self, path: &str) {
        self.web.goto(format!("http://{}{path}", self.server)).await.unwrap();
    }

    /// How large the page is shown.
    pub(crate) async fn size(&self, width: u32, height: u32) {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.cdp("Emulation.setDeviceMetricsOverride", metrics).await;
    }

    /// As if the system was set to this colour scheme.
    pub(crate) async fn prefer(&self, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.cdp("Emulation.setEmulatedMedia", json!({ "features": features })).await;
    }

    pub(crate) async fn cdp(&self, method: &str, params: Value) -> Value {
        self.web.cdp().send_raw(method, params).await.unwrap()
    }

    /// Runs this function body in the page and returns its result.
    pub(crate) async fn js(&self, body: &str) -> Value {
        self.web.execute(body, Vec::new()).await.unwrap().json().clone()
    }

    /// The text of the first element that fits, as it is shown.
    pub(crate) async fn text(&self, css: &str) -> String {
        loop {
            match self.find(css).await.text().await {
                // The page has drawn it anew in between.
                Err(error) if error.to_string().contains("stale element") => {}
                text => return text.unwrap(),
            }
        }
    }

    pub(crate) async fn value(&self, css: &str) -> String {
        self.find(css).await.prop("value").await.unwrap().unwrap()
    }

    pub(crate) async fn find(&self, css: &str) -> WebElement {
        self.web.find(By::Css(css)).await.unwrap_or_else(|error| panic!("{css}: {error}"))
    }

    pub(crate) async fn click(&self, css: &str) {
        let element = self.find(css).await;
        element.click().await.unwrap_or_else(|error| panic!("{css}: {error}"));
    }

    /// Replaces what is in a field, by typing.
    pub(crate) async fn fill(&self, css: &str, text: &str) {
        let element = self.find(css).await;
        element.send_keys(Key::Control + "a").await.unwrap();
        element.send_keys(text).await.unwrap_or_else(|error| panic!("{css}: {error}"));
    }

    /// Keys to whatever has the focus.
    pub(crate) async fn press(&self, keys: impl Into<TypingData>) {
        self.web.action_chain().send_keys(keys).perform().await.unwrap();
    }

    pub(crate) async fn until<T, F: Future<Output = Option<T>>>(&self, what: &str, ask: impl Fn() -> F) -> T {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            if Instant::now() > end {
                let logged = self.web.browser_log().await.unwrap();
                panic!("not within {PATIENCE:?}: {what}\n{}\n{logged:#?}", self.text("body").await);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) async fn until_true(&self, what: &str, body: &str) {
        self.until(what, async || (self.js(body).await == Value::Bool(true)).then_some(())).await;
    }

    /// Waits until an element says exactly this.
    pub(crate) async fn until_text(&self, css: &str, wanted: &str) {
        self.until(&format!("{css} says {wanted:?}"), async || {
            (self.text(css).await == wanted).then_some(())
        })
        .await;
    }

    /// Waits until an element says this among other things.
    pub(crate) async fn until_has(&self, css: &str, wanted: &str) {
        let what = format!("{css} says {wanted:?}");
        self.until(&what, async || self.text(css).await.contains(wanted).then_some(())).await;
    }

    /// The whole page as PNG.
    pub(crate) async fn shoot(&self, path: &Path) {
        let height = self.js("return document.documentElement.scrollHeight").await;
        let width = self.js("return innerWidth").await;
        self.size(number(&width), number(&height)).await;
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        self.web.screenshot(path).await.unwrap();
    }

    /// Nothing is wider than the window, whether it would be scrolled to or cut off. Charts are drawn again a moment after the window
    /// has another size.
    pub(crate) async fn fits(&self, what: &str) {
        let end = Instant::now() + PATIENCE;
        while let wide = self.too_wide().await
            && wide != json!([])
        {
            assert!(Instant::now() < end, "{what}: wider than the window: {wide:#}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn too_wide(&self) -> Value {
        self
            .js("const all = [...document.querySelectorAll('body *')].filter((e) => !e.closest('.unseen, .skip, thead, dialog:not([open])'));
                 const out = all.filter((e) => e.getBoundingClientRect().right > innerWidth + 0.5);
                 const scroll = document.documentElement.scrollWidth > innerWidth ? ['the page scrolls'] : [];
                 return scroll.concat(out.map((e) => `${e.tagName} ${e.id} ${e.className} ${e.textContent.slice(0, 40)}`))")
            .await
    }

    /// Ends the session, after a look at what the browser has logged and asked for: the console is empty (but for what
    /// `expected` names), and nobody but the server was spoken to.
    pub(crate) async fn close(self, expected: &[&str]) {
        let logged = self.web.browser_log().await.unwrap();
        let unexpected =
            logged.iter().filter(|line| !expected.iter().any(|part| line.message.contains(part)));
        assert_none("the console", unexpected.map(|line| &line.message));
        let events = self.web.get_log("performance").await.unwrap();
        let asked: Vec<String> = events.iter().filter_map(|event| request(&event.message)).collect();
        let ours = format!("http://{}/", self.server);
        assert!(asked.iter().any(|url| url.starts_with(&ours)), "the log of requests is empty");
        // `data:` goes nowhere; `chrome:` is the browser's own first tab.
        let others = |url: &&String| !["data:", "about:", "chrome"].iter().any(|own| url.starts_with(own));
        assert_none("requests to others", asked.iter().filter(others).filter(|url| !url.starts_with(&ours)));
    }
}

impl Drop for Browser {
    /// A test that has failed doesn't wait for the driver's good-bye, which would need the runtime that ends with it.
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-9", &self.pid]).stderr(Stdio::null()).status();
        let _ = std::fs::remove_file(driver().leash.folder().join("pids").join(&self.pid));
    }
}

/// ChromeDriver's children do not die with it: the browser's own id is in the lock of its profile.
fn hold(leash: &Leash, profile: &Path) -> String {
    let lock = std::fs::read_link(profile.join("SingletonLock")).expect("the profile is in use");
    let (_, pid) = lock.to_str().unwrap().rsplit_once('-').unwrap();
    std::fs::write(leash.folder().join("pids").join(pid), b"").unwrap();
    pid.to_owned()
}

/// The address of a request that an entry of the performance log tells of.
fn request(message: &str) -> Option<String> {
    let event: Value = serde_json::from_str(message).unwrap();
    let event = &event["message"];
    match event["method"].as_str()? {
        "Network.requestWillBeSent" => Some(event["params"]["request"]["url"].as_str()?.to_owned()),
        "Network.webSocketCreated" => Some(event["params"]["url"].as_str()?.to_owned()),
        _ => None,
    }
}

fn assert_none<T: Debug>(what: &str, items: impl Iterator<Item = T>) {
    let items: Vec<T> = items.collect();
    assert!(items.is_empty(), "{what}: {items:#?}");
}

fn number(value: &Value) -> u32 {
    value.as_f64().unwrap().ceil() as u32
}
