//! The line to the relay, the token, and whether everybody can read the page.

use super::browser::Browser;
use super::stub::{Stub, calm, critical, window_of};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn a_lost_line_is_told_and_found_again() {
    let mut stub = Stub::new(vec![window_of("orders", &calm())]).await;
    let page = Browser::open(stub.address).await;
    stub.stop().await;
    page.until_has("#notices", "Disconnected since ").await;
    assert!(page.text("#link").await.starts_with("disconnected, next try"));
    assert_eq!(page.text("[data-show=entries]").await, "397,370", "what was known stays");
    let mut facts = calm();
    facts.entries = Some(5);
    stub.say(vec![window_of("orders", &facts)]);
    stub.start().await;
    page.until_text("[data-show=entries]", "5").await;
    assert_eq!(page.text("#notices").await, "");
    assert_eq!(page.text("#link").await, "live");
    page.close(&["ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED_ENCODING", "ERR_CONNECTION_RESET"]).await;
}

#[tokio::test]
async fn the_token_is_asked_for_and_kept_for_the_tab() {
    let stub =
        Stub::with(vec![window_of("orders", &calm())], |scene| scene.token = Some("a-long-enough-token"))
            .await;
    let page = Browser::start(stub.address).await;
    page.go("/").await;
    page.until_has("#token", "This relay asks for a token").await;
    page.fill("#token-field", "an ä").await;
    page.click("#token button").await;
    page.until_has("#token", "A token has no spaces and no letters beyond ASCII.").await;
    page.fill("#token-field", "not-the-right-one").await;
    page.click("#token button").await;
    page.until_has("#token", "The relay did not accept that token.").await;
    page.fill("#token-field", "a-long-enough-token").await;
    page.click("#token button").await;
    page.until_text("[data-show=name]", "orders").await;
    page.go("/").await;
    page.until_text("#link", "live").await;
    assert_eq!(
        page.js("return [sessionStorage.length, localStorage.length, document.cookie]").await,
        json!([1, 0, ""])
    );
    page.click("#forget-token").await;
    page.until_has("#token", "This relay asks for a token").await;
    page.close(&["401"]).await;
}

/// For each text that is shown: its contrast with what is behind it, if that is below what WCAG AA asks for. Where an
/// element is dimmed, its text counts as it is seen. Disabled controls are exempt there, and here.
const CONTRAST: &str = r"
const rgba = (text) => { const n = text.match(/[\d.]+/g).map(Number); return [n[0], n[1], n[2], n[3] ?? 1]; };
const luminance = ([r, g, b]) => {
  const [x, y, z] = [r, g, b].map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  return 0.2126 * x + 0.7152 * y + 0.0722 * z;
};
const behind = (e) => { for (; e; e = e.parentElement) { const c = rgba(getComputedStyle(e).backgroundColor); if (c[3] === 1) return c; } return [255, 255, 255, 1]; };
const poor = [];
let looked = 0;
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const e = walker.currentNode.parentElement;
  if (!walker.currentNode.data.trim() || e.closest('.unseen, .skip, :disabled, noscript, option') || !e.checkVisibility()) continue;
  looked += 1;
  const style = getComputedStyle(e);
  const ink = luminance(rgba(e.namespaceURI.endsWith('svg') ? style.fill : style.color));
  const paper = luminance(behind(e));
  const ratio = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
  if (ratio < 4.5) poor.push(`${ratio.toFixed(2)} ${e.className.baseVal ?? e.className} ${walker.currentNode.data.trim().slice(0, 30)}`);
}
return [looked > 100, poor]";

#[tokio::test]
async fn contrast_is_enough_in_light_and_dark() {
    let stub = Stub::new(vec![window_of("orders", &critical()), window_of("rest", &calm())]).await;
    let page = Browser::open(stub.address).await;
    stub.change(|now| now["status"]["draining"] = json!(true));
    page.until_has("#notices", "draining").await;
    page.fill("#set-capacity", "100,000").await;
    page.until_text("[data-after=capacity]", "100,000").await;
    let background = "return getComputedStyle(document.body).backgroundColor";
    let light = page.js(background).await;
    assert_eq!(page.js(CONTRAST).await, json!([true, []]), "light");
    page.prefer("dark").await;
    let dark = page.js(background).await;
    assert_ne!(light, dark, "the system's choice holds");
    assert_eq!(page.js(CONTRAST).await, json!([true, []]), "dark");
    // The reader's own choice comes before the system's, and stays.
    page.click("#theme").await;
    assert_eq!(page.text("#theme").await, "Theme: light");
    assert_eq!(page.js(background).await, light);
    page.go("/").await;
    page.until_text("#link", "live").await;
    assert_eq!(page.js(background).await, light);
    page.click("#theme").await;
    page.prefer("light").await;
    assert_eq!(page.js(background).await, dark);
    page.close(&[]).await;
}

