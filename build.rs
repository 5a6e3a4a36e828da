//! Makes Rust types and a descriptor set of the messages in `proto/`.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let mut files = Vec::new();
    find(Path::new("proto/yandex"), &mut files)?;
    find(Path::new("proto/triggercast"), &mut files)?;
    files.push("proto/google/rpc/status.proto".into());
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).open_files(&files)?;
    // Encoded: the typed form would drop our options.
    fs::write(out.join("api.bin"), compiler.encode_file_descriptor_set())?;
    prost_build::Config::new()
        .enable_type_names()
        .type_name_domain(["."], "type.googleapis.com")
        .btree_map(["."])
        .include_file("api.rs")
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}

fn find(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            find(&path, files)?;
        } else if path.extension().is_some_and(|ending| ending == "proto") {
            files.push(path);
        }
    }
    files.sort();
    Ok(())
}
