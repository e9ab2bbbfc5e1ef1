//! Writes the images that the fuzzer of qcow2 begins with: `qcow2-corpus DIRECTORY`.

fn main() -> std::io::Result<()> {
    let directory = std::env::args_os().nth(1).ok_or(std::io::ErrorKind::InvalidInput)?;
    let directory = std::path::PathBuf::from(directory);
    std::fs::create_dir_all(&directory)?;
    for (name, image) in orlop_disk::kit::fuzz::corpus() {
        std::fs::write(directory.join(name), image)?;
    }
    Ok(())
}
