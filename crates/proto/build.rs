//! Generates the wire messages without needing `protoc` on the machine.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["src/wombat.proto", "src/log.proto", "src/peer.proto"];
    for file in files {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["src"])?;
    prost_build::Config::new().bytes(["."]).btree_map(["."]).compile_fds(descriptors)?;
    Ok(())
}
