//! How the console is served: names, headers, what a browser has already; and what its files may hold.

use actix_web::http::Method;
use actix_web::test::{TestRequest, call_service, init_service, read_body};
use actix_web::{App, dev::ServiceResponse};

use super::*;

const GATEWAY: &str = "127.0.0.1:8080";

fn console(address: &str, tls: bool) -> Console {
    Console::new(GatewayPort { address: address.parse().unwrap(), tls })
}

async fn ask(request: TestRequest) -> ServiceResponse {
    let console = web::Data::new(console(GATEWAY, false));
    let app = App::new().configure(routes(console)).default_service(web::to(|| async { "the API" }));
    call_service(&init_service(app).await, request.to_request()).await
}

fn header<'a>(response: &'a ServiceResponse, name: &str) -> &'a str {
    response.headers().get(name).unwrap_or_else(|| panic!("no {name}")).to_str().unwrap()
}

#[actix_web::test]
async fn every_answer_has_a_strict_policy() {
    for (path, status, content_type) in [
        ("/console/", 200, "text/html; charset=utf-8"),
        ("/console/index.html", 200, "text/html; charset=utf-8"),
        ("/console/demo", 200, "text/html; charset=utf-8"),
        ("/console/app.js", 200, "text/javascript; charset=utf-8"),
        ("/console/style.css", 200, "text/css; charset=utf-8"),
        ("/console/icon.svg", 200, "image/svg+xml"),
        ("/console/vendor/uplot.LICENSE", 200, "text/plain; charset=utf-8"),
        ("/console/nothing", 404, "text/plain; charset=utf-8"),
    ] {
        let response = ask(TestRequest::with_uri(path)).await;
        assert_eq!(response.status(), status, "{path}");
        assert_eq!(header(&response, "content-type"), content_type, "{path}");
        let policy = header(&response, "content-security-policy");
        assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
        assert!(policy.contains("connect-src 'self' ws://*:8080;"), "{policy}");
        assert!(policy.contains("frame-ancestors 'none'; require-trusted-types-for 'script'"), "{policy}");
        for (name, value) in [
            ("cache-control", "no-cache"),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(header(&response, name), value, "{path}");
        }
        assert!(response.headers().get("set-cookie").is_none());
    }
}

#[actix_web::test]
async fn what_a_browser_has_is_not_sent_again() {
    let first = ask(TestRequest::with_uri("/console/app.js")).await;
    let tag = header(&first, "etag").to_owned();
    assert!(tag.starts_with('"') && tag.len() == 34, "{tag}");
    assert!(!read_body(first).await.is_empty());
    for known in [tag.clone(), format!("W/{tag}"), format!("\"other\", {tag}"), "*".to_owned()] {
        let again =
            ask(TestRequest::with_uri("/console/app.js").insert_header(("if-none-match", known))).await;
        assert_eq!((again.status().as_u16(), header(&again, "etag")), (304, tag.as_str()));
        assert!(read_body(again).await.is_empty());
    }
    let other = TestRequest::with_uri("/console/app.js").insert_header(("if-none-match", "\"other\""));
    assert_eq!(ask(other).await.status(), 200);
}

#[actix_web::test]
async fn no_name_leads_out_of_the_files() {
    for path in [
        "/console/../Cargo.toml",
        "/console/..%2fmod.rs",
        "/console/%2e%2e/mod.rs",
        "/console//etc/passwd",
        "/console/pages/",
        "/console/pages/../app.js",
        "/console/app.js%00",
        "/console/%ff",
    ] {
        assert_eq!(ask(TestRequest::with_uri(path)).await.status(), 404, "{path}");
    }
}

#[actix_web::test]
async fn browsers_are_led_to_it_and_programs_are_not() {
    let browser = TestRequest::with_uri("/").insert_header(("accept", "text/html,application/xhtml+xml"));
    for request in [browser, TestRequest::with_uri("/console")] {
        let response = ask(request).await;
        assert_eq!((response.status().as_u16(), header(&response, "location")), (308, "/console/"));
    }
    let program = ask(TestRequest::with_uri("/")).await;
    assert_eq!(read_body(program).await, "the API");
    let head = ask(TestRequest::with_uri("/console/").method(Method::HEAD)).await;
    assert_eq!(head.status(), 200);
    let post = ask(TestRequest::with_uri("/console/").method(Method::POST)).await;
    assert_eq!(read_body(post).await, "the API");
}

#[test]
fn pages_know_the_gateways_port() {
    for (address, tls, told) in [
        ("127.0.0.1:8080", false, "ws://:8080"),
        ("0.0.0.0:80", true, "wss://:80"),
        ("[::]:8080", false, "ws://:8080"),
        ("10.0.0.5:8443", true, "wss://10.0.0.5:8443"),
        ("[fd00::1]:8443", true, "wss://[fd00::1]:8443"),
    ] {
        let console = console(address, tls);
        for name in ["index.html", "demo.html"] {
            let page = String::from_utf8(console.files[name].body.to_vec()).unwrap();
            assert!(page.contains(&format!("content=\"{told}\"")), "{name}: {told}");
            assert!(!page.contains("{gateway}"), "{name}");
        }
    }
}

/// All files that are ours, as text.
fn ours() -> Vec<(&'static str, &'static str)> {
    let text = |bytes| std::str::from_utf8(bytes).unwrap();
    let ours = files::FILES.iter().filter(|(name, _)| !name.starts_with("vendor/"));
    ours.map(|(name, bytes)| (*name, text(bytes))).collect()
}

#[test]
fn every_file_says_first_what_it_does_and_is_served() {
    for (name, text) in ours() {
        let first = text.lines().next().unwrap();
        let starts = ["// ", "/* ", "<!-- ", "<!doctype html><!-- "];
        assert!(starts.iter().any(|start| first.starts_with(start)), "{name}: {first}");
        assert!(text.lines().count() <= 400, "{name} is long");
    }
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/console/assets");
    let folders = ["", "pages", "vendor"].map(|name| folder.join(name));
    let entries = folders.iter().flat_map(|folder| std::fs::read_dir(folder).unwrap());
    let on_disk = entries.filter(|entry| entry.as_ref().unwrap().path().is_file()).count();
    assert_eq!(on_disk, files::FILES.len());
}

/// Text from devices becomes text on the page, never a part of it; and nothing comes from elsewhere.
#[test]
fn nothing_makes_html_of_text_or_asks_others() {
    for (name, bytes) in files::FILES {
        let text = std::str::from_utf8(bytes).unwrap();
        for word in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "new Function",
            "srcdoc",
        ] {
            assert!(!text.contains(word), "{name} has {word}");
        }
    }
    for (name, text) in ours() {
        for word in ["https://", "http://", "@import", "document.cookie", " style=\"", "javascript:"] {
            let text = text.replace("http://www.w3.org/", "");
            assert!(!text.contains(word), "{name} has {word}");
        }
    }
}

/// What a browser loads until it shows the overview; other pages are loaded when they are opened.
#[test]
fn the_first_page_is_light() {
    let is_first = |name: &str| match name.split_once('/') {
        Some(("pages", page)) => matches!(page, "overview.js" | "sign_in.js"),
        _ => !name.starts_with("demo.") && !name.ends_with(".LICENSE"),
    };
    let first = files::FILES.iter().filter(|(name, _)| is_first(name));
    let bytes: usize = first.map(|(_, bytes)| bytes.len()).sum();
    assert!(bytes < 150_000, "{bytes} bytes");
}