/// Elements that a screen reader would have to guess: controls and pictures without a name, ids that are there twice, labels that
/// point nowhere.
const NAMELESS: &str = r"
const named = (e) => e.labels?.length > 0 || e.textContent.trim() || e.getAttribute('aria-label') || e.getAttribute('aria-labelledby');
const ids = [...document.querySelectorAll('[id]')].map((e) => e.id);
const references = [...document.querySelectorAll('[aria-labelledby], [aria-describedby], label[for]')]
  .flatMap((e) => [e.getAttribute('aria-labelledby'), e.getAttribute('aria-describedby'), e.getAttribute('for')].filter(Boolean));
return [
  [...document.querySelectorAll('button, input, select, a, [role=img], [role=meter]')].filter((e) => !named(e)).map((e) => e.outerHTML),
  ids.filter((id, i) => ids.indexOf(id) !== i),
  references.filter((id) => !document.getElementById(id)),
  [...document.querySelectorAll('fieldset')].filter((e) => e.firstElementChild.tagName !== 'LEGEND').length,
]";

#[tokio::test]
async fn everything_has_a_name() {
    let stub = Stub::new(vec![window_of("orders", &critical())]).await;
    let page = Browser::open(stub.address).await;
    assert_eq!(page.js(NAMELESS).await, json!([[], [], [], 0]));
    page.cdp(
        "Emulation.setEmulatedMedia",
        json!({ "features": [{ "name": "prefers-reduced-motion", "value": "reduce" }] }),
    )
    .await;
    let moving = "return document.getAnimations().length";
    assert_eq!(page.js(moving).await, 0);
    page.close(&[]).await;
}

/// Head and body of an answer.
async fn ask(stub: &Stub, path: &str, header: &str) -> (String, String) {
    let mut stream = TcpStream::connect(stub.address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{header}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

#[tokio::test]
async fn files_keep_to_themselves_and_are_fetched_once() {
    let stub = Stub::new(Vec::new()).await;
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/assets/style.css", "text/css; charset=utf-8"),
        ("/assets/app.js", "text/javascript; charset=utf-8"),
        ("/assets/charts.js", "text/javascript; charset=utf-8"),
    ] {
        let (head, body) = ask(&stub, path, "").await;
        for line in [
            &format!("content-type: {kind}"),
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
            "cache-control: no-cache",
        ] {
            assert!(head.lines().any(|have| have == line), "{path}: {line} is not in\n{head}");
        }
        let policy = head.lines().find(|line| line.starts_with("content-security-policy:")).unwrap();
        for part in [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "connect-src 'self'",
            "img-src 'self' data:",
        ] {
            assert!(policy.contains(part), "{policy}");
        }
        let tag = head.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap();
        let (again, nothing) = ask(&stub, path, &format!("If-None-Match: \"other\", W/{tag}\r\n")).await;
        assert!(again.starts_with("HTTP/1.1 304"), "{again}");
        assert_eq!((nothing.is_empty(), body.is_empty()), (true, false), "{path}");
    }
    // Every script that another one imports is served: a file that was forgotten in the list would be found here.
    let mut scripts = vec!["app.js".to_owned()];
    let mut next = 0;
    while let Some(script) = scripts.get(next).cloned() {
        let (head, body) = ask(&stub, &format!("/assets/{script}"), "").await;
        assert!(head.starts_with("HTTP/1.1 200"), "{script}: {head}");
        let imports = body
            .lines()
            .filter_map(|line| Some(line.split_once("from \"./")?.1.split('"').next()?.to_owned()));
        let new: Vec<String> = imports.filter(|name| !scripts.contains(name)).collect();
        scripts.extend(new);
        next += 1;
    }
    assert!(scripts.len() > 5, "{scripts:?}");
}
