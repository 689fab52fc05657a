//! Compiles `proto/flow.proto` without a system protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto/flow.proto");
    println!("cargo:rerun-if-changed=sql");
    let descriptors = protox::compile(["proto/flow.proto"], ["proto"])?;
    prost_build::Config::new().compile_fds(descriptors)?;
    Ok(())
}
