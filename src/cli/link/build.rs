//! How the program is linked: in less memory.
//!
//! Owns the linker's arguments for the binary `tidegate`; the library and those who embed it are linked as they like.
//! A build that asks for a linker of its own is left alone: not each of them reads a script.

use std::env;
use std::process::Command;

const SCRIPT: &str = "src/cli/link/rare.ld";

fn main() {
    println!("cargo::rerun-if-changed=src/cli/link");
    if !is_release_of_the_program() || has_linker_of_its_own() {
        return;
    }
    let root = env::var("CARGO_MANIFEST_DIR").expect("cargo names the package's folder");
    println!("cargo::rustc-link-arg-bin=tidegate=-T{root}/{SCRIPT}");
    if loads_packed_relocations() {
        println!("cargo::rustc-link-arg-bin=tidegate=-Wl,-z,pack-relative-relocs");
    }
}

fn is_release_of_the_program() -> bool {
    is("PROFILE", "release")
        && is("CARGO_CFG_TARGET_OS", "linux")
        && env::var_os("CARGO_FEATURE_CLI").is_some()
}

fn has_linker_of_its_own() -> bool {
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    env::var_os("RUSTC_LINKER").is_some() || flags.contains("-fuse-ld") || flags.contains("linker")
}

/// Whether the C library here reads the short form of relocations, which saves 0.2 MB of tables: glibc does from 2.36
/// on, and an older one would refuse to start the program. What is built for another machine does without.
fn loads_packed_relocations() -> bool {
    if !is("CARGO_CFG_TARGET_ENV", "gnu") || env::var("HOST") != env::var("TARGET") {
        return false;
    }
    let Ok(answer) = Command::new("getconf").arg("GNU_LIBC_VERSION").output() else { return false };
    let answer = String::from_utf8_lossy(&answer.stdout);
    let mut numbers = answer.trim().trim_start_matches("glibc ").split('.').map(str::parse::<u32>);
    matches!((numbers.next(), numbers.next()), (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= (2, 36))
}

fn is(name: &str, value: &str) -> bool {
    env::var(name).is_ok_and(|found| found == value)
}
