//! Programs of the host for the small guest, which has none but busybox: on a disk, with their libraries.

use std::path::Path;

use crate::host;

/// Makes a disk image at `to` with `programs` of the host; a guest mounts it and runs `/mnt/NAME`.
pub async fn tools_disk(programs: &[&str], to: &Path) {
    let (to, programs) = (to.display(), programs.join(" "));
    host(&format!(
        r#"set -e; tree=$(mktemp -d {to}.XXXXXX); mkdir "$tree/lib" "$tree/real"
        for name in {programs}; do
            program=$(command -v "$name")
            cp -L "$program" "$tree/real/"
            ldd "$program" | grep -o '/[^ ]*' | while read -r library; do cp -L "$library" "$tree/lib/"; done
            cat >"$tree/$name" <<-END
		#!/bin/sh
		exec /mnt/lib/ld-linux-x86-64.so.2 --library-path /mnt/lib /mnt/real/$name "\$@"
		END
            chmod +x "$tree/$name"
        done
        truncate -s 48M {to}; /sbin/mkfs.ext4 -q -d "$tree" {to}; rm -r "$tree""#
    ))
    .await;
}
