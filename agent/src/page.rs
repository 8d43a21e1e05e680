//! The page for people beside the device: read-only, made for a phone, without a script and
//! without anything from elsewhere, so that it works with no network at all.
//!
//! It shows what `bellwether-agent status` prints, and the device's id as a QR code. Every text is
//! escaped where it is put in.

mod qr;

use axum::Router;
use axum::extract::State;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::response::{Html, IntoResponse};
use axum::routing::get;
use bellwether_package::UnixSecs;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use tokio::sync::watch;

use crate::clock;
use crate::view::{DeviceView, EventView, Mood, SlotView, words};

/// Seconds after which a browser asks again.
const REFRESH_SECS: u32 = 30;
/// Nothing but the page's own style is allowed, whatever a text might smuggle in.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

/// The page alone, at `/`.
pub fn router(view: watch::Receiver<DeviceView>) -> Router {
    Router::new().route("/", get(show)).with_state(view)
}

async fn show(State(view): State<watch::Receiver<DeviceView>>) -> impl IntoResponse {
    let page = render(&view.borrow(), clock::now().0);
    let headers = [
        (CACHE_CONTROL, "no-store"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (REFERRER_POLICY, "no-referrer"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, Html(page))
}

/// The page, as the device is at `now`.
pub fn render(view: &DeviceView, now: u64) -> String {
    let summary = view.summary(now);
    let mood = match summary.mood {
        Mood::Well => "well",
        Mood::Look => "look",
        Mood::NotServing => "not-serving",
    };
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="refresh" content=(REFRESH_SECS);
                title { (view.device) ": " (summary.sentence) }
                style { (PreEscaped(include_str!("page/style.css"))) }
            }
            body {
                p.device { (view.device) }
                h1 class=(mood) { (summary.sentence) }
                (slots(view, now))
                section { h2 { "Server" } (list(view.contact(now))) }
                @let measured = view.measured(now);
                @if !measured.is_empty() {
                    section { h2 { "Device" } (list(measured)) }
                }
                (events(&view.events, now))
                (code(&view.device))
                footer {
                    "As of " (UnixSecs(now).civil()) ". "
                    "Agent version " (view.agent_version) "."
                }
            }
        }
    };
    page.into_string()
}

fn slots(view: &DeviceView, now: u64) -> Markup {
    html! {
        section {
            h2 { "Models" }
            @if view.slots.is_empty() {
                p { "No slot was ever assigned a release." }
            }
            ul {
                @for slot in &view.slots { li { (slot_card(slot, now)) } }
            }
        }
    }
}

fn slot_card(slot: &SlotView, now: u64) -> Markup {
    let mood = match slot.reason {
        Some(_) => "not-serving",
        None => "well",
    };
    html! {
        h3 class=(mood) { (slot.slot) }
        p { (slot.serves(now)) }
        (list(slot.details(now)))
    }
}

fn events(events: &[EventView], now: u64) -> Markup {
    html! {
        @if !events.is_empty() {
            section {
                h2 { "What happened" }
                ul {
                    @for event in events {
                        li {
                            time { (words::ago(now, event.at)) ", " (UnixSecs(event.at).civil()) }
                            (event.told())
                        }
                    }
                }
            }
        }
    }
}

fn code(device: &str) -> Markup {
    html! {
        @if let Some(svg) = qr::svg(device) {
            section.code {
                (PreEscaped(svg))
                p { (device) }
            }
        }
    }
}

fn list(pairs: Vec<(&str, String)>) -> Markup {
    html! {
        dl {
            @for (label, text) in pairs { dt { (label) } dd { (text) } }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::OutcomeView;

    const ATTACK: &str = "\"><script>alert(1)</script><img src=x onerror='a'>&amp;";

    /// A device each of whose texts is an attack.
    fn hostile() -> DeviceView {
        let attack = || Some(ATTACK.to_owned());
        DeviceView {
            device: ATTACK.into(),
            agent_version: ATTACK.into(),
            trouble: attack(),
            slots: vec![SlotView {
                slot: ATTACK.into(),
                phase: ATTACK.into(),
                serving: None,
                model: attack(),
                candidate: attack(),
                previous: attack(),
                reason: attack(),
                floor: ATTACK.into(),
                since: Some(1),
                outcome: Some(OutcomeView {
                    version: attack(),
                    sequence: ATTACK.into(),
                    text: ATTACK.into(),
                    what: ATTACK.into(),
                    why: attack(),
                    silenced: true,
                    ..OutcomeView::default()
                }),
            }],
            events: vec![EventView {
                at: 1,
                slot: attack(),
                text: ATTACK.into(),
                times: 2,
            }],
            ..DeviceView::default()
        }
    }

    #[test]
    fn no_text_becomes_markup() {
        let page = render(&hostile(), 1_000);
        assert!(page.contains("&lt;script&gt;"), "{page}");
        for markup in ["<script", "<img", "onerror='a'>"] {
            assert!(!page.contains(markup), "{markup} in\n{page}");
        }
    }

    #[test]
    fn nothing_is_fetched_from_elsewhere_and_nothing_can_be_sent() {
        let page = render(&hostile(), 1_000).replace(&escaped(ATTACK), "");
        let namespace = "http://www.w3.org/2000/svg";
        let page = page.replace(namespace, "");
        for outside in [
            "src=", "href", "url(", "@import", "http://", "https://", "<form", "<a ",
        ] {
            assert!(!page.contains(outside), "{outside} in\n{page}");
        }
    }

    fn escaped(text: &str) -> String {
        html! { (text) }.into_string()
    }

    #[test]
    fn the_sentence_comes_before_everything_else() {
        let mut view = hostile();
        view.slots.clear();
        view.device = "pump-1".into();
        view.trouble = None;
        let page = render(&view, 1_000);
        let sentence = page
            .find("<h1 class=\"look\">Waiting for a first release;")
            .unwrap();
        let first_section = page.find("<section>").unwrap();
        assert!(sentence < first_section);
        assert!(page.contains("<svg"), "the id as a QR code");
    }
}
