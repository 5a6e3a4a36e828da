//! The program `triggercast`: arguments in, exit code out.

fn main() {}
