//! The files of the console: name under `/console/`, and content.

/// `name => file of assets/`.
macro_rules! files {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_bytes!(concat!("assets/", $name)))),*]
    };
}

/// All of them.
pub(super) const FILES: &[(&str, &[u8])] = files![
    "index.html",
    "demo.html",
    "icon.svg",
    "style.css",
    "app.js",
    "api.js",
    "chart.js",
    "dom.js",
    "demo.css",
    "demo.js",
    "event.js",
    "list.js",
    "show.js",
    "pages/audit.js",
    "pages/connections.js",
    "pages/containers.js",
    "pages/devices.js",
    "pages/gateways.js",
    "pages/overview.js",
    "pages/sign_in.js",
    "pages/tail.js",
    "pages/trigger.js",
    "pages/trigger_form.js",
    "pages/triggers.js",
    "vendor/uplot.LICENSE",
    "vendor/uplot.css",
    "vendor/uplot.js",
];
