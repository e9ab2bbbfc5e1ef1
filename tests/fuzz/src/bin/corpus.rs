//! `corpus DIRECTORY`: writes the inputs to begin with, as `DIRECTORY/TARGET/NAME`.

use std::path::Path;

fn main() -> std::io::Result<()> {
    let Some(root) = std::env::args_os().nth(1) else {
        return Err(std::io::Error::other("usage: corpus DIRECTORY"));
    };
    for target in orlop_fuzz::TARGETS {
        let directory = Path::new(&root).join(target.name);
        std::fs::create_dir_all(&directory)?;
        for (name, bytes) in (target.corpus)() {
            std::fs::write(directory.join(name), bytes)?;
        }
    }
    Ok(())
}
