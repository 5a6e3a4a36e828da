//! The messages of `proto/` as Rust types, and what is known of them and their services at run time.

pub mod raw;

use std::sync::LazyLock;

use prost_reflect::DescriptorPool;

/// The types, in modules named as the packages.
#[expect(
    missing_docs,
    clippy::module_inception,
    reason = "made from the files in proto/, which say what there is to say"
)]
pub mod types {
    include!(concat!(env!("OUT_DIR"), "/api.rs"));
}

/// Every message and service, with its options.
pub static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(include_bytes!(concat!(env!("OUT_DIR"), "/api.bin")).as_slice())
        .unwrap_or_default()
});
