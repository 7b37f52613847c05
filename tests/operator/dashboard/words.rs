//! The page reads well: small numbers, one of a thing, long names, and what is not known yet.

use super::browser::Browser;
use super::facts::{connection, scope};
use super::stub::{Stub, calm, window_of};
use serde_json::json;

#[tokio::test]
async fn a_tooltip_has_sensible_digits() {
    let mut facts = calm();
    facts.rates.fresh = 7.69e-17;
    facts.rates.duplicate = 0.0;
    facts.rates.escaped = 1_234.5;
    let stub = Stub::new(vec![window_of("orders", &facts)]).await;
    let page = Browser::open(stub.address).await;
    let point = "const host = document.querySelector('#c-rates'); const box = host.getBoundingClientRect();
        host.dispatchEvent(new PointerEvent('pointermove', { clientX: box.right - 12, clientY: box.top + 30 }));
        return host.querySelector('.readout').textContent.includes('fresh')";
    page.until_true("the pointer is followed", point).await;
    let readout = page.text("#c-rates .readout").await;
    assert!(readout.ends_with("fresh < 0.01 · duplicate 0 · escaped 1.23K"), "{readout}");
    page.close(&[]).await;
    // Nor does a rate that fades stretch the axis to its own size.
    facts.rates.escaped = 0.0;
    let stub = Stub::new(vec![window_of("orders", &facts)]).await;
    let quiet = Browser::open(stub.address).await;
    let axis = "return [...document.querySelectorAll('#c-rates svg text')].map((e) => e.textContent)";
    let axis = quiet.js(axis).await;
    assert_eq!(axis.as_array().unwrap()[..4], ["0", "0.01", "0.02", "0.03"], "{axis}");
    quiet.close(&[]).await;
}

#[tokio::test]
async fn clients_are_known_before_anybody_scrolls() {
    let own = json!({ "product": "pika", "version": "1.3.2" });
    let connections = vec![connection(1, &own)];
    let stub = Stub::with(vec![window_of("orders", &calm())], |scene| scene.connections = connections).await;
    let page = Browser::start(stub.address).await;
    page.size(1280, 400).await;
    page.go("/").await;
    page.until_true("the list is there", "return !document.querySelector('#client-list').hidden").await;
    assert_eq!(page.js("return scrollY").await, 0);
    assert_eq!(page.js("return document.querySelector('#no-clients').hidden").await, true);
    page.close(&[]).await;

    let stub = Stub::new(vec![window_of("orders", &calm())]).await;
    let page = Browser::open(stub.address).await;
    page.until_text("#no-clients", "No clients are connected").await;
    page.close(&[]).await;
}

/// A long name stands on one line, and its tooltip has all of it.
#[tokio::test]
async fn a_long_name_takes_one_line() {
    let long = |word: &str| word.repeat(60);
    let mut facts = calm();
    facts.top_scopes = vec![scope(&long("v-1."), &long("e-1."), &long("k-1."), 7)];
    let mut window = window_of(&"orders.eu-".repeat(6), &facts);
    window["exchange"] = long("x-1.").into();
    window["forward_to"] = long("f-1.").into();
    let own = json!({ "product": "pika", "version": "1.3.2", "connection_name": long("c-1.") });
    let mut client = connection(1, &own);
    client["user"] = long("u-1.").into();
    let stub = Stub::with(vec![window], |scene| scene.connections = vec![client]).await;
    let page = Browser::open(stub.address).await;
    let tall = "const all = [...document.querySelectorAll('.name[title], .value[title], .title [data-show=name]')];
        return all.filter((e) => e.getBoundingClientRect().height > 1.6 * parseFloat(getComputedStyle(e).fontSize) + 1
            || !e.title.startsWith(e.firstChild.textContent)).map((e) => e.textContent.slice(0, 40))";
    page.until_has("#client-list", "u-1.").await;
    for width in [1920, 1280, 400] {
        page.size(width, 900).await;
        assert_eq!(page.js(tall).await, json!([]), "at {width}");
        page.fits(&format!("long names at {width}")).await;
    }
    let cut = page.js("return document.querySelectorAll('[title^=\"u-1.\"], [title^=\"c-1.\"], [title^=\"k-1.\"], [title^=\"f-1.\"]').length");
    assert_eq!(cut.await, 4, "each has its tooltip");
    page.close(&[]).await;
}

#[tokio::test]
async fn the_look_up_begins_where_the_traffic_is() {
    let stub = Stub::new(vec![window_of("orders", &calm())]).await;
    let page = Browser::open(stub.address).await;
    assert_eq!(page.value("#look-vhost").await, "/", "nothing is known yet");
    let mut facts = calm();
    facts.top_scopes = vec![scope("shop", "orders.in", "eu", 900), scope("/", "", "q", 3)];
    stub.say(vec![window_of("orders", &facts)]);
    let preset = "return document.querySelector('#look-vhost').value === 'shop' && document.querySelector('#look-exchange').value === 'orders.in'";
    page.until_true("the busiest place is preset", preset).await;
    // The traffic does not overwrite a field that somebody has edited.
    page.fill("#look-vhost", "mine").await;
    facts.top_scopes.reverse();
    facts.publishes.fresh += 1;
    stub.say(vec![window_of("orders", &facts)]);
    page.until_has("[data-fact='publishes.fresh']", "28,341,903").await;
    assert_eq!(page.value("#look-vhost").await, "mine");
    page.close(&[]).await;
}

#[tokio::test]
async fn a_window_that_is_off_is_not_ok() {
    let mut off = window_of("paused", &calm());
    off["mode"] = "off".into();
    let stub = Stub::new(vec![window_of("orders", &calm()), off]).await;
    let page = Browser::open(stub.address).await;
    page.until_text("#levels", "1 ok · 1 off").await;
    assert_eq!(page.text("#windows li:nth-child(2) .level").await, "○ off");
    page.go("/#/windows/paused").await;
    page.until_text("[data-fact=level]", "○ off").await;
    assert_eq!(page.text("#verdict").await, "Nothing is judged: the mode is off.");
    page.close(&[]).await;
}

#[tokio::test]
async fn one_id_is_not_ids() {
    let mut facts = calm();
    facts.entries = Some(1);
    let mut window = window_of("orders", &facts);
    window["resizing"] = json!({ "to": 1_000, "left": 250_000 });
    let stub = Stub::new(vec![window]).await;
    let page = Browser::open(stub.address).await;
    assert_eq!(page.text("[data-show=resizing]").await, "It shrinks to 1,000 ids: 250,000 more to forget.");
    page.click("#flush").await;
    page.until_has("#confirm", "The only id of “orders” is forgotten.").await;
    page.click("#confirm [data-yes]").await;
    page.until_text("#flushed", "1 id forgotten.").await;
    page.close(&[]).await;
}
