//! What breaks is survived: kill -9, a full disk, damage, slow clients and clocks, against the built binary.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "a failed run is understood by what it printed")]
#![expect(unreachable_pub, reason = "one crate, nothing is published")]

mod broker;
mod client;
mod clock;
#[path = "../e2e/common.rs"]
#[expect(dead_code, reason = "another test crate uses the rest")]
mod common;
mod crash;
mod damage;
mod device;
mod foreign;
mod full_disk;
mod ground;
#[path = "../common/mosquitto.rs"]
#[expect(dead_code, reason = "another test crate uses the rest")]
mod mosquitto;
mod slow;
