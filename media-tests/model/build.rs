//! Switches the model checker's parts of `proto::handover` on, for this library's own copy and for nobody else.

fn main() {
    println!("cargo::rustc-cfg=trocar_model");
    println!("cargo::rerun-if-changed=build.rs");
}
