//! Tells the agent which machine it is built for: by that it finds its own programs in a package.

fn main() {
    let target = std::env::var("TARGET").unwrap_or_default();
    println!("cargo:rustc-env=BELLWETHER_TARGET={target}");
    println!("cargo:rerun-if-changed=build.rs");
}
